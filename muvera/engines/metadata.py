"""Metadata in the flat form that every engine can filter: terms, and the least and greatest value of a field.

An equality, a membership and a presence are answered by one list of strings a document, which one index of
the engine covers whatever fields there are.  A list of values satisfies ``>=`` where its greatest does, so
that two numbers a field answer every order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..data.filter_language import kind_of
from ..data.metadata import comparable_values

__all__ = ["FlatMetadata", "bound_name", "flatten", "present_term", "value_term"]


@dataclass(frozen=True)
class FlatMetadata:
    """What conditions compare.

    Parameters
    ----------
    terms : list of str
        A term for each field that is present and for each of its values.
    low, high : dict of str to float or str
        Least and greatest value by :func:`bound_name`.
    """

    terms: list[str] = field(default_factory=list)
    low: dict[str, float | int | str] = field(default_factory=dict)
    high: dict[str, float | int | str] = field(default_factory=dict)


def flatten(metadata: Mapping[str, Any]) -> FlatMetadata:
    """Return the flat form of one document's metadata.

    Examples
    --------
    >>> flatten({"year": [1999, 2001]}).terms
    ['["year"]', '["year",1999]', '["year",2001]']
    """
    terms: dict[str, None] = {}
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    for name, kind, value in comparable_values(metadata):
        if kind == "present":
            terms[present_term(name)] = None
            continue
        terms[value_term(name, value)] = None
        key = bound_name(name, value)
        value = int(value) if isinstance(value, bool) else value
        low[key] = min(low.get(key, value), value)
        high[key] = max(high.get(key, value), value)
    return FlatMetadata(list(terms), low, high)


def present_term(name: str) -> str:
    """Return the term of documents that have a field."""
    return _term([name])


def value_term(name: str, value: Any) -> str:
    """Return the term of documents that have a value in a field; equal numbers have one term."""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return _term([name, value])


def _term(parts: list[Any]) -> str:
    # ASCII: no engine stores NUL or lone surrogates as they are.
    return json.dumps(parts, ensure_ascii=True, separators=(",", ":"))


def bound_name(name: str, value: Any) -> str:
    """Return a name of lower-case letters, digits and underscores for a field's values of one kind.

    Examples
    --------
    >>> bound_name("year", 1999), bound_name("Autor.Name", "x")
    ('number_year', 'text_x_4175746f722e4e616d65')
    """
    plain = re.fullmatch(r"(?!x_)[a-z0-9_]+", name)
    return f"{kind_of(value)}_{name if plain else 'x_' + name.encode('utf-8', 'surrogatepass').hex()}"
