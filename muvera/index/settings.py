"""IndexSettings: how an index searches, beside its encoder's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from ..mips import HNSWSettings, PQSettings, Settings, USearchSettings
from ..mips.settings import settings_from
from ..reranking.codecs.registry import CODECS, TOKEN_KINDS
from ..utils.checks import given, require_choice, require_int

__all__ = ["EXACT_TOKENS", "SOURCE_CODES", "Backend", "IndexSettings", "TokenSettings", "Tokens"]

Backend = Literal["auto", "exact", "hnsw", "usearch", "int8", "pq"]

#: The codec of codes that a source brings along.
SOURCE_CODES = "source"

#: Up to this many tokens an exact search of all of them is as fast as the two stages
#: (`python -m experiments run crossover` measures where), so no vectors are made.
EXACT_TOKENS = 20_000


@dataclass(frozen=True, kw_only=True)
class TokenSettings:
    """How an index keeps token vectors.

    Parameters
    ----------
    codec : {"as_given", "float32", "float16", "int8", "4bit", "2bit", "1bit", "source"}
        Floats as they are given, or as 4 or 2 bytes a coordinate; or codes, which are learned from the
        documents: "int8" (half of float16, ranks as the floats do), and 4, 2 or 1 bits a coordinate (a
        quarter, a seventh and a thirteenth of float16; fewer bits find fewer of the best).  "source": the
        codes that the documents come in.
    keep_exact : bool
        Keep the tokens as they are given, too, on the disk once the index is saved: codes rank the
        candidates, and the exact tokens of the best few order these.

    Raises
    ------
    TypeError, ValueError
        For an unknown codec, or exact tokens beside floats, which are kept anyway.
    """

    codec: str = "as_given"
    keep_exact: bool = False

    def __post_init__(self) -> None:
        require_choice("tokens", self.codec, (*TOKEN_KINDS, SOURCE_CODES))
        if not isinstance(self.keep_exact, bool):
            raise TypeError(f"keep_exact must be a bool, got {given(self.keep_exact)}.")
        if self.keep_exact and not self.has_codes:
            raise ValueError(
                f"keep_exact=True keeps exact tokens beside codes, but tokens='{self.codec}' makes no codes. "
                f"Choose one of {', '.join(CODECS)}, or leave keep_exact out."
            )
        if self.keep_exact and self.codec == SOURCE_CODES:
            raise ValueError(
                "keep_exact=True needs exact tokens, which a source of codes has not. Leave it out."
            )

    @property
    def has_codes(self) -> bool:
        """Whether tokens become codes."""
        return self.codec in (*CODECS, SOURCE_CODES)

    @classmethod
    def of(cls, value: Any) -> TokenSettings:
        """Return `value` as settings: an object of them, a codec's name, a dict of values, or None.

        Raises
        ------
        TypeError, ValueError
            For anything else.
        """
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls(codec=value)
        if not isinstance(value, Mapping):
            raise TypeError(f"tokens must be a codec's name, TokenSettings or a dict, got {given(value)}.")
        unknown = [key for key in value if key not in ("codec", "keep_exact")]
        if unknown:
            raise ValueError(f"tokens has no {unknown[0]!r}. It has: codec, keep_exact.")
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, by the parameters' names."""
        return {"codec": self.codec, "keep_exact": self.keep_exact}


#: How a function takes token settings.
Tokens = TokenSettings | str | Mapping[str, Any] | None


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
    tokens : TokenSettings, str or dict, optional
        How tokens are kept; a codec's name is enough.

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
    tokens: TokenSettings = field(default_factory=TokenSettings)

    def __post_init__(self) -> None:
        require_choice("backend", self.backend, get_args(Backend))
        object.__setattr__(self, "hnsw", settings_from(HNSWSettings, self.hnsw, "hnsw"))
        object.__setattr__(self, "usearch", settings_from(USearchSettings, self.usearch, "usearch"))
        object.__setattr__(self, "pq", settings_from(PQSettings, self.pq, "pq"))
        object.__setattr__(self, "tokens", TokenSettings.of(self.tokens))
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
            "tokens": self.tokens.to_dict(),
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
