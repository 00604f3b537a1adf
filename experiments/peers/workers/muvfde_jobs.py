"""muvfde, the C++ reference."""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

Work = Callable[..., Any]


def _encoder(
    repetitions: int = 20, bits: int = 5, width: int = 16, seed: int = 1, **_: int
) -> tuple[Any, Any]:
    """Return the library and a configuration; the dimension is the input's."""
    library = importlib.import_module("muvfde")
    config = library.fixed_dimensional_encoding_config()
    config.set_num_repetitions(repetitions)
    config.set_num_simhash_projections(bits)
    config.set_projection_type(library.projection_type.AMS_SKETCH)
    config.set_projection_dimension(width)
    config.set_seed(seed)
    return library, config


def encode_document(_: Mapping[str, Any], **settings: int) -> Work:
    """Documents, one after the other."""
    library, config = _encoder(**settings)
    config.set_encoding_type(library.encoding_type.AVERAGE)  # not in a chain: a setter returns a copy
    config.enable_fill_empty(True)
    return partial(library.generate_fixed_dimensional_encoding, config=config)


def encode_query(_: Mapping[str, Any], **settings: int) -> Work:
    """Queries, one after the other."""
    library, config = _encoder(**settings)
    return partial(library.generate_fixed_dimensional_encoding, config=config)


def documents_single(inputs: Mapping[str, Any]) -> Work:
    """One document a call, which is all that it offers."""
    encode, documents = encode_document(inputs), inputs["documents"]
    return lambda: [encode(document) for document in documents]


def query(inputs: Mapping[str, Any]) -> Work:
    """One query."""
    encode, tokens = encode_query(inputs), inputs["query"]
    return lambda: encode(tokens)


def load(_: Mapping[str, Any]) -> Work:
    """Import it, before anything is timed."""
    importlib.import_module("muvfde")
    return lambda: None


OPERATIONS = {
    "load": load,
    "documents_single": documents_single,
    "query": query,
    "encode_document": encode_document,
    "encode_query": encode_query,
}
