"""Query tokens that count more or less than others.

Chamfer similarity with weights, ``sum_i w_i max_j <q_i, p_j>``, is that of the query whose token vectors are
multiplied by their weights, so that weighted queries go wherever queries go.  Vectors that add up over query tokens
follow the weights, too; soft query cells of FDEs take longer vectors for surer ones, which moves candidates a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.token_input import as_multivectors
from ..data.validation import as_array

__all__ = ["inverse_document_frequency", "weight_queries"]


def weight_queries(queries: Any, weights: Any) -> MultiVectors:
    """Return queries whose token vectors are multiplied by weights.

    Parameters
    ----------
    queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
    weights : float (tokens,), or a sequence of such arrays
        At least 0, one for each token vector, in order; a single array is of all queries one after the other.

    Returns
    -------
    MultiVectors
        With the same ids, float32.

    Raises
    ------
    ValueError
        Where there is not one weight for each token, or a weight is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> weight_queries(np.eye(2), [2.0, 0.5]).tokens.tolist()
    [[2.0, 0.0], [0.0, 0.5]]
    """
    texts = as_multivectors(queries, "queries")
    found = _flat(weights)
    if len(found) != texts.num_tokens:
        raise ValueError(
            f"There are {len(found)} weights for {texts.num_tokens} query tokens. Give one for each token."
        )
    wrong = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if len(wrong):
        raise ValueError(
            f"weights[{wrong[0]}] is {found[wrong[0]]}: weights must be finite and at least 0, for a negative one "
            "would look for the least similar token."
        )
    scaled = np.asarray(texts.tokens, np.float32) * found[:, np.newaxis]
    weighted = MultiVectors(scaled, texts.offsets)
    return weighted.with_ids(texts.ids) if texts.has_ids else weighted


def inverse_document_frequency(documents: Sequence[Any], queries: Sequence[Any]) -> list[NDArray[np.float32]]:
    """Return weights of query tokens by how few documents have them, as BM25 has them.

    Parameters
    ----------
    documents, queries : sequence of int arrays (tokens,)
        Vocabulary ids of the tokens of each text.

    Returns
    -------
    list of float32 arrays (tokens,)
        For each query ``log(1 + (n - df + 0.5) / (df + 0.5))``, df the number of documents with that token.

    Examples
    --------
    >>> [weights.tolist() for weights in inverse_document_frequency([[1, 1], [2]], [[1, 2]])]
    [[0.6931471824645996, 0.6931471824645996]]
    """
    kinds, counts = np.unique(
        np.concatenate([np.unique(np.asarray(one, np.int64)) for one in documents]), return_counts=True
    )
    weights = []
    for query in queries:
        asked = np.asarray(query, np.int64)
        at = np.minimum(np.searchsorted(kinds, asked), len(kinds) - 1)
        df = np.where(kinds[at] == asked, counts[at], 0)
        weights.append(np.log1p((len(documents) - df + 0.5) / (df + 0.5)).astype(np.float32))
    return weights


def _flat(weights: Any) -> NDArray[np.float32]:
    if isinstance(weights, Sequence) and len(weights) and np.ndim(weights[0]):
        weights = np.concatenate([np.asarray(as_array(one), np.float32) for one in weights])
    found = np.asarray(as_array(weights), np.float32)
    if found.ndim != 1:
        raise ValueError(f"weights must have one entry for each query token, got shape {found.shape}.")
    return found
