"""faiss: product codes of vectors (the MUVERA paper's PQ-256-G)."""

import importlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIBRARY = "faiss"

Work = Callable[..., Any]


def _padded(vectors: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Append zeros so that subvectors of `width` floats divide the vectors."""
    missing = -vectors.shape[1] % width
    return np.ascontiguousarray(np.pad(vectors, ((0, 0), (0, missing))), np.float32)


@lru_cache(maxsize=1)
def _index(path: str) -> Any:
    """Load an index, which the searches of all settings share."""
    return importlib.import_module(LIBRARY).read_index(path)


def build(inputs: Mapping[str, Any], index: str, seed: int, threads: int, subvector_size: int) -> Work:
    """Train product codes on all vectors, at least 256, and write them."""
    faiss: Any = importlib.import_module(LIBRARY)
    vectors = _padded(np.concatenate(inputs["documents"]), subvector_size)

    def work() -> None:
        faiss.omp_set_num_threads(threads)
        size = vectors.shape[1]
        codes = faiss.IndexPQ(size, size // subvector_size, 8, faiss.METRIC_INNER_PRODUCT)
        codes.pq.cp.seed = seed
        codes.train(vectors)
        codes.add(vectors)
        faiss.write_index(codes, index)
        faiss.omp_set_num_threads(1)

    return work


def search(_: Mapping[str, Any], index: str, top_k: int) -> Work:
    """Return (position, score) of the best documents of one vector."""
    opened = _index(index)

    def work(vector: NDArray[np.float32]) -> NDArray[np.float64]:
        padded = np.zeros((1, opened.d), np.float32)
        padded[:, : vector.shape[1]] = vector
        scores, ids = opened.search(padded, top_k)
        pairs: NDArray[np.float64] = np.stack([ids[0], scores[0]], axis=1)[ids[0] >= 0]
        return pairs

    return work


OPERATIONS = {"build": build, "search": search}
