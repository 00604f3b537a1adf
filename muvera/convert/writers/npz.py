"""Writer of one .npz file, which ``numpy.load`` reads and that maps into memory."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.validation import Ids
from .base import NpyStream, atomic_file, gather, packed_strings, scratch_beside

__all__ = ["NAME", "write"]

NAME = "npz"


def write(
    batches: Iterator[MultiVectors], target: Path, *, overwrite: bool, place: str = "the source"
) -> None:
    """Write the members ``tokens``, ``lengths`` and, where there are ids, ``ids``.

    String ids are an array of NumPy's strings, or where one is much longer than the others the
    members ``ids_utf8`` and ``ids_offsets``.  The members are stored, not compressed: token
    vectors hardly compress.  While it is written, the tokens take twice their size on the disk.

    Parameters and errors are those of every writer: see :class:`muvera.convert.registry.Writer`.
    """
    gathered, passing = gather(batches, place)
    with atomic_file(target, overwrite) as file, scratch_beside(target) as scratch:
        tokens = NpyStream(scratch, gathered.dimension, gathered.dtype)
        for batch in passing:
            tokens.add(batch.tokens)
        tokens.finish()
        scratch.seek(0)
        small = {"lengths": gathered.lengths, **_ids(gathered.ids)}
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            # Members without a date: the same documents make the same bytes.
            with archive.open(zipfile.ZipInfo("tokens.npy"), "w", force_zip64=True) as member:
                shutil.copyfileobj(scratch, member, 1 << 20)
            for name, values in small.items():
                with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)


def _ids(ids: Ids | None) -> dict[str, NDArray[Any]]:
    """Return ids as the member ``ids``, or as packed strings where one long id would widen all."""
    if ids is None:
        return {}
    return packed_strings(ids.tolist()) if ids.dtype == object else {"ids": ids}
