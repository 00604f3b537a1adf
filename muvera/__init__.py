"""Late-interaction retrieval with an ordinary inner-product index."""

from .fde.config import FDEConfig
from .fde.encoder import FDEEncoder
from .vectors import MultiVectors

__version__ = "0.1.0"

__all__ = ["FDEConfig", "FDEEncoder", "MultiVectors", "__version__"]
