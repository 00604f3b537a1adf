"""Conditions: the filter language in the languages of vector databases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from ..metadata import COMPARISONS, Scalar, bound_name, term

#: A condition in the language of one engine, such as a string of SQL.
Native = TypeVar("Native")


class Conditions(ABC, Generic[Native]):
    """A builder of one engine's conditions.

    See :class:`muvera.metadata.ConditionBuilder` for its first six methods.  All
    documents satisfy the condition True, and none satisfies False, so an engine is not
    asked for these.  No other condition may be NULL for any document.
    """

    def all_of(self, parts: list[Native | bool]) -> Native | bool:
        """Combine conditions with "and"."""
        return self._combined("and", parts, True)

    def any_of(self, parts: list[Native | bool]) -> Native | bool:
        """Combine conditions with "or"."""
        return self._combined("or", parts, False)

    def _combined(self, word: str, parts: list[Native | bool], neutral: bool) -> Native | bool:
        if any(part is (not neutral) for part in parts):
            return not neutral
        kept = [part for part in parts if not isinstance(part, bool)]
        return self.join(word, kept) if kept else neutral

    def negation(self, part: Native | bool) -> Native | bool:
        """Negate a condition."""
        return not part if isinstance(part, bool) else self.negate(part)

    def exists(self, field: str) -> Native | bool:
        """Test that a field is present and not null."""
        return self.has_any([term(field)])

    def any_equal(self, field: str, values: list[Scalar]) -> Native | bool:
        """Test that an element of a field equals one of the values.

        No document satisfies the condition without values.
        """
        return self.has_any([term(field, value) for value in values]) if values else False

    def order(self, field: str, name: str, value: Scalar) -> Native | bool:
        """Compare an element of a field with a value.

        `name` is a key of :data:`muvera.metadata.COMPARISONS`, such as "$gt".
        """
        side = "high" if name in ("$gt", "$gte") else "low"
        return self.compare(f"{side}_{bound_name(field, value)}", COMPARISONS[name], value)

    # -- the language of one engine -------------------------------------------

    @abstractmethod
    def join(self, word: str, parts: list[Native]) -> Native:
        """Join at least one condition by the word "and" or "or".

        No part is True or False.
        """

    @abstractmethod
    def negate(self, part: Native) -> Native:
        """Negate a condition, which is not True or False."""

    @abstractmethod
    def has_any(self, terms: list[str]) -> Native | bool:
        """Test that a document has one of the terms of :func:`muvera.metadata.term`.

        There is at least one term.
        """

    @abstractmethod
    def compare(self, bound: str, sign: str, value: Scalar) -> Native | bool:
        """Compare a stored bound with a value.

        `bound` is a key of ``FlatMetadata.bounds``, such as "low_number_year", and
        `sign` is "<", "<=", ">" or ">=".  Raise FilterError if the engine cannot order
        such values.
        """

    @abstractmethod
    def among(self, ids: list[Any]) -> Native:
        """Test that a document has one of at most 500 ids."""


class SQLConditions(Conditions[str]):
    """A builder of conditions in SQL."""

    def join(self, word: str, parts: list[str]) -> str:
        """Join conditions by "and" or "or"."""
        return f"({f' {word} '.join(parts)})"

    def negate(self, part: str) -> str:
        """Return the condition that `part` does not hold."""
        return f"(not {part})"

    def among(self, ids: list[Any]) -> str:
        """Test that the column "id" has one of these values."""
        return f"id in ({self.literals(ids)})"

    def literals(self, values: list[Any]) -> str:
        """Return the literals of values, separated by commas."""
        return ", ".join(map(self.literal, values))

    def literal(self, value: Scalar) -> str:
        """Return a number or a string as a literal of SQL."""
        return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
