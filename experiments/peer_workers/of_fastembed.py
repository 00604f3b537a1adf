"""fastembed's Muvera (NumPy)."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

Work = Callable[[], Any]


def _encoder() -> Any:
    library = importlib.import_module("fastembed.postprocess")
    return library.Muvera(dim=128, k_sim=5, dim_proj=16, r_reps=20)


def documents_single(inputs: Mapping[str, Any]) -> Work:
    """One document a call, which is all that it offers."""
    encoder, documents = _encoder(), inputs["documents"]
    return lambda: [encoder.process_document(document) for document in documents]


def query(inputs: Mapping[str, Any]) -> Work:
    """One query."""
    encoder, tokens = _encoder(), inputs["query"]
    return lambda: encoder.process_query(tokens)


OPERATIONS = {"documents_single": documents_single, "query": query}
