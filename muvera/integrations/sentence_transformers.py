"""sentence-transformers: a score function for its evaluators.

Needs the extra "sentence-transformers".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..data.validation import AnyArray, as_array
from ..index.muvera_index import MuveraIndex
from ..index.settings import DEFAULT_CANDIDATES


class IndexScores:
    """A score function that scores the documents that an index finds.

    All other documents get -inf.
    ``MultiVectorInformationRetrievalEvaluator`` then measures searches instead of
    exhaustive MaxSim.  The evaluator calls it once per corpus chunk, so set one chunk
    for the whole corpus.

    Parameters
    ----------
    candidates : int
        Documents to rank exactly.  More raise recall and take longer, in proportion.
    **settings
        As for :meth:`muvera.MuveraIndex.build`, such as ``encoder="simhash"``.

    Attributes
    ----------
    index : MuveraIndex or None
        The index of the last call.

    Examples
    --------
    >>> evaluator = MultiVectorInformationRetrievalEvaluator(  # doctest: +SKIP
    ...     queries, corpus, relevant, corpus_chunk_size=len(corpus),
    ...     score_functions={"maxsim": maxsim, "index": IndexScores(candidates=100)},
    ... )
    """

    def __init__(self, candidates: int = DEFAULT_CANDIDATES, **settings: Any) -> None:
        self._candidates = candidates
        self._settings = settings
        self.index: MuveraIndex | None = None

    def __call__(self, queries: Iterable[AnyArray], documents: Iterable[AnyArray]) -> Any:
        """Score all documents for each query.

        Parameters
        ----------
        queries, documents : tensor (n, tokens, dimension)
            Or lists of tensors (tokens, dimension).  Rows of zeros are padding.

        Returns
        -------
        torch.Tensor (queries, documents)
            Float32.
        """
        import torch

        query_vectors = _without_padding(queries)
        texts = _without_padding(documents)
        self.index = MuveraIndex.build(texts, **self._settings)
        scores = np.full((len(query_vectors), len(texts)), -np.inf, np.float32)
        k = min(self._candidates, len(texts))
        for row, ranking in zip(scores, self.index.search(query_vectors, k, candidates=k), strict=True):
            row[ranking.ids] = ranking.scores
        return torch.from_numpy(scores)


def _without_padding(matrices: Iterable[AnyArray]) -> MultiVectors:
    arrays = map(as_array, matrices)
    return MultiVectors.from_arrays(array[array.any(axis=1)] for array in arrays)
