"""Helpers of the writers: targets that are created only when complete, and checks across batches."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.validation import Ids, as_ids, running_total
from ...utils.atomic_files import atomic_file, atomic_folder


class Writer(NamedTuple):
    """A format that is written; see :func:`write_documents`."""

    #: Write documents, a :class:`Gathered`, to a new file or into a new folder; its options are further parameters.
    write: Callable[..., None]
    #: Patterns of the files in its folder; None for a format of one file.
    own: tuple[str, ...] | None = None
    #: Names of its options.
    options: tuple[str, ...] = ()


def write_documents(
    writer: Writer,
    batches: Iterator[MultiVectors],
    target: Path,
    *,
    overwrite: bool = False,
    place: str = "the source",
) -> None:
    """Write batches, at least one, in order; only one at a time is in memory.

    Raises
    ------
    FileExistsError
        If `target` exists and `overwrite` is False, or it contains something else.
    ValueError, TypeError
        If the batches contradict each other (dimensions, kinds of ids, repeated ids); `place` is their source.
    OSError
        If `target` cannot be written; the message names it.
    """
    with new_target(target, overwrite, writer.own) as path:
        writer.write(Gathered(batches, place), path)


@contextmanager
def new_target(target: Path, overwrite: bool, own: Sequence[str] | None) -> Iterator[Path]:
    """Yield a new file, or a new folder of files `own`, which becomes `target` if the block succeeds.

    A system error, such as a full disk, becomes one of the same class that names the target.
    """
    new: Any = atomic_file(target, overwrite) if own is None else atomic_folder(target, overwrite, own=own)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with new as path:
            yield path
    except OSError as error:
        # With a file name, or without the system's words, the message is already a sentence.
        if error.errno is None or error.strerror is None or error.filename is not None:
            raise
        named = type(error)(f"{target} could not be written: {' '.join(error.strerror.split()).rstrip('.')}.")
        named.errno = error.errno
        raise named from error


def write_rows(file: Path, blocks: Iterable[NDArray[Any]], columns: int, dtype: Any) -> None:
    """Write a .npy file (rows, columns) from blocks of rows, whose number is not known before."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (0, columns)}
    rows = 0
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for block in blocks:
            stream.write(np.ascontiguousarray(block, dtype).data)
            rows += len(block)
        # NumPy pads the header, so that a longer number fits.
        stream.seek(0)
        np.lib.format.write_array_header_1_0(stream, {**header, "shape": (rows, columns)})


class Gathered:
    """Checks batches as they pass, and collects their lengths and ids.

    The first batch sets the dtype: later float16 batches are converted to float32 if it is
    float32.  Either all batches have ids or none.
    """

    def __init__(self, batches: Iterator[MultiVectors], place: str) -> None:
        self.place = place
        self.num_documents = self.num_tokens = 0
        first = next(batches)
        self._batches = chain([first], batches)
        self.dimension = first.dimension
        self.dtype: np.dtype[Any] = first.tokens.dtype
        self._has_ids: bool | None = None
        self._lengths: list[NDArray[np.int64]] = []
        self._ids: list[Any] = []

    def __iter__(self) -> Iterator[MultiVectors]:
        return map(self._checked, self._batches)

    def _checked(self, batch: MultiVectors) -> MultiVectors:
        batch.require_finite(first=self.num_documents, place=self.place)
        if len(batch) and self._has_ids is None:
            self._has_ids = batch.has_ids
        narrow = self.dtype == np.float16 and batch.tokens.dtype != np.float16 and batch.num_tokens
        other_ids = len(batch) and self._has_ids != batch.has_ids
        if batch.dimension != self.dimension or other_ids or narrow:
            raise ValueError(
                f"{self.place}: the documents from number {self.num_documents} on have "
                f"{_kind(batch.dimension, batch.tokens.dtype, batch.has_ids)}, but those before have "
                f"{_kind(self.dimension, self.dtype, bool(self._has_ids))}. All must have the same: "
                "give ids to all or to none, and convert with dtype='float32' or dtype='float16'."
            )
        ids = batch.ids if batch.has_ids else None
        if batch.tokens.dtype != self.dtype:
            batch = MultiVectors(batch.tokens.astype(self.dtype), batch.offsets, ids)
        self._lengths.append(batch.lengths)
        self._ids.extend([] if ids is None else ids.tolist())
        self.num_documents += len(batch)
        self.num_tokens += batch.num_tokens
        return batch

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document so far."""
        return np.concatenate(self._lengths)

    @property
    def ids(self) -> Ids | None:
        """All ids, checked to be unique over the batches; None without ids."""
        return as_ids(self._ids, self.num_documents, f"{self.place}: ids") if self._has_ids else None


def _kind(dimension: int, dtype: Any, has_ids: bool) -> str:
    return f"dimension={dimension}, {dtype} and {'ids' if has_ids else 'no ids'}"


@contextmanager
def spooled(gathered: Gathered, path: Path) -> Iterator[MultiVectors]:
    """Yield all documents, with their tokens in a temporary file beside `path`.

    Formats that begin with their sizes, or are made of several passes, are written from it.
    """
    with tempfile.TemporaryFile(dir=path.parent, prefix=".muvera-") as file:
        for batch in gathered:
            file.write(np.ascontiguousarray(batch.tokens).data)
        file.flush()
        shape = (gathered.num_tokens, gathered.dimension)
        tokens: NDArray[Any] = np.empty(shape, gathered.dtype)
        if tokens.size:  # an empty file cannot be mapped
            tokens = np.memmap(file, gathered.dtype, "r", 0, shape)
        yield MultiVectors.from_flat(tokens, gathered.lengths, ids=gathered.ids)


def packed_strings(values: list[str]) -> dict[str, NDArray[Any]]:
    """Return string ids as two arrays: their UTF-8 bytes, and the offset of each.

    Readers of named arrays decode them.  In an array of NumPy strings, one long id would widen every entry.
    """
    encoded = [value.encode() for value in values]
    content = np.frombuffer(b"".join(encoded), np.uint8)
    return {"ids_offsets": running_total([len(value) for value in encoded]), "ids_utf8": content}
