"""Lengths and offsets: no sum wraps, and nothing outside the rows gets through."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera import MultiVectors
from muvera.data.offsets import as_integers, as_lengths, as_offsets, offsets_from_lengths, running_total

TOP = 2**63 - 1


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([TOP, TOP, 8], r"lengths\[0\] is 9223372036854775807, but there are 6 token vectors"),
        ([4, TOP, 2**63 - 3], r"lengths\[1\] is 9223372036854775807, but there are 6"),
        (
            np.array([6, 2**64 - 1], np.uint64),
            r"lengths\[1\] is 18446744073709551615, which is outside 64 bits",
        ),
        ([7, -1], r"lengths\[1\] is -1; a length must not be negative"),
        ([2, 3], "lengths add up to 5, but there are 6 token vectors"),
        ([6, 6], "lengths add up to 12, but there are 6"),
    ],
)
def test_lengths_that_do_not_fit(lengths: Any, message: str) -> None:
    """Those whose sum wraps to 6 reached the kernels before, which read outside the tokens."""
    with pytest.raises(ValueError, match=message):
        offsets_from_lengths(lengths, 6)
    with pytest.raises(ValueError, match=message):
        MultiVectors.from_flat(np.ones((6, 4), np.float32), lengths)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, TOP, -2, 6], "offsets must not fall, but entry 2 is -2 after 9223372036854775807"),
        ([0, -TOP - 1, TOP, 6], "entry 1 is -9223372036854775808 after 0"),
        ([0, 7, 6], "entry 2 is 6 after 7"),
        ([0, 3, 7], "must run from 0 to the 6 token vectors, got 0 to 7"),
        ([], "got nothing"),
    ],
)
def test_offsets_that_do_not_fit(offsets: list[int], message: str) -> None:
    """Differences of the first two wrap to positive numbers."""
    with pytest.raises(ValueError, match=message):
        as_offsets(offsets, 6)
    with pytest.raises(ValueError, match=message):
        MultiVectors(np.ones((6, 4), np.float32), offsets)


@pytest.mark.parametrize("numbers", [[2**61, 2**61 + 1024], [2**62] * 4, [TOP] * 3])
def test_sums_without_rows_are_bounded_too(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match="x add up to more than 4611686018427387904 token vectors"):
        as_lengths(numbers, "x")


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ([1.5], TypeError, "x must be whole numbers, got dtype float64 with 1.5 at 0"),
        ([1, np.nan], TypeError, "got dtype float64 with nan at 1"),
        ([np.inf], TypeError, "with inf at 0"),
        ([2.0**60], TypeError, r"with 1.15\S+ at 0"),
        ([True, 2], TypeError, "got a bool among them"),
        (np.array([True]), TypeError, "got dtype bool"),
        (["2"], TypeError, "got dtype <U1"),
        ([10**400], TypeError, "got dtype object"),
        ([[1], [2, 3]], TypeError, "x must be whole numbers in one axis"),
        ([[1]], ValueError, r"x must have one axis, got shape \(1, 1\)"),
        (np.ma.masked_equal([1, 2], 2), TypeError, "x is a masked array with 1 masked entries"),
    ],
)
def test_what_is_no_list_of_whole_numbers(values: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        as_integers(values, "x")


def test_floats_without_fractions_are_taken() -> None:
    """Some tools store counts so; the array is a new one."""
    numbers = np.array([3.0, 0.0])
    assert as_integers(numbers, "x").tolist() == [3, 0]
    assert as_integers([], "x").dtype == np.int64
    mine = np.array([1, 2])
    assert as_integers(mine, "x") is not mine


@given(st.lists(st.integers(-(2**63), TOP) | st.integers(-1, 5), max_size=6), st.integers(0, 12))
def test_whatever_passes_lies_within_the_rows(numbers: list[int], rows: int) -> None:
    right = all(n >= 0 for n in numbers) and sum(numbers) == rows
    try:
        offsets = offsets_from_lengths(numbers, rows)
    except ValueError:
        assert not right
    else:
        assert right
        assert offsets.tolist() == [sum(numbers[:i]) for i in range(len(numbers) + 1)]
    falls = any(b < a for a, b in pairwise(numbers))
    right = numbers[:1] == [0] and numbers[-1] == rows and not falls
    try:
        assert as_offsets(numbers, rows).tolist() == numbers
    except ValueError:
        assert not right
    else:
        assert right


def test_running_total() -> None:
    assert running_total([2, 0, 3]).tolist() == [0, 2, 2, 5]
    assert running_total([]).tolist() == [0]
