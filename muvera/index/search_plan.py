"""SearchPlan: what a search is asked for besides its queries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..reranking.pruning import require_patience
from ..utils.checks import as_id_list, require_int
from ..utils.parallel import thread_count

__all__ = ["DEFAULT_K", "Filter", "SearchPlan", "as_id_list"]

#: Ids, or a function that tells for an id whether its document is wanted.
Filter = Collection[Any] | Callable[[Any], bool]

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
    filter : collection of ids or callable, optional
        Documents that are searched.
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
    filter: Filter | None = None
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
        require_patience(self.patience)
        thread_count(self.threads)  # refuse a wrong number also where one thread is enough
        if isinstance(self.filter, Mapping):
            raise TypeError(
                "filter must be a collection of ids or a function of an id, got a "
                f"{type(self.filter).__name__}: an index knows ids and no fields. "
                "Choose the ids whose fields match, and give those."
            )

    @property
    def num_candidates(self) -> int:
        """Documents that vectors propose."""
        return max(DEFAULT_CANDIDATES, self.k) if self.candidates is None else self.candidates
