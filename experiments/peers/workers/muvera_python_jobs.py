"""muvera-python (Rust), which imports as ``muvera`` like this checkout."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

LIBRARY = "muvera"


def encoders() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return functions that encode one document, or several, and one query."""
    encoder: Any = importlib.import_module(LIBRARY).Muvera(
        num_repetitions=20,
        num_simhash_projections=5,
        dimension=128,
        projection_type="ams_sketch",
        projection_dimension=16,
        seed=42,
    )
    return encoder.encode_documents, encoder.encode_queries


def documents_batch(inputs: Mapping[str, Any]) -> Callable[[], Any]:
    """Encode the whole batch at once."""
    encode, documents = encoders()[0], inputs["documents"]
    return lambda: encode(documents)
