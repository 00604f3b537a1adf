"""SearchPlan: what a search is asked for besides its queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..utils.checks import require_int
from ..utils.parallel import thread_count

__all__ = ["DEFAULT_CANDIDATES", "DEFAULT_K", "SearchPlan"]

DEFAULT_K, DEFAULT_CANDIDATES = 10, 100


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """How to search, checked.

    Parameters
    ----------
    k : int
        Documents a query, at most.
    candidates : int, optional
        Documents that vectors propose and exact Chamfer orders, at least k.  Default: 100, or k where
        that is more.
    ids : list of ids, optional
        Search only among these documents.
    patience
        As for :meth:`muvera.MuveraIndex.search`.
    ef : int, optional
        Candidates that the walk through a graph keeps.
    rescore : int, optional
        Best candidates by codes that exact tokens order at most, at least k.
    threads : int, optional
        Default: all usable cores.

    Raises
    ------
    TypeError, ValueError
        For a wrong value.
    """

    k: int = DEFAULT_K
    candidates: int | None = None
    ids: list[Any] | None = None
    patience: int | None = None
    ef: int | None = None
    rescore: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        require_int("k", self.k, 1)
        if self.candidates is not None:
            require_int("candidates", self.candidates, 1)
            if self.candidates < self.k:
                raise ValueError(f"candidates={self.candidates} must be at least k={self.k}.")
        if self.rescore is not None:
            require_int("rescore", self.rescore, 1)
            if self.rescore < self.k:
                raise ValueError(f"rescore={self.rescore} must be at least k={self.k}.")
        if self.ef is not None:
            require_int("ef", self.ef, 1)
        if self.patience is not None:
            require_int("patience", self.patience, 1, hint="Use None to score every candidate.")
        thread_count(self.threads)  # refuse a wrong number also where one thread is enough

    @property
    def num_candidates(self) -> int:
        """Documents that vectors propose."""
        return max(DEFAULT_CANDIDATES, self.k) if self.candidates is None else self.candidates
