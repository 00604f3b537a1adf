"""muvfde, the C++ reference, which encodes text by text."""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

LIBRARY = "muvfde"


def encoders() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return functions that encode one document and one query.

    The dimension is the input's.
    """
    library = importlib.import_module(LIBRARY)

    def config() -> Any:
        found = library.fixed_dimensional_encoding_config()
        found.set_num_repetitions(20)
        found.set_num_simhash_projections(5)
        found.set_projection_type(library.projection_type.AMS_SKETCH)
        found.set_projection_dimension(16)
        found.set_seed(1)
        return found

    of_documents = config()
    of_documents.set_encoding_type(library.encoding_type.AVERAGE)  # not in a chain: a setter returns a copy
    of_documents.enable_fill_empty(True)
    encode = library.generate_fixed_dimensional_encoding
    return partial(encode, config=of_documents), partial(encode, config=config())
