"""Writer of PLAID indexes, which ColBERT searches.

The codes of a source that has codes are written unchanged; other tokens are encoded by a codec fitted
to them.  The files are those of Stanford's ColBERT.  Its ``.pt`` files are written without torch: a
zip archive with a pickle that describes the tensors, and the bytes of each.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...data.batches import collection_batches
from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...data.validation import Ids, as_ids
from ...reranking.codecs.residual import ResidualCodec, fit_plaid_codec, plaid_centroids, require_plaid_bits
from ...utils.atomic_files import write_json
from .base import NpyStream, gather, new_folder, scratch_beside

__all__ = ["write_codes", "write_plaid", "write_torch"]

#: Documents, the centroid numbers of their tokens, and packed residuals.
Coded = tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]

# Documents per chunk, as in ColBERT.
_CHUNK = 25_000

# Size of the sample for the centroids: tokens per centroid, and the minimum.
_TOKENS_PER_CENTROID, _MIN_SAMPLE = 16, 1 << 16

# Tokens encoded at a time.
_TOKENS = 1 << 17

_OWN_FILES = ("*.pt", "doclens.*.json", "*.metadata.json", "metadata.json", "plan.json", "pid_docid_map.json")

_STORAGES = {
    "<f4": "FloatStorage", "<f2": "HalfStorage", "<i8": "LongStorage", "<i4": "IntStorage", "|u1": "ByteStorage",
}  # fmt: skip

# Alignment of the members' bytes, as in torch, so that they can be mapped as any number type.
_ALIGNMENT = 64

# Size of a zip member's header without name and padding, and the tag of torch's padding.
_HEADER_SIZE, _PADDING_TAG = 30, b"FB"


def write_plaid(
    batches: Iterator[MultiVectors],
    target: Path,
    *,
    overwrite: bool,
    place: str = "the source",
    nbits: int = 2,
    bucket_means: bool = False,
) -> None:
    """Fit a codec to the tokens, and write a PLAID index, which stores only their directions.

    While writing, a temporary copy of the tokens is stored beside the target.

    Parameters
    ----------
    batches, target, overwrite, place
        As for every writer, see :mod:`muvera.convert.writers.collections`.
    nbits : {1, 2, 4, 8}
        Bits per coordinate.
    bucket_means : bool
        Decode a bucket to the mean of its values, which loses less than ColBERT's midpoint.
    """
    gathered, batches = gather(batches, place)
    require_plaid_bits(nbits, gathered.dimension)
    with new_folder(target, overwrite, _OWN_FILES) as folder, scratch_beside(target) as scratch:
        stream = NpyStream(scratch, gathered.dimension, gathered.dtype)
        for batch in batches:
            stream.add(batch.tokens)
        stream.finish()
        scratch.flush()
        _require_tokens(gathered.num_tokens, place)
        shape = (gathered.num_tokens, gathered.dimension)
        tokens = np.memmap(scratch, gathered.dtype, "r", scratch.tell(), shape)
        codec = _fitted(tokens, nbits, bucket_means)
        documents = MultiVectors.from_flat(tokens, lengths=gathered.lengths, ids=gathered.ids)
        arrays = codec.to_arrays()
        _write_index(folder, _coded(documents, codec), arrays["centroids"], arrays["levels"], place)


def write_codes(
    batches: Iterator[Coded],
    centroids: NDArray[np.float32],
    weights: NDArray[np.float32],
    target: Path,
    *,
    overwrite: bool,
    place: str = "the source",
) -> None:
    """Write a PLAID index of codes that refer to `centroids` and bucket `weights`."""
    with new_folder(target, overwrite, _OWN_FILES) as folder:
        _write_index(folder, batches, centroids, weights, place)


def _require_tokens(count: int, place: str) -> None:
    if count == 0:
        raise ValueError(f"{place} has no token vectors, so it cannot be a PLAID index.")


def _fitted(tokens: NDArray[Any], nbits: int, bucket_means: bool) -> ResidualCodec:
    centroids = plaid_centroids(len(tokens))
    size = max(_MIN_SAMPLE, _TOKENS_PER_CENTROID * centroids)
    rows = np.sort(np.random.default_rng(0).permutation(len(tokens))[:size])
    sample = np.asarray(tokens[rows], np.float32)
    return fit_plaid_codec(sample, nbits, centroids, bucket_means=bucket_means)


def _coded(documents: MultiVectors, codec: ResidualCodec) -> Iterator[Coded]:
    for batch in collection_batches(documents, _TOKENS):
        numbers, packed = codec.split_codes(codec.encode(batch.tokens))
        yield batch, numbers, packed


def _write_index(
    folder: Path,
    batches: Iterator[Coded],
    centroids: NDArray[np.float32],
    weights: NDArray[np.float32],
    place: str,
) -> None:
    chunks = _Chunks(folder)
    for batch in batches:
        chunks.add(*batch)
    chunks.finish()
    _require_tokens(chunks.num_tokens, place)
    _write_codec(folder, centroids, weights)
    _write_inverted_lists(folder, chunks, len(centroids))
    ids = chunks.ids(place)
    if ids is not None:
        write_json(folder / "pid_docid_map.json", {str(i): str(name) for i, name in enumerate(ids)})
    counts = {
        "config": {"dim": int(centroids.shape[1]), "nbits": len(weights).bit_length() - 1},
        "num_chunks": chunks.count,
        "num_partitions": len(centroids),
    }
    total, mean = chunks.num_tokens, chunks.num_tokens / chunks.num_documents
    write_json(folder / "plan.json", counts | {"num_embeddings_est": total, "avg_doclen_est": mean})
    write_json(folder / "metadata.json", counts | {"num_embeddings": total, "avg_doclen": mean})


class _Chunks:
    """Writer of chunks that collects the ids, lengths and centroid numbers of all documents."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.count = self.num_documents = self.num_tokens = 0
        self._pending: list[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8]]] = []
        self._num_pending = 0
        self._ids: list[Any] = []
        self._numbers: list[NDArray[np.int32]] = []
        self._lengths: list[NDArray[np.int64]] = []

    def add(self, documents: MultiVectors, numbers: NDArray[Any], packed: NDArray[np.uint8]) -> None:
        """Add documents, and write every chunk that is full."""
        if documents.has_ids:
            self._ids.extend(documents.ids.tolist())
        offsets = documents.offsets
        start = 0
        while start < len(documents):
            stop = min(len(documents), start + _CHUNK - self._num_pending)
            rows = slice(int(offsets[start]), int(offsets[stop]))
            self._pending.append(
                (documents.lengths[start:stop], np.array(numbers[rows], np.int32), np.array(packed[rows]))
            )
            self._num_pending += stop - start
            start = stop
            if self._num_pending == _CHUNK:
                self.finish()

    def finish(self) -> None:
        """Write the pending documents, if any."""
        if not self._num_pending:
            return
        lengths, numbers, packed = (np.concatenate(arrays) for arrays in zip(*self._pending, strict=True))
        name = str(self.count)
        write_torch(self._folder / f"{name}.codes.pt", numbers)
        write_torch(self._folder / f"{name}.residuals.pt", packed)
        write_json(self._folder / f"doclens.{name}.json", lengths.tolist())
        write_json(
            self._folder / f"{name}.metadata.json",
            {
                "passage_offset": self.num_documents,
                "num_passages": len(lengths),
                "num_embeddings": len(numbers),
                "embedding_offset": self.num_tokens,
            },
        )
        self._numbers.append(numbers)
        self._lengths.append(lengths)
        self.count += 1
        self.num_documents += len(lengths)
        self.num_tokens += len(numbers)
        self._pending, self._num_pending = [], 0

    def ids(self, place: str) -> Ids | None:
        """Return the ids; None without ids, or if they are the positions."""
        if not self._ids or self._ids == list(range(self.num_documents)):
            return None
        return as_ids(self._ids, self.num_documents, f"{place}: ids")

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the centroid and the document of every token."""
        lengths = np.concatenate(self._lengths)
        return np.concatenate(self._numbers).astype(np.int64), np.repeat(np.arange(len(lengths)), lengths)


def _write_codec(folder: Path, centroids: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
    halves = centroids.astype(np.float16)
    exact = np.array_equal(halves, centroids)
    write_torch(folder / "centroids.pt", halves if exact else centroids)
    write_torch(folder / "buckets.pt", (weights[1:] + weights[:-1]) / 2, weights)
    # Mean absolute residual of a coordinate; ColBERT reads it but does not use it.
    write_torch(folder / "avg_residual.pt", np.abs(weights).mean().astype(np.float16).reshape(()))


def _write_inverted_lists(folder: Path, chunks: _Chunks, centroids: int) -> None:
    """Write, for each centroid, the documents with one of its tokens in ascending order."""
    numbers, documents = chunks.pairs()
    pairs = np.unique(numbers * chunks.num_documents + documents)
    edges = running_total(np.bincount(pairs // chunks.num_documents, minlength=centroids))
    write_torch(folder / "ivf.pid.pt", (pairs % chunks.num_documents).astype(np.int32), np.diff(edges))


def write_torch(path: Path, *tensors: NDArray[Any]) -> None:
    """Write one tensor, or a tuple of several, for ``torch.load``; `_STORAGES` lists the possible dtypes."""
    arrays = [np.ascontiguousarray(tensor).reshape(tensor.shape) for tensor in tensors]
    described = b"".join(_pickled_tensor(key, array) for key, array in enumerate(arrays))
    if len(arrays) > 1:
        described = pickle.MARK + described + pickle.TUPLE
    members: dict[str, bytes | memoryview] = {
        "data.pkl": pickle.PROTO + b"\x02" + described + pickle.STOP,
        "byteorder": b"little",
        **{f"data/{key}": array.reshape(-1).view(np.uint8).data for key, array in enumerate(arrays)},
        "version": b"3\n",
    }
    with path.open("wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(_aligned_member(f"{path.stem}/{name}", stream), content)


def _aligned_member(name: str, stream: BinaryIO) -> zipfile.ZipInfo:
    """Return a member without a date, padded so that its bytes are aligned."""
    info = zipfile.ZipInfo(name)
    start = stream.tell() + _HEADER_SIZE + len(name) + 4
    count = -start % _ALIGNMENT
    info.extra = _PADDING_TAG + struct.pack("<H", count) + b"Z" * count
    return info


def _pickled_tensor(key: int, array: NDArray[Any]) -> bytes:
    """Return the pickle opcodes that make the tensor of storage `key`."""
    strides = [step // array.itemsize for step in array.strides]
    storage = _pickled_tuple(
        _pickled_str("storage"),
        _pickled_name("torch", _STORAGES[array.dtype.str]),
        _pickled_str(str(key)),
        _pickled_str("cpu"),
        _pickled_int(array.size),
    )
    arguments = _pickled_tuple(
        storage + pickle.BINPERSID,
        _pickled_int(0),
        _pickled_tuple(*map(_pickled_int, array.shape)),
        _pickled_tuple(*map(_pickled_int, strides)),
        pickle.NEWFALSE,
        _pickled_name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE,
    )
    return _pickled_name("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def _pickled_name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _pickled_tuple(*values: bytes) -> bytes:
    return pickle.MARK + b"".join(values) + pickle.TUPLE


def _pickled_str(value: str) -> bytes:
    encoded = value.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _pickled_int(value: int) -> bytes:
    if value < 1 << 31:
        return pickle.BININT + struct.pack("<i", value)
    return pickle.LONG1 + b"\x08" + struct.pack("<q", value)
