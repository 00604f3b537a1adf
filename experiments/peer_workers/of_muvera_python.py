"""muvera-python (Rust), which imports as ``muvera`` as ours does."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

Work = Callable[[], Any]


def _encoder() -> Any:
    return importlib.import_module("muvera").Muvera(
        num_repetitions=20,
        num_simhash_projections=5,
        dimension=128,
        projection_type="ams_sketch",
        projection_dimension=16,
    )


def documents_batch(inputs: Mapping[str, Any]) -> Work:
    """The whole batch at once."""
    encoder, documents = _encoder(), inputs["documents"]
    return lambda: encoder.encode_documents(documents)


def documents_single(inputs: Mapping[str, Any]) -> Work:
    """One document a call."""
    encoder, documents = _encoder(), inputs["documents"]
    return lambda: [encoder.encode_documents(document) for document in documents]


def query(inputs: Mapping[str, Any]) -> Work:
    """One query."""
    encoder, tokens = _encoder(), inputs["query"]
    return lambda: encoder.encode_queries(tokens)


OPERATIONS = {"documents_batch": documents_batch, "documents_single": documents_single, "query": query}
