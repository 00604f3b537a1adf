"""Reader of PyLate's maps between document ids and positions in the index that it wraps.

Newer releases keep them as pickles of a dict, older ones as SQLite files (of sqlitedict)
with one pickled value a row.  Neither is run: see :mod:`muvera.convert.parsing.safe_pickle`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ...data.multivectors import MultiVectors
from ...utils.checks import require_int
from ..sources.base import Source
from .safe_pickle import load_plain
from .sqlite_tables import open_table

__all__ = ["MappedSource", "has_map", "has_pylate_maps", "read_map", "same_kind"]

_SUFFIXES = (".pkl", ".sqlite")


def has_map(folder: Path, stem: str) -> bool:
    """Return whether `folder` holds the map `stem`, in either format."""
    return any((folder / f"{stem}{suffix}").is_file() for suffix in _SUFFIXES)


def has_pylate_maps(folder: Path) -> bool:
    """Return whether `folder` has the maps that PyLate lays beside a PLAID index."""
    return has_map(folder, "plaid_ids_to_documents_ids")


def read_map(folder: Path, stem: str) -> dict[Any, Any]:
    """Read the map `stem` of `folder`.

    Raises
    ------
    FileNotFoundError, ValueError
        Where it is missing, damaged or not a map.
    pickle.UnpicklingError
        Where it asks for more than plain data.
    """
    pickled, database = (folder / f"{stem}{suffix}" for suffix in _SUFFIXES)
    if pickled.is_file():
        value = load_plain(pickled)
        if not isinstance(value, dict):
            raise ValueError(f"{pickled} must hold a dict; it holds a {type(value).__name__}.")
        return value
    if not database.is_file():
        raise FileNotFoundError(f"{folder} has neither {pickled.name} nor {database.name}. Copy it again.")
    try:
        with closing(open_table(database, "unnamed", ("key", "value"), "sqlitedict")) as connection:
            rows = connection.execute("SELECT key, value FROM unnamed ORDER BY rowid").fetchall()
    except sqlite3.Error as error:
        raise ValueError(f"{database} is not a map of sqlitedict ({error}). Copy it again.") from error
    return {
        key: load_plain(value, str(database)) if isinstance(value, bytes) else value for key, value in rows
    }


def same_kind(ids: list[Any]) -> list[Any]:
    """Return `ids` as they are where all are int or all str, else all as str."""
    plain = [i.item() if isinstance(i, np.generic) else i for i in ids]
    if all(isinstance(i, str) for i in plain) or all(type(i) is int for i in plain):
        return plain
    return [str(i) for i in plain]


def _position(key: Any, folder: Path) -> int:
    """Return a position, which SQLite keeps as a text."""
    if isinstance(key, str) and re.fullmatch(r"-?[0-9]{1,18}", key):
        return int(key)
    try:
        return require_int("position", key)
    except TypeError as error:
        raise ValueError(f"A map of {folder} has a position that is not a whole number: {error}") from None


class MappedSource:
    """Source under PyLate's document ids, without the documents that it removed.

    Parameters
    ----------
    inner : Source
        Without ids.
    positions : dict
        Position in `inner` to document id.
    folder : Path
        For error messages.
    name : str
        The format's name.

    Raises
    ------
    ValueError
        Where a position is no whole number, stands twice, or lies outside the index.
    """

    def __init__(self, inner: Source, positions: dict[Any, Any], folder: Path, name: str) -> None:
        self._inner = inner
        self.name = name
        self.dimension = inner.dimension
        self.lossy = inner.lossy
        self.nbits = inner.nbits
        self.note: str | None = getattr(inner, "note", None)
        self.num_documents: int | None = len(positions)
        total = inner.num_documents
        self.num_tokens: int | None = inner.num_tokens if total == len(positions) else None
        keys = [_position(key, folder) for key in positions]
        if len(set(keys)) < len(keys):
            raise ValueError(f"A map of {folder} has a position twice. Copy the whole folder again.")
        if total is not None and keys and not 0 <= min(keys) <= max(keys) < total:
            wrong = min(keys) if min(keys) < 0 else max(keys)
            raise ValueError(
                f"The maps of {folder} name document {wrong}, but its index has {total}. "
                "Maps and index are of different times: copy the whole folder again."
            )
        self._names = dict(zip(keys, same_kind(list(positions.values())), strict=True))

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the named documents in the index's order."""
        done = 0
        for batch in self._inner.batches(max_tokens):
            kept = [i for i in range(len(batch)) if done + i in self._names]
            names = [self._names[done + i] for i in kept]
            done += len(batch)
            if kept:
                # Without the ids of the batch first: its positions are not unique names.
                yield MultiVectors(batch.tokens, batch.offsets)[kept].with_ids(names)
