"""NumPy .npz archives: tokens with lengths or offsets, or one array a document.

Members that NumPy stored are memory-mapped where they lie; compressed ones are unpacked
batch by batch.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..sources.arrays import Rows
from ..sources.base import Source
from ..sources.named_arrays import find, names_of, per_document, source_of

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "npz"
DESCRIPTION = (
    "a .npz file with tokens and lengths or offsets, with emb_0, emb_1, ..., or one array a document"
)


def matches(path: Path) -> bool:
    """Say whether `path` is a .npz file."""
    return path.is_file() and path.suffix == ".npz"


def open_source(path: Path, *, part: str = "docs", allow_pickle: bool = False) -> Source:
    """Return the source of a .npz file.

    Parameters
    ----------
    path : Path
        Members ``tokens`` and ``lengths`` (or ``doclens``, ``offsets``), perhaps ``ids``; or
        ``emb_0, emb_1, ...``, perhaps ``ids``; or one (tokens, dim) array a document, whose
        name is its id.
    part : {"docs", "queries"}
        Which collection, where there are both.
    allow_pickle : bool
        Read pickled ids.  A pickle can run any program: give True only for files that you
        trust.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            members: dict[str, Any] = {
                info.filename[:-4]: _member(path, archive, info, allow_pickle) for info in infos
            }
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is truncated or no .npz file: {error}. Copy or export it again.") from None
    names = names_of(part)
    arrays: dict[str, Rows] = {key: value for key, value in members.items() if value is not None}
    if find(names.tokens, arrays) is None:
        ids = None
        rest = {key: value for key, value in arrays.items() if key not in (*names.ids, "n")}
        if any(key in members for key in names.ids):
            ids_key = next(key for key in names.ids if key in members)
            ids = _ids(members[ids_key], path, ids_key)
        source = per_document(rest, name=NAME, place=str(path), ids=ids)
        if source is not None:
            return source
    for key in names.ids:
        if key in members:
            _ids(members[key], path, key)
    return source_of(arrays, name=NAME, place=str(path), part=part)


def _ids(values: Any, path: Path, key: str) -> Any:
    if values is None:
        raise ValueError(
            f"{path} has pickled {key}, which can run any program when they are read. "
            "Give allow_pickle=True only if you trust the file's origin."
        )
    return values[:]


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, allow_pickle: bool) -> Any:
    """Return a member as rows, or None where it is pickled and that is not allowed."""
    with archive.open(info) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0
        header: Any = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(stream)
        shape, fortran, dtype = header
        begins = stream.tell()
        if dtype.hasobject:
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=True) if allow_pickle else None
        if fortran or not shape or 0 in shape:
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False)
    if info.compress_type != zipfile.ZIP_STORED:
        return _CompressedRows(path, info.filename, shape, dtype, begins)
    # The local header tells where the bytes are; the central directory's may differ in length.
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
    offset = info.header_offset + 30 + name_length + extra_length + begins
    needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if info.file_size - begins < needed:
        raise ValueError(f"{path}: {info.filename} holds fewer bytes than its shape {shape} needs.")
    return np.memmap(path, dtype, "r", offset, shape)


class _CompressedRows:
    """Rows of a compressed member: read forward, begun again to go back."""

    def __init__(
        self, path: Path, member: str, shape: tuple[int, ...], dtype: np.dtype[Any], begins: int
    ) -> None:
        self.path, self.member, self.shape, self.dtype, self.begins = path, member, shape, dtype, begins
        self.row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        self._stream: Any = None
        self._position = 0

    def __getitem__(self, key: slice) -> NDArray[Any]:
        start, stop, _ = key.indices(self.shape[0])
        if self._stream is None or start < self._position:
            self.close()
            self._archive = zipfile.ZipFile(self.path)
            self._stream = self._archive.open(self.member)
            self._position = 0
            self._skip(self.begins)
        self._skip((start - self._position) * self.row_bytes)
        needed = max(stop - start, 0) * self.row_bytes
        try:
            content = self._stream.read(needed)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{self.path}: {self.member} is damaged: {error}.") from None
        if len(content) < needed:
            raise ValueError(f"{self.path}: {self.member} ends before its row {stop}. Export it again.")
        self._position = max(stop, start)
        if self._position == self.shape[0]:
            self.close()
        return np.frombuffer(content, self.dtype).reshape(max(stop - start, 0), *self.shape[1:])

    def _skip(self, count: int) -> None:
        while count > 0:
            step = len(self._stream.read(min(count, 1 << 20)))
            if step == 0:
                raise ValueError(f"{self.path}: {self.member} is truncated. Export it again.")
            count -= step

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not None:
            self._stream.close()
            self._archive.close()
            self._stream = None
