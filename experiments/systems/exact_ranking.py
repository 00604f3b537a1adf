"""Exact ranking alone: the same candidates ranked in cheaper ways, and the products that each makes."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.data.ranking import best_first
from muvera.kernels.tile import LANES
from muvera.reranking.chamfer import scores_at
from muvera.reranking.pruning import RerankOptions, rank_candidates

from .base import Answers, Ranked
from .first_stage import FirstStage
from .timed_search import timed_search

__all__ = ["ExactRanking"]


class ExactRanking(FirstStage):
    """Reranking of the best FDEs, which are found outside the clock; build arguments are those of ``fde``."""

    name: ClassVar[str] = "reranking"
    chamfer: bool = True

    def search(  # type: ignore[override]
        self,
        queries: MultiVectors,
        k: int,
        *,
        candidates: int = 100,
        early_exit: bool = True,
        ball_carving_tau: float | None = None,
        patience: int | None = None,
        matrix: bool = False,
    ) -> Answers:
        """Rank candidates one query at a time.

        Parameters
        ----------
        candidates : int
        early_exit : bool
            Leave a document once bounds say that it cannot be among the k best.
        ball_carving_tau, patience : optional
            Of :meth:`muvera.MuveraIndex.search`.
        matrix : bool
            Score all through the kernel for many queries, which knows no order of candidates.

        Returns
        -------
        Answers
            Its fact "products made" is the share of all products of a document token and a panel of LANES
            query tokens that were computed: the kernel makes no smaller ones.
        """
        proposed = self._contents.find(queries, max(k, candidates), threads=self.threads)
        made = np.empty(len(queries))

        def answer(place: int, query: MultiVectors) -> Ranked:
            rows = proposed[place]
            possible = int(self.documents.lengths[rows].sum()) * -(-query.num_tokens // LANES)
            if matrix:
                made[place] = 1.0
                rows = np.sort(rows)
                scores = scores_at(query, self.documents, rows, threads=self.threads)[:, 0]
                best = best_first(scores, k)
                return rows[best], scores[best]
            products: list[int] = []
            how = RerankOptions(k, early_exit=early_exit, patience=patience, products=products)
            found = rank_candidates(query[0], ball_carving_tau, rows, self._slice, how, self.threads)
            made[place] = sum(products) / possible
            return found

        answers = timed_search(queries, k, answer)
        return dataclasses.replace(answers, facts={"products made": made})

    def _slice(
        self, rows: NDArray[np.int64], in_order: bool
    ) -> list[tuple[MultiVectors, NDArray[np.int64], NDArray[np.int64]]]:
        return [(self.documents, rows, np.arange(len(rows)))]

    def reads_tokens(self, **_: Any) -> bool:
        """Return True: all candidates are ranked exactly."""
        return True
