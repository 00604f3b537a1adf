"""muvera-python (Rust), which imports as ``muvera`` as ours does."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

Work = Callable[..., Any]


def _encoder(
    dimension: int = 128, repetitions: int = 20, bits: int = 5, width: int = 16, seed: int = 42
) -> Any:
    return importlib.import_module("muvera").Muvera(
        num_repetitions=repetitions,
        num_simhash_projections=bits,
        dimension=dimension,
        projection_type="ams_sketch",
        projection_dimension=width,
        seed=seed,
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


def encode_document(_: Mapping[str, Any], **settings: int) -> Work:
    """Documents, one after the other."""
    work: Work = _encoder(**settings).encode_documents
    return work


def encode_query(_: Mapping[str, Any], **settings: int) -> Work:
    """Queries, one after the other."""
    work: Work = _encoder(**settings).encode_queries
    return work


def load(_: Mapping[str, Any]) -> Work:
    """Import it, before anything is timed."""
    importlib.import_module("muvera")
    return lambda: None


OPERATIONS = {
    "load": load,
    "documents_batch": documents_batch,
    "documents_single": documents_single,
    "query": query,
    "encode_document": encode_document,
    "encode_query": encode_query,
}
