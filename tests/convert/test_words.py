"""Whole-word pooling: laws, numbers of words, and bad input."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera import MultiVectors
from muvera.convert import pool_words, word_numbers

WORDS = st.lists(st.lists(st.integers(-3, 3), max_size=7), min_size=1, max_size=4)


def documents_of(words: list[list[int]], seed: int = 0) -> MultiVectors:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(len(own), 5)).astype(np.float32) for own in words]
    return MultiVectors.from_arrays(arrays, dimension=5)


@given(WORDS)
def test_each_word_is_the_mean_of_its_tokens(words: list[list[int]]) -> None:
    documents = documents_of(words)
    pooled = pool_words(documents, words, renormalize=False)
    for tokens, numbers, found in zip(documents, words, pooled, strict=True):
        order = list(dict.fromkeys(numbers))
        expected = [np.mean([t for t, n in zip(tokens, numbers, strict=True) if n == w], 0) for w in order]
        np.testing.assert_allclose(found, np.reshape(expected, (-1, 5)), rtol=1e-5, atol=1e-6)


@given(WORDS)
def test_words_of_one_token_leave_unit_vectors_as_they_are(words: list[list[int]]) -> None:
    documents = documents_of(words)
    unit = MultiVectors.from_arrays(
        [tokens / np.linalg.norm(tokens, axis=1, keepdims=True) for tokens in documents], dimension=5
    )
    alone = pool_words(unit, [list(range(len(own))) for own in words])
    np.testing.assert_allclose(alone.tokens, unit.tokens, rtol=1e-6)
    assert alone.offsets.tolist() == unit.offsets.tolist()


def test_ids_and_dtype_stay(tmp_path: Any) -> None:
    documents = MultiVectors.from_arrays([np.eye(3, dtype=np.float16)]).with_ids(["a"])
    pooled = pool_words(documents, [[1, 1, 2]])
    assert pooled.ids.tolist() == ["a"] and pooled.tokens.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(pooled.tokens.astype(float), axis=1), 1, rtol=1e-3)


def test_pieces_of_a_word_have_one_number_and_other_tokens_their_own() -> None:
    text = "Red, redder!"
    spans = [(0, 0), (0, 3), (3, 4), (5, 8), (8, 11), (11, 12), (0, 0)]
    numbers = word_numbers(text, spans)
    assert numbers[3] == numbers[4]
    assert len(set(numbers.tolist())) == len(spans) - 1


def test_unique_words_share_a_number_without_regard_to_case() -> None:
    text = "Red red rot"
    spans = [(0, 3), (4, 7), (8, 11)]
    assert len(set(word_numbers(text, spans).tolist())) == 3
    numbers = word_numbers(text, spans, unique=True)
    assert numbers[0] == numbers[1] != numbers[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([[1, 1, 1], [1]], "one array per document, got 2 for 1 documents"),
        ([[1, 1]], r"words\[0\] must have one number for each of 3 tokens, got shape \(2,\)"),
    ],
)
def test_words_that_do_not_fit_are_refused(words: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pool_words(documents_of([[1, 2, 3]]), words)
