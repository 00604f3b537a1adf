"""IdMap: the ids of rows, and which rows are live."""

from __future__ import annotations

import json
from pathlib import Path
from threading import RLock
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import Ids, id_kind, string_array
from ..utils.atomic_files import read_json, save_array, write_bytes
from ..utils.checks import has_repeats, require_choice
from ..utils.fork import renew_after_fork
from ..utils.npy_files import load_npy

__all__ = ["GrowingArray", "IdMap", "Missing"]

IDS, ALIVE = "ids.json", "alive.npy"

#: How to handle ids that are not in the index.
Missing = Literal["raise", "ignore"]

# Implicit ids stay below this: ids are int64.
_MOST = 2**63 - 1


class GrowingArray:
    """A flat array whose capacity grows by half, so that appending takes linear time.

    Parameters
    ----------
    values : array (n,)
        If it is empty, the first values that are appended decide the dtype.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self._buffer = values
        self._count = len(values)

    def __len__(self) -> int:
        return self._count

    @property
    def values(self) -> NDArray[Any]:
        """The values, as a view that later appends do not change."""
        return self._buffer[: self._count]

    def extend(self, values: NDArray[Any]) -> None:
        """Append values."""
        if self._count == 0:
            self._buffer = np.array(values)
            self._count = len(values)
            return
        needed = self._count + len(values)
        dtype = np.result_type(self._buffer, values)
        if needed > len(self._buffer) or dtype != self._buffer.dtype:
            grown = np.zeros(max(needed, self._count * 3 // 2), dtype)
            grown[: self._count] = self.values
            self._buffer = grown
        self._buffer[self._count : needed] = values
        self._count = needed


class IdMap:
    """The id of every row; an id belongs to at most one live row.

    Parameters
    ----------
    first : int
        The first id to give to documents without one.
    """

    def __init__(self, first: int = 0) -> None:
        self._ids = GrowingArray(np.empty(0, np.int64))
        self._alive = GrowingArray(np.empty(0, bool))
        self._rows: dict[int | str, int] | None = {}
        self._caching = RLock()  # guards the two caches below while rows change
        self._live: NDArray[np.int64] | None = None
        self.next = first
        renew_after_fork(self)

    def _renew_locks(self) -> None:
        self._caching = RLock()
        self._live, self._rows = None, None

    def __len__(self) -> int:
        return len(self.live)

    @property
    def _row_of(self) -> dict[int | str, int]:
        """Live rows by id, computed on first use: plain searches do not use them."""
        with self._caching:
            if self._rows is None:
                rows = self.live
                self._rows = dict(zip(self._ids.values[rows].tolist(), rows.tolist(), strict=True))
            return self._rows

    def __contains__(self, id: object) -> bool:
        return _is_id(type(id)) and id in self._row_of

    @property
    def num_rows(self) -> int:
        """Number of rows, including deleted ones."""
        return len(self._ids)

    @property
    def live(self) -> NDArray[np.int64]:
        """Rows that are not deleted, ascending."""
        with self._caching:
            if self._live is None:
                self._live = np.flatnonzero(self._alive.values)
            return self._live

    @property
    def deleted_rows(self) -> NDArray[np.int64]:
        """Rows that were deleted or replaced, ascending."""
        return np.flatnonzero(~self._alive.values)

    def of(self, rows: NDArray[np.int64]) -> Ids:
        """Return the ids of `rows`."""
        ids = self._ids.values[rows]
        return string_array(ids.tolist()) if ids.dtype == object else ids

    def rows(self, ids: list[Any], missing: Missing = "raise") -> list[int]:
        """Return the rows of `ids` in their order; ids of another type than those of the index raise TypeError."""
        require_choice("missing", missing, get_args(Missing))
        wrong = {type(id).__name__ for id in ids if not _is_id(type(id))}
        if wrong:
            raise TypeError(f"ids must be int or str, got {min(wrong)}.")
        kind = self._kind
        other = [id for id in ids if isinstance(id, str) != (kind == "str")]
        if other and kind:
            raise TypeError(f"This index has {kind} ids, got {other[0]!r}, a {type(other[0]).__name__}.")
        unknown = [id for id in ids if id not in self._row_of]
        if unknown and missing == "raise":
            count = f" ({len(unknown)} of the {len(ids)} ids are not)" if len(ids) > 1 else ""
            raise KeyError(f"id {unknown[0]!r} is not in the index{count}. Check with `id in index`.")
        return [self._row_of[id] for id in ids if id in self._row_of]

    def existing_rows(self, ids: Any) -> NDArray[np.int64]:
        """Return the rows of those `ids` that are in the index, ascending."""
        values = ids.tolist() if isinstance(ids, np.ndarray) else ids
        return np.unique(np.array(self.rows(values, "ignore"), np.int64))

    @property
    def _kind(self) -> str | None:
        return id_kind(self._ids.values) if len(self._ids) else None

    def require_kind(self, ids: Ids) -> None:
        """Raise TypeError if `ids` are of another type than those of the index."""
        if self._kind and len(ids) and id_kind(ids) != self._kind:
            raise TypeError(f"This index has {self._kind} ids, got {id_kind(ids)} ids.")

    def new_ids(self, documents: MultiVectors) -> Ids:
        """Return the ids of `documents`, or the next integers, after checking that they are not in use."""
        if documents.has_ids:
            ids = documents.ids
        elif self.next + len(documents) > _MOST:
            raise ValueError(f"The next id would be {self.next}, beyond 64 bits. Pass your own ids.")
        else:
            if self._kind == "str" and len(documents):
                raise TypeError(
                    f"This index has str ids, but these documents have no ids and would get {self.next}, "
                    f"{self.next + 1}, ... Give strings as ids=, one per document."
                )
            ids = np.arange(self.next, self.next + len(documents))
        self.require_kind(ids)
        for id in ids.tolist():
            if id in self._row_of:
                raise ValueError(f"id {id!r} is in the index already. Use update to replace it.")
        return ids

    def append(self, ids: Ids) -> None:
        """Give the next rows these ids; an id moves from its old row to the new one."""
        with self._caching:
            first = len(self._ids)
            # Store strings as objects: a fixed-width array would be as wide as its longest string.
            self._ids.extend(ids if id_kind(ids) == "int" else ids.astype(object))
            self._alive.extend(np.ones(len(ids), bool))
            if self._rows is not None:
                self._rows.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))
            if ids.dtype.kind == "i" and len(ids):
                self.next = max(self.next, int(ids.max()) + 1)
            self._live = None

    def reserve(self, count: int) -> None:
        """Add `count` deleted rows."""
        with self._caching:
            self._ids.extend(np.full(count, "", object) if self._kind == "str" else np.zeros(count, np.int64))
            self._alive.extend(np.zeros(count, bool))
            self._live = None

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Delete rows; their ids can be used again, unless they have moved to other rows."""
        with self._caching:
            if self._rows is not None:
                for id, row in zip(self.of(rows).tolist(), rows.tolist(), strict=True):
                    if self._rows.get(id) == row:
                        del self._rows[id]
            self._alive.values[rows] = False
            self._live = None

    def save(self, folder: Path) -> None:
        """Write ``ids.json`` and ``alive.npy``."""
        # ASCII, because Python strings can contain characters that UTF-8 cannot encode.
        content = json.dumps({"next": self.next, "ids": self._ids.values.tolist()}, indent=0)
        write_bytes(folder / IDS, content.encode("ascii"))
        save_array(folder / ALIVE, self._alive.values)

    @classmethod
    def load(cls, folder: Path) -> IdMap:
        """Load the files of :meth:`save`; raise ValueError for a damaged file."""
        content = read_json(folder / IDS)
        alive = load_npy(folder / ALIVE, mmap=False)
        values, following = content["ids"], content["next"]
        kinds = set(map(type, values))
        if kinds - {int} and kinds - {str}:
            raise ValueError(f"{folder / IDS} is damaged: its ids are not all integers or all strings.")
        if type(following) is not int or alive.dtype != bool or alive.shape != (len(values),):
            raise ValueError(f"{folder} has {len(values)} ids for {alive.dtype} {alive.shape} rows.")
        loaded = cls(following)
        loaded._ids = GrowingArray(np.array(values, object if kinds == {str} else np.int64))
        loaded._alive = GrowingArray(alive)
        loaded._rows = None
        numbers = kinds != {str}
        if has_repeats(loaded._ids.values[alive]) if numbers else len(loaded._row_of) != len(loaded):
            raise ValueError(f"{folder / IDS} is damaged: it has an id twice.")
        return loaded


def _is_id(kind: type) -> bool:
    return issubclass(kind, (int, np.integer, str)) and not issubclass(kind, (bool, np.bool_))
