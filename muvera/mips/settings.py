"""HNSWSettings: how a graph is built and searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..utils.checks import given, require_int


@dataclass(frozen=True, kw_only=True)
class HNSWSettings:
    """Settings for building and searching a graph of hnswlib.

    Parameters
    ----------
    m : int
        Links per vector.  More links raise recall, build time and memory (8 bytes per
        link).
    ef_construction : int
        Candidates while building.  More candidates raise recall and build time.
    ef : int
        Candidates while searching.  A search uses twice the number of results if that
        is more.  More candidates raise recall and time.
    seed : int
        Seed of the vectors' levels.  A build with one thread is reproducible; with
        several threads the graph depends on their timing.
    """

    m: int = 16
    ef_construction: int = 200
    ef: int = 200
    seed: int = 42

    def __post_init__(self) -> None:
        for name, minimum in (("m", 2), ("ef_construction", 1), ("ef", 1), ("seed", 0)):
            object.__setattr__(self, name, require_int(name, getattr(self, name), minimum))

    @classmethod
    def of(cls, value: object) -> HNSWSettings:
        """Return `value` as HNSWSettings.

        Parameters
        ----------
        value : HNSWSettings, mapping or None
            A mapping has values by the names of the settings; None means the defaults.

        Returns
        -------
        HNSWSettings

        Raises
        ------
        TypeError, ValueError
            If `value` has another type, or a setting is unknown or invalid.
        """
        if isinstance(value, cls):
            return value
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            raise TypeError(f"hnsw must be HNSWSettings or a dict of its values, got {given(value)}.")
        known = [field.name for field in fields(cls)]
        unknown = [key for key in value if key not in known]
        if unknown:
            raise ValueError(f"hnsw has no {unknown[0]!r}. It has: {', '.join(known)}.")
        try:
            return cls(**value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"hnsw: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name, ready for JSON.

        Returns
        -------
        dict
        """
        return asdict(self)
