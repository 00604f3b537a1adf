"""IdMap: the ids of rows, and which rows are live."""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import Ids, id_kind, string_array
from ..reranking.coded_vectors import CodedVectors
from ..utils.arrays import GrowingArray, load_npy, save_array
from ..utils.atomic_files import read_json, write_bytes
from ..utils.checks import given, has_repeats, require_choice
from ..utils.hints import Hint, Message

#: The file of the ids.
IDS = "ids.json"

#: The file that says which rows are live.
ALIVE = "alive.npy"

Missing = Literal["raise", "ignore"]

# Every change copies the dictionary of changed rows.  It is merged into the other
# dictionary once it has more entries than this, and more than a share of the other's.
_CHANGED = 4096

# That share is 1 / _CHANGED_SHARE.
_CHANGED_SHARE = 32


class IdMap:
    """The id of every row; an id belongs to at most one live row.

    Changing a copy (:func:`copy.copy`) does not change the original.

    Parameters
    ----------
    first : int
        The number of the next document without an id.
    ids : ndarray (n,), int64 or object, optional
        The ids of rows, int or str.  Default: no rows.
    alive : ndarray (n,), bool, optional
        False for deleted rows.  Needed with `ids`.
    """

    def __init__(
        self, first: int = 0, ids: NDArray[Any] | None = None, alive: NDArray[np.bool_] | None = None
    ) -> None:
        self._ids = GrowingArray(np.empty(0, np.int64) if ids is None else ids)
        self._alive = np.empty(0, bool) if alive is None else alive
        # Rows by id: a large dictionary, built by the first lookup, and a small one of
        # changes, with -1 for deleted.
        self._old_rows: dict[int | str, int] | None = {} if ids is None else None
        self._new_rows: dict[int | str, int] = {}
        self._live: NDArray[np.int64] | None = None
        self.next = first

    @property
    def _kind(self) -> str | None:
        return id_kind(self._ids.values) if len(self._ids) else None

    def __copy__(self) -> IdMap:
        copied = IdMap.__new__(IdMap)
        vars(copied).update(vars(self), _ids=copy(self._ids))
        return copied

    def __len__(self) -> int:
        return len(self.live)

    def _row(self, id: int | str) -> int:
        """Return the live row of `id`, or -1."""
        if self._old_rows is None:
            rows = self.live
            self._old_rows = dict(zip(self._ids.values[rows].tolist(), rows.tolist(), strict=True))
        return self._new_rows.get(id, self._old_rows.get(id, -1))

    def _change_rows(self, ids: list[Any], rows: list[int]) -> None:
        """Set the rows of `ids`; dictionaries that copies share stay unchanged."""
        if self._old_rows is None:
            return  # the first lookup will build it from the current rows
        changed = {**self._new_rows, **dict(zip(ids, rows, strict=True))}
        if len(changed) > max(_CHANGED, len(self._old_rows) // _CHANGED_SHARE):
            merged = {**self._old_rows, **changed}
            for id in [id for id, row in changed.items() if row < 0]:
                del merged[id]
            changed, self._old_rows = {}, merged
        self._new_rows = changed

    def __contains__(self, id: object) -> bool:
        return _is_id(id) and self._row(id) >= 0  # type: ignore[arg-type]

    @property
    def num_rows(self) -> int:
        """Number of rows, including deleted ones."""
        return len(self._ids)

    @property
    def live(self) -> NDArray[np.int64]:
        """Rows that are not deleted, ascending."""
        if self._live is None:  # cached_property has a lock before Python 3.12, which a fork could leave held
            self._live = np.flatnonzero(self._alive)
        return self._live

    def of(self, rows: NDArray[np.int64]) -> Ids:
        """Return the ids of `rows`."""
        ids = self._ids.values[rows]
        return string_array(ids.tolist()) if ids.dtype == object else ids

    def names(self, rows: NDArray[np.int64]) -> list[Any]:
        """Return the ids of `rows` as a list, which takes less time than an array."""
        names: list[Any] = self._ids.values[rows].tolist()
        return names

    def rows(self, ids: list[Any], missing: Missing = "raise") -> NDArray[np.int64]:
        """Return the distinct rows of `ids`, in order.

        Raise TypeError for an id of another type, and KeyError for an unknown one
        unless ``missing="ignore"``.
        """
        require_choice("missing", missing, get_args(Missing))
        kind = self._kind
        for id in ids:
            if not _is_id(id):
                raise TypeError(f"ids must be int or str, got {given(id)}.")
            if kind and isinstance(id, str) != (kind == "str"):
                raise TypeError(f"This index has {kind} ids, got {given(id)}. Convert it.")
        rows = [self._row(id) for id in ids]
        unknown = [id for id, row in zip(ids, rows, strict=True) if row < 0]
        if unknown and missing == "raise":
            count = f" ({len(unknown)} of the {len(ids)} ids are not)" if len(ids) > 1 else ""
            check = Hint("check_id", " Check with `id in index`.")
            raise KeyError(Message(f"id {unknown[0]!r} is not in the index{count}.", check))
        return np.array([row for row in dict.fromkeys(rows) if row >= 0], np.int64)

    def rows_of(self, ids: list[Any]) -> NDArray[np.int64]:
        """Return the row of each id, or -1 for an unknown one."""
        return np.fromiter(map(self._row, ids), np.int64, len(ids))

    def new_ids(self, documents: MultiVectors | CodedVectors) -> Ids:
        """Return the ids of `documents`, or the next integers.

        Raise ValueError for an id that is in use.
        """
        if documents.has_ids:
            ids = documents.ids
        elif self.next + len(documents) > np.iinfo(np.int64).max:
            raise ValueError(f"The next id would be {self.next}, beyond 64 bits. Pass your own ids.")
        else:
            if self._kind == "str" and len(documents):
                raise TypeError(
                    Message(
                        f"This index has str ids, but these documents have no ids and would get {self.next}, "
                        f"{self.next + 1}, ... ",
                        Hint("give_ids", "Give strings as ids=, one per document."),
                    )
                )
            ids = np.arange(self.next, self.next + len(documents))
        used = self.rows(ids.tolist(), "ignore")
        if len(used):
            id = self.of(used[:1]).tolist()[0]
            update = Hint("update", "Use update to replace it.")
            raise ValueError(Message(f"id {id!r} is in the index already. ", update))
        return ids

    def append(self, ids: Ids) -> None:
        """Give the next rows these ids; an id moves from its old row to the new one."""
        first = len(self._ids)
        # Store strings as objects: a fixed-width array would be as wide as its longest
        # string.
        self._ids.extend(ids if id_kind(ids) == "int" else ids.astype(object))
        self._alive = np.append(self._alive, np.ones(len(ids), bool))
        self._change_rows(ids.tolist(), list(range(first, first + len(ids))))
        if ids.dtype.kind == "i" and len(ids):
            self.next = max(self.next, int(ids.max()) + 1)
        self._live = None

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Delete rows.

        Their ids can be used again, unless they have moved to other rows.
        """
        dropped = zip(self.of(rows).tolist(), rows.tolist(), strict=True)
        ids = [id for id, row in dropped if self._old_rows is not None and self._row(id) == row]
        self._change_rows(ids, [-1] * len(ids))
        self._alive = self._alive.copy()
        self._alive[rows] = False
        self._live = None

    def save(self, folder: Path) -> None:
        """Write ``ids.json`` and ``alive.npy``."""
        # ASCII, because Python strings can contain characters that UTF-8 cannot encode.
        content = json.dumps({"next": self.next, "ids": self._ids.values.tolist()}, indent=0)
        write_bytes(folder / IDS, content.encode("ascii"))
        save_array(folder / ALIVE, self._alive)

    @classmethod
    def load(cls, folder: Path) -> IdMap:
        """Load the files of :meth:`save`; raise ValueError for a damaged file."""
        content = read_json(folder / IDS)
        alive = load_npy(folder / ALIVE, mmap=False)
        values = content["ids"]
        following = content["next"]
        kinds = set(map(type, values))
        if kinds - {int} and kinds - {str}:
            raise ValueError(f"{folder / IDS} has ids that are not all integers or all strings.")
        if kinds == {str} and any(value.endswith("\0") for value in values):  # NumPy would remove it
            raise ValueError(f"{folder / IDS} has an id that ends in a NUL character.")
        if type(following) is not int or alive.dtype != bool or alive.shape != (len(values),):
            raise ValueError(
                f"{folder} has {len(values)} ids, but {ALIVE} is a {alive.dtype} array of shape "
                f"{alive.shape}."
            )
        return cls(following, np.array(values, object if kinds == {str} else np.int64), alive)

    def require_different(self, path: Path) -> None:
        """Raise ValueError if an id has two live rows.

        `path` is the file of the ids.
        """
        ids = self._ids.values[self.live]
        if len(set(ids.tolist())) != len(ids) if ids.dtype == object else has_repeats(ids):
            raise ValueError(f"{path} has an id twice.")


def _is_id(id: object) -> bool:
    return isinstance(id, (int, np.integer, str)) and not isinstance(id, bool)
