"""sentence-transformers: a score function that lets its evaluators search with an index.

Needs the extra "sentence-transformers".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..index.muvera_index import MuveraIndex
from .token_arrays import multivectors_of

__all__ = ["IndexScores"]


class IndexScores:
    """A score function whose scores are those of the documents that an index finds, and -inf for all others.

    ``MultiVectorInformationRetrievalEvaluator`` then measures what a search would return, beside or in place of
    its exhaustive MaxSim.  It scores a corpus in parts and calls this once for each: let one part hold all.

    Parameters
    ----------
    candidates : int
        Documents that are ranked exactly.
    **settings
        As for :meth:`muvera.MuveraIndex.build`, such as ``encoder="learned"``.

    Attributes
    ----------
    index : MuveraIndex or None
        That of the last call.

    Examples
    --------
    >>> evaluator = MultiVectorInformationRetrievalEvaluator(  # doctest: +SKIP
    ...     queries, corpus, relevant, corpus_chunk_size=len(corpus),
    ...     score_functions={"maxsim": maxsim, "index": IndexScores(candidates=100)},
    ... )
    """

    def __init__(self, candidates: int = 100, **settings: Any) -> None:
        self._candidates, self._settings = candidates, settings
        self.index: MuveraIndex | None = None

    def __call__(self, queries: Any, documents: Any) -> Any:
        """Return the scores of queries and documents, a tensor (queries, documents).

        Parameters
        ----------
        queries, documents : tensor (n, tokens, dimension), or a list of tensors (tokens, dimension)
            Rows of zeros are padding.
        """
        import torch

        asked, texts = multivectors_of(queries, padded=True), multivectors_of(documents, padded=True)
        self.index = MuveraIndex.build(texts.with_ids(list(range(len(texts)))), **self._settings)
        scores = np.full((len(asked), len(texts)), -np.inf, np.float32)
        k = min(self._candidates, len(texts))
        for row, ranking in zip(scores, self.index.search(asked, k, candidates=k), strict=True):
            row[ranking.ids] = ranking.scores
        return torch.from_numpy(scores)
