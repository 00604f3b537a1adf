"""Candidates with estimated scores: ranking ends where the errors so far leave the next one no chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors, chamfer_matrix
from muvera.reranking.codecs import fit_codec
from muvera.reranking.codecs.base import CodedVectors, score_coded
from muvera.reranking.pruning import DocumentSlice, RerankOptions, score_candidates

bitwise = pytest.mark.compiled("interpreted products are NumPy's, whose bits depend on the shape")


def collection(seed: int, count: int) -> tuple[np.ndarray, MultiVectors]:
    """A query and documents, some of them without tokens."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 7, count)
    tokens = np.repeat(rng.standard_normal((count, 16)), lengths, axis=0)
    tokens += 0.5 * rng.standard_normal(tokens.shape)
    query = rng.standard_normal((5, 16)).astype(np.float32)
    return query, MultiVectors.from_flat(tokens.astype(np.float32), lengths)


def chances(exact: np.ndarray, estimates: np.ndarray, k: int) -> int:
    """How many of the candidates are looked at."""
    errors: list[float] = []
    seen: list[float] = []
    for i in range(len(exact)):
        if len(errors) >= max(k, 8):
            least = sorted(seen)[-k]
            if estimates[i] + np.mean(errors) + 5 * np.std(errors, ddof=1) < least:
                return i
        if exact[i] > -np.inf:
            errors.append(float(exact[i]) - float(estimates[i]))
            seen.append(float(exact[i]))
    return len(exact)


@bitwise
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(1, 60), st.integers(1, 12), st.floats(0.001, 1), st.integers(1, 3))
def test_it_ends_where_the_errors_say(seed: int, count: int, k: int, noise: float, parts: int) -> None:
    query, documents = collection(seed, count)
    exact = chamfer_matrix([query], documents, threads=1)[0]
    estimates = exact - np.float32(2) + noise * np.random.default_rng(seed).standard_normal(count)
    order = np.argsort(-estimates, kind="stable")
    estimates = estimates[order].astype(np.float32)
    runs = np.array_split(np.arange(count), parts)
    slices: list[DocumentSlice] = [(documents, order[run], run) for run in runs]
    options = RerankOptions(k, early_exit=False, estimates=estimates)
    expected = exact[order].copy()
    expected[chances(exact[order], estimates, k) :] = -np.inf
    for threads in (1, 2):
        np.testing.assert_array_equal(score_candidates(query, slices, count, options, threads), expected)


@bitwise
@pytest.mark.parametrize(("name", "most"), [("int8", 20), ("4bit", 30)])
def test_codes_leave_most_candidates_no_chance_and_lose_none_of_the_best(name: str, most: int) -> None:
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((300, 32))
    lengths = rng.integers(5, 30, 300)
    tokens = np.repeat(topics, lengths, axis=0) + rng.standard_normal((int(lengths.sum()), 32))
    documents = MultiVectors.from_flat(tokens.astype(np.float32), lengths)
    codec = fit_codec(name, np.asarray(documents.tokens, np.float32))
    coded = CodedVectors.of(codec, documents)
    scored, places = [], np.arange(100)
    for i in range(40):
        query = np.asarray(documents[i] + 0.5 * rng.standard_normal(documents[i].shape), np.float32)
        exact = chamfer_matrix([query], documents, threads=1)[0]
        rough = score_coded(query, codec, [(coded, np.arange(300), np.arange(300))], 300, threads=1)
        order = np.argsort(-rough, kind="stable")[:100]
        options = RerankOptions(10, early_exit=False, estimates=rough[order])
        found = score_candidates(query, [(documents, order, places)], 100, options, 1)
        best = order[np.argsort(-found, kind="stable")[:10]]
        assert set(best) == set(np.argsort(-exact, kind="stable")[:10])
        scored.append(int((found > -np.inf).sum()))
    assert np.mean(scored) < most
