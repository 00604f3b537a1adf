"""Metadata values: JSON text, comparable values, and the flat form that engines filter.

The flat form has one list of terms per document.  One index of these terms answers equality, membership and
presence for all fields.  The flat form also has the least and the greatest value of each field.  These answer all
order operators: a list satisfies ``>=`` if its greatest value does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .filters import is_utf8, kind_of

#: Key of a document's text among its metadata in an engine; keys of real metadata cannot start with "$".
TEXT = "$text"

_MAX_DEPTH = 20


def encode_metadata(metadata: Any, identity: Any) -> str:
    """Return the metadata of the document `identity` as JSON text; raise unless it maps strings to JSON values."""
    if not isinstance(metadata, Mapping):
        raise TypeError(
            f"The metadata of document {identity!r} must be a dictionary, got {type(metadata).__name__}."
        )
    try:
        return json.dumps(_plain(metadata, 0), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"The metadata of document {identity!r} cannot be stored: {error}") from None


def _plain(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels. Flatten it.")
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
    """Yield (field, kind, value) for each value that a condition can match; kind "present" for each field."""
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
    """Metadata in the form that engines filter."""

    #: One term for each present field and one for each of its values.
    terms: list[str]
    #: Least and greatest value of each field, by "low_" or "high_" and :func:`bound_name`.
    bounds: dict[str, float | int | str]


def flatten(metadata: Mapping[str, Any]) -> FlatMetadata:
    """Return the flat form of one document's metadata.

    Examples
    --------
    >>> flat = flatten({"year": [1999, 2001]})
    >>> flat.terms, flat.bounds
    (['["year"]', '["year",1999]', '["year",2001]'], {'low_number_year': 1999, 'high_number_year': 2001})
    """
    terms: dict[str, None] = {}
    bounds: dict[str, Any] = {}
    for name, kind, value in comparable_values(metadata):
        if kind == "present":
            terms[present_term(name)] = None
            continue
        terms[value_term(name, value)] = None
        value = int(value) if isinstance(value, bool) else value
        for side, choose in (("low", min), ("high", max)):
            key = f"{side}_{bound_name(name, value)}"
            bounds[key] = choose(bounds.get(key, value), value)
    return FlatMetadata(list(terms), bounds)


def present_term(name: str) -> str:
    """Return the term of documents that have a field."""
    return _term([name])


def value_term(name: str, value: Any) -> str:
    """Return the term of documents that have a value in a field; equal numbers share a term."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return _term([name, value])


def _term(parts: list[Any]) -> str:
    # ASCII, because no engine stores NUL or lone surrogates unchanged.
    return json.dumps(parts, ensure_ascii=True, separators=(",", ":"))


def bound_name(name: str, value: Any) -> str:
    """Return a column name (lower-case letters, digits, underscores) for a field's values of one kind.

    Examples
    --------
    >>> bound_name("year", 1999), bound_name("Autor.Name", "x")
    ('number_year', 'text_x_4175746f722e4e616d65')
    """
    plain = re.fullmatch(r"(?!x_)[a-z0-9_]+", name)
    return f"{kind_of(value)}_{name if plain else 'x_' + name.encode('utf-8', 'surrogatepass').hex()}"
