"""HNSWSettings, USearchSettings and PQSettings: how graphs and product codes are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeVar, get_args

from ..kernels.product_codes import CENTROIDS
from ..utils.checks import given, require_choice, require_int

__all__ = ["HNSWSettings", "PQSettings", "Precision", "USearchSettings", "settings_from"]

Precision = Literal["bfloat16", "int8", "float32"]

#: Floats of a subvector at most: 256 centroids say little of so many.
MAX_SUBVECTOR_SIZE = 64

#: Codes are learned from at most this many vectors.
MAX_TRAIN_SIZE = 100_000


@dataclass(frozen=True, kw_only=True)
class HNSWSettings:
    """How a navigable small-world graph is built and searched.

    Parameters
    ----------
    m : int
        Links a node.  More raise recall, memory (8 bytes each at the bottom, doubled) and
        build time.
    ef_construction : int
        Candidates while building.  More raise recall and build time.
    ef : int
        Candidates while searching, at least k.  More raise recall and time.
    seed : int
        Of the nodes' levels.  With one thread a build is reproducible; with several the
        graph depends on their timing.
    """

    m: int = 16
    ef_construction: int = 200
    ef: int = 200
    seed: int = 42

    def __post_init__(self) -> None:
        for name, minimum in (("m", 2), ("ef_construction", 1), ("ef", 1), ("seed", 0)):
            object.__setattr__(self, name, require_int(name, getattr(self, name), minimum))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, by the parameters' names."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class USearchSettings:
    """How a graph of usearch is built, kept and searched.

    Parameters
    ----------
    precision : {"bfloat16", "int8", "float32"}
        How the vectors' numbers are kept: in 2, 1 or 4 bytes, in memory and in the file.  Fewer are
        faster to build and to read; the graph is ordered by what is kept, exact scores are not.
    m : int
        Links a node.  More raise recall, memory (8 bytes each at the bottom, doubled) and
        build time.
    ef_construction : int
        Candidates while building.  More raise recall and build time.
    ef : int
        Candidates while searching, at least k.  More raise recall and time.
    """

    precision: Precision = "bfloat16"
    m: int = 16
    ef_construction: int = 200
    ef: int = 200

    def __post_init__(self) -> None:
        require_choice("precision", self.precision, get_args(Precision))
        for name, minimum in (("m", 2), ("ef_construction", 1), ("ef", 1)):
            object.__setattr__(self, name, require_int(name, getattr(self, name), minimum))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, by the parameters' names."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class PQSettings:
    """How vectors become product codes (PQ-256-G): a byte for every `subvector_size` floats.

    Parameters
    ----------
    subvector_size : int
        Floats a byte stands for, 1 to 64: 8 is a 32nd of their memory.  Fewer raise recall, memory and
        time in proportion.
    rescore : int
        0: the order by codes is the answer.  Else so many best by codes, or k where that is more,
        are ordered by a copy of one byte a float, which costs ``dimension + 4`` more bytes a vector
        and makes up for what the codes lose.
    train_size : int
        Vectors to learn from, and to keep as floats at most: 256 to 100,000.  More raise the
        time of learning and the memory until then in proportion, and recall a little.
    seed : int
        Of the vectors that the centroids begin as.
    """

    subvector_size: int = 8
    rescore: int = 0
    train_size: int = 16384
    seed: int = 42

    def __post_init__(self) -> None:
        limits: tuple[tuple[str, int, int | None], ...] = (
            ("subvector_size", 1, MAX_SUBVECTOR_SIZE),
            ("rescore", 0, None),
            ("train_size", CENTROIDS, MAX_TRAIN_SIZE),
            ("seed", 0, None),
        )
        for name, minimum, maximum in limits:
            object.__setattr__(self, name, require_int(name, getattr(self, name), minimum, maximum))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, by the parameters' names."""
        return asdict(self)


_Settings = TypeVar("_Settings", HNSWSettings, USearchSettings, PQSettings)


def settings_from(kind: type[_Settings], value: Any, name: str) -> _Settings:
    """Return `value` as settings of this kind: an object of it, a dict of its values, or None for defaults.

    Raises
    ------
    TypeError
        For anything else, or a value of another type.
    ValueError
        For an unknown or wrong value.
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
