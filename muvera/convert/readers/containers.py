"""Readers of named arrays: npy files and folders, npz, safetensors, HDF5 and zarr.

A container has either one array of tokens with lengths or offsets, or one array per
document.  Ids and a mask are optional.  The same names work in every container.  For a
container with both, `part` is "docs" or "queries".
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...data.validation import as_integers, as_offsets, offsets_from_lengths
from ...utils.arrays import read_npy_header
from ...utils.checks import import_extra
from ..parsing import float32_of_bfloat16, load_npy_safely, read_json, read_objects, starts_with, stored_bytes
from ..sources import Document, FlatSource, LazyRows, Reader, ReadError, RowArray, RowSource, Source, unpadded

# -- names ------------------------------------------------------------------------

#: Words in the names of a collection's arrays; the first name that exists is used.
_WORDS = {
    "tokens": ("tokens", "embeddings", "vectors"),
    "lengths": ("lengths", "lens", "doclens", "counts"),
    "offsets": ("offsets", "indptr"),
    "ids": ("ids", "doc_ids"),
    "mask": ("mask", "attention_mask", "masks"),
}
_PREFIXES = {
    "docs": ("", "docs_", "doc_", "documents_", "train_"),
    "queries": ("queries_", "query_", "test_"),
}
#: Further names of the tokens.
_TOKENS = {
    "docs": ("documents", "train"),
    "queries": ("queries", "query_embedding", "query_embeddings", "test"),
}


def _names(part: str) -> dict[str, list[str]]:
    """Return the possible names of each kind of array of `part`.

    The part must be "docs" or "queries".
    """
    if part not in _PREFIXES:
        raise ReadError(f"part must be 'docs' or 'queries', got {part!r}.")
    names = {kind: [p + word for p in _PREFIXES[part] for word in words] for kind, words in _WORDS.items()}
    names["tokens"] += _TOKENS[part]
    return names


def _examples(part: str, kind: str) -> str:
    """Return the names of a kind of array of `part` with its first prefix."""
    return ", ".join(_names(part)[kind][: len(_WORDS[kind])])


def _find(part: str, present: Collection[str]) -> dict[str, str]:
    """Return the name of each kind of array of `part` that is present."""
    found = {kind: [name for name in names if name in present] for kind, names in _names(part).items()}
    return {kind: names[0] for kind, names in found.items() if names}


def _missing_tokens(part: str, present: Collection[str]) -> ReadError:
    return ReadError(
        f"it has no token vectors under a known name: looked for {_examples(part, 'tokens')} "
        f"(part={part!r}), found {', '.join(sorted(present)[:12]) or 'nothing'}. Rename the array."
    )


# -- sources ----------------------------------------------------------------------


def _source(arrays: Mapping[str, RowArray], name: str, part: str) -> Source:
    """Return a source over a container's arrays."""
    found = _find(part, arrays.keys())
    ids = _stored_ids(arrays, found)
    if "tokens" not in found:
        return _per_document(arrays, part, ids, name)
    key = found["tokens"]
    tokens = arrays[key]
    shape = tuple(arrays[key].shape)
    if tokens.dtype == object:
        return _one_by_one(cast("Collection[RowArray]", tokens), ids, name)
    if tokens.dtype.kind != "f":
        raise ReadError(
            f"{key} has dtype {tokens.dtype}, but token vectors must be floating point. Convert them first."
        )
    if len(shape) not in (2, 3) or 0 in shape[1:]:
        raise ValueError(f"{key} must have 2 axes, or 3 if padded, got {shape}")
    if len(shape) == 3:
        return _padded(tokens, _mask(arrays, found, shape), ids, name)
    if "lengths" in found:
        bounds = offsets_from_lengths(arrays[found["lengths"]][:], shape[0], found["lengths"])
    elif "offsets" in found:
        bounds = as_offsets(arrays[found["offsets"]][:], shape[0], found["offsets"])
    else:
        raise ReadError(
            f"it has {shape[0]} token vectors in {key}, but not the number of tokens of each document. Add an "
            f"array of these numbers ({_examples(part, 'lengths')}), or of offsets "
            f"({_examples(part, 'offsets')})."
        )
    return FlatSource(tokens, bounds, ids, name=name)


