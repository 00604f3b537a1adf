"""Metadata of documents: conditions, JSON text, and the flat form that engines filter.

``{"language": "en", "year": {"$gte": 2000}}`` selects documents that satisfy both;
``"author.name"`` is a key of a nested object.  A list satisfies a comparison if one of
its elements does.  Numbers compare with numbers (true is 1), strings with strings, by
code point.  If a field is missing or null, or has a value of another type, ``$ne``,
``$nin`` and ``$not`` of a comparison select the document, and other comparisons do not.
``{"$exists": False}`` selects documents whose field is missing or null.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

#: A condition on metadata.
Filter = Mapping[str, Any]

#: A value that a condition compares with; True is 1.
Scalar = str | int | float

#: Operators of a field; "$exists" is true for a field that is present and not null.
OPERATORS = ("$eq", "$ne", "$lt", "$lte", "$gt", "$gte", "$in", "$nin", "$exists")

#: Operators of order, and their signs in SQL.
COMPARISONS = {"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}

# Levels of one filter.  SQLite allows expressions 1,000 levels deep, and a level of a
# filter takes several.
_MAX_DEPTH = 50

# Conditions of one filter, on all levels.
_MAX_CONDITIONS = 200

# Values in the lists of one filter.  SQLite allows 32,766 parameters by default.
_MAX_VALUES = 10_000

#: Key of a document's text among its metadata in an engine; keys of real metadata
#: cannot start with "$".
TEXT = "$text"

# Levels of nested metadata.
_MAX_NESTING = 20


# Fields whose value is the title of a text, in this order.
_TITLES = ("title", "name")


def title_of(text: str, metadata: Mapping[str, Any]) -> str:
    """Return the title of a text: its field "title" or "name", or its first line."""
    for field_ in _TITLES:
        value = metadata.get(field_)
        if isinstance(value, (str, int, float)) and str(value).strip():
            return str(value).strip()
    return text.strip().partition("\n")[0].rstrip()


@dataclass(frozen=True)
class TextDocument:
    """A stored text with its metadata.

    Parameters
    ----------
    id : int or str
        Id of the document.
    text : str
        Empty if the collection stores no texts.
    metadata : dict
        JSON values by field.
    """

    id: int | str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


class FilterError(ValueError):
    """Raised if a filter is invalid.

    The message names the invalid part and the allowed values.
    """


Condition = TypeVar("Condition")


class ConditionBuilder(Protocol[Condition]):
    """Builder of conditions in another language, such as SQL.

    :func:`build_condition` calls it from the innermost part of a filter outwards.  A
    list satisfies a comparison if one of its elements does.
    """

    def all_of(self, parts: list[Condition]) -> Condition:
        """Return the condition that all parts hold; true without parts."""

    def any_of(self, parts: list[Condition]) -> Condition:
        """Return the condition that at least one part holds; false without parts."""

    def negation(self, part: Condition) -> Condition:
        """Return the condition that a part does not hold."""

    def exists(self, field: str) -> Condition:
        """Return the condition that a field is present and not null."""

    def order(self, field: str, name: str, value: Scalar) -> Condition:
        """Return the condition that an element of a field is less or greater.

        `name` is a key of COMPARISONS, such as "$gte".  Numbers do not satisfy a
        condition on strings, nor strings a condition on numbers.
        """

    def any_equal(self, field: str, values: list[Scalar]) -> Condition:
        """Return the condition that an element of a field equals one of the values."""


def build_condition(condition: Filter, build: ConditionBuilder[Condition]) -> Condition:
    """Translate a filter with a builder, which makes the condition of each part.

    Raise FilterError if the filter is invalid, too deep or too long.
    """
    return _Walk(build).condition(condition, 0)


def kind_of(value: object) -> str | None:
    """Return the kind of values that `value` can be compared with: "text" or "number".

    Return None for a value that no condition can match.
    """
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, (bool, int, float)) else None


def is_utf8(text: str) -> bool:
    """Return True if UTF-8 can encode a string: no database stores lone surrogates."""
    return text.isascii() or text.encode(errors="ignore").decode() == text


class _Walk(Generic[Condition]):
    """Parser of one filter, which counts conditions and values."""

    def __init__(self, build: ConditionBuilder[Condition]) -> None:
        self._build = build
        self._conditions = 0
        self._values = 0

    def condition(self, condition: object, depth: int) -> Condition:
        if not isinstance(condition, Mapping):
            raise FilterError(
                "A filter must be a dictionary such as {'year': {'$gte': 2000}}, got "
                f"{type(condition).__name__} {condition!r:.80}."
            )
        if depth > _MAX_DEPTH:
            raise FilterError(f"A filter may be nested at most {_MAX_DEPTH} levels deep. Flatten it.")
        self._conditions += len(condition)
        if self._conditions > _MAX_CONDITIONS:
            raise FilterError(
                f"A filter may have at most {_MAX_CONDITIONS} conditions. Use $in for long lists."
            )
        parts = []
        for key, value in condition.items():
            if not isinstance(key, str) or not is_utf8(key):
                raise FilterError(
                    f"A field's name must be a string in UTF-8, got {type(key).__name__} {key!r:.80}."
                )
            if key in ("$and", "$or"):
                inner = [self.condition(part, depth + 1) for part in self._list(key, value)]
                parts.append(self._build.all_of(inner) if key == "$and" else self._build.any_of(inner))
            elif key == "$not":
                parts.append(self._build.negation(self.condition(value, depth + 1)))
            elif key.startswith("$"):
                raise FilterError(
                    f"{key!r} does not combine conditions. Use $and, $or or $not. Put {', '.join(OPERATORS)} "
                    "into a field, such as {'year': {'$gte': 2000}}."
                )
            else:
                parts.append(self._field(key, value))
        return self._build.all_of(parts)

    def _field(self, field: str, value: object) -> Condition:
        if not isinstance(value, Mapping):
            return self._build.any_equal(field, [_scalar(field, "$eq", value)])
        if not value:
            raise FilterError(f"The field {field!r} has no operator. Give one of {', '.join(OPERATORS)}.")
        return self._build.all_of([self._operator(field, name, operand) for name, operand in value.items()])

    def _operator(self, field: str, name: object, operand: object) -> Condition:
        build = self._build
        if name not in OPERATORS:
            raise FilterError(
                f"The field {field!r} has the unknown operator {name!r}. Use one of {', '.join(OPERATORS)}."
            )
        if name == "$exists":
            if not isinstance(operand, bool):
                raise FilterError(f"$exists of {field!r} must be true or false, got {operand!r}.")
            return build.exists(field) if operand else build.negation(build.exists(field))
        if name in COMPARISONS:
            limit = _scalar(field, name, operand)
            if isinstance(limit, bool):
                raise FilterError(f"{name} of {field!r} must be a number or a string, got {limit!r}.")
            return build.order(field, name, limit)
        operands = self._list(f"{name} of {field!r}", operand) if name in ("$in", "$nin") else [operand]
        equal = build.any_equal(field, [_scalar(field, name, element) for element in operands])
        return build.negation(equal) if name in ("$ne", "$nin") else equal

    def _list(self, name: str, value: object) -> list[object]:
        if not isinstance(value, (list, tuple)):
            raise FilterError(f"{name} must be a list, got {type(value).__name__} {value!r:.80}.")
        self._values += len(value)
        if self._values > _MAX_VALUES:
            raise FilterError(
                f"The lists of a filter may have at most {_MAX_VALUES} values, got {self._values}."
            )
        return list(value)


def _scalar(field: str, name: str, value: object) -> Scalar:
    if isinstance(value, str) and not is_utf8(value):
        raise FilterError(f"{name} of {field!r} has a lone surrogate: {value!r:.80}. Remove it.")
    if isinstance(value, str):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if value is None:
        raise FilterError(f"{name} of {field!r} is null. Use {{'$exists': false}} to find absent fields.")
    raise FilterError(
        f"{name} of {field!r} must be a string, a finite number, true or false, got "
        f"{type(value).__name__} {value!r:.80}."
    )


def encode_metadata(metadata: object, identity: object) -> str:
    """Return the metadata of a document as JSON text; messages name its `identity`.

    Keys must be strings without dots that do not start with "$".  Raise TypeError or
    ValueError for anything that is not a mapping with such keys, or that JSON cannot
    represent.
    """
    if metadata == {}:
        return "{}"
    if not isinstance(metadata, Mapping):
        raise TypeError(
            f"The metadata of document {identity!r} must be a dictionary, got {type(metadata).__name__}."
        )
    try:
        return json.dumps(_plain(metadata, 0), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"The metadata of document {identity!r} cannot be stored: {error}") from None


def _plain(value: object, depth: int) -> object:
    if depth > _MAX_NESTING:
        raise ValueError(f"it is nested deeper than {_MAX_NESTING} levels. Flatten it.")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or not key or not is_utf8(key) or "." in key or key.startswith("$"):
                raise ValueError(
                    f"the key {key!r} must be a non-empty string without dots that does not start with '$', "
                    "because filters name fields by it. Rename it."
                )
        return {key: _plain(element, depth + 1) for key, element in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(element, depth + 1) for element in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number. Remove the key.")
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{value} does not fit into 64 bits. Store it as a string.")
    if isinstance(value, str) and not is_utf8(value):
        raise ValueError(f"{value!r:.80} has a lone surrogate. Decode it again with errors='replace'.")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} is not a JSON value. Store a string or a number.")


def comparable_values(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (field, kind, value) for each value that a condition can match.

    Each field that is not null also has an entry of the kind "present".  `prefix` has
    the keys of enclosing objects, with dots.
    """
    for key, value in metadata.items():
        name = f"{prefix}{key}"
        if value is None or key == TEXT:
            continue
        yield name, "present", 1
        for element in value if isinstance(value, (list, tuple)) else [value]:
            kind = kind_of(element)
            if kind is not None:
                yield name, kind, element
        if isinstance(value, Mapping):
            yield from comparable_values(value, f"{name}.")


