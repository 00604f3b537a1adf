"""Explain why a condition matches nothing: fields that no document has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..utils.hints import Argument, Message
from . import Filter, kind_of

# A condition that is true for practically every number, and that every database can
# evaluate.
_NUMBER = {"$gte": -1e15}


def unmatched_fields(where: Filter | None, matches: Callable[[Any], object]) -> Iterator[Message]:
    """Yield a warning for each field that no document has, or only with another type.

    Call this after an empty result.  `where` is a valid condition.  `matches` returns
    True if a document satisfies a condition.
    """
    name = Argument("where")
    compared = set(_compared(where or {}))
    for field in sorted({field for field, _ in compared}):
        if not matches({field: {"$exists": True}}):
            yield Message(name, f" names the field {field!r}, which no document has.")
        elif (field, "number") in compared and not matches({field: _NUMBER}):
            yield Message(name, f" compares {field!r} with a number, but no document has a number there.")
        elif (field, "text") in compared and not matches(
            {field: {"$exists": True}, "$not": {field: _NUMBER}}
        ):
            yield Message(name, f" compares {field!r} with a string, but every document has a number there.")


def _compared(condition: Filter) -> Iterator[tuple[str, str | None]]:
    """Yield the field and the kind of the operand of each comparison in a condition."""
    for field, value in condition.items():
        if field in ("$and", "$or", "$not"):
            for part in [value] if field == "$not" else value:
                yield from _compared(part)
            continue
        for name, operand in value.items() if isinstance(value, dict) else [("$eq", value)]:
            for each in operand if isinstance(operand, list) else [operand]:
                yield field, None if name == "$exists" else kind_of(each)
