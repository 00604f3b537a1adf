"""Token pooling by Ward clustering: fewer vectors a document.

Libraries that encode documents offer this clustering, and differ in details.  A name stands for
one library's rules, as its source has them:

====================== ========= ==================== ============== ============== =======
name                   protected the protected stand  Ward on        clusters of    unit
====================== ========= ==================== ============== ============== =======
sentence-transformers  1         first                distances      the others     yes
pylate (from 1.5)      1         first                distances      the others     no
pylate-1.4             1         last                 rows           the others     no
colbert                0         last                 rows           all tokens     no
colpali                0         -                    rows           all tokens     yes
====================== ========= ==================== ============== ============== =======

"Distances" takes 1 - cosine as the distance between tokens; "rows" takes the rows of the
matrix of 1 - cosine as points, because there the square matrix is given to SciPy, which
reads it so.  The number of clusters is a ``1 / factor`` of the tokens that "clusters of" names,
rounded down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...data.validation import read_only_view
from ...kernels.norms import unit_rows
from ...kernels.ward import mean_rows, ward_labels
from ...utils.checks import require_choice, require_int, require_number
from ...utils.parallel import run_in_ranges, split_by_weight

__all__ = ["RULES", "PoolingRule", "average", "pool_tokens", "pooling_rule", "token_clusters", "unit"]

# Enough tokens that a range's scratch arrays cost nothing beside its clustering.
_TOKENS_A_RANGE = 16384


@dataclass(frozen=True)
class PoolingRule:
    """Rule by which one library pools tokens.

    Parameters
    ----------
    protected : int
        The first so many tokens of a document are kept as they are.
    protected_last : bool
        Whether the protected tokens come after the clusters instead of before.
    rows_as_points : bool
        Cluster the rows of the distance matrix as points, not by the distances themselves.
    count_protected : bool
        Whether the number of clusters is taken of all tokens, the protected included.
    renormalize : bool
        Whether all vectors are brought to unit length afterwards.
    """

    protected: int
    protected_last: bool = False
    rows_as_points: bool = False
    count_protected: bool = False
    renormalize: bool = False


#: The rules by name, the table above.  Of ColBERT's, the released 0.2.22 is meant.
RULES = {
    "sentence-transformers": PoolingRule(protected=1, renormalize=True),
    "pylate": PoolingRule(protected=1),
    "pylate-1.4": PoolingRule(protected=1, protected_last=True, rows_as_points=True),
    "colbert": PoolingRule(protected=0, protected_last=True, rows_as_points=True, count_protected=True),
    "colpali": PoolingRule(protected=0, rows_as_points=True, renormalize=True),
}


def pooling_rule(
    rule: str | PoolingRule, protected: int | None = None, renormalize: bool | None = None
) -> PoolingRule:
    """Return the rule called `rule`, with what is not None changed.

    Raises
    ------
    TypeError, ValueError
        For an unknown name, and for `protected` that is no int of at least 0.
    """
    if isinstance(rule, str):
        require_choice("pooling", rule, RULES)
        rule = RULES[rule]
    if protected is not None:
        rule = replace(rule, protected=require_int("protected", protected, 0))
    return rule if renormalize is None else replace(rule, renormalize=bool(renormalize))


def pool_tokens(
    documents: MultiVectors,
    factor: float = 2.0,
    rule: str | PoolingRule = "sentence-transformers",
    *,
    protected: int | None = None,
    renormalize: bool | None = None,
    threads: int | None = 1,
) -> MultiVectors:
    """Replace groups of similar tokens by their means; about ``1 / factor`` of them stay.

    A document is pooled alone: its result does not depend on the others.

    Parameters
    ----------
    documents : MultiVectors
        Unit vectors: inner products are taken as cosines.  Ids and empty documents stay.
    factor : float
        At least 1.  Memory and rerank time go down by it; 2 costs next to no recall on
        published collections, 3 about one percent.
    rule : str or PoolingRule
        Whose rules, see the module's table.
    protected, renormalize : optional
        Change those of the rule.
    threads : int, optional
        1 by default, None for all cores; the result is the same.  A thread needs
        ``8 * n**2`` bytes for a document of n tokens, twice that with rows as points.

    Returns
    -------
    MultiVectors
        Of the same dtype.

    Examples
    --------
    >>> import numpy as np
    >>> tokens = np.repeat(np.eye(4, dtype=np.float32), 2, axis=0)
    >>> pool_tokens(MultiVectors.from_arrays([tokens]), 2, protected=0)[0].sum(axis=0)
    array([1., 1., 1., 1.], dtype=float32)
    """
    rule = pooling_rule(rule, protected, renormalize)
    if factor == 1:
        return unit(documents) if rule.renormalize else documents
    labels, counts = token_clusters(documents, factor, rule, threads=threads)
    return average(documents, labels, counts, renormalize=rule.renormalize)


def token_clusters(
    documents: MultiVectors,
    factor: float = 2.0,
    rule: str | PoolingRule = "sentence-transformers",
    *,
    threads: int | None = 1,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which pooled vector each token becomes part of.

    Returns
    -------
    labels : int64 (n_tokens,)
        The position in its pooled document of the vector that a token becomes part of.
    counts : int64 (n,)
        Vectors of each pooled document.
    """
    rule = pooling_rule(rule)
    require_number("The pooling factor", factor, 1, hint="2 halves the tokens.")
    documents.require_finite()
    lengths = documents.lengths
    kept = np.minimum(lengths, rule.protected)
    whole = lengths if rule.count_protected else lengths - kept
    limits = np.maximum(whole // factor, 1).astype(np.int64)
    labels = np.empty(documents.num_tokens, np.int64)
    counts = np.empty(len(documents), np.int64)
    flat = read_only_view(np.ascontiguousarray(documents.tokens, np.float32)).reshape(-1)
    offsets = read_only_view(documents.offsets)
    points, after = rule.rows_as_points, rule.protected_last

    def work(first: int, last: int) -> None:
        part = slice(first, last)
        ward_labels(
            flat,
            documents.dimension,
            offsets[first : last + 1],
            kept[part],
            limits[part],
            points,
            after,
            labels,
            counts[part],
        )

    weights = running_total(lengths + 1)
    run_in_ranges(work, split_by_weight(weights, _TOKENS_A_RANGE, len(documents) or 1), threads)
    return labels, counts


def average(
    documents: MultiVectors,
    labels: NDArray[np.int64],
    counts: NDArray[np.int64],
    *,
    renormalize: bool = True,
) -> MultiVectors:
    """Average the tokens of each document that have the same label.

    Parameters
    ----------
    documents : MultiVectors
        Of any length; ids are kept.
    labels : int64 (n_tokens,)
        From 0 in each document, without gaps.
    counts : int64 (n,)
        How many labels each document has.
    renormalize : bool
        Bring the means to unit length.  A mean of exactly zero stays zero.
    """
    offsets = running_total(counts)
    means = np.zeros((int(offsets[-1]), documents.dimension), np.float32)
    sizes = np.zeros(len(means), np.int64)
    tokens = read_only_view(np.ascontiguousarray(documents.tokens, np.float32))
    mean_rows(
        tokens, read_only_view(documents.offsets), read_only_view(labels), offsets, renormalize, sizes, means
    )
    kept: Any = means.astype(documents.tokens.dtype, copy=False)
    return MultiVectors(kept, offsets, documents.ids if documents.has_ids else None)


def unit(documents: MultiVectors) -> MultiVectors:
    """Return the documents with every token at unit length; zero tokens stay zero."""
    rows = np.array(documents.tokens, np.float32, order="C")
    unit_rows(rows)
    kept: Any = rows.astype(documents.tokens.dtype, copy=False)
    return MultiVectors(kept, documents.offsets, documents.ids if documents.has_ids else None)