def _stored_ids(arrays: Mapping[str, RowArray], found: dict[str, str]) -> list[Any] | None:
    """Return the ids; bytes are UTF-8."""
    if "ids" in found:
        ids = arrays[found["ids"]][:]
    elif {"ids_utf8", "ids_offsets"} <= arrays.keys():  # as our writers pack strings
        text = np.asarray(arrays["ids_utf8"][:], np.uint8).tobytes()
        ids = [text[start:stop] for start, stop in pairwise(as_offsets(arrays["ids_offsets"][:], len(text)))]
    else:
        return None
    listed = ids if isinstance(ids, list) else np.asarray(ids).tolist()
    return [value.decode("utf-8") if isinstance(value, bytes) else value for value in listed]


def _mask(arrays: Mapping[str, RowArray], found: dict[str, str], shape: tuple[int, ...]) -> RowArray | None:
    """Return the mask (n, longest) of padded documents.

    It is stored or made from their lengths; None without both.
    """
    if "mask" in found:
        mask = arrays[found["mask"]]
        if tuple(mask.shape) != shape[:2]:
            raise ValueError(
                f"{found['mask']} has shape {tuple(mask.shape)}, but the tokens need {shape[:2]}"
            )
        return mask
    if "lengths" not in found:
        return None
    lengths = as_integers(arrays[found["lengths"]][:], found["lengths"])
    if lengths.shape != shape[:1] or (lengths < 0).any() or (lengths > shape[1]).any():
        raise ValueError(
            f"{found['lengths']} must contain one length of 0 to {shape[1]} for each of {shape[0]} "
            f"documents, got {lengths}"
        )
    return np.arange(shape[1]) < lengths[:, None]


def _padded(tokens: RowArray, mask: RowArray | None, ids: list[Any] | None, name: str) -> RowSource:
    """Return a source over a padded array (n, longest, dimension)."""
    count, _, dimension = map(int, tokens.shape)

    def documents() -> Iterator[Document]:
        for rows, dropped in unpadded(tokens, mask):
            yield Document(rows, "the padded array", dropped=dropped)

    return RowSource(documents, name=name, ids=ids, num_documents=count, dimension=dimension)


def _per_document(arrays: Mapping[str, RowArray], part: str, ids: list[Any] | None, name: str) -> RowSource:
    """Return a source over one array per document.

    The arrays are ``emb_0, emb_1, ...``, sorted by number, or their names are ids.
    """
    rest = {key: array for key, array in arrays.items() if key not in (*_names(part)["ids"], "n")}
    if not rest or any(len(array.shape) != 2 or array.dtype.kind != "f" for array in rest.values()):
        raise _missing_tokens(part, arrays.keys())
    keys = list(rest)
    if not all(re.fullmatch(r"emb_\d+", key) for key in keys):
        return _one_by_one(list(rest.values()), keys if ids is None else ids, name)
    keys.sort(key=lambda key: int(key[4:]))
    if keys != [f"emb_{i}" for i in range(len(keys))]:
        raise ReadError(
            f"it has {len(keys)} documents up to {keys[-1]}: some are missing. Number them from emb_0."
        )
    return _one_by_one([rest[key] for key in keys], ids, name)


def _one_by_one(arrays: Collection[RowArray], ids: list[Any] | None, name: str) -> RowSource:
    """Return a source over one array per document."""

    def documents() -> Iterator[Document]:
        for i, array in enumerate(arrays):
            tokens = array[:] if hasattr(array, "shape") else array
            if not isinstance(tokens, np.ndarray) or (tokens.dtype.kind != "f" and tokens.size):
                kind = getattr(tokens, "dtype", type(tokens).__name__)
                raise ReadError(
                    f"document {i} must be an array of floats, got {kind}. Convert it to float32."
                )
            yield Document(tokens, f"array {i}")

    return RowSource(documents, name=name, ids=ids, num_documents=len(arrays))


