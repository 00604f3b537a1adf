"""The default: a folder that :meth:`muvera.data.multivectors.MultiVectors.load` maps into memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...data.multivectors import MULTIVECTORS_FILES, MultiVectors
from ...utils.atomic_files import atomic_folder, write_json
from .base import NpyStream, gather

__all__ = ["NAME", "write"]

NAME = "npy"


def write(batches: Iterator[MultiVectors], target: Path, *, overwrite: bool) -> None:
    """Write ``tokens.npy``, ``lengths.npy`` and, where there are ids, ``ids.json``.

    Parameters
    ----------
    batches : iterator of MultiVectors
        In order; only one at a time is in memory.
    target : Path
        The folder, which appears when it is complete.
    overwrite : bool
        Replace an existing folder.
    """
    gathered, passing = gather(batches)
    with atomic_folder(target, overwrite, own=MULTIVECTORS_FILES) as folder:
        with (folder / "tokens.npy").open("wb") as stream:
            tokens = NpyStream(stream, gathered.dimension, gathered.dtype)
            for batch in passing:
                tokens.add(batch.tokens)
            tokens.finish()
        np.save(folder / "lengths.npy", gathered.lengths)
        ids = gathered.ids
        if ids is not None:
            write_json(folder / "ids.json", ids.tolist())
