"""Carved queries: against a plain loop, and identities with Chamfer."""

from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

from muvera import MultiVectors
from muvera.reranking.chamfer import carve_queries


def carved_by_hand(tokens: np.ndarray, tau: float) -> list[np.ndarray]:
    """The paper's greedy carving, with cosines for inner products."""
    waiting = [token.astype(np.float64) for token in tokens]
    sums = []
    while waiting:
        center = waiting.pop(0)
        total, left = center.copy(), []
        for token in waiting:
            lengths = np.linalg.norm(center) * np.linalg.norm(token)
            if lengths > 0 and center @ token / lengths >= tau:
                total += token
            else:
                left.append(token)
        sums.append(total)
        waiting = left
    return sums


@given(st.data(), st.sampled_from([0.05, 0.3, 0.7, 0.95]))
def test_balls_are_carved_greedily(data: st.DataObject, tau: float) -> None:
    dimension = data.draw(some.dimensions)
    # In one dimension all cosines are 1 or -1, and duplicates have 1: no cosine is near `tau`.
    queries = [data.draw(some.token_arrays(dimension)) for _ in range(data.draw(st.integers(1, 4)))]
    carved = carve_queries(MultiVectors.from_arrays(queries, dimension=dimension, dtype=np.float32), tau)
    assert carved.tokens.dtype == np.float32
    for actual, tokens in zip(carved, queries, strict=True):
        expected = np.array(carved_by_hand(tokens, tau), np.float32).reshape(-1, dimension)
        np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def test_tau_1_merges_only_equal_directions_and_no_zeros() -> None:
    tokens = np.array([[3.0, 4.0], [0.0, 0.0], [-3.0, -4.0], [3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    expected = np.array([[6.3, 8.4], [0, 0], [-3, -4], [0, 0]], np.float32)
    np.testing.assert_allclose(carve_queries(tokens, 1.0)[0], expected, rtol=1e-6)
    distinct = np.random.default_rng(0).standard_normal((9, 12)).astype(np.float16)
    np.testing.assert_array_equal(carve_queries(distinct, 1)[0], distinct.astype(np.float32))


def test_ids_and_queries_without_tokens_stay() -> None:
    queries = MultiVectors.from_arrays([np.ones((4, 3)), np.ones((0, 3))], ids=["a", "b"])
    carved = carve_queries(queries, 0.7)
    assert carved.ids.tolist() == ["a", "b"] and carved.lengths.tolist() == [1, 0]
    assert carved[0].tolist() == [[4.0, 4.0, 4.0]]
    assert not carve_queries(MultiVectors.from_flat(queries.tokens, queries.lengths), 0.7).has_ids


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: carve_queries(np.ones((2, 3)), 1.5), ValueError, "tau .*1.5"),
        (lambda: carve_queries(np.ones((2, 3)), True), TypeError, "tau .*bool"),
        (
            lambda: carve_queries(np.array([[1.0, np.inf]]), 0.7),
            ValueError,
            "inf in its token 0, coordinate 1",
        ),
    ],
)
def test_bad_input(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()
