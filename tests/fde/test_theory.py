"""Theorems 2.1 and 2.2: their bounds, put together again and tried.

They are tried on tokens.
"""

import math
from functools import partial
from typing import Any

import numpy as np
import oracle
import pytest
from builders.fdes import unit_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import FDEEncoder
from muvera.fde.theory import theorem_2_1, theorem_2_2

some_seeds = st.integers(0, 10**6)

errors = st.floats(1e-3, 1.0)
failures = st.floats(1e-9, 0.999)
counts = st.integers(1, 5000)


def projection_failure(e: float, p: int) -> float:
    """Fact A.2 with Achlioptas' constants: a product is off by e.

    It is an inner product of vectors of at most length 1.
    """
    return 4 * math.exp(-p * (e**2 / 4 - e**3 / 6))


def worst_loss(deviation: float, largest_angle: float) -> float:
    """Largest cost of (8) over best angles, and of (9), a cell's own tokens.

    Best angles are up to `largest_angle`.
    """
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
    default = theorem_2_2(eps, None, queries, documents, n)
    assert default == theorem_2_2(eps, 1 / max(n, 2), queries, documents, n)


@pytest.mark.parametrize(
    "theorem", [theorem_2_1, partial(theorem_2_2, num_documents=100)], ids=["theorem 2.1", "theorem 2.2"]
)
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.0, 0.1, 3, 4), "eps .*0.0"),
        ((1.5, 0.1, 3, 4), "eps .*1.5"),
        ((0.1, 1.0, 3, 4), "delta .*1.0"),
        ((0.1, 0.1, 0, 4), "num_query_tokens .*0"),
        ((0.1, 0.1, 3, -4), "num_document_tokens .*-4"),
    ],
)
def test_bad_theorems(theorem: Any, values: tuple[float, float, int, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        theorem(*values)


def test_documents_must_be_counted() -> None:
    with pytest.raises(ValueError, match=r"num_documents .*0"):
        theorem_2_2(0.1, None, 3, 4, 0)


# -- on tokens -------------------------------------------------------------------------


def estimate(
    query: np.ndarray, document: np.ndarray, normals: np.ndarray, signs: np.ndarray | None = None
) -> float:
    """Return <Fq, Fd> / |Q| of one repetition, cell by cell.

    2**k blocks are too many to store.
    """
    query_bits, document_bits = query @ normals.T > 0, document @ normals.T > 0
    if signs is not None:
        query, document = (x @ signs.T / math.sqrt(len(signs)) for x in (query, document))
    total = 0.0
    for q, bits in zip(query, query_bits, strict=True):
        distances = (bits != document_bits).sum(axis=1)
        inside = distances == 0
        members = inside if inside.any() else np.arange(len(document)) == distances.argmin()
        total += float(q @ document[members].mean(axis=0))
    return total / len(query)


@given(some_seeds, st.integers(0, 6), st.booleans())
def test_the_estimate_by_cells_is_that_of_the_encoder(seed: int, bits: int, projected: bool) -> None:
    """Section 2: both compute <Fq, Fd>; float32."""
    rng = np.random.default_rng(seed)
    query, document = unit_rows(rng, 5, 6), unit_rows(rng, 7, 6)
    values = {"projection_dimension": 4} if projected else {"projection": "identity"}
    encoder = FDEEncoder.preset(
        "paper", 6, num_repetitions=1, num_simhash_projections=bits, seed=seed, **values
    )
    matrices = encoder.arrays["matrices"]
    normals = matrices.hyperplanes[:, :6]
    signs = 2 * matrices.projections[0, :, :6] if projected else None
    found = encoder.encode_queries(query)[0] @ encoder.encode_documents(document)[0] / 5
    assert found == pytest.approx(estimate(query, document, normals, signs), abs=1e-5)


@given(st.floats(0.01, 0.5), st.floats(1e-9, 0.999), counts, counts)
def test_parameters_grow_as_the_theorems_say(eps: float, delta: float, queries: int, documents: int) -> None:
    """k as 1 / eps and 1 / eps**2, p as 1 / eps**2, R with log n.

    All but R have log(m / delta).
    """
    one, half = theorem_2_1(eps, delta, queries, documents), theorem_2_1(eps / 2, delta, queries, documents)
    assert half.num_simhash_projections >= 2 * one.num_simhash_projections - 2
    assert half.any_angle_simhash_projections >= 4 * one.any_angle_simhash_projections - 4
    assert half.projection_dimension >= 3.5 * one.projection_dimension
    larger = theorem_2_1(eps, delta / 10, 10 * queries, 10 * documents)
    assert one.num_simhash_projections < larger.num_simhash_projections < 10 * one.num_simhash_projections
    few, many = (theorem_2_2(eps, 0.1, queries, documents, n) for n in (10, 10**6))
    assert few.num_repetitions < many.num_repetitions < 10 * few.num_repetitions


@given(st.floats(0.01, 1), counts, counts, st.integers(1, 10**7))
def test_sizes_are_logarithms(eps: float, queries: int, documents: int, n: int) -> None:
    """log10(R 2**k p)."""
    required = theorem_2_2(eps, None, queries, documents, n)
    size = math.log10(required.num_repetitions) + math.log10(required.projection_dimension)
    wanted = size + required.num_simhash_projections * math.log10(2)
    assert required.log10_vector_dimension == pytest.approx(wanted)


@settings(max_examples=20)
@given(some_seeds, st.sampled_from([8, 64]))
def test_theorem_2_1_holds_for_any_angle(seed: int, dimension: int) -> None:
    """With `any_angle_simhash_projections`: no failure in 20 draws.

    One failure is allowed.
    """
    eps, delta = 0.5, 0.05
    required = theorem_2_1(eps, delta, 4, 12)
    rng = np.random.default_rng(seed)
    query, document = (unit_rows(rng, n, dimension).astype(np.float64) for n in (4, 12))
    normals = rng.standard_normal((required.any_angle_simhash_projections, dimension))
    signs = rng.choice([-1.0, 1.0], (required.projection_dimension, dimension))
    exact = oracle.chamfer(query, document) / 4
    assert abs(estimate(query, document, normals, signs) - exact) <= eps
    assert exact - eps / 2 <= estimate(query, document, normals) <= exact + 1e-12


@settings(max_examples=20)
@given(some_seeds)
def test_theorem_2_1_holds_within_its_angle(seed: int) -> None:
    """With the theorem's k, each query token has a near document token.

    It is within `largest_angle`.
    """
    eps, dimension, rng = 0.5, 16, np.random.default_rng(seed)
    required = theorem_2_1(eps, 0.05, 4, 12)
    query, document, off = (unit_rows(rng, n, dimension).astype(np.float64) for n in (4, 12, 4))
    off -= (off * query).sum(axis=1, keepdims=True) * query
    off /= np.linalg.norm(off, axis=1, keepdims=True)
    document[:4] = math.cos(required.largest_angle) * query + math.sin(required.largest_angle) * off
    exact = oracle.chamfer(query, document) / 4
    normals = rng.standard_normal((required.num_simhash_projections, dimension))
    assert exact - eps / 2 <= estimate(query, document, normals) <= exact + 1e-12


@settings(max_examples=10)
@given(some_seeds)
def test_theorem_2_2_finds_a_document_within_epsilon(seed: int) -> None:
    """The document with the largest product has at least the best NChamfer minus eps.

    Each query token has near tokens in the first documents, as the theorem assumes for
    its k.  One repetition of the theorem's many, without the projection, varies more.
    """
    eps, dimension, n, rng = 0.5, 12, 6, np.random.default_rng(seed)
    required = theorem_2_2(eps, None, 3, 8, n)
    query = unit_rows(rng, 3, dimension).astype(np.float64)
    documents = [unit_rows(rng, 8, dimension).astype(np.float64) for _ in range(n)]
    for document in documents[:4]:
        off = 0.5 * math.sin(required.largest_angle) * unit_rows(rng, 3, dimension)
        document[:3] = query + off
        document[:3] /= np.linalg.norm(document[:3], axis=1, keepdims=True)
    exact = np.array([oracle.chamfer(query, document) / 3 for document in documents])
    found = np.zeros(n)
    for _ in range(4):
        normals = rng.standard_normal((required.num_simhash_projections, dimension))
        found += [estimate(query, document, normals) for document in documents]
    assert exact[found.argmax()] >= exact.max() - eps


@pytest.mark.parametrize(("e", "p"), [(0.25, 200), (0.5, 40), (0.9, 20)])
def test_the_constants_of_fact_a_2(e: float, p: int) -> None:
    """Signs deviate most from Gaussians for vectors with one entry, or all alike."""
    rng = np.random.default_rng(3)
    for x, y in ((np.eye(1, 16)[0], np.eye(1, 16, 1)[0]), (np.full(16, 0.25), np.full(16, 0.25))):
        signs = rng.choice([-1.0, 1.0], (2000, p, 16))
        off = np.abs(((signs @ x) * (signs @ y)).mean(axis=1) - x @ y) > e
        assert off.mean() <= min(1.0, 4 * math.exp(-p * (e**2 / 4 - e**3 / 6)))
        assert off.mean() <= min(1.0, 2 * math.exp(-p * e**2 / (12 + 8 * e)))
