"""Checks of single arguments: whole numbers, numbers and choices, each refusal one sentence."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_id_list", "given", "has_repeats", "require_choice", "require_int", "require_number"]


def given(value: Any) -> str:
    """Return the kind and the shortened text of `value`, as messages say what was given."""
    return f"{type(value).__name__} {reprlib.repr(value)}"


def as_id_list(ids: Any, name: str = "ids") -> list[Any]:
    """Return a collection of ids as a list.

    Raises
    ------
    TypeError
        For a single id, such as a string, which would otherwise count as a collection of its characters.
    """
    if isinstance(ids, np.ndarray) and ids.ndim == 1:
        return list(ids.tolist())
    if isinstance(ids, (str, bytes, Mapping)) or not isinstance(ids, Iterable):
        kinds = {str: "the string", bytes: "the bytes", int: "the integer"}
        kind = kinds.get(type(ids), f"the {type(ids).__name__}")
        raise TypeError(f"{name} must be a collection of ids, got {kind} {ids!r:.80}. Give [{ids!r:.80}].")
    return list(ids)


def has_repeats(values: NDArray[np.integer[Any]]) -> bool:
    """Return whether a number is there twice."""
    ordered = np.sort(values, kind="stable")  # which is fast where they are nearly in order, as labels are
    return bool((ordered[1:] == ordered[:-1]).any())


def require_int(
    name: str, value: Any, minimum: int | None = None, maximum: int | None = None, *, hint: str = ""
) -> int:
    """Return `value` as an int where it is a whole number within the bounds.

    Parameters
    ----------
    name : str
        What the message calls the value: a parameter, or a place such as ``"line 3: index"``.
    value : int or NumPy integer
        Anything else is refused, also a bool and a float without a fraction.
    minimum, maximum : int, optional
        The smallest and the largest value that is allowed.
    hint : str
        A sentence at the end of every message, which says what to do.

    Raises
    ------
    TypeError
        Where `value` is no integer.
    ValueError
        Where it lies outside the bounds.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(_sentence(f"{name} must be an int, got {given(value)}.", hint))
    number = int(value)
    _require_within(name, number, minimum, maximum, hint)
    return number


def require_number(
    name: str, value: Any, minimum: float | None = None, maximum: float | None = None, *, hint: str = ""
) -> float:
    """Return `value` as a float where it is a finite number within the bounds.

    Parameters
    ----------
    name, hint
        As in :func:`require_int`.
    value : int, float, or a number of NumPy's
        A bool is refused, and so are NaN and the infinities.
    minimum, maximum : float, optional
        The smallest and the largest value that is allowed.

    Raises
    ------
    TypeError
        Where `value` is no number.
    ValueError
        Where it is not finite, or lies outside the bounds.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(_sentence(f"{name} must be a number, got {given(value)}.", hint))
    try:
        number = float(value)
    except OverflowError:
        number = np.inf
    if not np.isfinite(number):
        raise ValueError(_sentence(f"{name} must be finite, got {number}.", hint))
    _require_within(name, value, minimum, maximum, hint)
    return number


def require_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise ValueError unless `value` is one of `choices`, which the message lists."""
    known = list(choices)
    if value not in known:
        listed = ", ".join(choice if isinstance(choice, str) else repr(choice) for choice in known)
        raise ValueError(f"{name} must be one of {listed}, got {reprlib.repr(value)}.")


def _require_within(name: str, value: Any, minimum: Any, maximum: Any, hint: str) -> None:
    if (minimum is None or value >= minimum) and (maximum is None or value <= maximum):
        return
    if minimum is None:
        bounds = f"at most {maximum}"
    elif maximum is None:
        bounds = f"at least {minimum}"
    else:
        bounds = f"between {minimum} and {maximum}"
    raise ValueError(_sentence(f"{name} must be {bounds}, got {value}.", hint))


def _sentence(message: str, hint: str) -> str:
    return f"{message} {hint}" if hint else message
