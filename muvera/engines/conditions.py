"""Conditions: a builder that translates the filter language into an engine's conditions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..metadata import COMPARISONS, bound_name, term


class Conditions(ABC):
    """Base class of builders of an engine's conditions; its own methods build SQL.

    All documents satisfy the condition True, and none satisfies False.  No condition may be NULL.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def all_of(self, parts: list[Any]) -> Any:
        """Combine conditions with "and"."""
        return self._combined("and", parts, True)

    def any_of(self, parts: list[Any]) -> Any:
        """Combine conditions with "or"."""
        return self._combined("or", parts, False)

    def _combined(self, word: str, parts: list[Any], neutral: bool) -> Any:
        if any(part is (not neutral) for part in parts):
            return not neutral
        kept = [part for part in parts if part is not neutral]
        return self.join(word, kept) if kept else neutral

    def negation(self, part: Any) -> Any:
        """Negate a condition."""
        return not part if isinstance(part, bool) else self.negate(part)

    def exists(self, field: str) -> Any:
        """Test that a field is present and not null."""
        return self.has_any([term(field)])

    def any_equal(self, field: str, values: list[Any]) -> Any:
        """Test that an element of a field equals one of the values."""
        return self.has_any([term(field, value) for value in values]) if values else False

    def order(self, field: str, name: str, value: Any) -> Any:
        """Compare an element of a field with a value by the operator `name`, such as "$gt"."""
        side = "high" if name in ("$gt", "$gte") else "low"
        return self.compare(f"{side}_{bound_name(field, value)}", COMPARISONS[name], value)

    @abstractmethod
    def has_any(self, terms: list[str]) -> Any:
        """Test that a document has one of the terms."""

    @abstractmethod
    def compare(self, bound: str, sign: str, value: Any) -> Any:
        """Compare a value with a stored bound, such as "low_FIELD", by a sign such as ">"."""

    def join(self, word: str, parts: list[Any]) -> Any:
        """Combine conditions with the word "and" or "or"."""
        return f"({f' {word} '.join(parts)})"

    def negate(self, part: Any) -> Any:
        """Negate a condition that is neither True nor False."""
        return f"(not {part})"

    def among(self, ids: list[Any]) -> Any:
        """Test that a document has one of these ids."""
        return f"id in ({', '.join(map(self.literal, ids))})"

    def literal(self, value: Any) -> str:
        """Return a number or a string as a literal.

        Examples
        --------
        >>> Conditions.literal(None, "it's")
        "'it''s'"
        """
        return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
