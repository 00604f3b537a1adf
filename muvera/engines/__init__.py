"""Vector databases as the first stage: one interface, and an index that encodes, filters and ranks."""

from .base import SCHEMES, Description, Engine, EngineError, open_engine
from .engine_index import AddReport, EngineIndex, EngineInfo

__all__ = [
    "SCHEMES",
    "AddReport",
    "Description",
    "Engine",
    "EngineError",
    "EngineIndex",
    "EngineInfo",
    "open_engine",
]
