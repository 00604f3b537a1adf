"""Names: external ids of rows, and which rows are still there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import write_json
from ..inputs import Ids
from ..vectors import MultiVectors

__all__ = ["Names"]


class Names:
    """The id of every row; an id names one live row at most."""

    def __init__(self) -> None:
        self._ids: Ids = np.empty(0, np.int64)
        self._alive = np.empty(0, bool)
        self._row_of: dict[int | str, int] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, name: object) -> bool:
        return name in self._row_of

    @property
    def live(self) -> NDArray[np.int64]:
        """Rows that are there, ascending."""
        return np.flatnonzero(self._alive)

    @property
    def dropped(self) -> NDArray[np.int64]:
        """Rows that were deleted or replaced, ascending."""
        return np.flatnonzero(~self._alive)

    def of(self, rows: NDArray[np.int64]) -> Ids:
        """Return the ids of `rows`."""
        return self._ids[rows]

    def rows(self, ids: list[Any]) -> NDArray[np.int64]:
        """Return the rows of `ids`, ascending, or raise KeyError for one that is not there."""
        missing = [name for name in ids if name not in self._row_of]
        if missing:
            kind = ""
            if len(self._ids) and isinstance(missing[0], str) != (self._ids.dtype.kind == "U"):
                kind = f"; its ids are {'str' if self._ids.dtype.kind == 'U' else 'int'}"
            raise KeyError(f"id {missing[0]!r} is not in the index{kind}.")
        return np.unique(np.array([self._row_of[name] for name in ids], np.int64))

    def rows_in_use(self, ids: Any) -> NDArray[np.int64]:
        """Return the rows of those `ids` that are there, ascending."""
        values = ids.tolist() if isinstance(ids, np.ndarray) else ids
        return np.unique(np.array([self._row_of[v] for v in values if v in self._row_of], np.int64))

    def require_kind(self, ids: Ids) -> None:
        """Raise TypeError where `ids` are of another kind than those that are there."""
        if len(self._ids) and len(ids) and ids.dtype.kind != self._ids.dtype.kind:
            kinds = {"i": "int", "U": "str"}
            raise TypeError(
                f"This index has {kinds[self._ids.dtype.kind]} ids, got {kinds[ids.dtype.kind]} ids."
            )

    def new_ids(self, documents: MultiVectors) -> Ids:
        """Return the ids that `documents` get, checked to be free."""
        if not documents.has_ids:
            ids: Ids = np.arange(self._next, self._next + len(documents))
        else:
            ids = documents.ids
        self.require_kind(ids)
        for name in ids.tolist():
            if name in self._row_of:
                raise ValueError(f"id {name!r} is in the index already. Use update to replace it.")
        return ids

    def append(self, ids: Ids) -> None:
        """Give the next rows these ids."""
        first = len(self._ids)
        self._ids = np.concatenate([self._ids, ids]) if first else ids
        self._alive = np.concatenate([self._alive, np.ones(len(ids), bool)])
        self._row_of.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))
        if ids.dtype.kind == "i" and len(ids):
            self._next = max(self._next, int(ids.max()) + 1)

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Forget rows; their ids are free again."""
        for name in self._ids[rows].tolist():
            del self._row_of[name]
        self._alive[rows] = False

    def save(self, folder: Path) -> None:
        """Write ``ids.json`` and ``alive.npy``."""
        write_json(folder / "ids.json", {"next": self._next, "ids": self._ids.tolist()})
        np.save(folder / "alive.npy", self._alive)

    @classmethod
    def load(cls, folder: Path) -> Names:
        """Read what :meth:`save` wrote."""
        kept = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
        names = cls()
        values = kept["ids"]
        if values:
            names.append(np.array(values, np.str_ if isinstance(values[0], str) else np.int64))
        names._alive = np.load(folder / "alive.npy", allow_pickle=False)
        # An id that was replaced stands twice: the live row is the one it names.
        names._row_of = {values[row]: int(row) for row in names.live}
        names._next = kept["next"]
        return names
