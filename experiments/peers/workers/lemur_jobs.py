"""LEMUR in torch: learned features of query tokens predict Chamfer similarities."""

import importlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIBRARY = "lemur"

Work = Callable[..., Any]


@lru_cache(maxsize=1)
def _index(path: str) -> Any:
    """Load an index, which the searches of all settings share."""
    index = importlib.import_module(LIBRARY).Lemur(index=path)
    index.load_mlp()
    index.load_w()
    return index


def build(inputs: Mapping[str, Any], index: str, seed: int, threads: int, **settings: Any) -> Work:
    """Train the network on all documents, compute their vectors and save both."""
    lemur: Any = importlib.import_module(LIBRARY)
    torch: Any = importlib.import_module("torch")
    documents = inputs["documents"]
    tokens = np.concatenate(documents).astype(np.float32)
    lengths = np.array([len(document) for document in documents], np.int32)

    def work() -> None:
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        lemur.Lemur(index=index).fit(tokens, lengths, verbose=False, force_retrain=True, **settings)
        torch.set_num_threads(1)

    return work


def search(_: Mapping[str, Any], index: str, top_k: int) -> Work:
    """Return (position, score) of the best documents of one query."""
    opened = _index(index)
    torch: Any = importlib.import_module("torch")
    most = min(top_k, len(opened.W))

    def work(query: NDArray[np.float32]) -> NDArray[np.float64]:
        features = opened.compute_features((query, np.array([len(query)])))
        scores, ids = torch.topk(features @ opened.W.T, most, dim=1)
        return np.stack([ids[0].numpy(), scores[0].numpy()], axis=1).astype(np.float64)

    return work
