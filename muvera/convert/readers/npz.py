"""Reader of NumPy's .npz archives: tokens with lengths or offsets, or one array a document.

Members that NumPy stored are memory-mapped where they lie; compressed ones are unpacked
batch by batch.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils.npy_files import NpyHeader, read_npy_header
from ..parsing.safe_pickle import read_objects
from ..parsing.unpacking import require_unpackable
from ..parsing.zip_members import stored_bytes
from ..sources.base import Source
from ..sources.named_arrays import PARTS, find, names_of, per_document, source_of

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "npz"
DESCRIPTION = (
    "a .npz file with tokens and lengths or offsets, with emb_0, emb_1, ..., or one array a document"
)


def matches(path: Path) -> bool:
    """Return whether `path` is a .npz file."""
    return path.is_file() and path.suffix == ".npz"


def open_source(path: Path, *, part: str = "docs") -> Source:
    """Return the source of a .npz file.

    Parameters
    ----------
    path : Path
        Members ``tokens`` and ``lengths`` (or ``doclens``, ``offsets``), perhaps ``ids``; or
        ``emb_0, emb_1, ...``, perhaps ``ids``; or one (tokens, dimension) array a document, whose
        name is its id.
    part : {"docs", "queries"}
        Which collection, where there are both.

    Raises
    ------
    ValueError
        Where it is damaged, a member unpacks to far more than it takes, or nothing in it is
        token vectors.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            twice = [name for name, count in Counter(info.filename for info in infos).items() if count > 1]
            if twice:
                raise ValueError(f"{path} has {twice[0]} more than once. Export it again.")
            file: NDArray[np.uint8] = np.memmap(path, np.uint8, "r").view(np.ndarray)
            known = {name for part in PARTS.values() for kind in part for name in kind}
            found = {info.filename[:-4]: _member(path, archive, info, file, known) for info in infos}
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is truncated or no .npz file: {error}. Copy or export it again.") from None
    members = {key: value for key, value in found.items() if value is not None}
    names = names_of(part)
    if find(names.tokens, members) is None:
        ids_key = next((key for key in names.ids if key in members), None)
        ids = None if ids_key is None else members[ids_key][:]
        rest = {key: value for key, value in members.items() if key not in (*names.ids, "n")}
        source = per_document(rest, name=NAME, place=str(path), ids=ids)
        if source is not None:
            return source
    return source_of(members, name=NAME, place=str(path), part=part)


def _member(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: NDArray[np.uint8], known: set[str]
) -> Any:
    """Return a member as rows; None for objects under a name that is not `known`."""
    place = f"{path}: {info.filename}"
    packed = info.compress_type != zipfile.ZIP_STORED
    if packed:
        require_unpackable(info.file_size, info.compress_size, place)
    with archive.open(info) as stream:
        header = read_npy_header(stream, place)
        if header.dtype.hasobject:
            return read_objects(stream, place) if info.filename[:-4] in known else None
        # Claims are compared with the size before anything is allocated.
        header.require_bytes(info.file_size - header.begins, place)
        if header.fortran_order or not header.nbytes or not header.shape:
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False)
    if packed:
        return _CompressedRows(path, info.filename, header)
    numbers = stored_bytes(file, info)[header.begins : header.begins + header.nbytes]
    return numbers.view(header.dtype).reshape(header.shape)


class _CompressedRows:
    """Rows of a compressed member: read forward, begun again to go back."""

    def __init__(self, path: Path, member: str, header: NpyHeader) -> None:
        self.path, self.member = path, member
        self.shape, self.dtype, self.begins = header.shape, header.dtype, header.begins
        self.row_bytes = header.nbytes // header.shape[0]
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
