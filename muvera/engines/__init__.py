"""Vector databases as the first stage: one interface, and an index that encodes, filters and ranks."""

from .base import SCHEMES, AddReport, Description, Engine, EngineError, EngineInfo, open_engine
from .engine_index import EngineIndex

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
