"""Conditions of the filter language as SQL text, for engines whose filters are text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..metadata.filters import COMPARISONS
from ..metadata.values import bound_name, present_term, value_term

__all__ = ["SQLConditions", "quoted"]


def quoted(value: Any) -> str:
    """Return a number or a string as SQL's literal.

    Examples
    --------
    >>> quoted("it's")
    "'it''s'"
    """
    if isinstance(value, bool):
        return str(int(value))
    return repr(value) if isinstance(value, (int, float)) else "'" + str(value).replace("'", "''") + "'"


class SQLConditions(ABC):
    """Base class of builders of SQL; a field that is not there is never NULL in what they make."""

    always, never = "true", "false"

    def all_of(self, parts: list[str]) -> str:
        """Return a condition that holds where all parts do."""
        return f"({' AND '.join(parts)})" if parts else self.always

    def any_of(self, parts: list[str]) -> str:
        """Return a condition that holds where a part does."""
        return f"({' OR '.join(parts)})" if parts else self.never

    def negation(self, part: str) -> str:
        """Return a condition that holds where this one does not."""
        return f"(NOT {part})"

    def exists(self, field: str) -> str:
        """Return a condition that holds where a field is there and not null."""
        return self.has_any([present_term(field)])

    def any_equal(self, field: str, values: list[Any]) -> str:
        """Return a condition that an element of a field equals one of some values."""
        return self.has_any([value_term(field, value) for value in values]) if values else self.never

    def order(self, field: str, name: str, value: Any) -> str:
        """Return a condition that an element of a field is less, at most, more or at least a value."""
        side = "high" if name in ("$gt", "$gte") else "low"
        return self.compare(side, bound_name(field, value), COMPARISONS[name][0], value)

    @abstractmethod
    def has_any(self, terms: list[str]) -> str:
        """Return a condition that a document has one of some terms."""

    @abstractmethod
    def compare(self, side: str, name: str, sign: str, value: Any) -> str:
        """Return a condition on the "low" or "high" bound of this name."""
