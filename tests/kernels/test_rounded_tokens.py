"""Estimates of Chamfer similarities by tokens that are rounded to bytes."""

from typing import Any

import numpy as np
import oracle
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

from muvera import MultiVectors, MuveraIndex, top_k
from muvera.kernels.tile import LANES
from muvera.reranking.pruning import RerankOptions, estimate_candidates, estimate_together


def texts(seed: int, lengths: list[int], dimension: int, dtype: Any = np.float32) -> MultiVectors:
    rng = np.random.default_rng(seed)
    tokens = rng.standard_normal((sum(lengths), dimension)) * rng.uniform(0, 3, (sum(lengths), 1))
    return MultiVectors.from_flat(tokens.astype(dtype), lengths)


def estimates(query: np.ndarray, documents: MultiVectors, rows: Any, threads: int = 1) -> np.ndarray:
    options = RerankOptions(len(rows))
    return estimate_candidates(query, [(documents, np.asarray(rows))], options, threads)


@given(
    some.seeds,
    st.lists(st.integers(0, 150), min_size=1, max_size=6),
    st.integers(1, 4 * LANES),
    st.integers(1, 150),
    some.dtypes,
)
def test_estimates_are_chamfer_similarities_of_rounded_tokens(
    seed: int, lengths: list[int], count: int, dimension: int, dtype: Any
) -> None:
    documents = texts(seed, lengths, dimension, dtype)
    query = texts(seed + 1, [count], dimension)[0]
    found = estimates(query, documents, np.arange(len(documents)))
    asked = np.concatenate([oracle.rounded(token[np.newaxis]) for token in query])
    for document, score in zip(documents, found, strict=True):
        if not len(document):
            assert score == -np.inf
            continue
        read = oracle.rounded(document.astype(np.float32))
        # A quotient near the middle between two bytes may be rounded to either.
        assert score == pytest.approx(oracle.chamfer(asked, read), abs=0.02 * count)


def test_estimates_of_whole_127ths_are_exact() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(-127, 128, (60, 70)).astype(np.float32)
    tokens[:, 0] = 127  # the unit is 1
    documents = MultiVectors.from_flat(tokens[20:], [1, 7, 32])
    wanted = [oracle.chamfer(tokens[:20], document) for document in documents]
    np.testing.assert_array_equal(estimates(tokens[:20], documents, [0, 1, 2]), np.array(wanted, np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("dimension", [1, 17, 33, 47])
def test_the_largest_number_may_be_the_last_one(dimension: int, dtype: Any) -> None:
    tokens = np.random.default_rng(0).integers(-9, 10, (5, dimension)).astype(np.float32)
    tokens[-1, -1] = 127  # the unit is 1
    documents = MultiVectors.from_flat(tokens.astype(dtype), [5])
    query = np.full((1, dimension), 127, np.float32)
    assert estimates(query, documents, [0])[0] == oracle.chamfer(query, tokens)


@given(some.seeds, st.integers(1, 40), st.integers(1, 3), some.dtypes)
def test_an_estimate_does_not_depend_on_other_documents(
    seed: int, count: int, threads: int, dtype: Any
) -> None:
    documents = texts(seed, [90, 1, 0, 64, 65, 30] * 3, 48, dtype)
    query = texts(seed + 1, [count], 48)[0]
    order = np.random.default_rng(seed).permutation(len(documents))
    together = estimates(query, documents, order, threads)
    alone = [estimates(query, documents, [row])[0] for row in order]
    assert together.tobytes() == np.array(alone).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_search_of_floats_by_estimates_has_the_exact_ranking(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    topics = rng.standard_normal((40, 32))
    tokens = topics[rng.integers(0, 40, 30 * 300)] + 0.4 * rng.standard_normal((30 * 300, 32))
    documents = MultiVectors.from_flat(tokens.astype(dtype), [30] * 300)
    queries = [tokens[first : first + 24].astype(np.float32) for first in range(0, 9000, 400)]
    index = MuveraIndex.build(documents, "mean", exact_tokens=0)
    for query in queries:
        found = index.search(query, 5, candidates=300)[0]
        exact = top_k(query, documents, 5)[0]
        assert found.ids.tolist() == exact.ids.tolist()
        assert found.scores.tobytes() == exact.scores.tobytes()


@given(
    some.seeds,
    st.lists(st.integers(1, 2 * LANES + 1), min_size=1, max_size=5),
    st.integers(1, 3),
    some.dtypes,
)
def test_estimates_for_several_queries_are_those_of_each(
    seed: int, counts: list[int], threads: int, dtype: Any
) -> None:
    documents = texts(seed, [90, 1, 0, 64, 65, 30] * 50, 20, dtype)
    queries = texts(seed + 1, counts, 20)
    order = np.random.default_rng(seed).permutation(len(documents))
    halves = [(documents, order[:140]), (documents, order[140:])]
    together = estimate_together(queries, halves, threads)
    alone = [estimates(query, documents, order) for query in queries]
    assert together.tobytes() == np.array(alone).tobytes()
