"""AddReport and EngineInfo: what was written to a database, and what is there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .base import Description

__all__ = ["AddReport", "EngineInfo"]


@dataclass(frozen=True)
class AddReport:
    """What an addition did.

    Parameters
    ----------
    added : int
        Documents that were written.
    skipped : int
        Documents that were there already.
    without_tokens : int
        Documents that were left out, since nothing can find them.
    """

    added: int = 0
    skipped: int = 0
    without_tokens: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class EngineInfo:
    """Facts of a collection in an engine.

    Parameters
    ----------
    engine : str
    location : str
        Without a password.
    documents : int
    description : Description or None
        None before the first documents.
    bytes : int or None
        Of documents and index, where the engine says.
    """

    engine: str
    location: str
    documents: int
    description: Description | None
    bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)
