"""Exact and graph search of ordinary vectors, for systems that bring their own vectors."""

from __future__ import annotations

from typing import Any, Literal, get_args

from muvera.mips import ExactSearch, HNSWSearch, HNSWSettings

__all__ = ["VectorBackend", "VectorSearchSettings"]

VectorBackend = Literal["exact", "hnsw"]


class VectorSearchSettings:
    """Which search to make.

    Parameters
    ----------
    backend : {"exact", "hnsw"}
        Read all vectors, or walk a graph of them.
    hnsw : dict, optional
        Settings of :class:`muvera.mips.HNSWSettings`; the seed is the experiment's unless it is given.

    Raises
    ------
    ValueError
        For another backend.
    """

    def __init__(self, backend: VectorBackend, hnsw: dict[str, Any] | None) -> None:
        if backend not in get_args(VectorBackend):
            raise ValueError(f"backend must be 'exact' or 'hnsw', got {backend!r}.")
        self._graph, self._hnsw = backend == "hnsw", dict(hnsw or {})

    def make(self, dimension: int, seed: int) -> ExactSearch | HNSWSearch:
        """Return an empty search of vectors of so many floats."""
        if self._graph:
            return HNSWSearch(dimension, HNSWSettings(**{"seed": seed, **self._hnsw}))
        return ExactSearch(dimension)
