"""Late-interaction retrieval with an ordinary inner-product index."""

from importlib import import_module
from typing import Any

from .carving import carve_queries
from .chamfer import Explanation, chamfer, chamfer_matrix, explain, rerank, top_k
from .diagnosis import Diagnosis, diagnose
from .fde.config import FDEConfig
from .fde.encoder import FDEEncoder
from .index import MuveraIndex
from .learned.config import LearnedConfig
from .learned.encoder import LearnedEncoder
from .ranking import Ranking
from .tuning import Tuning, tune
from .vectors import MultiVectors

__version__ = "0.1.0"

_ROOMS = ("convert", "theory")


def __getattr__(name: str) -> Any:
    """Import the rooms that not everybody enters when they are first named."""
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Diagnosis",
    "Explanation",
    "FDEConfig",
    "FDEEncoder",
    "LearnedConfig",
    "LearnedEncoder",
    "MultiVectors",
    "MuveraIndex",
    "Ranking",
    "Tuning",
    "__version__",
    "carve_queries",
    "chamfer",
    "chamfer_matrix",
    "diagnose",
    "explain",
    "rerank",
    "top_k",
    "tune",
]
