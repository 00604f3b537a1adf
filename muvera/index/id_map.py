"""IdMap: external ids of rows, and which rows are still there."""

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
from ..utils.growable_array import GrowingArray
from ..utils.npy_files import load_npy

__all__ = ["IdMap", "Missing"]

IDS, ALIVE = "ids.json", "alive.npy"

#: What is done with ids that are not there.
Missing = Literal["raise", "ignore"]

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
        self._rows: dict[int | str, int] | None = {}
        self._making = RLock()  # of what is made when it is needed, which must not be while rows change
        self._live: NDArray[np.int64] | None = None
        self.next = first

    def __len__(self) -> int:
        return len(self.live)

    @property
    def _row_of(self) -> dict[int | str, int]:
        """The row of each id, made when it is first needed: searches never do."""
        with self._making:
            if self._rows is None:
                rows = self.live
                self._rows = dict(zip(self._ids.values[rows].tolist(), rows.tolist(), strict=True))
            return self._rows

    def __contains__(self, name: object) -> bool:
        return _is_id(type(name)) and name in self._row_of

    @property
    def num_rows(self) -> int:
        """Rows that there ever were."""
        return len(self._ids)

    @property
    def live(self) -> NDArray[np.int64]:
        """Rows that are there, ascending."""
        with self._making:
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
        """Return the rows of `ids` in their order.

        Parameters
        ----------
        ids : list of int or of str
        missing : {"raise", "ignore"}
            What to do with an id that is not there.

        Raises
        ------
        TypeError
            For anything but ids of the index's kind: it could never be there.
        KeyError
            For an id that is not there, unless it is to be ignored.
        """
        require_choice("missing", missing, get_args(Missing))
        self._require_ids(ids)
        unknown = [name for name in ids if name not in self._row_of]
        if unknown and missing == "raise":
            count = f" ({len(unknown)} of the {len(ids)} given ids are not)" if len(ids) > 1 else ""
            raise KeyError(f"id {unknown[0]!r} is not in the index{count}. Look for it with `id in index`.")
        return [self._row_of[name] for name in ids if name in self._row_of]

    def existing_rows(self, ids: Any) -> NDArray[np.int64]:
        """Return the rows of those `ids` that are there, ascending.

        Raises
        ------
        TypeError
            For anything but ids of the index's kind: it could never be there.
        """
        values = ids.tolist() if isinstance(ids, np.ndarray) else ids
        return np.unique(np.array(self.rows(values, "ignore"), np.int64))

    def _require_ids(self, values: list[Any]) -> None:
        wrong = {type(value) for value in values if not _is_id(type(value))}
        if wrong:
            raise TypeError(f"ids must be int or str, got {min(kind.__name__ for kind in wrong)}.")
        other = [value for value in values if isinstance(value, str) != (self._kind == "str")]
        if other and self._kind:
            raise TypeError(
                f"This index has {self._kind} ids, got {other[0]!r}, which is {type(other[0]).__name__}."
            )

    @property
    def _kind(self) -> str | None:
        return id_kind(self._ids.values) if len(self._ids) else None

    def require_kind(self, ids: Ids) -> None:
        """Raise TypeError where `ids` are of another kind than those that are there."""
        if self._kind and len(ids) and id_kind(ids) != self._kind:
            raise TypeError(f"This index has {self._kind} ids, got {id_kind(ids)} ids.")

    def new_ids(self, documents: MultiVectors) -> Ids:
        """Return the ids that `documents` get, checked to be free."""
        if documents.has_ids:
            ids = documents.ids
        elif self.next + len(documents) > _MOST:
            raise ValueError(f"The next id would be {self.next}, beyond 64 bits. Give ids of your own.")
        else:
            if self._kind == "str" and len(documents):
                raise TypeError(
                    f"This index has str ids, but no ids were given, so that they would be {self.next}, "
                    f"{self.next + 1}, ... Give strings as ids=, one for each document."
                )
            ids = np.arange(self.next, self.next + len(documents))
        self.require_kind(ids)
        for name in ids.tolist():
            if name in self._row_of:
                raise ValueError(f"id {name!r} is in the index already. Use update to replace it.")
        return ids

    def append(self, ids: Ids) -> None:
        """Give the next rows these ids, also those that name other rows until now."""
        with self._making:
            first = len(self._ids)
            # Strings as objects: in an array of one width the longest would widen all.
            self._ids.extend(ids if id_kind(ids) == "int" else ids.astype(object))
            self._alive.extend(np.ones(len(ids), bool))
            if self._rows is not None:
                self._rows.update(zip(ids.tolist(), range(first, first + len(ids)), strict=True))
            if ids.dtype.kind == "i" and len(ids):
                self.next = max(self.next, int(ids.max()) + 1)
            self._live = None

    def reserve(self, count: int) -> None:
        """Leave the next `count` rows without a document for ever."""
        with self._making:
            self._ids.extend(np.full(count, "", object) if self._kind == "str" else np.zeros(count, np.int64))
            self._alive.extend(np.zeros(count, bool))
            self._live = None

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Forget rows; their ids are free again, unless another row has them meanwhile."""
        with self._making:
            if self._rows is not None:
                for name, row in zip(self.of(rows).tolist(), rows.tolist(), strict=True):
                    if self._rows.get(name) == row:
                        del self._rows[name]
            self._alive.values[rows] = False
            self._live = None

    def save(self, folder: Path) -> None:
        """Write ``ids.json`` and ``alive.npy``."""
        # ASCII, for strings of Python can be what UTF-8 cannot encode.
        content = json.dumps({"next": self.next, "ids": self._ids.values.tolist()}, indent=0)
        write_bytes(folder / IDS, content.encode("ascii"))
        save_array(folder / ALIVE, self._alive.values)

    @classmethod
    def load(cls, folder: Path) -> IdMap:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For a damaged file.
        """
        kept = read_json(folder / IDS)
        alive = load_npy(folder / ALIVE, mmap=False)
        values, following = kept["ids"], kept["next"]
        kinds = set(map(type, values))
        if kinds - {int} and kinds - {str}:
            raise ValueError(f"{folder / IDS} is damaged: its ids are not all integers or all strings.")
        if type(following) is not int or alive.dtype != bool or alive.shape != (len(values),):
            raise ValueError(f"{folder} has {len(values)} ids for {alive.dtype} {alive.shape} rows.")
        names = cls(following)
        names._ids = GrowingArray(np.array(values, object if kinds == {str} else np.int64))
        names._alive = GrowingArray(alive)
        names._rows = None
        numbers = kinds != {str}
        if has_repeats(names._ids.values[alive]) if numbers else len(names._row_of) != len(names):
            raise ValueError(f"{folder / IDS} is damaged: it has an id twice.")
        return names


def _is_id(kind: type) -> bool:
    return issubclass(kind, (int, np.integer, str)) and not issubclass(kind, (bool, np.bool_))
