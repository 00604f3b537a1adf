"""fastembed's Muvera (NumPy)."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

Work = Callable[..., Any]


def _encoder(
    dimension: int = 128, repetitions: int = 20, bits: int = 5, width: int = 16, seed: int = 42
) -> Any:
    library = importlib.import_module("fastembed.postprocess")
    return library.Muvera(dim=dimension, k_sim=bits, dim_proj=width, r_reps=repetitions, random_seed=seed)


def documents_single(inputs: Mapping[str, Any]) -> Work:
    """One document a call, which is all that it offers."""
    encoder, documents = _encoder(), inputs["documents"]
    return lambda: [encoder.process_document(document) for document in documents]


def query(inputs: Mapping[str, Any]) -> Work:
    """One query."""
    encoder, tokens = _encoder(), inputs["query"]
    return lambda: encoder.process_query(tokens)


def encode_document(_: Mapping[str, Any], **settings: int) -> Work:
    """Documents, one after the other."""
    work: Work = _encoder(**settings).process_document
    return work


def encode_query(_: Mapping[str, Any], **settings: int) -> Work:
    """Queries, one after the other."""
    work: Work = _encoder(**settings).process_query
    return work


def load(_: Mapping[str, Any]) -> Work:
    """Import it, before anything is timed."""
    importlib.import_module("fastembed.postprocess")
    return lambda: None


OPERATIONS = {
    "load": load,
    "documents_single": documents_single,
    "query": query,
    "encode_document": encode_document,
    "encode_query": encode_query,
}
