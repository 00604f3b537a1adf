"""muvera-python (Rust), which imports as ``muvera`` like this checkout."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any

LIBRARY = "muvera"


def encoders(
    dimension: int = 128, repetitions: int = 20, bits: int = 5, width: int = 16, seed: int = 42
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return functions that encode one document, or several, and one query."""
    encoder: Any = importlib.import_module(LIBRARY).Muvera(
        num_repetitions=repetitions,
        num_simhash_projections=bits,
        dimension=dimension,
        projection_type="ams_sketch",
        projection_dimension=width,
        seed=seed,
    )
    return encoder.encode_documents, encoder.encode_queries


def documents_batch(inputs: Mapping[str, Any]) -> Callable[[], Any]:
    """Encode the whole batch at once."""
    encode, documents = encoders()[0], inputs["documents"]
    return lambda: encode(documents)


OPERATIONS = {"documents_batch": documents_batch}
