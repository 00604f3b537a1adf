"""Col-Bandit (C over NumKong): find the best documents with only the products that it needs."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

LIBRARY = "colbandit"

Work = Callable[[], Any]


def rank(inputs: Mapping[str, Any], *, query: int, k: int, alpha: float) -> Work:
    """Find the k best of one query's candidates, which are packed before timing starts."""
    documents, rows = inputs["documents"], inputs["candidates"][query]
    library = importlib.import_module("colbandit")
    search = library.ColBandit(alpha_ef=alpha).index([documents[row] for row in rows], rows.tolist())
    tokens = inputs["queries"][query]
    return lambda: np.array(search.search(tokens, k)[0], np.int64)


OPERATIONS = {"rank": rank}
