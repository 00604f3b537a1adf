"""Lengths and offsets: no sum wraps, and nothing outside the rows is accepted."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera.data.validation import (
    as_integers,
    as_lengths,
    as_offsets,
    offsets_from_lengths,
    rows_of_texts,
    running_total,
)

TOP = 2**63 - 1


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ([1.5], TypeError, r"x\[0\] is 1.5"),
        (np.array([6, 2**64 - 1], np.uint64), TypeError, r"64 bits, but x\[1\] is 18446744073709551615"),
        ([2.0**60], TypeError, r"x\[0\] is 1.15"),
        ([True, 2], TypeError, "bool"),
        (["2"], TypeError, "<U1"),
        ([10**400], TypeError, "object"),
        ([[1]], ValueError, r"\(1, 1\)"),
    ],
)
def test_values_that_are_not_whole_numbers(values: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        as_integers(values, "x")


def test_integers_are_copied() -> None:
    assert as_integers(np.array([3.0, 0.0]), "x").tolist() == [3, 0]
    assert as_integers([], "x").dtype == np.int64
    mine = np.array([1, 2])
    assert as_integers(mine, "x") is not mine


def test_running_totals_and_rows_of_texts() -> None:
    assert running_total([2, 0, 3]).tolist() == [0, 2, 2, 5] and running_total([]).tolist() == [0]
    rows, offsets = rows_of_texts(np.array([0, 2, 2, 5]), np.array([2, 1, 0]))
    assert rows.tolist() == [2, 3, 4, 0, 1] and offsets.tolist() == [0, 3, 3, 5]


@pytest.mark.parametrize("numbers", [[2**61, 2**61 + 1024], [2**62] * 4, [TOP] * 3])
def test_sums_of_lengths_are_bounded(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match="4611686018427387904"):
        as_lengths(numbers, "x")


@given(st.lists(st.integers(-(2**63), TOP) | st.integers(-1, 5), max_size=6), st.integers(0, 12))
def test_accepted_values_stay_within_the_rows(numbers: list[int], rows: int) -> None:
    falls = any(b < a for a, b in pairwise(numbers))
    totals = [sum(numbers[:i]) for i in range(len(numbers) + 1)]
    for check, valid, expected in (
        (offsets_from_lengths, all(n >= 0 for n in numbers) and sum(numbers) == rows, totals),
        (as_offsets, numbers[:1] == [0] and numbers[-1] == rows and not falls, numbers),
    ):
        if valid:
            assert check(numbers, rows).tolist() == expected
        else:
            with pytest.raises(ValueError):
                check(numbers, rows)
