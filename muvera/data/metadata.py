"""Metadata of documents: what JSON can hold, and the values that conditions compare."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from .filter_language import kind_of

__all__ = ["comparable_values", "encode_metadata"]

# Nested objects of metadata; deeper ones are a mistake or an attack.
_DEEPEST = 20


def encode_metadata(metadata: Any, identity: Any) -> str:
    """Return metadata as JSON text, or raise where JSON cannot hold it.

    Raises
    ------
    TypeError, ValueError
        For anything but a mapping of strings to values of JSON, NaN and infinities, and objects that are
        nested too deep.
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(
            f"The metadata of document {identity!r} must be a dictionary, got {type(metadata).__name__}."
        )
    try:
        return json.dumps(_plain(metadata, 0), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"The metadata of document {identity!r} cannot be stored: {error}") from None


def _plain(value: Any, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"it is nested deeper than {_DEEPEST} levels. Flatten it.")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or not key or "." in key or key.startswith("$"):
                raise ValueError(
                    f"the key {key!r} must be a string that is not empty, has no dot and does not start "
                    "with '$', since filters name fields by it. Rename it."
                )
        return {key: _plain(part, depth + 1) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part, depth + 1) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no number of JSON. Leave the key out.")
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise ValueError(f"{value} does not fit into 64 bits. Store it as a string.")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} is no value of JSON. Store a string or a number.")


def comparable_values(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield (field, kind, value) of everything that a condition can find."""
    for key, value in metadata.items():
        name = f"{prefix}{key}"
        if value is None:
            continue
        yield name, "present", 1
        for element in value if isinstance(value, (list, tuple)) else [value]:
            kind = kind_of(element)
            if kind is not None:
                yield name, kind, element
        if isinstance(value, Mapping):
            yield from comparable_values(value, f"{name}.")