class FlatMetadata(NamedTuple):
    """Metadata of one document in a form that every engine can filter."""

    #: The :func:`term` of each present field and of each value.
    terms: list[str]
    #: Least and greatest value of each field and kind, by "low_" or "high_" and
    #: :func:`bound_name`.
    bounds: dict[str, Scalar]


def flatten(metadata: Mapping[str, Any]) -> FlatMetadata:
    """Return the flat form of a document's metadata."""
    terms: dict[str, None] = {}
    bounds: dict[str, Any] = {}
    for name, kind, value in comparable_values(metadata):
        if kind == "present":
            terms[term(name)] = None
            continue
        terms[term(name, value)] = None
        value = int(value) if isinstance(value, bool) else value
        for side, choose in (("low", min), ("high", max)):
            key = f"{side}_{bound_name(name, value)}"
            bounds[key] = choose(bounds.get(key, value), value)
    return FlatMetadata(list(terms), bounds)


def term(name: str, *values: Scalar) -> str:
    """Return the term of documents that have a field, or a value in it.

    There is at most one value.  Without it, the term says that the field is present.
    Equal numbers share a term.
    """
    plain = [int(v) if isinstance(v, (bool, float)) and float(v).is_integer() else v for v in values]
    # ASCII, because no engine stores NUL or lone surrogates unchanged.
    return json.dumps([name, *plain], ensure_ascii=True, separators=(",", ":"))


def bound_name(name: str, value: Scalar) -> str:
    """Return the name of the column for a field's values of the kind of `value`.

    It has only letters from a to z, digits and underscores.
    """
    plain = re.fullmatch(r"(?!x_)[a-z0-9_]+", name)
    return f"{kind_of(value)}_{name if plain else 'x_' + name.encode('utf-8', 'surrogatepass').hex()}"
