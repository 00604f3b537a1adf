"""Transforms of token vectors between a source and its target.

Results do not depend on the batch size.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import running_total
from ..kernels.rows import normalize_rows
from ..reranking.chamfer import chamfer_matrix
from ..utils.checks import require_choice, require_int, require_number
from ..utils.hints import Argument, Message

# -- pooling ----------------------------------------------------------------------


@dataclass(frozen=True)
class PoolingRule:
    """Rule by which one library pools tokens.

    Parameters
    ----------
    protected : int
        Number of leading tokens of a document that are not pooled.
    protected_last : bool
        Put the protected tokens after the clusters instead of before.
    rows_as_points : bool
        Cluster the rows of the distance matrix (1 - cosine) as points, instead of using
        the distances.  Libraries that pass the square matrix to SciPy do this.
    count_protected : bool
        Count the protected tokens, too, when the number of clusters is computed.
    renormalize : bool
        Scale all vectors to unit length afterwards.
    """

    protected: int
    protected_last: bool = False
    rows_as_points: bool = False
    count_protected: bool = False
    renormalize: bool = False


#: Rules by name.  ``pylate`` is the rule of PyLate from 1.5 on, ``colbert`` the rule of
#: ColBERT 0.2.22.
RULES = {
    "sentence-transformers": PoolingRule(protected=1, renormalize=True),
    "pylate": PoolingRule(protected=1),
    "pylate-1.4": PoolingRule(protected=1, protected_last=True, rows_as_points=True),
    "colbert": PoolingRule(protected=0, protected_last=True, rows_as_points=True, count_protected=True),
    "colpali": PoolingRule(protected=0, rows_as_points=True, renormalize=True),
}


def pool_tokens(
    documents: MultiVectors, factor: float = 2.0, rule: str | PoolingRule = "sentence-transformers"
) -> MultiVectors:
    """Replace groups of similar tokens by their means.

    About ``1 / factor`` of the tokens remain.  Each document is pooled alone, so its
    result does not depend on the others.  The dtype and the ids stay the same.

    Parameters
    ----------
    documents : MultiVectors
        Unit vectors: inner products are used as cosines.
    factor : float
        At least 1.  Divides memory and reranking time; 2 costs almost no recall on
        published collections, 3 about one percent.  The number of clusters is rounded
        down.
    rule : str or PoolingRule
        A rule, or its name in :data:`RULES`.

    Returns
    -------
    MultiVectors

    Raises
    ------
    TypeError, ValueError
        If `factor` is less than 1, `rule` is unknown or a number is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> tokens = np.repeat(np.eye(4, dtype=np.float32), 2, axis=0)
    >>> pool_tokens(MultiVectors.from_arrays([tokens]), 2, "colpali")[0].sum(axis=0)
    array([1., 1., 1., 1.], dtype=float32)
    """
    rule = _checked_rule(rule, factor)
    if factor == 1:
        return unit(documents) if rule.renormalize else documents
    documents.require_finite()
    pooled = [_pooled(np.asarray(tokens, np.float32), factor, rule) for tokens in documents]
    rows = np.concatenate([np.zeros((0, documents.dimension), np.float32), *pooled])
    if rule.renormalize:
        normalize_rows(rows)  # a mean of exactly zero stays zero
    offsets = running_total([len(tokens) for tokens in pooled])
    return with_tokens(documents, rows.astype(documents.tokens.dtype, copy=False), offsets)


def _checked_rule(rule: str | PoolingRule, factor: float) -> PoolingRule:
    require_number("pool_factor", factor, 1, hint="2 halves the tokens.")
    if isinstance(rule, PoolingRule):
        return rule
    require_choice("pooling", rule, RULES)
    return RULES[rule]


def _pooled(tokens: NDArray[np.float32], factor: float, rule: PoolingRule) -> NDArray[np.float32]:
    """Return a document's protected tokens, and the means of its clusters.

    The other tokens form the clusters.
    """
    protected, others = np.split(tokens, [rule.protected])
    counted = len(tokens) if rule.count_protected else len(others)
    clusters = _ward_clusters(others, max(int(counted // factor), 1), rule.rows_as_points)
    order, sizes = np.argsort(clusters, kind="stable"), np.bincount(clusters)
    means = np.zeros((len(sizes), tokens.shape[1]), np.float32)
    if len(means):
        np.add.reduceat(others[order], running_total(sizes)[:-1], axis=0, out=means)
        means /= sizes[:, None].astype(np.float32)
    return np.concatenate([means, protected] if rule.protected_last else [protected, means])


def _ward_clusters(tokens: NDArray[Any], limit: int, rows_as_points: bool) -> NDArray[Any]:
    """Return the cluster of each token, from 0 on.

    Equal heights may leave fewer than `limit`.
    """
    if len(tokens) <= limit:
        return np.arange(len(tokens))
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist, squareform

    # Equal tokens must have equal products, which a BLAS does not promise: ties decide
    # how many clusters there are.
    single = MultiVectors.from_flat(np.asarray(tokens, np.float32), np.ones(len(tokens), np.int64))
    distances = 1 - chamfer_matrix(single, single, threads=1)
    condensed = pdist(distances) if rows_as_points else squareform(distances.clip(0, 2), checks=False)
    return np.asarray(fcluster(linkage(condensed, "ward"), limit, "maxclust") - 1)


def unit(documents: MultiVectors, first: int | None = None) -> MultiVectors:
    """Return documents whose tokens are scaled to unit length.

    Zero tokens stay zero.  If `first`, the number of preceding documents, is given,
    they raise ValueError, which names their document.
    """
    rows = np.array(documents.tokens, np.float32, order="C")
    zero = int(normalize_rows(rows))
    if zero >= 0 and first is not None:
        raise ValueError(
            Message(
                f"{_token_name(documents, zero, first)} is entirely zero and cannot be normalized. "
                "Drop such rows with ",
                Argument("drop_zero_rows", "True"),
                ".",
            )
        )
    return with_tokens(documents, rows.astype(documents.tokens.dtype, copy=False))


def with_tokens(
    documents: MultiVectors, tokens: NDArray[Any], offsets: NDArray[np.int64] | None = None
) -> MultiVectors:
    """Return documents with the same ids, and new tokens (and offsets, if given)."""
    ids = documents.ids if documents.has_ids else None
    return MultiVectors(tokens, documents.offsets if offsets is None else offsets, ids)


# -- options ----------------------------------------------------------------------

_LARGEST_HALF = 65504.0


@dataclass(frozen=True)
class Options:
    """Transforms to apply, in the order of the parameters; none by default.

    Unknown or contradicting settings raise TypeError or ValueError.

    Parameters
    ----------
    truncate_dimension : int, optional
        Keep the first columns, scaled to unit length again.  Only for models trained
        for it (Matryoshka).
    drop_zero_rows : bool
        Drop tokens that are entirely zero (padding, which would score 0).
    normalize : bool
        Scale every token to unit length.
    pooling : str, optional
        A rule of :data:`~muvera.convert.RULES`.
    pool_factor : float
        Pooling keeps about ``1 / pool_factor`` of a document's tokens.
    dtype : {"float32", "float16"}, optional
        float16 needs half the memory and keeps 3 digits.
    """

    truncate_dimension: int | None = None
    drop_zero_rows: bool = False
    normalize: bool = False
    pooling: str | None = None
    pool_factor: float = 2.0
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.truncate_dimension is not None:
            require_int("truncate_dimension", self.truncate_dimension, 1)
        if self.dtype is not None:
            name = np.dtype(self.dtype).name
            require_choice("dtype", name, ("float32", "float16"))
            object.__setattr__(self, "dtype", name)
        if self.pooling is not None:
            _checked_rule(self.pooling, self.pool_factor)

    def apply(self, batch: MultiVectors, first_document: int = 0) -> tuple[MultiVectors, int]:
        """Return the transformed batch, and the number of dropped zero rows.

        Parameters
        ----------
        batch : MultiVectors
            Documents to transform.
        first_document : int
            Number of documents before this batch, for error messages.

        Returns
        -------
        tuple of MultiVectors and int

        Raises
        ------
        ValueError
            If a token is zero and cannot be normalized, a number exceeds float16, or
            there are fewer columns than `truncate_dimension`.
        """
        count = batch.num_tokens
        if self.truncate_dimension is not None:
            batch = _truncated(batch, self.truncate_dimension)
        if self.drop_zero_rows:
            batch = _without_zeros(batch)
        dropped = count - batch.num_tokens
        if self.normalize or self.truncate_dimension is not None:
            batch = unit(batch, first_document)
        if self.pooling is not None:
            batch = pool_tokens(batch, self.pool_factor, self.pooling)
            batch = unit(batch) if self.normalize else batch
        if self.dtype is not None:
            batch = _cast(batch, self.dtype, first_document)
        return batch, dropped

    def changed(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults.

        Returns
        -------
        dict
        """
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}


