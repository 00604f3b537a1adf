"""IndexSettings: how an index searches, beside its encoder's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from ..mips import HNSWSettings, PQSettings, Settings, USearchSettings
from ..mips.settings import settings_from
from ..utils.checks import require_choice, require_int

__all__ = ["EXACT_TOKENS", "Backend", "IndexSettings"]

Backend = Literal["auto", "exact", "hnsw", "usearch", "int8", "pq"]

#: Up to this many tokens an exact search of all of them is as fast as the two stages
#: (`python -m experiments run crossover` measures where), so no vectors are made.
EXACT_TOKENS = 20_000


@dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """How an index searches.

    Parameters
    ----------
    backend : {"auto", "exact", "hnsw", "usearch", "int8", "pq"}
        "exact" reads every vector; "hnsw" walks a graph; "auto" changes from the first to the
        second when the collection has grown.  "usearch" walks a graph of another library, in half the
        memory, mapped from its file; "auto" takes it where hnswlib is not installed.
        "int8" reads every vector in a quarter of the memory, "pq" in a 32nd of it, and finds somewhat less.
    hnsw : HNSWSettings or dict, optional
        Of the graph.
    usearch : USearchSettings or dict, optional
        Of the graph of usearch.
    pq : PQSettings or dict, optional
        Of product codes.
    exact_tokens : int
        Search exactly, without vectors, up to this many tokens, also within a filter.  0: never.

    Raises
    ------
    TypeError, ValueError
        For a wrong value, now and not when the collection has grown enough to use it.

    Examples
    --------
    >>> IndexSettings(backend="hnsw", hnsw=HNSWSettings(m=32)).hnsw.m
    32
    """

    backend: Backend = "auto"
    hnsw: HNSWSettings = field(default_factory=HNSWSettings)
    usearch: USearchSettings = field(default_factory=USearchSettings)
    pq: PQSettings = field(default_factory=PQSettings)
    exact_tokens: int = EXACT_TOKENS

    def __post_init__(self) -> None:
        require_choice("backend", self.backend, get_args(Backend))
        object.__setattr__(self, "hnsw", settings_from(HNSWSettings, self.hnsw, "hnsw"))
        object.__setattr__(self, "usearch", settings_from(USearchSettings, self.usearch, "usearch"))
        object.__setattr__(self, "pq", settings_from(PQSettings, self.pq, "pq"))
        object.__setattr__(self, "exact_tokens", require_int("exact_tokens", self.exact_tokens, 0))

    def of(self, kind: str) -> Settings | None:
        """Return the settings of this kind of search; None where it has none."""
        own: dict[str, Settings] = {"hnsw": self.hnsw, "usearch": self.usearch, "pq": self.pq}
        return own.get(kind)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_dict` takes."""
        return {
            "backend": self.backend,
            "hnsw": self.hnsw.to_dict(),
            "usearch": self.usearch.to_dict(),
            "pq": self.pq.to_dict(),
            "exact_tokens": self.exact_tokens,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> IndexSettings:
        """Return the settings that :meth:`to_dict` described; what is not said has its default.

        Raises
        ------
        TypeError, ValueError
            For an unknown or wrong value.
        """
        names = [entry.name for entry in fields(cls)]
        unknown = [name for name in values if name not in names]
        if unknown:
            raise ValueError(f"IndexSettings has no {unknown[0]!r}. It has: {', '.join(names)}.")
        return cls(**values)
