"""Names: external ids of rows, and which rows are still there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import Ids, string_array
from ..utils.atomic_files import write_bytes
from ..utils.growable_array import GrowingArray

__all__ = ["IdMap"]

_KINDS = {"i": "int", "U": "str", "O": "str"}

#: Implicit ids end before this: ids are int64.
_MOST = 2**63 - 1


class IdMap:
    """The id of every row; an id names one live row at most.

    Parameters
    ----------
    first : int
        The first id to give to documents without one.
    """

    def __init__(self, first: int = 0) -> None:
        self._ids = GrowingArray(np.empty(0, np.int64))
        self._alive = GrowingArray(np.empty(0, bool))
        self._row_of: dict[int | str, int] = {}
        self._live: NDArray[np.int64] | None = None
        self.next = first

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, name: object) -> bool:
        return name in self._row_of

    @property
    def live(self) -> NDArray[np.int64]:
        """Rows that are there, ascending."""
        if self._live is None:
            self._live = np.flatnonzero(self._alive.values)
        return self._live

    @property
    def deleted_rows(self) -> NDArray[np.int64]:
        """Rows that were deleted or replaced, ascending."""
        return np.flatnonzero(~self._alive.values)

    def of(self, rows: NDArray[np.int64]) -> Ids:
        """Return the ids of `rows`."""
        ids: Ids = self._ids.values[rows]
        return string_array(ids.tolist()) if ids.dtype == object else ids

    def rows(self, ids: list[Any]) -> NDArray[np.int64]:
        """Return the rows of `ids`, ascending, or raise KeyError for one that is not there."""
        missing = [name for name in ids if name not in self._row_of]
        if missing:
            kind = self._kind
            shown = f"; its ids are {kind}" if kind and isinstance(missing[0], str) != (kind == "str") else ""
            raise KeyError(f"id {missing[0]!r} is not in the index{shown}.")
        return np.unique(np.array([self._row_of[name] for name in ids], np.int64))

    def existing_rows(self, ids: Any) -> NDArray[np.int64]:
        """Return the rows of those `ids` that are there, ascending.

        Raises
        ------
        TypeError
            For anything but ids of the index's kind: it could never be there.
        """
        values = ids.tolist() if isinstance(ids, np.ndarray) else ids
        kinds = {type(value) for value in values}
        wrong = [kind for kind in kinds if not _is_id(kind)]
        if wrong:
            raise TypeError(f"ids must be int or str, got {sorted(kind.__name__ for kind in wrong)[0]}.")
        other = [value for value in values if isinstance(value, str) != (self._kind == "str")]
        if other and self._kind:
            raise TypeError(
                f"This index has {self._kind} ids, got {other[0]!r}, which is {type(other[0]).__name__}."
            )
        return np.unique(np.array([self._row_of[v] for v in values if v in self._row_of], np.int64))

    @property
    def _kind(self) -> str | None:
        return _KINDS[self._ids.values.dtype.kind] if len(self._ids) else None

    def require_kind(self, ids: Ids) -> None:
        """Raise TypeError where `ids` are of another kind than those that are there."""
        if self._kind and len(ids) and _KINDS[ids.dtype.kind] != self._kind:
            raise TypeError(f"This index has {self._kind} ids, got {_KINDS[ids.dtype.kind]} ids.")

    def new_ids(self, documents: MultiVectors) -> Ids:
        """Return the ids that `documents` get, checked to be free."""
        if documents.has_ids:
            ids = documents.ids
        elif self.next + len(documents) > _MOST:
            raise ValueError(f"The next id would be {self.next}, beyond 64 bits. Give ids of your own.")
        else:
            ids = np.arange(self.next, self.next + len(documents))
        self.require_kind(ids)
        for name in ids.tolist():
            if name in self._row_of:
                raise ValueError(f"id {name!r} is in the index already. Use update to replace it.")
        return ids

    def append(self, ids: Ids) -> None:
        """Give the next rows these ids, also those that name other rows until now."""
        first = len(self._ids)
        # As objects: in an array of NumPy's strings the longest would widen all.
        self._ids.extend(ids if ids.dtype.kind == "i" else ids.astype(object))
        self._alive.extend(np.ones(len(ids), bool))
        self._row_of.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))
        if ids.dtype.kind == "i" and len(ids):
            self.next = max(self.next, int(ids.max()) + 1)
        self._live = None

    def reserve(self, count: int) -> None:
        """Leave the next `count` rows without a document for ever."""
        self._ids.extend(np.full(count, "" if self._kind == "str" else 0, self._ids.values.dtype))
        self._alive.extend(np.zeros(count, bool))
        self._live = None

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Forget rows; their ids are free again, unless another row has them meanwhile."""
        for name, row in zip(self.of(rows).tolist(), rows.tolist(), strict=True):
            if self._row_of.get(name) == row:
                del self._row_of[name]
        self._alive.values[rows] = False
        self._live = None

    def save(self, folder: Path) -> None:
        """Write ``ids.json`` and ``alive.npy``."""
        # ASCII, for strings of Python can be what UTF-8 cannot encode.
        content = json.dumps({"next": self.next, "ids": self._ids.values.tolist()}, indent=0)
        write_bytes(folder / "ids.json", content.encode("ascii"))
        np.save(folder / "alive.npy", self._alive.values)

    @classmethod
    def load(cls, folder: Path) -> IdMap:
        """Read what :meth:`save` wrote."""
        kept = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
        alive = np.load(folder / "alive.npy", allow_pickle=False)
        values = kept["ids"]
        if len(values) != len(alive):
            raise ValueError(f"{folder} has {len(values)} ids for {len(alive)} rows.")
        names = cls()
        if values:
            names._ids = GrowingArray(np.array(values, object if isinstance(values[0], str) else np.int64))
        names._alive = GrowingArray(alive)
        names._row_of = {values[row]: int(row) for row in names.live}
        names.next = kept["next"]
        return names


def _is_id(kind: type) -> bool:
    return issubclass(kind, (int, np.integer, str)) and not issubclass(kind, (bool, np.bool_))
