"""Writer of PLAID indexes, with the files of Stanford's ColBERT.

It writes torch's ``.pt`` files without torch.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Iterator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..data.batches import collection_batches
from ..data.multivectors import MultiVectors
from ..data.validation import as_ids
from ..reranking.codecs import fit_plaid_codec, plaid_centroids, require_plaid_bits
from ..utils.atomic_files import write_json
from .parsing import STORAGES
from .sources import PlaidFacts
from .writers import Gathered, spooled

#: Documents, the centroid numbers of their tokens, and packed residuals.
Coded = tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]

# Documents per chunk, as in ColBERT.
_CHUNK = 25_000

# Tokens per centroid in the sample that the centroids are fitted to.
_TOKENS_PER_CENTROID = 16

# Smallest sample, if there are as many tokens.
_MIN_SAMPLE = 1 << 16

# Tokens encoded at a time.
_TOKENS = 1 << 17

#: Files of an index.
PLAID_FILES = (
    "*.pt",
    "doclens.*.json",
    "*.metadata.json",
    "metadata.json",
    "plan.json",
    "pid_docid_map.json",
)


def write_plaid(gathered: Gathered, folder: Path, *, nbits: int = 2, bucket_means: bool = False) -> None:
    """Fit a codec to the tokens, and write their directions into a new folder.

    A coordinate has 1, 2, 4 or 8 bits (`nbits`): more bits lose less and take more
    space.  With `bucket_means`, a bucket decodes to the mean of its values, which loses
    less than ColBERT's midpoint.  Raise ValueError if there are no tokens, or a token
    does not fill whole bytes.
    """
    require_plaid_bits(nbits, gathered.dimension)
    with spooled(gathered, folder) as documents:
        count = documents.num_tokens
        _require_tokens(count, gathered.place)
        centroids = plaid_centroids(count)
        size = max(_MIN_SAMPLE, _TOKENS_PER_CENTROID * centroids)
        rows = np.sort(np.random.default_rng(0).permutation(count)[:size])
        sample = np.asarray(documents.tokens[rows], np.float32)
        codec = fit_plaid_codec(sample, nbits, centroids, bucket_means=bucket_means)
        batches = collection_batches(documents, _TOKENS)
        coded = ((batch, *codec.split_codes(codec.encode(batch.tokens))) for batch in batches)
        arrays = codec.arrays
        write_codes(coded, arrays["centroids"], arrays["levels"], folder, gathered.place)


def _require_tokens(count: int, place: str) -> None:
    if count == 0:
        raise ValueError(f"{place} has no token vectors, so it cannot be a PLAID index.")


def write_codes(
    batches: Iterator[Coded],
    centroids: NDArray[np.float32],
    weights: NDArray[np.float32],
    folder: Path,
    place: str,
    facts: PlaidFacts | None = None,
) -> None:
    """Write a PLAID index of codes into a new folder.

    The codes refer to `centroids`, float32 (c, dimension).  `weights`, float32
    (2 ** nbits,), are the values that the residual buckets add to a coordinate.
    `place` is the name of the source in messages, and `facts` is what ColBERT stored
    beside these codes.  Raise ValueError if there are no tokens, or an id is repeated.
    """
    ids: list[Any] = []
    pairs = []  # int64: the centroid of a token in the upper 32 bits, its document in the lower
    count = total = chunks = 0
    documents = _documents(batches, ids)
    while chunk := list(islice(documents, _CHUNK)):
        codes, packed = (np.concatenate(arrays) for arrays in zip(*chunk, strict=True))
        lengths = np.array([len(numbers) for numbers, _ in chunk], np.int64)
        write_torch(folder / f"{chunks}.codes.pt", codes)
        write_torch(folder / f"{chunks}.residuals.pt", packed)
        write_json(folder / f"doclens.{chunks}.json", lengths.tolist())
        counts = {
            "passage_offset": count,
            "num_passages": len(lengths),
            "num_embeddings": len(codes),
            "embedding_offset": total,
        }
        write_json(folder / f"{chunks}.metadata.json", counts)
        numbers = np.repeat(np.arange(count, count + len(lengths)), lengths)
        pairs.append(np.unique(codes.astype(np.int64) << 32 | numbers))
        count, total, chunks = count + len(lengths), total + len(codes), chunks + 1
    _require_tokens(total, place)
    _write_codec(folder, centroids, weights, facts)
    lists = np.sort(np.concatenate(pairs))
    totals = np.bincount(lists >> 32, minlength=len(centroids))
    write_torch(folder / "ivf.pid.pt", lists.astype(np.int32), totals)
    if ids and ids != list(range(count)):
        names = as_ids(ids, count, f"{place}: ids")
        write_json(folder / "pid_docid_map.json", {str(i): str(name) for i, name in enumerate(names)})
    config = {"dim": int(centroids.shape[1]), "nbits": len(weights).bit_length() - 1}
    summary = {
        "config": config if facts is None else facts.config | config,
        "num_chunks": chunks,
        "num_partitions": len(centroids),
    }
    mean = total / count
    write_json(folder / "plan.json", summary | {"num_embeddings_est": total, "avg_doclen_est": mean})
    write_json(folder / "metadata.json", summary | {"num_embeddings": total, "avg_doclen": mean})


def _documents(
    batches: Iterator[Coded], ids: list[Any]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.uint8]]]:
    """Yield the centroid numbers and residuals of each document.

    Append the documents' ids to `ids`.
    """
    for documents, numbers, packed in batches:
        ids.extend(documents.ids.tolist() if documents.has_ids else [])
        numbers = np.asarray(numbers, np.int32)
        for start, stop in pairwise(documents.offsets.tolist()):
            yield numbers[start:stop], packed[start:stop]


def _write_codec(
    folder: Path, centroids: NDArray[np.float32], weights: NDArray[np.float32], facts: PlaidFacts | None
) -> None:
    write_torch(folder / "centroids.pt", _halves(centroids))
    # Mean absolute residual of a coordinate; ColBERT reads it but does not use it.
    average = np.abs(weights).mean().astype(np.float16).reshape(())
    cutoffs, values = (weights[1:] + weights[:-1]) / 2, _halves(weights)
    if facts is not None:
        cutoffs, values, average = facts.cutoffs, facts.weights, facts.average
    write_torch(folder / "buckets.pt", cutoffs, values)
    write_torch(folder / "avg_residual.pt", average)


def _halves(values: NDArray[np.float32]) -> NDArray[Any]:
    """Return the values as float16, ColBERT's dtype on a GPU, if that is exact."""
    halves = values.astype(np.float16)
    return halves if np.array_equal(halves, values) else values


