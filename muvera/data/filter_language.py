"""The filter language: conditions on metadata, as nested dictionaries that any JSON can hold.

``{"language": "en", "year": {"$gte": 2000}}`` keeps documents for which both hold.  A condition is
translated once for the database that answers it, by a :class:`Builder`; :func:`matches` evaluates it in
Python on one document's metadata, and is what the translations are tested against.

A field is a key of the metadata; ``"author.name"`` goes into a nested object.  A list satisfies a
comparison where one of its elements does.  A field that a document lacks, or whose value is null,
satisfies no comparison, so ``$ne``, ``$nin`` and ``$not`` keep that document.  Numbers compare with
numbers (true is 1) and strings with strings, by code point.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

__all__ = [
    "COMPARISONS",
    "OPERATORS",
    "Builder",
    "Filter",
    "FilterError",
    "build_condition",
    "kind_of",
    "matches",
]

#: A condition on metadata.
Filter = Mapping[str, Any]

#: Operators of a field, in words.
OPERATORS = {
    "$eq": "equal to",
    "$ne": "not equal to",
    "$lt": "less than",
    "$lte": "at most",
    "$gt": "greater than",
    "$gte": "at least",
    "$in": "one of",
    "$nin": "none of",
    "$exists": "present and not null (true), or absent or null (false)",
}

_LOGIC = ("$and", "$or", "$not")
#: Operators of order: as SQL, and as a function.
COMPARISONS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "$lt": ("<", operator.lt),
    "$lte": ("<=", operator.le),
    "$gt": (">", operator.gt),
    "$gte": (">=", operator.ge),
}

# Conditions inside conditions; SQLite's own limit on the depth of an expression is 1,000.
_DEEPEST = 50

#: Most conditions of one filter, and most values of one ``$in``: SQLite takes 250,000 parameters.
_MOST_CONDITIONS, _MOST_VALUES = 200, 10_000


class FilterError(ValueError):
    """A filter that cannot be understood; the message says which part and what is allowed."""


_Built = TypeVar("_Built")


class Builder(Protocol[_Built]):
    """Interface of what makes an engine's conditions of the language's."""

    def all_of(self, parts: list[_Built]) -> _Built:
        """Return a condition that holds where all parts do; of none, always."""
        ...

    def any_of(self, parts: list[_Built]) -> _Built:
        """Return a condition that holds where a part does; of none, never."""
        ...

    def negation(self, part: _Built) -> _Built:
        """Return a condition that holds where this one does not."""
        ...

    def exists(self, field: str) -> _Built:
        """Return a condition that holds where a field is there and not null."""
        ...

    def order(self, field: str, name: str, value: Any) -> _Built:
        """Return a condition that an element of a field is less, at most, more or at least a value."""
        ...

    def any_equal(self, field: str, values: list[Any]) -> _Built:
        """Return a condition that an element of a field equals one of some values."""
        ...


def build_condition(condition: Filter, build: Builder[_Built]) -> _Built:
    """Translate a condition by a builder.

    Raises
    ------
    FilterError
        For an unknown operator, a value of the wrong type, or a condition that is nested too deep.
    """
    built: _Built = _walk(condition, build, 0, [0])
    return built


def matches(condition: Filter, metadata: Mapping[str, Any]) -> bool:
    """Tell whether one document's metadata satisfies a condition.

    Parameters
    ----------
    condition, metadata : mapping

    Raises
    ------
    FilterError
        As :func:`build_condition` does.

    Examples
    --------
    >>> matches({"tag": {"$in": ["a", "b"]}}, {"tag": ["x", "b"]})
    True
    """
    found: bool = build_condition(condition, _Python(metadata))
    return found


def kind_of(value: Any) -> str | None:
    """Return which values `value` compares with: "text", "number", or None for those that compare with none."""
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, (bool, int, float)) else None


class _Python:
    """Evaluates on one document's metadata."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata

    def all_of(self, parts: list[Any]) -> bool:
        return all(parts)

    def any_of(self, parts: list[Any]) -> bool:
        return any(parts)

    def negation(self, part: Any) -> bool:
        return not part

    def exists(self, field: str) -> bool:
        return self._value(field) is not None

    def order(self, field: str, name: str, value: Any) -> bool:
        return any(COMPARISONS[name][1](found, value) for found in self._elements(field, kind_of(value)))

    def any_equal(self, field: str, values: list[Any]) -> bool:
        return any(value in self._elements(field, kind_of(value)) for value in values)

    def _elements(self, field: str, kind: str | None) -> list[Any]:
        found = self._value(field)
        elements = found if isinstance(found, list) else [found]
        return [element for element in elements if kind_of(element) == kind]

    def _value(self, field: str) -> Any:
        value: Any = self._metadata
        for key in field.split("."):
            if not isinstance(value, Mapping) or key not in value:
                return None
            value = value[key]
        return value


