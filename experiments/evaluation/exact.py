"""Exact Chamfer's best documents, against which recall is measured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from muvera import top_k

from ..datasets.collection import Collection

__all__ = ["ExactAnswers", "ExactBest"]


class ExactBest(Protocol):
    """Interface of what knows the exact best documents."""

    @property
    def documents(self) -> int:
        """How many documents there are."""
        ...

    def best(self, count: int) -> NDArray[np.int64]:
        """Return the best documents of every query, int64 (n_queries, min(count, documents))."""
        ...


class ExactAnswers:
    """Exact Chamfer's answers to a collection's queries, kept under the collection's checksum.

    Parameters
    ----------
    collection : Collection
    cache : Path
        Folder of the files.
    """

    def __init__(self, collection: Collection, cache: Path) -> None:
        self._collection, self._cache = collection, cache.expanduser()

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return len(self._collection.documents)

    def best(self, count: int) -> NDArray[np.int64]:
        """Return the positions of the best documents, int64 (n_queries, min(count, documents)).

        Of equal scores the earlier document is better, so that the first of more are the same.
        """
        count = min(count, self.documents)
        for path in self._cache.glob(f"top*-{self._collection.checksum}.npy"):
            kept = int(path.name.removeprefix("top").partition("-")[0])
            if kept >= count:
                return np.asarray(np.load(path, allow_pickle=False)[:, :count], np.int64)
        rankings = top_k(self._collection.queries, self._collection.documents, count)
        found = np.stack([ranking.ids for ranking in rankings]).astype(np.int64)
        self._cache.mkdir(parents=True, exist_ok=True)
        path = self._cache / f"top{count}-{self._collection.checksum}.npy"
        # Written beside and renamed: another run may read it at any time.
        beside = path.with_name(f"{path.stem}.{os.getpid()}.partial")
        with beside.open("wb") as file:
            np.save(file, found)
        beside.replace(path)
        return found
