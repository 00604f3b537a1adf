"""Readers of named arrays: npy files and folders, npz, safetensors, HDF5 and zarr.

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

from ...utils.npy_files import read_npy_header
from ...utils.optional_imports import import_extra
from ..damage import ReadError
from ..parsing.files import float32_of_bfloat16, read_json, starts_with, stored_bytes
from ..parsing.pickles import load_npy_safely, read_objects
from ..sources.base import LazyRows, Reader, Source
from ..sources.named_arrays import find, missing_tokens, names_of, source_of

__all__ = ["READERS"]

# -- npy --------------------------------------------------------------------------


def _is_npy(path: Path) -> bool:
    if path.is_file():
        return path.suffix == ".npy"
    # A folder with centroids is a quantized index.
    if not path.is_dir() or any((path / name).exists() for name in ("centroids.npy", "centroids.pt")):
        return False
    present = {file.stem for file in path.glob("*.npy")}
    return any(find(names_of(part)["tokens"], present) for part in ("docs", "queries"))


#: Kinds of arrays that may be beside the tokens.
_BESIDE = ("lengths", "offsets", "ids", "mask")


def _open_npy(path: Path, *, part: str = "docs") -> Source:
    """Open a folder, or a .npy file with its lengths beside it."""
    names = names_of(part)
    if path.is_file():
        files = {**_files_beside(path, part), names["tokens"][0]: path}
    else:
        files = {other.stem: other for other in sorted(path.iterdir()) if other.suffix in (".npy", ".json")}
    key = find(names["tokens"], files)
    if key is None:
        raise missing_tokens(part, files)
    known = (key, *(find(names[kind], files) for kind in _BESIDE))
    arrays = {name: _values(files[name]) for name in known if name is not None}
    return source_of(arrays, name="npy", part=part)


def _files_beside(path: Path, part: str) -> dict[str, Path]:
    """Return the files beside a .npy file by array name: "lengths" is ``x_lengths.npy`` or ``lengths.npy``."""
    names = names_of(part)
    stems = (f"{path.stem}_", f"{path.stem.removesuffix('_tokens')}_", "")
    files: dict[str, Path] = {}
    for word in (word for kind in _BESIDE for word in names[kind]):
        candidates = [path.with_name(f"{stem}{word}{end}") for stem in stems for end in (".npy", ".json")]
        for file in reversed(candidates):
            if file != path and file.is_file():
                files[word] = file
    return files


def _values(file: Path) -> Any:
    """Return the array of a .npy file, or the list of a .json file."""
    values = load_npy_safely(file) if file.suffix == ".npy" else read_json(file)
    if not isinstance(values, (np.ndarray, list)):
        raise ReadError(f"{file.name} must hold a JSON list, got {type(values).__name__}.")
    return values


# -- npz --------------------------------------------------------------------------


def _open_npz(path: Path, *, part: str = "docs") -> Source:
    """Open a .npz file; members that are stored without compression stay on disk."""
    known = {name for other in ("docs", "queries") for names in names_of(other).values() for name in names}
    arrays: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        content: NDArray[np.uint8] = np.memmap(path, np.uint8, "r").view(np.ndarray)
        for info in archive.infolist():
            key = info.filename.removesuffix(".npy")
            if key == info.filename:
                continue
            if key in arrays:
                raise ValueError(f"it has {info.filename} more than once")
            with archive.open(info) as stream:
                header = read_npy_header(stream, info.filename)
                if header.dtype.hasobject:
                    if key in known:
                        arrays[key] = read_objects(stream, info.filename)
                    continue
                header.require_bytes(info.file_size - header.begins, info.filename)
                plain = header.shape and header.nbytes and not header.fortran_order
                if plain and info.compress_type == zipfile.ZIP_STORED:
                    numbers = stored_bytes(content, info)[header.begins : header.begins + header.nbytes]
                    arrays[key] = numbers.view(header.dtype).reshape(header.shape)
                else:
                    stream.seek(0)
                    arrays[key] = np.lib.format.read_array(stream, allow_pickle=False)
    return source_of(arrays, name="npz", part=part)


# -- safetensors ------------------------------------------------------------------

_SAFETENSORS_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def _open_safetensors(path: Path, *, part: str = "docs") -> Source:
    """Open a .safetensors file, memory-mapped; BF16 becomes float32.

    The file is an 8-byte header length, a JSON header ``{name: {dtype, shape, data_offsets}}`` with
    texts under ``__metadata__`` (perhaps ``ids``, a JSON list), and the bytes of the tensors.
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        size = path.stat().st_size
        if length > size - 8:
            raise ValueError(f"its header must have at most {max(0, size - 8)} bytes, got {length}")
        header: dict[str, Any] = json.loads(stream.read(length))
    metadata = header.pop("__metadata__", None) or {}
    ids = json.loads(metadata["ids"]) if "ids" in metadata else None
    arrays: dict[str, Any] = {}
    for key, entry in header.items():
        start, stop = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if entry["dtype"] not in _SAFETENSORS_TYPES:
            raise ReadError(f"{key} has dtype {entry['dtype']}. Convert it to F32 or F16.")
        dtype = np.dtype(_SAFETENSORS_TYPES[entry["dtype"]])
        fits = min(start, *shape, 0) >= 0 and 8 + length + stop <= size
        if not fits or stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{key} at bytes {start} to {stop} of {size} does not fit {shape} of {dtype}")
        array = (
            np.memmap(path, dtype, "r", 8 + length + start, shape) if stop > start else np.empty(shape, dtype)
        )
        arrays[key] = _of_bfloat16(array) if entry["dtype"] == "BF16" else array
    return source_of(arrays, name="safetensors", part=part, ids=ids)


