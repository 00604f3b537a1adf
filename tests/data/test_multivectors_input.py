"""What MultiVectors refuses, in which words."""

import re
from typing import Any

import numpy as np
import pytest
from builders.token_collections import three

from muvera import MultiVectors
from muvera.data.multivectors import as_multivectors

flat, arrays = MultiVectors.from_flat, MultiVectors.from_arrays

REFUSED: list[tuple[Any, type[Exception], str]] = [
    (
        lambda: flat(np.ma.masked_greater(np.ones((5, 2)), 0), [5]),
        TypeError,
        "tokens is a masked array with 10 masked entries",
    ),
    (
        lambda: arrays([np.ones((1, 2)), np.ma.masked_invalid([[1.0, np.nan]])]),
        TypeError,
        r"documents\[1\] is a masked array with 1 masked entries, .* array.filled",
    ),
    (lambda: flat(np.ones((5, 2)), [2, 2]), ValueError, "add up to 4, but there are 5"),
    (lambda: flat(np.ones((5, 2)), [6, -1]), ValueError, r"lengths\[1\] is -1"),
    (lambda: flat(np.ones((5, 2)), [2.5, 2.5]), TypeError, "whole numbers, got dtype float64"),
    (lambda: flat(np.ones((5, 2)), [[5]]), ValueError, r"one axis, got shape \(1, 1\)"),
    (lambda: flat(np.ones((5, 2))), TypeError, "either lengths or offsets"),
    (lambda: flat(np.ones((5, 2)), [5], offsets=[0, 5]), TypeError, "either lengths or"),
    (lambda: flat(np.ones((5, 2)), offsets=[0, 4]), ValueError, "the 5 token vectors, got 0 to 4"),
    (lambda: flat(np.ones((5, 2)), offsets=[1, 5]), ValueError, "got 1 to 5"),
    (lambda: flat(np.ones((5, 2)), offsets=[]), ValueError, "got nothing"),
    (
        lambda: flat(np.ones((5, 2)), offsets=[0, 4, 2, 5]),
        ValueError,
        "must not fall, but entry 2 is 2 after 4",
    ),
    (lambda: flat(np.ones(5), [5]), ValueError, r"dimension of at least 1, got \(5,\)"),
    (lambda: flat(np.ones((5, 0)), [5]), ValueError, r"dimension of at least 1, got \(5, 0\)"),
    (lambda: flat(np.ones((5, 2), int), [5]), TypeError, "dtype int64.*Convert them to float32"),
    (lambda: flat(np.ones((5, 2), bool), [5]), TypeError, "dtype bool"),
    (lambda: flat(np.ones((5, 2), complex), [5]), TypeError, "dtype complex128"),
    (lambda: arrays([np.ones((2, 3)), np.ones(3)]), ValueError, r"documents\[1\] has shape \(3,\)"),
    (
        lambda: arrays([np.ones((2, 3)), np.ones((2, 4))]),
        ValueError,
        r"documents\[1\] has 4 columns, but those before have 3",
    ),
    (lambda: arrays([np.ones((2, 3))], dimension=4), ValueError, "has 3 columns, but needs dimension=4"),
    (lambda: arrays([np.ones((1, 2, 3))]), ValueError, r"\(1, 2, 3\).*from_padded"),
    (lambda: arrays([[[1.0, 2.0], [1.0]]]), ValueError, r"documents\[0\] is not a rectangular"),
    (
        lambda: arrays([["a"]]),
        TypeError,
        r"documents\[0\] must be .* text .*Encode it with your model",
    ),
    (
        lambda: MultiVectors.from_padded(np.ones((2, 3))),
        ValueError,
        r"\(n, longest, dimension\), got \(2, 3\)",
    ),
    (
        lambda: MultiVectors.from_padded(np.ones((2, 3, 4)), np.ones((2, 4))),
        ValueError,
        r"mask has shape \(2, 4\), but array needs \(2, 3\)",
    ),
    (
        lambda: as_multivectors("text"),
        TypeError,
        "documents must be .* text str 'text'. Encode it with",
    ),
    (lambda: as_multivectors(3, "queries"), TypeError, "queries must be .*, got int"),
    (lambda: as_multivectors(np.ones(3), "queries"), ValueError, r"queries has shape \(3,\)"),
    (lambda: as_multivectors(np.ones((1, 1, 1, 1))), ValueError, r"documents has shape \(1, 1, 1, 1\)"),
    (
        lambda: three().require_dimension(5, "queries", "this index"),
        ValueError,
        "queries has 4 columns.*dimension=5",
    ),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
def test_refused(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_as_multivectors_takes_one_text_several_and_collections() -> None:
    texts = three()
    assert as_multivectors(texts) is texts
    assert as_multivectors(np.ones((2, 3))).lengths.tolist() == [2]
    assert as_multivectors(np.ones((4, 2, 3))).lengths.tolist() == [2] * 4
    assert as_multivectors([np.ones((2, 3)), np.ones((1, 3))]).lengths.tolist() == [2, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 1, 2, 4])
def test_the_first_number_that_is_not_finite_is_named(dtype: Any, value: float, row: int) -> None:
    texts = three(dtype)
    texts.require_finite()
    tokens = three(dtype).tokens
    tokens[row, 3] = tokens[4, 3] = value
    bad = MultiVectors.from_flat(tokens, [2, 0, 3], ids=["a", "b", "c"])
    text, token = (0, row) if row < 2 else (2, row - 2)
    words = rf"queries\[{text}\] \(id '{'abc'[text]}'\) has {value} in its token {token}, coordinate 3"
    for _ in range(2):  # remembered only where all was well
        with pytest.raises(ValueError, match=words):
            bad.require_finite("queries")
        with pytest.raises(ValueError, match=words.replace("queries", "documents")):
            bad[:].require_finite()


@pytest.mark.parametrize("value", [1e19, -1e12, 3e38])
def test_numbers_too_large_for_products_are_named(value: float) -> None:
    """Products overflowed before, and every ranking was 0, 1, 2, ... with the score inf."""
    tokens = three(np.float32).tokens
    tokens[3, 1] = value
    shown = np.float32(value)
    with pytest.raises(
        ValueError,
        match=rf"documents\[2\] .*has {re.escape(str(shown))} in its token 1, coordinate 1: "
        r"every number must be below 1e\+12 in size, for products overflow",
    ):
        MultiVectors.from_flat(tokens, [2, 0, 3]).require_finite()
    tokens[3, 1] = np.nextafter(np.float32(1e12), np.float32(0))
    MultiVectors.from_flat(tokens, [2, 0, 3]).require_finite()
    MultiVectors.from_flat(np.full((5, 3), 65504, np.float16), [2, 0, 3]).require_finite()


def test_doubles_beyond_single_precision_are_refused_too() -> None:
    with pytest.raises(ValueError, match="has inf in its token 0"):
        MultiVectors.from_arrays([[[1e300, 1.0]]]).require_finite()


@pytest.mark.parametrize("position", [0, 4095, 4096, 8191, 9999])
def test_the_scan_sees_every_block(position: int) -> None:
    tokens = np.full((10000, 1), 65504, np.float16)  # the largest finite number is not infinite
    MultiVectors.from_flat(tokens, [10000]).require_finite()
    tokens[position] = np.nan
    with pytest.raises(ValueError, match=f"in its token {position}, coordinate 0"):
        MultiVectors.from_flat(tokens, [10000]).require_finite()
