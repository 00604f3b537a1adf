"""Group documents by the value of a metadata field."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from ..utils.checks import given
from ..utils.hints import Argument, Message
from . import comparable_values, is_utf8

#: The kind and the value of each element of a field.
Group = frozenset[tuple[str, Any]]

#: Fields that a message lists.
MOST_FIELDS = 50


def require_field(field: object) -> None:
    """Raise TypeError or ValueError unless `field` can be the name of a field."""
    if not isinstance(field, str):
        raise TypeError(
            Message(Argument("group_by"), f" must be the name of a metadata field, got {given(field)}.")
        )
    if not is_utf8(field):
        raise ValueError(Message(Argument("group_by"), f" has a lone surrogate: {field!r:.80}. Remove it."))


def group_of(metadata: Mapping[str, Any], field: str) -> Group:
    """Return the values that group a document; none if it forms a group by itself."""
    return frozenset(
        (kind, value)
        for name, kind, value in comparable_values(metadata)
        if name == field and kind != "present"
    )


def best_of_groups(ids: Iterable[Hashable], groups: Mapping[Any, Group], k: int) -> list[int]:
    """Return the positions of the first id of each group, at most `k`.

    An id that is not in `groups` forms a group by itself; `groups` has no empty ones.
    """
    first: dict[Hashable, int] = {}
    for position, identity in enumerate(ids):
        first.setdefault(groups.get(identity, identity), position)
        if len(first) == k:
            break
    return list(first.values())


def unknown_field(field: str, fields: Iterable[str]) -> ValueError:
    """Return the error for a field in which no document has a value.

    `fields` are those that have values, at most MOST_FIELDS.
    """
    names = ", ".join(fields)
    known = f"Fields of the metadata: {names}." if names else "No document has metadata."
    return ValueError(
        Message(
            Argument("group_by"), f" names the field {field!r:.80}, in which no document has a value. {known}"
        )
    )
