"""Vector databases as the first stage: one interface, and an index that encodes, filters and ranks."""

from .base import Description, Engine, EngineError, GraphSettings, Rows, SearchOptions
from .engine_index import AddReport, EngineIndex, EngineInfo
from .registry import SCHEMES, is_engine_url, open_engine

__all__ = [
    "SCHEMES",
    "AddReport",
    "Description",
    "Engine",
    "EngineError",
    "EngineIndex",
    "EngineInfo",
    "GraphSettings",
    "Rows",
    "SearchOptions",
    "is_engine_url",
    "open_engine",
]
