"""Warnings about conditions that cannot match."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..metadata.filters import build_condition, kind_of
from .output import warn

# A condition that the numbers of a field satisfy.  Every database can answer it.
_NUMBER = {"$gte": -1e15}


class _Compared:
    """Builder of the pairs (field, kind of values) that a condition compares."""

    def all_of(self, parts: list[set[Any]]) -> set[Any]:
        return set().union(*parts)

    any_of = all_of

    def negation(self, part: set[Any]) -> set[Any]:
        return part

    def exists(self, field: str) -> set[Any]:
        return {(field, "present")}

    def order(self, field: str, name: str, value: Any) -> set[Any]:
        return self.any_equal(field, [value])

    def any_equal(self, field: str, values: list[Any]) -> set[Any]:
        return {(field, kind_of(value)) for value in values}


def warn_of_unmatched(where: Any, matches: Callable[[Any], object]) -> None:
    """Warn about each field of `where` that no document has, or only with values of another type.

    `matches` returns True if a document satisfies a condition.  Call this after an empty result.
    """
    compared = build_condition(where, _Compared()) if where else set()
    for field in sorted({field for field, _ in compared}):
        if not matches({field: {"$exists": True}}):
            warn(f"--where names the field {field!r}, which no document has.")
        elif (field, "number") in compared and not matches({field: _NUMBER}):
            warn(f"--where compares {field!r} with a number, but no document has a number there.")
        elif (field, "text") in compared and not matches(
            {field: {"$exists": True}, "$not": {field: _NUMBER}}
        ):
            warn(f"--where compares {field!r} with a string, but every document has a number there.")
