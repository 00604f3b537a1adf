"""Weights of query tokens: linear in Chamfer similarity and in every vector of the query."""

from typing import Any

import numpy as np
import pytest

from muvera import FDEConfig, FDEEncoder, MultiVectors, chamfer, inverse_document_frequency, weight_queries


def collection(seed: int, count: int) -> MultiVectors:
    rng = np.random.default_rng(seed)
    return MultiVectors.from_arrays([rng.normal(size=(rng.integers(2, 6), 8)) for _ in range(count)])


def test_weighted_chamfer_is_the_weighted_sum_of_maxima() -> None:
    queries, documents = collection(0, 3), collection(1, 5)
    weights = [np.random.default_rng(2).random(len(one)) for one in queries]
    weighted = weight_queries(queries, weights)
    for query, own, scaled in zip(queries, weights, weighted, strict=True):
        for document in documents:
            expected = float(own @ (np.asarray(query) @ np.asarray(document).T).max(axis=1))
            assert chamfer(scaled, document) == pytest.approx(expected, abs=1e-5)


def test_weights_of_one_change_nothing_and_zeros_leave_tokens_out() -> None:
    queries, documents = collection(0, 1), collection(1, 1)
    same = weight_queries(queries, np.ones(queries.num_tokens))
    assert np.array_equal(same.tokens, queries.tokens)
    assert np.array_equal(same.offsets, queries.offsets)
    first = np.zeros(queries.num_tokens)
    first[0] = 1
    assert chamfer(weight_queries(queries, first)[0], documents[0]) == pytest.approx(
        chamfer(queries[0][:1], documents[0]), abs=1e-6
    )


def test_a_query_fde_is_linear_in_the_weights() -> None:
    queries = collection(0, 2)
    config = FDEConfig(dimension=8, num_repetitions=2, center=False, soft_query_cells=0, split_mean=False)
    encoder = FDEEncoder(config)
    one, other = np.random.default_rng(3).random((2, queries.num_tokens))
    parts = [
        encoder.encode_queries(weight_queries(queries, weights)) for weights in (one, other, one + other)
    ]
    assert parts[0] + parts[1] == pytest.approx(parts[2], abs=1e-4)


def test_ids_are_kept() -> None:
    queries = collection(0, 2).with_ids(["x", "y"])
    assert weight_queries(queries, np.ones(queries.num_tokens)).ids.tolist() == ["x", "y"]


def test_frequencies_count_documents_not_occurrences() -> None:
    found = inverse_document_frequency([[1, 1, 1], [1, 2], [3]], [[1, 2], [9]])
    assert found[0] == pytest.approx(np.log1p([(3 - 2 + 0.5) / 2.5, (3 - 1 + 0.5) / 1.5]), rel=1e-6)
    assert found[1] == pytest.approx(np.log1p([3.5 / 0.5]), rel=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), "There are 3 weights for 2 query tokens"),
        ([1.0, -1.0], r"weights\[1\] is -1.0: weights must be finite and at least 0"),
        ([np.nan, 1.0], r"weights\[0\] is nan"),
        (np.ones((2, 1, 1)), "one entry for each query token, got shape"),
    ],
)
def test_what_is_refused(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weight_queries(np.eye(2), weights)
