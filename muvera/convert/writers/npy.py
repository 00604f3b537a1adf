"""Writer of the default format: a folder that :meth:`muvera.data.multivectors.MultiVectors.load` maps into memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...data.multivectors import MULTIVECTORS_FILES, MultiVectors
from ...utils.atomic_files import save_array, write_json
from .base import NpyStream, gather, new_folder

__all__ = ["NAME", "write"]

NAME = "npy"


def write(
    batches: Iterator[MultiVectors], target: Path, *, overwrite: bool, place: str = "the source"
) -> None:
    """Write ``tokens.npy``, ``lengths.npy`` and, where there are ids, ``ids.json``.

    Parameters and errors are those of every writer: see :class:`muvera.convert.registry.Writer`.
    """
    gathered, passing = gather(batches, place)
    with new_folder(target, overwrite, MULTIVECTORS_FILES) as folder:
        with (folder / "tokens.npy").open("wb") as stream:
            tokens = NpyStream(stream, gathered.dimension, gathered.dtype)
            for batch in passing:
                tokens.add(batch.tokens)
            tokens.finish()
        save_array(folder / "lengths.npy", gathered.lengths)
        ids = gathered.ids
        if ids is not None:
            write_json(folder / "ids.json", ids.tolist())
