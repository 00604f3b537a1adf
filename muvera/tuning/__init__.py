"""From documents, and queries where there are any, to the configuration that suits them."""

from .outcome import TunedRow, Tuning
from .tune import tune

__all__ = ["TunedRow", "Tuning", "tune"]
