"""The filter language evaluated in Python, the reference for its translations.

Nothing of `muvera` is imported.
"""

import operator
from collections.abc import Mapping
from typing import Any

COMPARE = {
    "$eq": operator.eq,
    "$lt": operator.lt,
    "$lte": operator.le,
    "$gt": operator.gt,
    "$gte": operator.ge,
}


def matches(condition: Mapping[str, Any], metadata: Mapping[str, Any]) -> bool:
    """Return True if the metadata of one document satisfies a valid condition."""
    return all(_clause(key, value, metadata) for key, value in condition.items())


def _clause(key: str, value: Any, metadata: Mapping[str, Any]) -> bool:
    if key == "$not":
        return not matches(value, metadata)
    if key in ("$and", "$or"):
        return (all if key == "$and" else any)(matches(part, metadata) for part in value)
    stored: Any = metadata
    for name in key.split("."):
        stored = stored.get(name) if isinstance(stored, Mapping) else None
    tests = value if isinstance(value, Mapping) else {"$eq": value}
    return all(_holds(name, stored, operand) for name, operand in tests.items())


def _holds(name: str, stored: Any, operand: Any) -> bool:
    if name == "$exists":
        return bool((stored is not None) == operand)
    if name in ("$ne", "$nin"):
        return not _holds("$eq" if name == "$ne" else "$in", stored, operand)
    if name == "$in":
        return any(_holds("$eq", stored, value) for value in operand)
    elements = stored if isinstance(stored, list) else [stored]
    kind = str if isinstance(operand, str) else (int, float)  # bool is an int
    return any(COMPARE[name](element, operand) for element in elements if isinstance(element, kind))
