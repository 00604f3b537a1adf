"""WARP through xtr-warp-rs (Rust over torch).

It scores coded residuals, and imputes missing similarities as XTR does.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIBRARY = "xtr_warp.search"

Work = Callable[..., Any]


@lru_cache(maxsize=1)
def _index(folder: str) -> Any:
    """Open an index, which the searches of all settings share."""
    return importlib.import_module(LIBRARY).XTRWarp(folder, device="cpu").load(device="cpu", mmap=False)


def build(inputs: Mapping[str, Any], index: str, seed: int, threads: int, **settings: Any) -> Work:
    """Build the index of all documents in a folder.

    `settings` are those of ``XTRWarp.create``.
    """
    torch: Any = importlib.import_module("torch")
    warp = importlib.import_module(LIBRARY)
    documents = [torch.from_numpy(document.astype(np.float32)) for document in inputs["documents"]]

    def work() -> None:
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        warp.XTRWarp(index, device="cpu").create(
            documents, device="cpu", seed=seed, show_progress=False, **settings
        )
        torch.set_num_threads(1)

    return work


def search(_: Mapping[str, Any], index: str, top_k: int, **settings: Any) -> Work:
    """Return (position, score) of the best documents of one query."""
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(1)
    opened = _index(index)

    def work(query: NDArray[np.float32]) -> NDArray[np.float64]:
        tokens = torch.from_numpy(query)[None]
        found = opened.search(tokens, top_k, num_threads=1, show_progress=False, **settings)[0]
        return np.array(found[:top_k])

    return work
