"""Reader of containers of named arrays: npz, safetensors, HDF5 and zarr.

Names are those of :mod:`muvera.convert.sources.named_arrays`.  All formats have the option ``part``,
"docs" or "queries", for a container with both.  HDF5 and zarr also have ``group``, the path of a group.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils.npy_files import NpyHeader, read_npy_header
from ...utils.optional_imports import import_extra
from ..damage import ReadError
from ..parsing.files import starts_with, stored_bytes
from ..parsing.pickles import read_objects
from ..sources.base import Reader, Source
from ..sources.named_arrays import names_of, source_of

__all__ = ["READERS"]

# -- npz --------------------------------------------------------------------------


def _open_npz(path: Path, *, part: str = "docs") -> Source:
    """Open a .npz file; members that are stored without compression stay on disk."""
    known = {name for other in ("docs", "queries") for names in names_of(other) for name in names}
    arrays: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        content: NDArray[np.uint8] = np.memmap(path, np.uint8, "r").view(np.ndarray)
        for info in archive.infolist():
            key = info.filename.removesuffix(".npy")
            if key == info.filename:
                continue
            if key in arrays:
                raise ValueError(f"it has {info.filename} more than once")
            place = f"{path}: {info.filename}"
            with archive.open(info) as stream:
                header = read_npy_header(stream, place)
                if header.dtype.hasobject:
                    if key in known:
                        arrays[key] = read_objects(stream, place)
                    continue
                header.require_bytes(info.file_size - header.begins, place)
                if header.fortran_order or not header.nbytes or not header.shape:
                    stream.seek(0)
                    arrays[key] = np.lib.format.read_array(stream, allow_pickle=False)
                elif info.compress_type != zipfile.ZIP_STORED:
                    arrays[key] = _CompressedRows(path, info.filename, header)
                else:
                    numbers = stored_bytes(content, info)[header.begins : header.begins + header.nbytes]
                    arrays[key] = numbers.view(header.dtype).reshape(header.shape)
    return source_of(arrays, name="npz", place=str(path), part=part)


class _CompressedRows:
    """Rows of a compressed member; reading backwards starts again at its beginning."""

    def __init__(self, path: Path, member: str, header: NpyHeader) -> None:
        self.member = member
        self.shape, self.dtype, self.begins = header.shape, header.dtype, header.begins
        self.row_bytes = header.nbytes // header.shape[0]
        self._archive = zipfile.ZipFile(path)
        self._stream = self._archive.open(member)

    def __del__(self) -> None:
        self._stream.close()
        self._archive.close()

    def __getitem__(self, key: slice) -> NDArray[Any]:
        start, stop, _ = key.indices(self.shape[0])
        needed = max(stop - start, 0) * self.row_bytes
        self._stream.seek(self.begins + start * self.row_bytes)
        content = self._stream.read(needed)
        if len(content) < needed:
            raise ValueError(f"{self.member} ends before its row {stop}")
        return np.frombuffer(content, self.dtype).reshape(-1, *self.shape[1:])


# -- safetensors ------------------------------------------------------------------

_SAFETENSORS_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


class _Bfloat16Rows:
    """Rows of bfloat16 bit patterns, read as float32."""

    def __init__(self, bits: NDArray[np.uint16]) -> None:
        self.bits = bits
        self.shape = bits.shape
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: slice) -> NDArray[np.float32]:
        bits = np.asarray(self.bits[key], np.uint32)
        floats: NDArray[np.float32] = np.left_shift(bits, np.uint32(16)).view(np.float32)
        return floats


def _open_safetensors(path: Path, *, part: str = "docs") -> Source:
    """Open a .safetensors file, memory-mapped; BF16 becomes float32.

    The file is an 8-byte header length, a JSON header ``{name: {dtype, shape, data_offsets}}`` with
    texts under ``__metadata__`` (perhaps ``ids``, a JSON list), and the bytes of the tensors.
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        size = path.stat().st_size
        if length > size - 8:
            raise ValueError(f"its header needs {length} of {size} bytes")
        header: dict[str, Any] = json.loads(stream.read(length))
    metadata = header.pop("__metadata__", None) or {}
    ids = json.loads(metadata["ids"]) if "ids" in metadata else None
    arrays: dict[str, Any] = {}
    for key, entry in header.items():
        start, stop = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if entry["dtype"] not in _SAFETENSORS_TYPES:
            raise ReadError(f"{path}: {key} has dtype {entry['dtype']}. Convert it to F32 or F16.")
        dtype = np.dtype(_SAFETENSORS_TYPES[entry["dtype"]])
        if stop - start != math.prod(shape) * dtype.itemsize or min(start, *shape, 0) < 0:
            raise ValueError(f"{key} has {stop - start} bytes, which do not fit {shape} of {dtype}")
        if 8 + length + stop > size:
            raise ValueError(f"{key} ends after the file's {size} bytes")
        array = (
            np.memmap(path, dtype, "r", 8 + length + start, shape) if stop > start else np.empty(shape, dtype)
        )
        arrays[key] = _Bfloat16Rows(array) if entry["dtype"] == "BF16" else array
    return source_of(arrays, name="safetensors", place=str(path), part=part, ids=ids)


# -- HDF5 -------------------------------------------------------------------------