# -- npy --------------------------------------------------------------------------


def _is_npy(path: Path) -> bool:
    if path.is_file():
        return path.suffix == ".npy"
    # A folder with centroids is a quantized index.
    if not path.is_dir() or any((path / name).exists() for name in ("centroids.npy", "centroids.pt")):
        return False
    present = {file.stem for file in path.glob("*.npy")}
    return any("tokens" in _find(part, present) for part in _PREFIXES)


def _open_npy(path: Path, *, part: str = "docs") -> Source:
    """Open a .npy file, or a folder of .npy files with usual names."""
    folder = path.parent if path.is_file() else path
    files = {other.stem: other for other in sorted(folder.iterdir()) if other.suffix in (".npy", ".json")}
    if path.is_file():
        for prefix in (
            f"{path.stem.removesuffix('_tokens')}_",
            f"{path.stem}_",
        ):  # x_lengths.npy before lengths.npy
            files |= {
                stem.removeprefix(prefix): file for stem, file in files.items() if stem.startswith(prefix)
            }
        files[_names(part)["tokens"][0]] = path
    found = _find(part, files)
    if "tokens" not in found:
        raise _missing_tokens(part, files)
    return _source({name: _values(files[name]) for name in found.values()}, "npy", part)


def _values(file: Path) -> Any:
    """Return the array of a .npy file, or the list of a .json file."""
    values = load_npy_safely(file) if file.suffix == ".npy" else read_json(file)
    if not isinstance(values, (np.ndarray, list)):
        raise ReadError(f"{file.name} must contain a JSON list, got {type(values).__name__}.")
    return values


# -- npz --------------------------------------------------------------------------


def _open_npz(path: Path, *, part: str = "docs") -> Source:
    """Open a .npz file.

    Members that are stored without compression stay on disk.
    """
    known = {name for other in _PREFIXES for names in _names(other).values() for name in names}
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
    return _source(arrays, "npz", part)


# -- safetensors ------------------------------------------------------------------

_SAFETENSORS_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def _open_safetensors(path: Path, *, part: str = "docs") -> Source:
    """Open a .safetensors file.

    It has an 8-byte header length, a JSON header with texts under ``__metadata__``
    (perhaps ``ids``, a JSON list), and the bytes of the tensors, which are
    memory-mapped.  BF16 becomes float32.
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        size = path.stat().st_size
        if length > size - 8:
            raise ValueError(f"its header must have at most {max(0, size - 8)} bytes, got {length}")
        header: dict[str, Any] = json.loads(stream.read(length))
    metadata = header.pop("__metadata__", None) or {}
    arrays: dict[str, Any] = {"ids": json.loads(metadata["ids"])} if "ids" in metadata else {}
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
        arrays[key] = array if entry["dtype"] != "BF16" else _of_bfloat16(array)
    return _source(arrays, "safetensors", part)


def _of_bfloat16(bits: NDArray[np.uint16]) -> LazyRows:
    return LazyRows(bits.shape, lambda key: float32_of_bfloat16(bits[key]))


# -- HDF5 -------------------------------------------------------------------------


def _open_hdf5(path: Path, *, part: str = "docs") -> Source:
    """Open an HDF5 file.

    Links, external storage and virtual datasets are refused, because they lead to other
    files.
    """
    h5py = import_extra("h5py", "hdf5", "Reading HDF5")
    file = h5py.File(path, "r")  # stays open: the source reads from it
    for key in file:
        if not isinstance(file.get(key, getlink=True), h5py.HardLink):
            raise ReadError(f"{key} is a link, and links are not read. Copy the datasets into one file.")
    datasets = {key: member for key, member in file.items() if isinstance(member, h5py.Dataset)}
    for key, dataset in datasets.items():
        if dataset.external or dataset.is_virtual:
            raise ReadError(f"{key} keeps its numbers in other files. Copy the dataset into one file.")
    return _source(datasets, "hdf5", part)


# -- zarr -------------------------------------------------------------------------

#: Codecs that only turn bytes into numbers and texts, under the names of zarr and
#: numcodecs.
_ZARR_CODECS = frozenset(
    (
        "bytes", "transpose", "sharding_indexed", "vlen-utf8", "vlen-bytes", "vlen-array", "gzip", "zstd",
        "blosc", "zlib", "bz2", "lzma", "lz4", "crc32c", "crc32", "adler32", "fletcher32", "jenkins_lookup3",
        "delta", "shuffle", "bitround", "fixedscaleoffset", "quantize", "packbits", "astype", "json2",
    )
)  # fmt: skip


def _open_zarr(path: Path, *, part: str = "docs") -> Source:
    """Open a zarr group.

    Codecs that can run programs, such as ``pickle``, are refused.
    """
    zarr = import_extra("zarr", "zarr", "Reading zarr")
    # zarr interprets some paths as URLs, and consolidated metadata can refer to arrays
    # elsewhere.
    store = zarr.storage.LocalStore(path, read_only=True)
    node = zarr.open_group(store, mode="r", use_consolidated=False)
    arrays: dict[str, Any] = dict(sorted(node.arrays()))
    for key, array in arrays.items():
        for codec in _codecs(array.metadata.to_dict()):
            if codec.removeprefix("numcodecs.") not in _ZARR_CODECS:
                raise ReadError(
                    f"{key} uses the codec {codec!r}, which may run programs. Write the array with one "
                    f"of {', '.join(sorted(_ZARR_CODECS))}."
                )
        if key in _names(part)["tokens"]:
            _require_chunks(array, path / array.path, key)
    return _source(arrays, "zarr", part)


def _codecs(metadata: dict[str, Any]) -> list[str]:
    """Return the names of codecs in an array's metadata, and of codecs inside them."""
    names: list[str] = []
    codecs = json.dumps([metadata.get(kind) for kind in ("codecs", "filters", "compressor")])
    json.loads(
        codecs, object_hook=lambda of: names.extend(str(of[key]) for key in ("name", "id") if key in of)
    )
    return names


