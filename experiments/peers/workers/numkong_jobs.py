"""NumKong (C), whose MaxSim is the sum of the smallest angular distances.

Documents are packed before timing, the query within it.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Inputs = Mapping[str, Any]
Work = Callable[[], Any]


def _work(inputs: Inputs, documents: str, kind: str) -> Work:
    """Score the documents of an input, one by one, with numbers of `kind`.

    For unit vectors, a similarity is 1 less the distance.
    """
    library = importlib.import_module("numkong")

    def converted(tokens: Any) -> Any:
        return tokens if kind == "float32" else library.Tensor(tokens).astype(kind)

    tokens = converted(inputs["query"])
    packed = [library.maxsim_pack(converted(document)) for document in inputs[documents]]

    def work() -> Any:
        query = library.maxsim_pack(tokens)
        distances = [library.maxsim_packed(query, document) for document in packed]
        return query.vector_count - np.array(distances)

    return work


def chamfer(inputs: Inputs) -> Work:
    """Score documents of equal lengths."""
    return _work(inputs, "equal_documents", "float32")


def candidates_float32(inputs: Inputs) -> Work:
    """Score a search's candidates."""
    return _work(inputs, "candidates", "float32")


def candidates_float16(inputs: Inputs) -> Work:
    """Score a search's candidates in float16."""
    return _work(inputs, "candidates", "float16")


def candidates_bfloat16(inputs: Inputs) -> Work:
    """Score a search's candidates in bfloat16."""
    return _work(inputs, "candidates", "bfloat16")
