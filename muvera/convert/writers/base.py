"""Parts that writers share: targets that appear when they are complete, and batches joined to one array."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...data.validation import Ids, as_ids
from ...utils.atomic_files import atomic_folder, sync

__all__ = [
    "Gathered",
    "NpyStream",
    "Vectors",
    "atomic_file",
    "gather",
    "naming_target",
    "new_folder",
    "packed_strings",
    "scratch_beside",
]


class Vectors(NamedTuple):
    """Consecutive documents' FDEs."""

    #: float32 (n, dimension).
    vectors: NDArray[np.float32]
    #: int64 or str (n,).
    ids: Ids


@contextmanager
def naming_target(target: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what the system refuses while `target` is written into one sentence that names it.

    Raises
    ------
    OSError
        Of the same class and with the same number, such as on a full disk.
    """
    try:
        yield
    except OSError as error:
        # With a file's name, or without the system's words, it is a sentence already.
        if error.errno is None or error.strerror is None or error.filename is not None:
            raise
        named = type(error)(f"{target} could not be written: {' '.join(error.strerror.split()).rstrip('.')}.")
        named.errno = error.errno
        raise named from error


@contextmanager
def new_folder(target: str | os.PathLike[str], overwrite: bool, own: Sequence[str]) -> Iterator[Path]:
    """Give a folder to fill that becomes `target`, as :func:`~muvera.utils.atomic_files.atomic_folder`.

    Raises
    ------
    FileExistsError
        Where `target` exists and `overwrite` is False, or holds other files than `own`.
    OSError
        Where it cannot be written; the message names it.
    """
    with naming_target(target), atomic_folder(target, overwrite, own=own) as folder:
        yield folder


@contextmanager
def atomic_file(target: str | os.PathLike[str], overwrite: bool) -> Iterator[Path]:
    """Give a new file's path that becomes `target` when the block ends without an error.

    Raises
    ------
    FileExistsError
        Where `target` exists and `overwrite` is False, or is a folder.
    OSError
        Where it cannot be written; the message names it.
    """
    given, target = target, Path(target).absolute()
    if target.is_dir():
        raise FileExistsError(f"{target} is a folder; a file is written here. Give another name.")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists. Give another name, or overwrite=True to replace it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.partial-", dir=target.parent)
    os.close(descriptor)
    beside = Path(name)
    try:
        with naming_target(given):
            yield beside
            beside.chmod(0o644)
            sync(beside)
            beside.replace(target)
            sync(target.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextmanager
def scratch_beside(target: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Give a temporary file on `target`'s disk, for formats that must state sizes first."""
    folder = Path(target).absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder, prefix=".muvera-") as stream:
        yield stream


class NpyStream:
    """A .npy file (rows, columns) whose number of rows is not known at first.

    NumPy leaves room in the header for a longer count, so that it can be written again.
    """

    def __init__(self, stream: IO[bytes], columns: int, dtype: np.dtype[Any]) -> None:
        self.stream = stream
        self.columns = columns
        self.dtype = dtype
        self.rows = 0
        self._begins = stream.tell()
        self._header()
        self._size = stream.tell() - self._begins

    def add(self, block: NDArray[Any]) -> None:
        """Append rows."""
        self.stream.write(np.ascontiguousarray(block, self.dtype).data)
        self.rows += len(block)

    def finish(self) -> None:
        """Write the header with the rows that were added."""
        self.stream.seek(self._begins)
        self._header()
        if self.stream.tell() - self._begins != self._size:  # NumPy promises otherwise
            raise RuntimeError(f"NumPy {np.__version__} wrote another .npy header for {self.rows} rows.")

    def _header(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, self.columns)}
        np.lib.format.write_array_header_1_0(self.stream, header)


class Gathered:
    """Collector of the lengths and ids of batches, and of the shape and type of their tokens.

    The first batch decides: half-precision tokens of later ones become single precision where
    its own are, and ids are in all batches or in none.
    """

    def __init__(self, first: MultiVectors, place: str) -> None:
        self.place = place
        self.dimension = first.dimension
        self.dtype: np.dtype[Any] = first.tokens.dtype
        self.has_ids = first.has_ids
        self.num_documents = 0
        self.num_tokens = 0
        self._lengths: list[NDArray[np.int64]] = []
        self._ids: list[Any] = []

    def take(self, batch: MultiVectors) -> MultiVectors:
        """Return `batch` in the common type, and remember its lengths and ids.

        Raises
        ------
        ValueError
            Where its dimension, precision or having of ids differs from the first batch's.
        """
        where = f"{self.place}: the documents from number {self.num_documents} on"
        if batch.dimension != self.dimension:
            raise ValueError(
                f"{where} have dimension={batch.dimension}, but those before have dimension={self.dimension}."
            )
        if len(batch) and self.num_documents and batch.has_ids != self.has_ids:
            have, had = ("ids", "none") if batch.has_ids else ("no ids", "some")
            raise ValueError(f"{where} have {have}, but those before had {had}. Give ids to all or to none.")
        if batch.tokens.dtype != self.dtype:
            if self.dtype == np.float16 and batch.num_tokens:
                raise ValueError(
                    f"{where} are float32, but those before were float16. Convert with dtype='float32' or "
                    "dtype='float16' for all."
                )
            ids = batch.ids if batch.has_ids else None
            batch = MultiVectors(batch.tokens.astype(self.dtype), batch.offsets, ids)
        if len(batch):
            self.has_ids = batch.has_ids
        self._lengths.append(batch.lengths)
        if batch.has_ids:
            self._ids.extend(batch.ids.tolist())
        self.num_documents += len(batch)
        self.num_tokens += batch.num_tokens
        return batch

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each document so far."""
        return np.concatenate(self._lengths) if self._lengths else np.empty(0, np.int64)

    @property
    def ids(self) -> Ids | None:
        """All ids, checked to be unique over the batches; None where there are none."""
        return as_ids(self._ids, self.num_documents, f"{self.place}: ids") if self.has_ids else None


def gather(batches: Iterator[MultiVectors], place: str) -> tuple[Gathered, Iterator[MultiVectors]]:
    """Return a collector of lengths and ids, and the batches, which it notes as they pass.

    Parameters
    ----------
    batches : iterator of MultiVectors
    place : str
        Where they are from, for messages.

    Raises
    ------
    ValueError
        Where there is no batch at all: not even the dimension is known then.
    """
    first = next(iter(batches), None)
    if first is None:
        raise ValueError(f"There is nothing to write: {place} has no documents.")
    gathered = Gathered(first, place)

    def passing() -> Iterator[MultiVectors]:
        yield gathered.take(first)
        for batch in batches:
            yield gathered.take(batch)

    return gathered, passing()


def packed_strings(values: list[str]) -> dict[str, NDArray[Any]]:
    """Return string ids as two arrays: their UTF-8 bytes, and where each begins.

    :func:`muvera.convert.sources.named_arrays.source_of` reads them.  No id takes more room for
    another's length, as all do in an array of NumPy's strings.
    """
    encoded = [value.encode() for value in values]
    content = np.frombuffer(b"".join(encoded), np.uint8)
    return {"ids_offsets": running_total([len(value) for value in encoded]), "ids_utf8": content}