def _of_bfloat16(bits: NDArray[np.uint16]) -> LazyRows:
    return LazyRows(bits.shape, lambda key: float32_of_bfloat16(bits[key]))


# -- HDF5 -------------------------------------------------------------------------


def _open_hdf5(path: Path, *, part: str = "docs", group: str = "") -> Source:
    """Open an HDF5 file; refuse links, external storage and virtual datasets, which lead to other files."""
    h5py = import_extra("h5py", "hdf5", "Reading HDF5")
    file = h5py.File(path, "r")  # stays open: the source reads from it
    members: dict[str, Any] = {"": file}
    for step in ["", *filter(None, group.split("/"))]:
        node = members.get(step)
        members = _hdf5_members(h5py, node) if isinstance(node, h5py.Group) else {}
    datasets = {key: member for key, member in members.items() if isinstance(member, h5py.Dataset)}
    if not datasets:
        raise ReadError(
            f"it has no datasets in the group {group or '/'}; the file has {', '.join(file) or 'none'}. "
            "Choose a group with group=."
        )
    for key, dataset in datasets.items():
        if dataset.external or dataset.is_virtual:
            raise ReadError(f"{key} keeps its numbers in other files. Copy the dataset into one file.")
    return source_of(datasets, name="hdf5", part=part)


def _hdf5_members(h5py: Any, group: Any) -> dict[str, Any]:
    """Return the members of a group; raise ReadError for a link, because it can lead to another file."""
    for key in group:
        if not isinstance(group.get(key, getlink=True), h5py.HardLink):
            raise ReadError(
                f"{key} in {group.name} is a link, and links are not read. Copy the datasets into one file."
            )
    return dict(group.items())


# -- zarr -------------------------------------------------------------------------

#: Codecs that only turn bytes into numbers and texts, under the names of zarr and numcodecs.
_ZARR_CODECS = frozenset(
    (
        "bytes", "transpose", "sharding_indexed", "vlen-utf8", "vlen-bytes", "vlen-array", "gzip", "zstd",
        "blosc", "zlib", "bz2", "lzma", "lz4", "crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3",
        "delta", "shuffle", "bitround", "fixedscaleoffset", "quantize", "packbits", "astype", "json2",
    )
)  # fmt: skip


def _open_zarr(path: Path, *, part: str = "docs", group: str = "") -> Source:
    """Open a zarr group of format 2 or 3; refuse codecs that can run programs, such as ``pickle``."""
    zarr = import_extra("zarr", "zarr", "Reading zarr")
    # zarr interprets some paths as URLs, and consolidated metadata can refer to arrays elsewhere.
    store = zarr.storage.LocalStore(path, read_only=True)
    node = zarr.open_group(store, mode="r", path=group, use_consolidated=False)
    arrays: dict[str, Any] = dict(sorted(node.arrays()))
    for key, array in arrays.items():
        metadata = array.metadata.to_dict()
        for codec in _codecs([metadata.get(kind) for kind in ("codecs", "filters", "compressor")]):
            if codec.removeprefix("numcodecs.") not in _ZARR_CODECS:
                raise ReadError(
                    f"{key} uses the codec {codec!r}, which may run programs. Write the array with one "
                    f"of {', '.join(sorted(_ZARR_CODECS))}."
                )
        if key in names_of(part)["tokens"]:
            _require_chunks(array, path / array.path, key)
    return source_of(arrays, name="zarr", part=part)


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


def _require_chunks(array: Any, folder: Path, key: str) -> None:
    """Raise if chunks are missing, as in a partial copy: zarr reads them as zeros."""
    chunk = array.chunks if getattr(array, "shards", None) is None else array.shards
    needed = math.prod(-(-rows // size) for rows, size in zip(array.shape, chunk, strict=True))
    metadata = ("zarr.json", ".zarray", ".zattrs")
    stored = sum(entry.is_file() and entry.name not in metadata for entry in folder.rglob("*"))
    if stored < needed:
        raise ReadError(f"{key} has {stored} of its {needed} chunks. Copy or export it again.")


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
    Reader(
        "npy",
        "a .npy file, or a folder with tokens.npy, docs_tokens.npy, documents.npy, vectors.npy, embeddings.npy or "
        "train.npy, and lengths, doclens or offsets beside it (.npy or .json)",
        _is_npy,
        _open_npy,
    ),
)
