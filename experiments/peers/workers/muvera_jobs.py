"""Jobs of this checkout, and of NumPy and memory, which its times are compared with."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from muvera import FDEConfig, FDEEncoder, MultiVectors, chamfer_matrix
from muvera.convert.sources.plaid_codec import Codec
from muvera.reranking.chamfer import scores_at

Inputs = Mapping[str, Any]
Work = Callable[[], Any]

MANY = 10  # repetitions of the batch for two threads
CENTROIDS = 1 << 14  # ColBERT's choice for a million tokens
TOKENS = 1_000_000


def _encoder(documents: MultiVectors) -> FDEEncoder:
    encoder = FDEEncoder(FDEConfig(dimension=documents.dimension))
    encoder.fit(documents)
    return encoder


def documents_batch(inputs: Inputs, repeated: int = 1, threads: int = 1) -> Work:
    """Encode the whole batch at once, or several copies of it, which share evenly among threads."""
    documents = MultiVectors.from_arrays(inputs["documents"] * repeated)
    encoder = _encoder(documents)
    return lambda: encoder.encode_documents(documents, threads=threads)


def documents_list(inputs: Inputs) -> Work:
    """Encode the whole batch as a list of arrays, which includes joining them."""
    documents = inputs["documents"]
    encoder = _encoder(MultiVectors.from_arrays(documents))
    return lambda: encoder.encode_documents(documents, threads=1)


def documents_single(inputs: Inputs) -> Work:
    """Encode one document per call."""
    documents = inputs["documents"]
    encoder = _encoder(MultiVectors.from_arrays(documents))
    return lambda: [encoder.encode_documents(document, threads=1) for document in documents]


def query(inputs: Inputs) -> Work:
    """Encode one query."""
    encoder, tokens = _encoder(MultiVectors.from_arrays(inputs["documents"])), inputs["query"]
    return lambda: encoder.encode_queries(tokens, threads=1)


def chamfer(inputs: Inputs) -> Work:
    """Score one query with documents of equal lengths."""
    tokens, documents = inputs["query"], MultiVectors.from_arrays(inputs["equal_documents"])
    return lambda: chamfer_matrix(tokens, documents, threads=1)[0]


def chamfer_at_random(inputs: Inputs) -> Work:
    """Score one query with the same documents in random order, like candidates."""
    tokens = MultiVectors.from_arrays([inputs["query"]])
    documents = MultiVectors.from_arrays(inputs["equal_documents"])
    order = np.random.default_rng(0).permutation(len(documents))
    return lambda: scores_at(tokens, documents, order, threads=1)


def sgemm(_: Inputs, size: int) -> Work:
    """Multiply two square matrices through NumPy."""
    stream = np.random.default_rng(0)
    left, right = (stream.random((size, size), np.float32) for _ in range(2))
    out = np.empty_like(left)
    return lambda: np.matmul(left, right, out=out)


def decode(_: Inputs) -> Work:
    """Decode 2-bit residuals with the decoder of readers."""
    stream = np.random.default_rng(0)
    centroids = stream.normal(size=(CENTROIDS, 128)).astype(np.float32)
    weights = np.array([-0.06, -0.02, 0.02, 0.06], np.float32)
    codec = Codec(centroids, weights, 2, threads=1)
    codes = stream.integers(0, CENTROIDS, TOKENS, dtype=np.int32)
    packed = stream.integers(0, 256, (TOKENS, 32), dtype=np.uint8)
    return lambda: codec.decode(codes, packed, "codes")


def fill(_: Inputs) -> Work:
    """Write a new array of the decoded size."""
    return lambda: np.full((TOKENS, 128), 1, np.float32)


OPERATIONS: dict[str, Callable[..., Work]] = {
    "documents_batch": documents_batch,
    "documents_many": lambda inputs: documents_batch(inputs, MANY),
    "documents_many_2": lambda inputs: documents_batch(inputs, MANY, threads=2),
    "documents_list": documents_list,
    "documents_single": documents_single,
    "query": query,
    "chamfer": chamfer,
    "chamfer_at_random": chamfer_at_random,
    "sgemm_512": lambda inputs: sgemm(inputs, 512),
    "sgemm_1024": lambda inputs: sgemm(inputs, 1024),
    "sgemm_2048": lambda inputs: sgemm(inputs, 2048),
    "decode": decode,
    "fill": fill,
}