def _walk(condition: Any, build: Any, depth: int, count: list[int]) -> Any:
    """Read a condition once for all builders, and refuse what is no condition."""
    if not isinstance(condition, Mapping):
        raise FilterError(
            f"A filter must be a dictionary such as {{'year': {{'$gte': 2000}}}}, got "
            f"{type(condition).__name__} {condition!r:.80}."
        )
    if depth > _DEEPEST:
        raise FilterError(f"A filter may be nested {_DEEPEST} levels deep, and this one goes deeper.")
    parts = []
    for key, value in condition.items():
        count[0] += 1
        if count[0] > _MOST_CONDITIONS:
            raise FilterError(f"A filter may have {_MOST_CONDITIONS} conditions, and this one has more.")
        if not isinstance(key, str):
            raise FilterError(f"A field's name must be a string, got {type(key).__name__} {key!r}.")
        if key in ("$and", "$or"):
            inner = [_walk(part, build, depth + 1, count) for part in _a_list(key, value)]
            parts.append(build.all_of(inner) if key == "$and" else build.any_of(inner))
        elif key == "$not":
            parts.append(build.negation(_walk(value, build, depth + 1, count)))
        elif key.startswith("$"):
            raise FilterError(
                f"There is no operator {key!r} of conditions. There are {', '.join(_LOGIC)}; "
                f"{', '.join(OPERATORS)} stand below a field."
            )
        else:
            parts.append(_field(key, value, build))
    return build.all_of(parts)


def _field(field: str, value: Any, build: Any) -> Any:
    if not isinstance(value, Mapping):
        return build.any_equal(field, [_a_scalar(field, "$eq", value)])
    if not value:
        raise FilterError(f"The field {field!r} has no operator. Give one of {', '.join(OPERATORS)}.")
    parts = []
    for name, given in value.items():
        if name not in OPERATORS:
            raise FilterError(
                f"There is no operator {name!r} of a field (here {field!r}). There are "
                f"{', '.join(OPERATORS)}."
            )
        if name == "$exists":
            if not isinstance(given, bool):
                raise FilterError(f"$exists of {field!r} must be true or false, got {given!r}.")
            parts.append(build.exists(field) if given else build.negation(build.exists(field)))
        elif name in ("$eq", "$ne"):
            equal = build.any_equal(field, [_a_scalar(field, name, given)])
            parts.append(equal if name == "$eq" else build.negation(equal))
        elif name in ("$in", "$nin"):
            values = [_a_scalar(field, name, one) for one in _a_list(f"{name} of {field!r}", given)]
            inside = build.any_equal(field, values)
            parts.append(inside if name == "$in" else build.negation(inside))
        else:
            limit = _a_scalar(field, name, given)
            if isinstance(limit, bool):
                raise FilterError(f"{name} of {field!r} must be a number or a string, got {limit!r}.")
            parts.append(build.order(field, name, limit))
    return build.all_of(parts)


def _a_list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise FilterError(f"{name} must be a list, got {type(value).__name__} {value!r:.80}.")
    if len(value) > _MOST_VALUES:
        raise FilterError(f"{name} may have {_MOST_VALUES} values, got {len(value)}.")
    return list(value)


def _a_scalar(field: str, name: str, value: Any) -> Any:
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if value is None:
        raise FilterError(f"{name} of {field!r} is null. Use {{'$exists': false}} for what is absent.")
    raise FilterError(
        f"{name} of {field!r} must be a string, a finite number, true or false, got "
        f"{type(value).__name__} {value!r:.80}."
    )
