"""maxsim-cpu (Rust over libxsmm)."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

Work = Callable[[], Any]


def chamfer(inputs: Mapping[str, Any]) -> Work:
    """Score documents of equal lengths as one array."""
    library = importlib.import_module("maxsim_cpu")
    tokens, documents = inputs["query"], inputs["equal_documents"]
    return lambda: library.maxsim_scores(tokens, documents)


def chamfer_list(inputs: Mapping[str, Any]) -> Work:
    """Score documents as a list of arrays."""
    library = importlib.import_module("maxsim_cpu")
    tokens, documents = inputs["query"], list(inputs["equal_documents"])
    return lambda: library.maxsim_scores_variable(tokens, documents)


def candidates_float32(inputs: Mapping[str, Any]) -> Work:
    """Score a search's candidates, a list of arrays of any lengths."""
    library = importlib.import_module("maxsim_cpu")
    tokens, documents = inputs["query"], inputs["candidates"]
    return lambda: library.maxsim_scores_variable(tokens, documents)