# -- files of torch ---------------------------------------------------------------

_KINDS = {np.dtype(code): kind for kind, code in STORAGES.items() if kind != "BFloat16"}

# Alignment of the members' bytes for any number type, as in torch.
_ALIGNMENT = 64

# Tag of the padding in a member's extra field, as in torch.
_PADDING_TAG = b"FB"

# Bytes of a zip member's local header before its name.
_HEADER_SIZE = 30


def write_torch(path: Path, *tensors: NDArray[Any]) -> None:
    """Write a tensor, or a tuple of several, for ``torch.load``.

    The type of the numbers must exist in torch.
    """
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
    """Return the instructions of a pickle that make the tensor of storage `key`."""
    strides = tuple(step // array.itemsize for step in array.strides)
    parts = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(",  # the function, and the mark of its arguments
        b"(", _pickled("storage"), f"ctorch\n{_KINDS[array.dtype]}Storage\n".encode(), _pickled(str(key)),
        _pickled("cpu"), _pickled(array.size), pickle.TUPLE, pickle.BINPERSID,
        _pickled(0), _pickled(array.shape), _pickled(strides),
        pickle.NEWFALSE, b"ccollections\nOrderedDict\n", pickle.EMPTY_TUPLE, pickle.REDUCE,
        pickle.TUPLE, pickle.REDUCE,
    )  # fmt: skip
    return b"".join(parts)


def _pickled(value: object) -> bytes:
    """Return the instructions of plain data.

    The version and the end of their pickle are left out.
    """
    return pickle.dumps(value, 2)[2:-1]
