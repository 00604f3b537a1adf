"""Checks of single arguments: what they return, and that each message says what was given."""

from typing import Any

import numpy as np
import pytest

from muvera.utils.checks import require_choice, require_int, require_number


def test_whole_numbers_come_back_as_ints() -> None:
    for value in (3, np.int8(3), np.uint64(3)):
        assert require_int("k", value, 1, 3) == 3
        assert type(require_int("k", value)) is int


@pytest.mark.parametrize(
    ("value", "bounds", "error", "message"),
    [
        (True, (), TypeError, "^k must be an int, got bool True.$"),
        (np.True_, (), TypeError, "^k must be an int, got bool"),
        (2.0, (), TypeError, "^k must be an int, got float 2.0.$"),
        ("2", (), TypeError, "^k must be an int, got str '2'.$"),
        (None, (), TypeError, "^k must be an int, got NoneType None.$"),
        ("x" * 500, (), TypeError, r"^k must be an int, got str 'x+\.\.\.x+'.$"),
        (0, (1,), ValueError, "^k must be at least 1, got 0.$"),
        (9, (None, 8), ValueError, "^k must be at most 8, got 9.$"),
        (9, (1, 8), ValueError, "^k must be between 1 and 8, got 9.$"),
    ],
)
def test_other_values_are_refused_with_what_was_given(
    value: Any, bounds: tuple[int, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message.replace("got bool", "got bool_?")):
        require_int("k", value, *bounds)


def test_a_hint_ends_every_message() -> None:
    for value in (0, "1"):
        with pytest.raises((TypeError, ValueError), match=r"\. Use None for all\.$"):
            require_int("threads", value, 1, hint="Use None for all.")
    with pytest.raises(ValueError, match=r"got 0\. Turn it up\.$"):
        require_number("tau", 0, 1, hint="Turn it up.")


def test_numbers_come_back_as_floats() -> None:
    for value in (1, 1.0, np.float16(1), np.int64(1)):
        assert require_number("tau", value, 0, 1) == 1.0
        assert type(require_number("tau", value)) is float


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (False, TypeError, "^tau must be a number, got bool False.$"),
        ("1", TypeError, "^tau must be a number, got str '1'.$"),
        (float("nan"), ValueError, "^tau must be finite, got nan.$"),
        (np.float32("inf"), ValueError, "^tau must be finite, got inf.$"),
        (10**400, ValueError, "^tau must be finite, got inf.$"),
        (1.5, ValueError, "^tau must be between 0 and 1, got 1.5.$"),
        (-0.5, ValueError, "^tau must be between 0 and 1, got -0.5.$"),
    ],
)
def test_other_numbers_are_refused(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        require_number("tau", value, 0, 1)


def test_choices_are_listed() -> None:
    require_choice("to", "npy", {"npy": 1, "npz": 2})
    with pytest.raises(ValueError, match=r"^to must be one of npy, npz, None, got 'x'\.$"):
        require_choice("to", "x", ("npy", "npz", None))
