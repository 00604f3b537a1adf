"""The theorems' parameters: the bounds of the proofs recomputed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera.diagnostics.theory import theorem_2_1, theorem_2_2

errors = st.floats(1e-3, 1.0)
failures = st.floats(1e-9, 0.999)
counts = st.integers(1, 5000)


def projection_failure(e: float, p: int) -> float:
    """Fact A.2 with Achlioptas' constants: an inner product of vectors of at most length 1 is off by e."""
    return 4 * math.exp(-p * (e**2 / 4 - e**3 / 6))


def worst_loss(deviation: float, largest_angle: float) -> float:
    """Largest cost of (8) over best angles up to `largest_angle`, and of (9), a cell's own tokens."""
    best = np.linspace(0, min(largest_angle, np.pi), 2001)
    other = np.minimum(best + 2 * np.pi * deviation, np.pi)
    own = 1 - math.cos(min(np.pi * deviation, np.pi))
    return max(float((np.cos(best) - np.cos(other)).max()), own)


@given(errors, failures, counts, counts)
def test_theorem_2_1_adds_up(eps: float, delta: float, queries: int, documents: int) -> None:
    required = theorem_2_1(eps, delta, queries, documents)
    assert required.num_repetitions == 1
    tokens = queries + documents
    for k, angle in (
        (required.num_simhash_projections, required.largest_angle),
        (required.any_angle_simhash_projections, np.pi),
    ):
        # The deviation that has the probability of inequality (7) with this k.
        deviation = math.sqrt(math.log(tokens**2 / (eps * min(delta, 0.5))) / (2 * k))
        partition = 2 * queries * documents * math.exp(-2 * deviation**2 * k)
        projection = queries * documents * projection_failure(eps / 2, required.projection_dimension)
        assert partition + projection <= eps * delta * (1 + 1e-9) <= delta * (1 + 1e-9)
        loss = worst_loss(deviation, angle)
        assert loss + eps / 2 <= eps * (1 + 1e-9)
        # In expectation the projection costs nothing, and a failure at most 2.
        assert loss + 2 * partition <= eps * (1 + 1e-9)


@given(errors, failures, counts, counts, st.integers(1, 10**9))
def test_theorem_2_2_adds_up(eps: float, delta: float, queries: int, documents: int, n: int) -> None:
    required = theorem_2_2(eps, delta, queries, documents, n)
    one = theorem_2_1(eps / 4, 0.1, queries, documents)
    assert required.num_simhash_projections == one.num_simhash_projections
    assert required.projection_dimension == one.projection_dimension
    tokens, small = queries + documents, eps / 4
    deviation = math.sqrt(math.log(tokens**2 / (small * 0.1)) / (2 * one.num_simhash_projections))
    partition = 2 * queries * documents * math.exp(-2 * deviation**2 * one.num_simhash_projections)
    bias = worst_loss(deviation, one.largest_angle) + 2 * partition
    assert bias <= 0.15 * eps * (1 + 1e-9)
    averaged = 2 * n * math.exp(-required.num_repetitions * (eps / 4) ** 2 / 2)
    e, rows = eps / 10, required.num_repetitions * required.projection_dimension
    projected = 2 * queries * n * math.exp(-rows * e**2 / (12 + 8 * e))
    assert averaged + projected <= delta * (1 + 1e-9)
    assert bias + eps / 4 + e <= eps / 2 * (1 + 1e-9)
    assert theorem_2_2(eps, None, queries, documents, n) == theorem_2_2(
        eps, 1 / max(n, 2), queries, documents, n
    )


def test_bad_input() -> None:
    for arguments, words in (
        ((0.0, 0.1, 3, 4), "eps .*0.0"),
        ((0.1, 1.0, 3, 4), "delta .*1.0"),
        ((0.1, 0.1, 0, 4), "num_query_tokens .*0"),
    ):
        with pytest.raises(ValueError, match=words):
            theorem_2_1(*arguments)
        with pytest.raises(ValueError, match=words):
            theorem_2_2(*arguments, 100)
    with pytest.raises(ValueError, match=r"num_documents .*0"):
        theorem_2_2(0.1, None, 3, 4, 0)
