"""Writer of PLAID indexes, which ColBERT searches.

A source's own codes are written as they are; other tokens get those of a codec that is fitted to them.  The
files are those of Stanford's ColBERT; :mod:`muvera.convert.readers.plaid` reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.batches import collection_batches
from ...data.multivectors import MultiVectors
from ...data.offsets import running_total
from ...data.validation import Ids, as_ids
from ...reranking.codecs.residual import ResidualCodec, fit_plaid_codec, plaid_centroids, require_plaid_bits
from ...utils.atomic_files import write_json
from .base import NpyStream, gather, new_folder, scratch_beside
from .torch_file import write_torch

__all__ = ["NAME", "write", "write_codes"]

NAME = "plaid"

#: Documents, their tokens' centroids and packed residuals.
Coded = tuple[MultiVectors, NDArray[Any], NDArray[np.uint8]]

# Documents of a chunk, as ColBERT makes them.
_CHUNK = 25_000

# Tokens for each centroid that these are learned from, and tokens at least.
_TOKENS_PER_CENTROID, _LEAST_SAMPLE = 16, 1 << 16

# Tokens that are encoded at a time.
_TOKENS = 1 << 17

_OWN_FILES = ("*.pt", "doclens.*.json", "*.metadata.json", "metadata.json", "plan.json", "pid_docid_map.json")


def write(
    batches: Iterator[MultiVectors],
    target: Path,
    *,
    overwrite: bool,
    place: str = "the source",
    nbits: int = 2,
    bucket_means: bool = False,
) -> None:
    """Write a PLAID index whose codec is learned from these tokens; of each the direction is kept alone.

    While it is written, the tokens take their size on the disk beside it.

    Parameters
    ----------
    nbits : {1, 2, 4, 8}
        Bits a coordinate.
    bucket_means : bool
        A bucket stands for the mean of what falls into it, which loses less than ColBERT's middle.

    Other parameters and errors are those of every writer: see :class:`muvera.convert.registry.Writer`.
    """
    gathered, passing = gather(batches, place)
    require_plaid_bits(nbits, gathered.dimension)
    with new_folder(target, overwrite, _OWN_FILES) as folder, scratch_beside(target) as scratch:
        stream = NpyStream(scratch, gathered.dimension, gathered.dtype)
        for batch in passing:
            stream.add(batch.tokens)
        stream.finish()
        scratch.flush()
        _require_tokens(gathered.num_tokens, place)
        shape = (gathered.num_tokens, gathered.dimension)
        tokens = np.memmap(scratch, gathered.dtype, "r", scratch.tell(), shape)
        fitted = _fitted(tokens, nbits, bucket_means)
        learned = fitted.to_arrays()
        documents = MultiVectors.from_flat(tokens, lengths=gathered.lengths, ids=gathered.ids)
        _fill(folder, _coded(documents, fitted), learned["centroids"], learned["levels"], place)


def write_codes(
    batches: Iterator[Coded],
    centroids: NDArray[np.float32],
    weights: NDArray[np.float32],
    target: Path,
    *,
    overwrite: bool,
    place: str = "the source",
) -> None:
    """Write a PLAID index of codes that refer to `centroids` and bucket `weights`.

    Parameters and errors are those of every writer: see :class:`muvera.convert.registry.Writer`.
    """
    with new_folder(target, overwrite, _OWN_FILES) as folder:
        _fill(folder, batches, centroids, weights, place)


def _require_tokens(count: int, place: str) -> None:
    if count == 0:
        raise ValueError(f"{place} has no token vectors, and there is no PLAID index without any.")


def _fitted(tokens: NDArray[Any], nbits: int, bucket_means: bool) -> ResidualCodec:
    centroids = plaid_centroids(len(tokens))
    most = max(_LEAST_SAMPLE, _TOKENS_PER_CENTROID * centroids)
    picked = np.sort(np.random.default_rng(0).permutation(len(tokens))[:most])
    sample = np.asarray(tokens[picked], np.float32)
    return fit_plaid_codec(sample, nbits, centroids, bucket_means=bucket_means)


def _coded(documents: MultiVectors, codec: ResidualCodec) -> Iterator[Coded]:
    for batch in collection_batches(documents, _TOKENS):
        numbers, _, packed = codec.split_codes(codec.encode(batch.tokens))
        yield batch, numbers, packed


def _fill(
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
    """Codes on their way to files of so many documents, and what is known of all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.count = self.num_documents = self.num_tokens = 0
        self._waiting: list[tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.uint8]]] = []
        self._in_waiting = 0
        self._ids: list[Any] = []
        self._numbers: list[NDArray[np.int32]] = []
        self._lengths: list[NDArray[np.int64]] = []

    def add(self, documents: MultiVectors, numbers: NDArray[Any], packed: NDArray[np.uint8]) -> None:
        """Take documents, and write a chunk when there are enough."""
        if documents.has_ids:
            self._ids.extend(documents.ids.tolist())
        offsets = documents.offsets
        start = 0
        while start < len(documents):
            stop = min(len(documents), start + _CHUNK - self._in_waiting)
            rows = slice(int(offsets[start]), int(offsets[stop]))
            self._waiting.append(
                (documents.lengths[start:stop], np.array(numbers[rows], np.int32), np.array(packed[rows]))
            )
            self._in_waiting += stop - start
            start = stop
            if self._in_waiting == _CHUNK:
                self.finish()

    def finish(self) -> None:
        """Write the documents that wait, if any."""
        if not self._in_waiting:
            return
        lengths, numbers, packed = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
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
        self._waiting, self._in_waiting = [], 0

    def ids(self, place: str) -> Ids | None:
        """Return the ids; None where there are none, or where they are the positions."""
        if not self._ids or self._ids == list(range(self.num_documents)):
            return None
        return as_ids(self._ids, self.num_documents, f"{place}: ids")

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the centroid of every token and its document."""
        lengths = np.concatenate(self._lengths)
        return np.concatenate(self._numbers).astype(np.int64), np.repeat(np.arange(len(lengths)), lengths)


def _write_codec(folder: Path, centroids: NDArray[np.float32], weights: NDArray[np.float32]) -> None:
    halves = centroids.astype(np.float16)
    exact = np.array_equal(halves, centroids)
    write_torch(folder / "centroids.pt", halves if exact else centroids)
    write_torch(folder / "buckets.pt", (weights[1:] + weights[:-1]) / 2, weights)
    # What a coordinate is away from its centroid's on average, which ColBERT reads and does not use.
    write_torch(folder / "avg_residual.pt", np.abs(weights).mean().astype(np.float16).reshape(()))


def _write_inverted_lists(folder: Path, chunks: _Chunks, centroids: int) -> None:
    """Write which documents have a token of each centroid, ascending."""
    numbers, documents = chunks.pairs()
    pairs = np.unique(numbers * chunks.num_documents + documents)
    edges = running_total(np.bincount(pairs // chunks.num_documents, minlength=centroids))
    write_torch(folder / "ivf.pid.pt", (pairs % chunks.num_documents).astype(np.int32), np.diff(edges))