def _open_hdf5(path: Path, *, part: str = "docs", group: str | None = None) -> Source:
    """Open an HDF5 file; refuse links, external storage and virtual datasets that lead to other files.

    The default group is the root.
    """
    h5py = import_extra("h5py", "hdf5", "Reading HDF5")
    file = h5py.File(path, "r")  # open as long as the source, whose batches read from it
    node = _hdf5_group(h5py, file, group, path)
    place = str(path) if node.name == "/" else f"{path}:{node.name}"
    datasets: dict[str, Any] = {}
    for key, member in _hdf5_members(h5py, node, path).items():
        if isinstance(member, h5py.Dataset):
            if member.external or member.is_virtual:
                raise ReadError(
                    f"{place}: {key} keeps its numbers in other files, which are not read. Copy the dataset into "
                    "one file."
                )
            datasets[key] = member
    return source_of(datasets, name="hdf5", place=place, part=part)


def _hdf5_group(h5py: Any, file: Any, group: str | None, path: Path) -> Any:
    """Return a group; no step on the way may be a link to another file."""
    node = file
    for step in group.strip("/").split("/") if group else ():
        node = _hdf5_members(h5py, node, path).get(step) if isinstance(node, h5py.Group) else None
    members = _hdf5_members(h5py, node, path) if isinstance(node, h5py.Group) else {}
    if not members or all(isinstance(member, h5py.Group) for member in members.values()):
        raise ReadError(
            f"{path} has no datasets; it has the groups {', '.join(file)}. Choose one with group=."
        )
    return node


def _hdf5_members(h5py: Any, node: Any, path: Path) -> dict[str, Any]:
    """Return the members of a group; refuse links that lead to other files or nowhere."""
    own_file = h5py.h5o.get_info(node.id).fileno
    members = {}
    for key in node:
        external = isinstance(node.get(key, getlink=True), h5py.ExternalLink)
        member = None if external else node.get(key)
        # A soft link can lead through another group's external link.
        if member is None or h5py.h5o.get_info(member.id).fileno != own_file:
            raise ReadError(
                f"{path} has a link {key!r} to another file or to nothing. Copy the datasets into one file."
            )
        members[key] = member
    return members


# -- zarr -------------------------------------------------------------------------

#: Codecs that only turn bytes into numbers and texts, under the names of zarr and numcodecs.
_ZARR_CODECS = frozenset(
    (
        "bytes", "transpose", "sharding_indexed", "vlen-utf8", "vlen-bytes", "vlen-array", "gzip", "zstd",
        "blosc", "zlib", "bz2", "lzma", "lz4", "crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3",
        "delta", "shuffle", "bitround", "fixedscaleoffset", "quantize", "packbits", "astype", "json2",
    )
)  # fmt: skip


def _open_zarr(path: Path, *, part: str = "docs", group: str | None = None) -> Source:
    """Open a zarr group of format 2 or 3; refuse codecs that can run programs, such as ``pickle``."""
    zarr = import_extra("zarr", "zarr", "Reading zarr")
    place = str(path) if group is None else f"{path}/{group}"
    # zarr interprets some paths as URLs, and consolidated metadata can refer to arrays elsewhere.
    store = zarr.storage.LocalStore(path, read_only=True)
    node = zarr.open_group(store, mode="r", path=group or "", use_consolidated=False)
    arrays: dict[str, Any] = dict(sorted(node.arrays()))
    for key, array in arrays.items():
        metadata = array.metadata.to_dict()
        for codec in _codecs([metadata.get(kind) for kind in ("codecs", "filters", "compressor")]):
            if codec.removeprefix("numcodecs.") not in _ZARR_CODECS:
                raise ReadError(
                    f"{place}: {key} uses the codec {codec!r}, which may run programs. Write the array with one "
                    f"of {', '.join(sorted(_ZARR_CODECS))}."
                )
        if key in names_of(part).tokens:
            _require_chunks(array, path / array.path, f"{place}: {key}")
    return source_of(arrays, name="zarr", place=place, part=part)


def _codecs(value: Any) -> Iterator[str]:
    """Yield the names of codecs in an array's metadata, and of codecs inside them."""
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from _codecs(entry)
    elif isinstance(value, dict):
        yield str(value.get("name", value.get("id")))
        configuration = value.get("configuration")
        if isinstance(configuration, dict):
            yield from _codecs([configuration.get("codecs"), configuration.get("index_codecs")])


def _require_chunks(array: Any, folder: Path, place: str) -> None:
    """Raise if chunks are missing, as in a partial copy: zarr reads them as zeros."""
    chunk = array.chunks if getattr(array, "shards", None) is None else array.shards
    needed = math.prod(-(-rows // size) for rows, size in zip(array.shape, chunk, strict=True))
    metadata = ("zarr.json", ".zarray", ".zattrs")
    stored = sum(entry.is_file() and entry.name not in metadata for entry in folder.rglob("*"))
    if stored < needed:
        raise ReadError(f"{place} has {stored} of its {needed} chunks. Copy or export it again.")


READERS = (
    Reader(
        "zarr",
        "a zarr group (zarr.json or .zgroup) with tokens and offsets or lengths, or one array per document",
        lambda path: (path / "zarr.json").is_file() or (path / ".zgroup").is_file(),
        _open_zarr,
    ),
    Reader(
        "npz",
        "a .npz file with tokens and lengths or offsets, with emb_0, emb_1, ..., or one array per document",
        lambda path: path.is_file() and path.suffix == ".npz",
        _open_npz,
    ),
    Reader(
        "safetensors",
        "a .safetensors file with tokens and offsets or lengths, or one tensor per document",
        lambda path: path.is_file() and path.suffix == ".safetensors",
        _open_safetensors,
    ),
    Reader(
        "hdf5",
        "a .h5 or .hdf5 file with tokens and offsets or lengths, or one dataset per document",
        lambda path: starts_with(path, b"\x89HDF\r\n\x1a\n"),
        _open_hdf5,
    ),
)
