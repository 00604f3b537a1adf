"""HNSWSettings and USearchSettings: how graphs are built and searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from ..utils.checks import given, require_choice, require_int

__all__ = ["HNSWSettings", "Precision", "USearchSettings", "settings_from"]

Precision = Literal["bfloat16", "int8", "float32"]


class _GraphSettings:
    """Checks of whole numbers, and plain values."""

    def __post_init__(self) -> None:
        for name, minimum in (("m", 2), ("ef_construction", 1), ("ef", 1), ("seed", 0)):
            if hasattr(self, name):
                object.__setattr__(self, name, require_int(name, getattr(self, name), minimum))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, by the parameters' names."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, kw_only=True)
class HNSWSettings(_GraphSettings):
    """How a graph of hnswlib is built and searched.

    Parameters
    ----------
    m : int
        Links per vector.  More raise recall, build time and memory (8 bytes per link).
    ef_construction : int
        Candidates while building.  More raise recall and build time.
    ef : int
        Candidates while searching.  More raise recall and time.
    seed : int
        Seed of the vectors' levels.  A build with one thread is reproducible; with several threads the graph
        depends on their timing.
    """

    m: int = 16
    ef_construction: int = 200
    ef: int = 200
    seed: int = 42


@dataclass(frozen=True, kw_only=True)
class USearchSettings(_GraphSettings):
    """How a graph of usearch is built, stored and searched.

    Parameters
    ----------
    precision : {"bfloat16", "int8", "float32"}
        How vectors are stored: 2, 1 or 4 bytes per float, in memory and in the file.  Fewer bytes are faster to
        build and to read, and lower recall.
    m : int
        Links per vector.  More raise recall, build time and memory (8 bytes per link).
    ef_construction : int
        Candidates while building.  More raise recall and build time.
    ef : int
        Candidates while searching.  More raise recall and time.
    """

    precision: Precision = "bfloat16"
    m: int = 16
    ef_construction: int = 200
    ef: int = 200

    def __post_init__(self) -> None:
        require_choice("precision", self.precision, get_args(Precision))
        super().__post_init__()


_Settings = TypeVar("_Settings", HNSWSettings, USearchSettings)


def settings_from(kind: type[_Settings], value: Any, name: str) -> _Settings:
    """Return `value`, an object of `kind`, a dict of its values or None, as an object of `kind`.

    Raises
    ------
    TypeError, ValueError
        For anything else, or a wrong value.
    """
    if value is None:
        return kind()
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be {kind.__name__} or a dict of its values, got {given(value)}.")
    known = [field.name for field in fields(kind)]
    unknown = [key for key in value if key not in known]
    if unknown:
        raise ValueError(f"{name} has no {unknown[0]!r}. It has: {', '.join(known)}.")
    try:
        return kind(**value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
