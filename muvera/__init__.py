"""Late-interaction retrieval with an ordinary inner-product index."""

from .chamfer import Explanation, chamfer, chamfer_matrix, explain, rerank, top_k
from .diagnosis import Diagnosis, diagnose
from .fde.config import FDEConfig
from .fde.encoder import FDEEncoder
from .index import MuveraIndex
from .ranking import Ranking
from .vectors import MultiVectors

__version__ = "0.1.0"

__all__ = [
    "Diagnosis",
    "Explanation",
    "FDEConfig",
    "FDEEncoder",
    "MultiVectors",
    "MuveraIndex",
    "Ranking",
    "__version__",
    "chamfer",
    "chamfer_matrix",
    "diagnose",
    "explain",
    "rerank",
    "top_k",
]