def _without_zeros(documents: MultiVectors) -> MultiVectors:
    real: NDArray[np.bool_] = np.asarray(documents.tokens.any(axis=1))
    if real.all():
        return documents
    return with_tokens(documents, documents.tokens[real], running_total(real)[documents.offsets])


def _truncated(documents: MultiVectors, dimension: int) -> MultiVectors:
    if dimension > documents.dimension:
        raise ValueError(
            Message(
                Argument("truncate_dimension", f"{dimension}"),
                f" must be at most the source's dimension={documents.dimension}.",
            )
        )
    return with_tokens(documents, np.ascontiguousarray(documents.tokens[:, :dimension]))


def _cast(documents: MultiVectors, dtype: str, first: int) -> MultiVectors:
    if documents.tokens.dtype == dtype:
        return documents
    if dtype == "float16" and documents.num_tokens:
        large = np.abs(documents.tokens).max(axis=1) > _LARGEST_HALF
        if large.any():
            row = int(np.argmax(large))
            raise ValueError(
                f"{_token_name(documents, row, first)} has a number beyond {_LARGEST_HALF:.0f}, the largest "
                "float16. Keep float32, or normalize the vectors."
            )
    return with_tokens(documents, documents.tokens.astype(dtype))


def _token_name(documents: MultiVectors, row: int, first: int) -> str:
    text, token = documents.text_of(row)
    return f"{documents.text_name(text, first=first)} token {token}"
