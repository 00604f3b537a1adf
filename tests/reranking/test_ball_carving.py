"""Ball carving: greedy balls and their sums, against a plain loop."""

from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

from muvera import MultiVectors, carve_queries, chamfer_matrix


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
    # Of one dimension, all cosines are 1 or -1, and duplicates have 1: neither is near `tau`.
    queries = [data.draw(some.token_arrays(dimension)) for _ in range(data.draw(st.integers(1, 4)))]
    carved = carve_queries(MultiVectors.from_arrays(queries, dimension=dimension, dtype=np.float32), tau)
    assert carved.tokens.dtype == np.float32
    for found, tokens in zip(carved, queries, strict=True):
        expected = np.array(carved_by_hand(tokens, tau), np.float32).reshape(-1, dimension)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@given(st.data(), some.dtypes)
def test_tau_1_leaves_tokens_of_different_directions_alone(data: st.DataObject, dtype: Any) -> None:
    dimension = data.draw(st.integers(2, 70))
    tokens = np.random.default_rng(data.draw(some.seeds)).standard_normal((9, dimension)).astype(dtype)
    np.testing.assert_array_equal(carve_queries(tokens, 1)[0], tokens.astype(np.float32))


def test_tau_1_joins_tokens_of_one_direction_and_no_zeros() -> None:
    tokens = np.array([[3.0, 4.0], [0.0, 0.0], [-3.0, -4.0], [3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    expected = np.array([[6.3, 8.4], [0, 0], [-3, -4], [0, 0]], np.float32)
    np.testing.assert_allclose(carve_queries(tokens, 1.0)[0], expected, rtol=1e-6)


@given(some.seeds, st.floats(0.05, 1.0))
def test_a_carved_score_is_never_above_chamfer(seed: int, tau: float) -> None:
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((3, 12, 8)).astype(np.float32)
    documents = list(rng.standard_normal((4, 6, 8)).astype(np.float32))
    carved = carve_queries(queries, tau)
    assert (chamfer_matrix(carved, documents) <= chamfer_matrix(queries, documents) + 1e-4).all()


def test_ids_and_queries_without_tokens_stay() -> None:
    queries = MultiVectors.from_arrays([np.ones((4, 3)), np.ones((0, 3))], ids=["a", "b"])
    carved = carve_queries(queries, 0.7)
    assert carved.ids.tolist() == ["a", "b"] and carved.lengths.tolist() == [1, 0]
    assert carved[0].tolist() == [[4.0, 4.0, 4.0]]
    assert not carve_queries(MultiVectors.from_flat(queries.tokens, queries.lengths), 0.7).has_ids


@pytest.mark.parametrize(
    ("tau", "kind", "message"),
    [
        (0, ValueError, "tau must be above 0 and at most 1, the least cosine within a ball, got 0"),
        (1.5, ValueError, "tau must be above 0 and at most 1, .* got 1.5"),
        (float("nan"), ValueError, "got nan"),
        ("0.7", TypeError, "tau must be a number, got str"),
        (True, TypeError, "tau must be a number, got bool"),
    ],
)
def test_bad_input_is_named(tau: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        carve_queries(np.ones((2, 3)), tau)


def test_numbers_that_are_not_finite_are_named() -> None:
    with pytest.raises(ValueError, match=r"queries\[0\] .* has inf in its token 1, coordinate 2"):
        carve_queries(np.array([[1.0, 0, 0], [0, 0, np.inf]]), 0.7)
