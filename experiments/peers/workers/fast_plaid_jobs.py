"""fast-plaid (PLAID in Rust over torch)."""

import importlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIBRARY = "fast_plaid.search"

Work = Callable[..., Any]


@lru_cache(maxsize=1)
def _index(folder: str) -> Any:
    """Open an index, which the searches of all settings share."""
    return importlib.import_module(LIBRARY).FastPlaid(folder, device="cpu")


def build(inputs: Mapping[str, Any], index: str, seed: int, threads: int, **settings: Any) -> Work:
    """Build the index of all documents in a folder.

    `settings` are those of ``FastPlaid.create``.
    """
    torch: Any = importlib.import_module("torch")
    documents = [torch.from_numpy(document.astype(np.float16)) for document in inputs["documents"]]

    def work() -> None:
        torch.manual_seed(seed)  # k-means' sample is drawn from torch's own stream
        torch.set_num_threads(threads)
        # start_from_scratch=0: else the embeddings of up to 1,000 documents are kept
        # beside the index.
        _index(index).create(documents, seed=seed, start_from_scratch=0, **settings)
        torch.set_num_threads(1)

    return work


def search(_: Mapping[str, Any], index: str, **settings: int) -> Work:
    """Return (position, score) of the best documents of one query."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(1)
    opened = _index(index)
    # More lists than there are end the process.
    lists = len(np.load(Path(index) / "centroids.npy", mmap_mode="r"))
    settings["n_ivf_probe"] = min(settings["n_ivf_probe"], lists)

    def work(query: NDArray[np.float32]) -> NDArray[np.float64]:
        tokens = torch.from_numpy(query)[None]
        return np.array(opened.search(tokens, show_progress=False, n_processes=1, **settings)[0])

    return work
