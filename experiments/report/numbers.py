"""Numbers as text, the same way everywhere on the page."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["MISSING", "Interval", "compact_arguments", "flattened", "interval", "number", "quality"]

#: Stands where there is no number.
MISSING = "\N{EN DASH}"


class Interval(NamedTuple):
    """A mean and its confidence interval; None where they are not known."""

    mean: float | None
    low: float | None
    high: float | None


def interval(value: Any) -> Interval:
    """Return what a row says of a measure.

    Examples
    --------
    >>> interval({"mean": 0.5, "low": None, "high": 0.6})
    Interval(mean=0.5, low=None, high=0.6)
    >>> interval(None)
    Interval(mean=None, low=None, high=None)
    """
    if isinstance(value, dict):
        return Interval(value.get("mean"), value.get("low"), value.get("high"))
    return Interval(None, None, None)


def number(value: Any) -> str:
    """Return three digits of a number, all digits before the point, and other things as they are.

    Examples
    --------
    >>> [number(value) for value in (12345.6, 12345, 12.345, 0.00012345, 64.0, None, True, "a")]
    ['12,346', '12,345', '12.3', '0.000123', '64.0', '–', 'yes', 'a']
    """
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"
    return str(value)


def quality(value: float | None, *, signed: bool = False) -> str:
    """Return a share or a difference of shares with three decimals.

    Examples
    --------
    >>> quality(0.87654), quality(0.0123, signed=True), quality(None)
    ('0.877', '+0.012', '–')
    """
    if value is None:
        return MISSING
    return f"{value:+.3f}" if signed else f"{value:.3f}"


def flattened(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with dots between the names.

    Examples
    --------
    >>> flattened({"a": 1, "hnsw": {"m": 16, "ef": None}})
    {'a': 1, 'hnsw.m': 16, 'hnsw.ef': None}
    """
    flat: dict[str, Any] = {}
    for name, value in (values or {}).items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def compact_arguments(values: Any) -> str:
    """Return arguments on one line.

    Examples
    --------
    >>> compact_arguments({"dimension": 10240, "fill": False, "hnsw": {"m": 16}})
    'dimension=10,240, fill=no, hnsw.m=16'
    """
    return ", ".join(f"{name}={number(value)}" for name, value in flattened(values).items())
