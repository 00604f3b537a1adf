"""Vector databases as the first stage: one interface, and an index that encodes, filters and ranks."""

from .base import Description, Engine, EngineError, GraphSettings, Rows, SearchOptions
from .engine_index import EngineIndex
from .registry import SCHEMES, is_engine_url, open_engine
from .reports import AddReport, EngineInfo

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
