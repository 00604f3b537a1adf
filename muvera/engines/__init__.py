"""Vector databases as the first stage of a search, behind one interface."""

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
