"""fastembed's Muvera (NumPy), which encodes text by text."""

import importlib
from collections.abc import Callable
from typing import Any

LIBRARY = "fastembed.postprocess"


def encoders() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return functions that encode one document and one query."""
    encoder: Any = importlib.import_module(LIBRARY).Muvera(
        dim=128, k_sim=5, dim_proj=16, r_reps=20, random_seed=42
    )
    return encoder.process_document, encoder.process_query
