"""fastembed's Muvera (NumPy), which encodes text by text."""

import importlib
from collections.abc import Callable
from typing import Any

LIBRARY = "fastembed.postprocess"


def encoders(
    dimension: int = 128, repetitions: int = 20, bits: int = 5, width: int = 16, seed: int = 42
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return functions that encode one document and one query."""
    encoder: Any = importlib.import_module(LIBRARY).Muvera(
        dim=dimension, k_sim=bits, dim_proj=width, r_reps=repetitions, random_seed=seed
    )
    return encoder.process_document, encoder.process_query
