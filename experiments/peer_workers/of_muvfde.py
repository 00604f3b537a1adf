"""muvfde, the C++ reference."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

Work = Callable[[], Any]


def _config(library: Any) -> Any:
    config = library.fixed_dimensional_encoding_config()
    config.set_num_repetitions(20)
    config.set_num_simhash_projections(5)
    config.set_projection_type(library.projection_type.AMS_SKETCH)
    config.set_projection_dimension(16)
    config.set_seed(1)
    return config


def documents_single(inputs: Mapping[str, Any]) -> Work:
    """One document a call, which is all that it offers."""
    library, documents = importlib.import_module("muvfde"), inputs["documents"]
    config = _config(library).set_encoding_type(library.encoding_type.AVERAGE).enable_fill_empty(True)
    encode = library.generate_fixed_dimensional_encoding
    return lambda: [encode(document, config) for document in documents]


def query(inputs: Mapping[str, Any]) -> Work:
    """One query."""
    library, tokens = importlib.import_module("muvfde"), inputs["query"]
    config = _config(library)
    return lambda: library.generate_fixed_dimensional_encoding(tokens, config)


OPERATIONS = {"documents_single": documents_single, "query": query}
