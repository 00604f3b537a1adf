"""Reader of Voyager's index files, which takes the vectors where they lie.

The file is a head of 19 bytes (``VOYA``, version, dimension, space, kind of numbers), the
numbers that describe hnswlib's graph, and a record for each vector: its links, its numbers and
its id.  The links are not looked at, so that damage in them cannot lead anywhere.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["VoyagerFile", "read_voyager"]

_HEAD = struct.Struct("<4siiBBfB")
#: What hnswlib writes: where links begin, room, count, bytes of a record, where in it the id and
#: the numbers are, highest level, entry, three numbers of links, a factor, depth while building.
_GRAPH = struct.Struct("<QQQQQQiIQQQdQ")

#: Voyager's kinds of numbers: the dtype of their bytes.
_KINDS = {0x10: "i1", 0x20: "<f4", 0x30: "u1"}


class VoyagerFile(NamedTuple):
    """Vectors of an index, and their ids.

    Attributes
    ----------
    ids : int64 (n,)
        The number of each vector, ascending.
    nbits : int or None
        Bits a coordinate where they are fewer than float32's.
    """

    ids: NDArray[np.int64]
    nbits: int | None
    #: Numbers as the file has them (n, dimension), in its order.
    raw: NDArray[Any]
    #: Where in `raw` each id is.
    rows: NDArray[np.int64]

    def vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of `ids`, float32 (len(ids), dimension).

        Raises
        ------
        ValueError
            Where the file does not have one.
        """
        at = np.searchsorted(self.ids, ids)
        known = at < len(self.ids)
        known[known] = self.ids[at[known]] == ids[known]
        if not known.all():
            raise ValueError(f"there is no vector {ids[int(np.argmin(known))]} among {len(self.ids)}")
        raw = self.raw[self.rows[at]]
        if raw.dtype == np.uint8:
            return np.asarray(_SMALL_FLOATS[raw])
        return np.asarray(raw.astype(np.float32) * np.float32(1 / 127 if raw.dtype == np.int8 else 1))


def read_voyager(path: Path) -> VoyagerFile:
    """Open ``index.voyager`` of version 1, which Voyager 2 and 1.2 to 1.4 write.

    Raises
    ------
    ValueError
        Where it is truncated, of another version, or its numbers do not fit the file.
    """
    with path.open("rb") as stream:
        content = stream.read(_HEAD.size + _GRAPH.size)
    if len(content) < _HEAD.size + _GRAPH.size:
        raise ValueError(f"{path} is truncated: it has {len(content)} bytes. Copy it again.")
    magic, version, dimension, _, number, _, transformed = _HEAD.unpack_from(content)
    if magic != b"VOYA" or version != 1:
        raise ValueError(
            f"{path} begins with {magic!r} and version {version}; read are Voyager's files of version 1. "
            "Load and save it with Voyager 2."
        )
    if number not in _KINDS or transformed:
        raise ValueError(
            f"{path} has numbers of kind {number} and transformed={transformed}, which PyLate does not write. "
            "Copy it again."
        )
    _, _, count, record, id_place, number_place, *_ = _GRAPH.unpack_from(content, _HEAD.size)
    kind, begins = _KINDS[number], _HEAD.size + _GRAPH.size
    width = dimension * np.dtype(kind).itemsize
    if dimension < 1 or number_place + width > record or id_place + 8 > record or record >= 1 << 31:
        raise ValueError(f"{path} has records of {record} bytes for dimension={dimension}. Copy it again.")
    if begins + count * record > path.stat().st_size:
        raise ValueError(
            f"{path} is truncated: {count} records of {record} bytes need {begins + count * record} bytes, but it "
            f"has {path.stat().st_size}. Copy it again."
        )
    records = np.dtype(
        {
            "names": ["numbers", "id"],
            "formats": [(kind, (dimension,)), "<u8"],
            "offsets": [number_place, id_place],
            "itemsize": record,
        }
    )
    file: NDArray[Any] = np.memmap(path, records, "r", begins, (count,)) if count else np.empty(0, records)
    labels = np.asarray(file["id"])
    if (labels > np.uint64(np.iinfo(np.int64).max)).any() or len(np.unique(labels)) < count:
        raise ValueError(f"{path} has ids that are not unique 64-bit integers. Copy it again.")
    rows = np.argsort(labels, kind="stable")
    nbits = None if kind == "<f4" else 8
    return VoyagerFile(labels[rows].astype(np.int64), nbits, np.asarray(file["numbers"]), rows)


def _small_floats() -> NDArray[np.float32]:
    """Return the value of every byte of Voyager's E4M3: the sign lowest, three bits of fraction highest."""
    codes = np.arange(256)
    sign, exponent, fraction = codes & 1, codes >> 1 & 15, codes >> 5
    sizes = np.where(exponent > 0, 1 + fraction / 8, fraction / 8) * 2.0 ** (exponent - 7)
    sizes[(exponent == 15) & (fraction == 7)] = np.nan
    return np.asarray(np.where(sign == 1, -sizes, sizes), np.float32)


_SMALL_FLOATS = _small_floats()
