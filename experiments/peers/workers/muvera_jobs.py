"""Jobs of this checkout, and of what its own times are held against: NumPy, SciPy and memory."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

from muvera import FDEConfig, FDEEncoder, MultiVectors, chamfer_matrix
from muvera.convert.pooling import pool_tokens, token_clusters
from muvera.convert.sources.plaid_codec import Codec
from muvera.reranking.chamfer import scores_at

Inputs = Mapping[str, Any]
Work = Callable[[], Any]

FACTOR = 2  # of pooling
MANY = 10  # times over the batch, where two threads are compared with one
CENTROIDS = 1 << 14  # as ColBERT chooses for a million tokens
TOKENS = 1_000_000


def _encoder(documents: MultiVectors) -> FDEEncoder:
    return FDEEncoder(FDEConfig(dimension=documents.dimension)).fit(documents)


def documents_batch(inputs: Inputs) -> Work:
    """Encode the whole batch at once."""
    documents = MultiVectors.from_arrays(inputs["documents"])
    encoder = _encoder(documents)
    return lambda: encoder.encode_documents(documents, threads=1)


def documents_many(inputs: Inputs, threads: int = 1) -> Work:
    """Encode the batch several times over: enough work that its shares among threads are even."""
    documents = MultiVectors.from_arrays(inputs["documents"] * MANY)
    encoder = _encoder(documents)
    return lambda: encoder.encode_documents(documents, threads=threads)


def documents_list(inputs: Inputs) -> Work:
    """Encode the whole batch as a list of arrays: joining them is on the clock."""
    documents = inputs["documents"]
    encoder = _encoder(MultiVectors.from_arrays(documents))
    return lambda: encoder.encode_documents(documents, threads=1)


def documents_single(inputs: Inputs) -> Work:
    """Encode one document a call."""
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
    """Score one query with the same documents in random order, as candidates come."""
    query = MultiVectors.from_arrays([inputs["query"]])
    documents = MultiVectors.from_arrays(inputs["equal_documents"])
    order = np.random.default_rng(0).permutation(len(documents))
    return lambda: scores_at(query, documents, order, threads=1)


def sgemm(size: int) -> Callable[[Inputs], Work]:
    """Return a job that multiplies two square matrices through NumPy."""

    def prepare(_: Inputs) -> Work:
        stream = np.random.default_rng(0)
        left, right = (stream.random((size, size), np.float32) for _ in range(2))
        out = np.empty_like(left)
        return lambda: np.matmul(left, right, out=out)

    return prepare


def decode(_: Inputs) -> Work:
    """Decode 2-bit residuals."""
    stream = np.random.default_rng(0)
    centroids = stream.normal(size=(CENTROIDS, 128)).astype(np.float32)
    weights = np.array([-0.06, -0.02, 0.02, 0.06], np.float32)
    codec = Codec(Path("benchmark"), centroids, weights, 2, threads=1)
    codes = stream.integers(0, CENTROIDS, TOKENS, dtype=np.int32)
    packed = stream.integers(0, 256, (TOKENS, codec.width), dtype=np.uint8)
    return lambda: codec.decode(codes, packed, "codes")


def fill(_: Inputs) -> Work:
    """Write a new array of the decoded size."""
    return lambda: np.full((TOKENS, 128), 1, np.float32)


def pooling(inputs: Inputs) -> Work:
    """Pool a collection."""
    documents = MultiVectors.from_arrays(inputs["pooled"])
    return lambda: pool_tokens(documents, FACTOR)


def pooling_labels(inputs: Inputs) -> Work:
    """Return the clusters."""
    documents = MultiVectors.from_arrays(inputs["pooled"])
    return lambda: token_clusters(documents, FACTOR)[0]


def pooling_scipy(inputs: Inputs) -> Work:
    """Pool document by document through SciPy, with vectorized means."""
    documents = inputs["pooled"]
    return lambda: [_scipy_means(document, _scipy_labels(document)) for document in documents]


def pooling_scipy_loop(inputs: Inputs) -> Work:
    """Pool in the same way with a mean a cluster, as the libraries that encode documents do."""
    documents = inputs["pooled"]
    return lambda: [_scipy_means_in_a_loop(document, _scipy_labels(document)) for document in documents]


def pooling_scipy_labels(inputs: Inputs) -> Work:
    """Return SciPy's clusters."""
    documents = inputs["pooled"]
    return lambda: np.concatenate([_scipy_labels(document) for document in documents])


def _scipy_labels(tokens: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return clusters: the first token stands alone, Ward clusters the others by their distances."""
    labels = np.zeros(len(tokens), np.int64)
    rest = tokens[1:]
    clusters = max(len(rest) // FACTOR, 1)
    if len(rest) <= clusters:
        labels[1:] = np.arange(1, len(tokens))
        return labels
    far = 1 - rest @ rest.T
    condensed = far.clip(0, 2)[np.triu_indices(len(rest), 1)]
    labels[1:] = fcluster(linkage(condensed, "ward"), clusters, "maxclust")
    return labels


def _scipy_means(tokens: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    sums = np.add.reduceat(tokens[order], starts, axis=0)
    return np.asarray(sums / np.linalg.norm(sums, axis=1, keepdims=True), np.float32)


def _scipy_means_in_a_loop(tokens: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float32]:
    means = np.stack([tokens[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)


OPERATIONS: dict[str, Callable[[Inputs], Work]] = {
    "documents_batch": documents_batch,
    "documents_many": documents_many,
    "documents_many_2": lambda inputs: documents_many(inputs, threads=2),
    "documents_list": documents_list,
    "documents_single": documents_single,
    "query": query,
    "chamfer": chamfer,
    "chamfer_at_random": chamfer_at_random,
    **{f"sgemm_{size}": sgemm(size) for size in (512, 1024, 2048)},
    "decode": decode,
    "fill": fill,
    "pooling": pooling,
    "pooling_labels": pooling_labels,
    "pooling_scipy": pooling_scipy,
    "pooling_scipy_loop": pooling_scipy_loop,
    "pooling_scipy_labels": pooling_scipy_labels,
}
