"""One .npz file that ``numpy.load`` reads and that maps into memory."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...data.multivectors import MultiVectors
from .base import NpyStream, atomic_file, gather, scratch_beside

__all__ = ["NAME", "write"]

NAME = "npz"


def write(batches: Iterator[MultiVectors], target: Path, *, overwrite: bool) -> None:
    """Write the members ``tokens``, ``lengths`` and, where there are ids, ``ids``.

    The members are stored, not compressed: token vectors hardly compress.  While it is
    written, the tokens take twice their size on the disk.

    Parameters
    ----------
    batches : iterator of MultiVectors
        In order; only one at a time is in memory.
    target : Path
        The file, which appears when it is complete.
    overwrite : bool
        Replace an existing file.
    """
    gathered, passing = gather(batches)
    with atomic_file(target, overwrite) as file, scratch_beside(target) as scratch:
        tokens = NpyStream(scratch, gathered.dimension, gathered.dtype)
        for batch in passing:
            tokens.add(batch.tokens)
        tokens.finish()
        scratch.seek(0)
        ids = gathered.ids
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            # Members without a date: the same documents make the same bytes.
            with archive.open(zipfile.ZipInfo("tokens.npy"), "w", force_zip64=True) as member:
                shutil.copyfileobj(scratch, member, 1 << 20)
            for name, values in (("lengths", gathered.lengths), ("ids", ids)):
                if values is not None:
                    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)
