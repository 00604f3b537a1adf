"""Helpers of the writers: targets that are created only when complete, and checks across batches."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...data.validation import Ids, as_ids
from ...utils.atomic_files import atomic_folder, sync

__all__ = [
    "Gathered",
    "atomic_file",
    "new_folder",
    "packed_strings",
    "spooled",
    "write_rows",
]


@contextmanager
def naming_target(target: str | os.PathLike[str]) -> Iterator[None]:
    """Convert a system error, such as a full disk, to one of the same class that names the target."""
    try:
        yield
    except OSError as error:
        # With a file name, or without the system's words, the message is already a sentence.
        if error.errno is None or error.strerror is None or error.filename is not None:
            raise
        named = type(error)(f"{target} could not be written: {' '.join(error.strerror.split()).rstrip('.')}.")
        named.errno = error.errno
        raise named from error


@contextmanager
def new_folder(target: str | os.PathLike[str], overwrite: bool, own: Sequence[str]) -> Iterator[Path]:
    """Yield a folder that becomes `target` if the block succeeds; files other than `own` are not replaced."""
    with naming_target(target), atomic_folder(target, overwrite, own=own) as folder:
        yield folder


@contextmanager
def atomic_file(target: str | os.PathLike[str], overwrite: bool) -> Iterator[Path]:
    """Yield the path of a new file that becomes `target` if the block succeeds."""
    path = Path(target).absolute()
    if path.is_dir():
        raise FileExistsError(f"{path} is a folder, but the target is a file. Give another name.")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists. Give another name, or overwrite=True to replace it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(8)}")
    try:
        partial.touch(exist_ok=False)
        with naming_target(target):
            yield partial
            sync(partial)
            partial.replace(path)
            sync(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


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
        where = f"{self.place}: the documents from number {self.num_documents} on"
        ids = batch.ids if batch.has_ids else None
        if batch.dimension != self.dimension:
            raise ValueError(
                f"{where} have dimension={batch.dimension}, but those before have dimension={self.dimension}."
            )
        if len(batch):
            if self._has_ids not in (None, batch.has_ids):
                have, had = ("ids", "none") if batch.has_ids else ("no ids", "some")
                raise ValueError(
                    f"{where} have {have}, but those before had {had}. Give ids to all or to none."
                )
            self._has_ids = batch.has_ids
        if batch.tokens.dtype != self.dtype:
            if self.dtype == np.float16 and batch.num_tokens:
                raise ValueError(
                    f"{where} are float32, but those before were float16. Convert with dtype='float32' or "
                    "dtype='float16' for all."
                )
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

    def listed_ids(self) -> list[Any]:
        """Return all ids as :attr:`ids` does, by default the positions."""
        ids = self.ids
        return list(range(self.num_documents)) if ids is None else ids.tolist()


@contextmanager
def spooled(gathered: Gathered, target: Path) -> Iterator[MultiVectors]:
    """Yield all documents, with their tokens in a temporary file beside `target`.

    Formats that begin with their sizes, or are made of several passes, are written from it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with naming_target(target), tempfile.TemporaryFile(dir=target.parent, prefix=".muvera-") as file:
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
