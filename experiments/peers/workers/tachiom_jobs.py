"""TACHIOM in Rust: token-aware centroids, a graph of them, product codes.

The codes are of residuals.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIBRARY = "tachiom"

Work = Callable[..., Any]


@lru_cache(maxsize=1)
def _index(path: str) -> Any:
    """Load an index, which the searches of all settings share."""
    return importlib.import_module(LIBRARY).Tachiom.load(path)


def build(inputs: Mapping[str, Any], index: str, seed: int, threads: int, **settings: Any) -> Work:
    """Build the index of all documents and save it.

    The threads are those of the process, which is one.
    """
    tachiom = importlib.import_module(LIBRARY)
    documents = inputs["documents"]
    tokens = np.concatenate(documents).astype(np.float16).view(np.uint16)  # the library needs half precision
    lengths = np.array([len(document) for document in documents], np.int32)
    kinds = np.asarray(inputs["token_ids"], np.uint32)

    def work() -> None:
        made = tachiom.Tachiom.build_from_arrays(tokens, kinds, lengths, pq_seed=seed, **settings)
        made.save(index)

    return work


def search(_: Mapping[str, Any], index: str, top_k: int, **settings: Any) -> Work:
    """Return (position, score) of the best documents of one query."""
    opened = _index(index)
    most = min(top_k, opened.len)

    def work(query: NDArray[np.float32]) -> NDArray[np.float64]:
        scores, ids = opened.search(np.ascontiguousarray(query), most, **settings)
        found = np.isfinite(scores)  # fewer than k are filled up with infinities
        return np.stack([ids[found], scores[found]], axis=1)

    return work
