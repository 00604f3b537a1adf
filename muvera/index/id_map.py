"""IdMap: the ids of rows, and which rows are live."""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.validation import Ids, first_parts, id_kind, repeats_before, running_total, string_array
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
    """The id of every row; an id belongs to at most one document.

    A document has one or more rows that follow each other, its parts.

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
        # The first row of each row's document; None until a document has several rows.
        self._first: GrowingArray | None = None
        if ids is not None and alive is not None:
            later = repeats_before(ids) & alive
            later[1:] &= alive[:-1]
            if later.any():
                self._first = GrowingArray(first_parts(later))
        # Rows by id: a large dictionary, built by the first lookup, and a small one of
        # changes, with -1 for deleted.
        self._old_rows: dict[int | str, int] | None = {} if ids is None else None
        self._new_rows: dict[int | str, int] = {}
        self._live: NDArray[np.int64] | None = None
        self._documents: NDArray[np.int64] | None = None
        self.next = first

    @property
    def _kind(self) -> str | None:
        return id_kind(self._ids.values) if len(self._ids) else None

    def __copy__(self) -> IdMap:
        copied = IdMap.__new__(IdMap)
        vars(copied).update(vars(self), _ids=copy(self._ids), _first=copy(self._first))
        return copied

    def __len__(self) -> int:
        return len(self.documents)

    def _row(self, id: int | str) -> int:
        """Return the first row of the document `id`, or -1."""
        if self._old_rows is None:
            rows = self.documents
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

    @property
    def documents(self) -> NDArray[np.int64]:
        """The first row of each document that is not deleted, ascending."""
        if self._documents is None:
            live = self.live
            self._documents = live if self._first is None else live[self._first.values[live] == live]
        return self._documents

    @property
    def has_parts(self) -> bool:
        """True if a document that is not deleted has several rows."""
        return self._first is not None and len(self.documents) < len(self.live)

    def first_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first row of each row's document."""
        return rows if self._first is None else self._first.values[rows]

    def parts(self, rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Return the part of its document that each row is, counted from 0.

        Return None if no document has several.
        """
        return rows - self.first_rows(rows) if self.has_parts else None

    def best_parts(self, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """Return the positions of the first row of each of the first `k` documents."""
        at = np.unique(self.first_rows(rows), return_index=True)[1]
        return np.sort(at)[:k]

    def of(self, rows: NDArray[np.int64]) -> Ids:
        """Return the ids of `rows`."""
        ids = self._ids.values[rows]
        return string_array(ids.tolist()) if ids.dtype == object else ids

    def names(self, rows: NDArray[np.int64]) -> list[Any]:
        """Return the ids of `rows` as a list, which takes less time than an array."""
        names: list[Any] = self._ids.values[rows].tolist()
        return names

    def rows(self, ids: list[Any], missing: Missing = "raise") -> NDArray[np.int64]:
        """Return the distinct rows of `ids`, in order; a document's rows ascend.

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
        return self.whole(np.array([row for row in dict.fromkeys(rows) if row >= 0], np.int64))

    def whole(self, first: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return all rows of the documents with these first rows."""
        if self._first is None:
            return first
        counts = np.searchsorted(self._first.values, first, side="right") - first
        return np.repeat(first - running_total(counts)[:-1], counts) + np.arange(counts.sum())

    def rows_of(self, ids: list[Any]) -> NDArray[np.int64]:
        """Return the first row of each document, or -1 for an unknown id."""
        return np.fromiter(map(self._row, ids), np.int64, len(ids))

    def new_ids(self, documents: MultiVectors | CodedVectors, continued: bool = False) -> Ids:
        """Return the ids of `documents`, or the next integers.

        Raise ValueError for an id that is in use, and TypeError for ids of the wrong
        type (int or str).  With `continued`, the first rows may be further parts of the
        last document.
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
        names = ids.tolist()
        if continued and self._continues(ids):
            names = [id for id in names if id != names[0]]
        used = self.rows(names, "ignore")
        if len(used):
            id = self.of(used[:1]).tolist()[0]
            update = Hint("update", "Use update to replace it.")
            raise ValueError(Message(f"id {id!r} is in the index already. ", update))
        return ids

    def append(self, ids: Ids) -> None:
        """Give the next rows these ids.

        No earlier document may have one of these ids, except the last document: rows
        with its id become further parts of it.
        """
        first = len(self._ids)
        later = repeats_before(ids)
        later[:1] = self._continues(ids)
        # Store strings as objects: a fixed-width array would be as wide as its longest
        # string.
        self._ids.extend(ids if id_kind(ids) == "int" else ids.astype(object))
        self._alive = np.append(self._alive, np.ones(len(ids), bool))
        if self._first is None and later.any():
            self._first = GrowingArray(np.arange(first))
        if self._first is not None:
            rows = first + first_parts(later)
            if later[:1].any():
                rows[rows == first] = self._first.values[-1]
            self._first.extend(rows)
        self._change_rows(ids[~later].tolist(), (first + np.flatnonzero(~later)).tolist())
        if ids.dtype.kind == "i" and len(ids):
            self.next = max(self.next, int(ids.max()) + 1)
        self._live = self._documents = None

    def _continues(self, ids: Ids) -> bool:
        """Return True if the first of `ids` is the id of the last document."""
        if not len(ids) or not len(self._ids) or not self._alive[-1]:
            return False
        return bool(self._ids.values[-1] == ids[0])

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Delete all rows of some documents; their ids can be used again."""
        self._change_rows(self.names(rows), [-1] * len(rows))
        self._alive = self._alive.copy()
        self._alive[rows] = False
        self._live = self._documents = None

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
        """Raise ValueError if two documents have the same id.

        `path` is the file of the ids.
        """
        ids = self._ids.values[self.documents]
        if len(set(ids.tolist())) != len(ids) if ids.dtype == object else has_repeats(ids):
            raise ValueError(f"{path} has an id twice.")


def _is_id(id: object) -> bool:
    return isinstance(id, (int, np.integer, str)) and not isinstance(id, bool)
