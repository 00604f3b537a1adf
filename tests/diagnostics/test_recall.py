"""Recall on a sample against a count one by one; windows that stand in for queries."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from muvera import FDEConfig, FDEEncoder, MultiVectors
from muvera.data.sampling import pseudo_queries
from muvera.diagnostics.recall import RecallEvaluator


def collection(seed: int, count: int, dimension: int = 8) -> MultiVectors:
    rng = np.random.default_rng(seed)
    return MultiVectors.from_arrays([rng.normal(size=(rng.integers(1, 9), dimension)) for _ in range(count)])


def brute(documents: MultiVectors, query: np.ndarray) -> np.ndarray:
    return np.array([(query @ text.T).max(axis=1).sum() for text in documents])


@pytest.mark.parametrize("excluded", [False, True])
def test_recall_is_that_of_a_count(excluded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = collection(0, 30)
    queries, sources = pseudo_queries(documents, 12, 4, np.random.default_rng(1))
    source_documents = sources if excluded else None
    config = FDEConfig(dimension=8, num_repetitions=3, num_simhash_projections=2)
    encoder = FDEEncoder(config).fit(documents)
    fdes = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
    shares = []
    for i, query in enumerate(queries):
        exact, guess = brute(documents, query), fdes[i].copy()
        if excluded:
            exact[sources[i]] = guess[sources[i]] = -np.inf
        shares.append(len(set(np.argsort(-exact)[:5]) & set(np.argsort(-guess)[:7])) / 5)
    evaluator = RecallEvaluator(documents, queries, source_documents, k=5)
    found = evaluator.recall(encoder, [7, 30])
    assert found == [pytest.approx(np.mean(shares)), 1.0]
    monkeypatch.setattr("muvera.diagnostics.recall._BLOCK_BYTES", 1)  # one document at a time
    assert evaluator.recall(encoder, [7, 30]) == found


def test_k_needs_so_many_documents() -> None:
    documents = collection(0, 10)
    queries, sources = pseudo_queries(documents, 3, 4, np.random.default_rng(1))
    with pytest.raises(ValueError, match="k=10 exceeds the 9 documents"):
        RecallEvaluator(documents, queries, sources)
    RecallEvaluator(documents, queries)


@given(seed=seeds, length=st.integers(1, 12), count=st.integers(1, 9))
def test_windows_lie_in_their_documents(seed: int, length: int, count: int) -> None:
    documents = collection(seed, 9)
    queries, sources = pseudo_queries(documents, count, length, np.random.default_rng(seed))
    assert len(queries) == len(set(sources.tolist())) == count
    for query, document in zip(queries, sources, strict=True):
        text = documents[int(document)]
        assert len(query) == min(length, len(text))
        assert any(np.array_equal(text[i : i + len(query)], query) for i in range(len(text)))