def _require_chunks(array: Any, folder: Path, key: str) -> None:
    """Raise if chunks are missing, as in a partial copy: zarr reads them as zeros."""
    chunk = array.chunks if getattr(array, "shards", None) is None else array.shards
    needed = math.prod(-(-rows // size) for rows, size in zip(array.shape, chunk, strict=True))
    metadata = ("zarr.json", ".zarray", ".zattrs")
    stored = sum(entry.is_file() and entry.name not in metadata for entry in folder.rglob("*"))
    if stored < needed:
        raise ReadError(f"{key} has {stored} of its {needed} chunks. Copy or export it again.")


def _is_file(suffix: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.suffix == suffix


READERS = (
    Reader(
        "zarr",
        lambda path: any((path / name).is_file() for name in ("zarr.json", ".zgroup")),
        _open_zarr,
        "docs.zarr",
        "a zarr group (zarr.json or .zgroup) with tokens and offsets or lengths, or one array per document, "
        "in the order of their names",
    ),
    Reader(
        "npz",
        _is_file(".npz"),
        _open_npz,
        "docs.npz",
        "a .npz file with tokens and lengths or offsets, with emb_0, emb_1, ..., or one array per document",
    ),
    Reader(
        "safetensors",
        _is_file(".safetensors"),
        _open_safetensors,
        "docs.safetensors",
        "a .safetensors file with tokens and offsets or lengths, or one tensor per document, in the order of "
        "their names (the library sorts them)",
    ),
    Reader(
        "hdf5",
        lambda path: starts_with(path, b"\x89HDF\r\n\x1a\n"),
        _open_hdf5,
        "docs.h5",
        "a .h5 or .hdf5 file with tokens and offsets or lengths, or one dataset per document, in the order "
        "of their names (with track_order=True in the order of writing)",
    ),
    Reader(
        "npy",
        _is_npy,
        _open_npy,
        "docs_tokens.npy",
        "a .npy file, or a folder with tokens.npy, vectors.npy or embeddings.npy with lengths or offsets",
    ),
)
