"""Vector databases as the first stage: one interface, and an index that encodes, filters and ranks."""

from .base import SCHEMES, Description, Engine, EngineError, is_engine_url, open_engine
from .engine_index import AddReport, EngineIndex, EngineInfo

__all__ = [
    "SCHEMES",
    "AddReport",
    "Description",
    "Engine",
    "EngineError",
    "EngineIndex",
    "EngineInfo",
    "is_engine_url",
    "open_engine",
]
