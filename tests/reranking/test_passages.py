"""The score of a long text is that of its best passage, also by codes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors, chamfer
from muvera.reranking.codecs import CODECS
from muvera.reranking.coded_vectors import CodedVectors
from muvera.reranking.passages import passage_scores
from muvera.texts.passages import best_passage


def unit_texts(lengths: list[int], seed: int = 0) -> MultiVectors:
    tokens = np.random.default_rng(seed).standard_normal((sum(lengths), 8)).astype(np.float32)
    return MultiVectors.from_flat(tokens / np.linalg.norm(tokens, axis=1, keepdims=True), lengths)


def oracle(query: np.ndarray, matrix: Any, half: int) -> float:
    starts = range(0, len(matrix) - half, half) if len(matrix) > 2 * half else [0]
    return max(float(chamfer(query, matrix[start : start + 2 * half])) for start in starts)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 70), min_size=2, max_size=9),
    half=st.integers(1, 12),
    order=st.randoms(use_true_random=False),
)
def test_a_text_has_the_score_of_its_best_passage(lengths: list[int], half: int, order: Any) -> None:
    texts, query = unit_texts(lengths), unit_texts([5], 1)[0]
    positions = list(range(len(texts)))
    order.shuffle(positions)
    runs = [(texts, np.array(positions[:1])), (texts, np.array(positions[1:]))]
    scores = passage_scores(np.asarray(query, np.float32), runs, [], 2 * half, exact=True)
    wanted = [oracle(query, texts[i], half) if lengths[i] else -np.inf for i in positions]
    np.testing.assert_allclose(scores, wanted, rtol=1e-5)


@given(half=st.integers(1, 12), more=st.integers(1, 60), seed=st.integers(0, 99))
def test_a_given_text_has_the_score_of_its_best_passage(half: int, more: int, seed: int) -> None:
    """As in an index, and the passage's tokens alone have that score."""
    matrix, query = unit_texts([2 * half + more], seed)[0], unit_texts([5], seed + 1)[0]
    score, passage = best_passage(query, matrix, 2 * half)
    assert score == pytest.approx(oracle(np.asarray(query), matrix, half), rel=1e-5)
    assert score == pytest.approx(float(chamfer(query, passage)), rel=1e-5)


@pytest.mark.parametrize("exact", [True, False])
def test_codes_give_the_score_of_decoded_tokens(exact: bool) -> None:
    texts, query = unit_texts([3, 400, 0, 90, 33] * 20), np.asarray(unit_texts([5], 1)[0], np.float32)
    codec = CODECS["int8"](np.asarray(texts.tokens, np.float32))
    coded = CodedVectors.of(codec, texts)
    runs = [(coded, np.arange(len(coded)))]
    scores = passage_scores(query, [], runs, 32, exact)
    decoded = coded.decoded()
    wanted = [oracle(query, matrix, 16) if len(matrix) else -np.inf for matrix in decoded]
    np.testing.assert_allclose(scores, wanted, rtol=1e-5 if exact else 0.02)
    np.testing.assert_array_equal(np.isinf(scores), decoded.lengths == 0)


def test_no_texts_have_no_scores() -> None:
    query = np.ones((2, 8), np.float32)
    assert len(passage_scores(query, [], [], 32, exact=True)) == 0
