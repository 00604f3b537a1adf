"""Cheaper reranking: early exit is exact, patience ends where it says, a carved query only chooses."""

from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import example, given
from hypothesis import strategies as st

from muvera import MultiVectors, carve_queries, chamfer_matrix, rerank
from muvera.kernels.tile import LANES
from muvera.reranking.pruning import DocumentSlice, RerankOptions, score_candidates

bitwise = pytest.mark.compiled("interpreted products are NumPy's, whose bits depend on the shape")

KINDS = ["topics", "whole numbers", "alike", "negative", "long and short", "tiny", "huge", "zeros"]


def collection(
    kind: str, seed: int, lengths: list[int], query_tokens: int, dimension: int, dtype: Any
) -> Any:
    """A query and documents: of few directions, with ties, duplicates, any norms, and tokens of zeros."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((6, dimension))
    count = query_tokens + sum(lengths)
    if kind == "whole numbers":
        tokens = rng.integers(-1, 2, (count, dimension)).astype(np.float64)
    else:
        tokens = topics[rng.integers(0, 6, count)] + 0.3 * rng.standard_normal((count, dimension))
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    if kind == "alike" and count > query_tokens:
        tokens[query_tokens:] = tokens[rng.integers(query_tokens, min(query_tokens + 2, count), sum(lengths))]
    if kind == "negative":
        tokens = np.abs(tokens)
        tokens[query_tokens:] *= -1
    if kind == "long and short":
        tokens *= rng.uniform(0.01, 30, (count, 1))
    if kind == "zeros":
        tokens[rng.random(count) < 0.4] = 0
    size = {"tiny": 1e-18, "huge": 1e11}.get(kind, 1.0)
    tokens = (tokens * size).astype(np.float32)
    documents = MultiVectors.from_flat(tokens[query_tokens:].astype(dtype), lengths)
    return tokens[:query_tokens], documents


@st.composite
def cases(draw: st.DrawFn) -> Any:
    """A query of some panels, documents, candidates in any order, and k."""
    kind = draw(st.sampled_from(KINDS))
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=25))
    dtype = np.float32 if kind in ("tiny", "huge") else draw(some.dtypes)
    query, documents = collection(
        kind, draw(some.seeds), lengths, draw(st.integers(1, 4 * LANES)), draw(some.dimensions), dtype
    )
    candidates = draw(st.permutations(range(len(lengths))))
    return query, documents, np.array(candidates), draw(st.integers(1, len(lengths)))


def scored(case: Any, options: RerankOptions, threads: int = 1) -> np.ndarray:
    query, documents, candidates, _ = case
    slices: list[DocumentSlice] = [(documents, candidates, np.arange(len(candidates)))]
    return score_candidates(query, slices, len(candidates), options, threads)


# -- early exit ---------------------------------------------------------------


@bitwise
@given(cases(), st.booleans(), st.sampled_from([1, 2, 3]))
@example((*collection("topics", 0, [3] * 40, 40, 24, np.float32), np.arange(40), 1), False, 1)
@example((*collection("whole numbers", 0, [2] * 40, 40, 2, np.float32), np.arange(40), 39), True, 2)
def test_early_exit_equals_the_full_rerank(case: Any, mean: bool, threads: int) -> None:
    """The ids, their order, the scores, the ties: whatever k, also all."""
    query, documents, candidates, k = case
    scores = chamfer_matrix([query], documents, mean=mean)[0]
    filled = [i for i in candidates if documents.lengths[i]]
    expected = sorted(filled, key=lambda i: (-scores[i], i))[:k]
    found = rerank([query], documents, [candidates], k, mean=mean, threads=threads)[0]
    assert found.ids.tolist() == expected
    assert found.scores.tolist() == scores[expected].tolist()


@bitwise
@given(cases())
def test_what_is_left_is_below_the_k_best(case: Any) -> None:
    _, _, _, k = case
    full, left = scored(case, RerankOptions(k, early_exit=False)), scored(case, RerankOptions(k))
    stopped = left != full
    assert (left[stopped] == -np.inf).all()
    assert not stopped.any() or full[stopped].max() < np.sort(full)[-k]


def test_candidates_far_from_the_query_cost_one_panel_each() -> None:
    rng = np.random.default_rng(0)
    query = rng.standard_normal(32) + 0.1 * rng.standard_normal((2 * LANES, 32))
    near, far = [query] * 3, [-query] * 50
    documents = MultiVectors.from_arrays([*near, *far])
    case = (query.astype(np.float32), documents, np.arange(53), 3)
    early = RerankOptions(3, products=[])
    scored(case, early)
    full = RerankOptions(3, early_exit=False, products=[])
    scored(case, full)
    assert full.products == [53 * 2 * LANES * 2]
    assert early.products == [(3 * 2 + 50) * 2 * LANES]


def test_norms_are_remembered() -> None:
    query, documents = collection("long and short", 1, [2, 3, 0, 4], 20, 20, np.float16)
    assert documents.longest_tokens.tolist() == [-1] * 4
    rerank([query], documents, [[0, 1, 2, 3]], 1, threads=1)
    known = documents.longest_tokens
    assert known[0] == -1 and known[2] == -1  # the first had nothing to be compared with
    lengths = [np.linalg.norm(text.astype(np.float32), axis=1).max() for text in (documents[1], documents[3])]
    np.testing.assert_allclose(known[[1, 3]], lengths, rtol=3e-5)
    assert (known[[1, 3]] >= lengths).all()


# -- patience -----------------------------------------------------------------


def patient(scores: np.ndarray, order: np.ndarray, k: int, patience: int) -> list[int]:
    """Candidates that are scored until `patience` in a row were not above the k best before them."""
    seen: list[int] = []
    idle = 0
    for i in order:
        if idle == patience:
            break
        best = sorted((scores[j] for j in seen), reverse=True)[:k]
        news = scores[i] > -np.inf and (len([s for s in best if s > -np.inf]) < k or scores[i] > best[-1])
        idle = 0 if news else idle + 1
        seen.append(int(i))
    return seen


@bitwise
@given(cases(), st.integers(1, 8), st.sampled_from([1, 2]))
def test_patience_ends_after_so_many_without_news(case: Any, patience: int, threads: int) -> None:
    query, documents, candidates, k = case
    scores = chamfer_matrix([query], documents)[0]
    seen = patient(scores, candidates, k, patience)
    expected = sorted((i for i in seen if documents.lengths[i]), key=lambda i: (-scores[i], i))[:k]
    found = rerank([query], documents, [candidates], k, patience=patience, threads=threads)[0]
    assert found.ids.tolist() == expected and found.scores.tolist() == scores[expected].tolist()


@bitwise
@given(cases())
def test_endless_patience_is_the_full_rerank(case: Any) -> None:
    query, documents, candidates, k = case
    found = rerank([query], documents, [candidates], k, patience=10**9)[0]
    assert list(found) == list(rerank([query], documents, [candidates], k)[0])


# -- ball carving -------------------------------------------------------------


@bitwise
@given(cases(), st.floats(0.05, 1.0))
def test_the_carved_query_chooses_and_the_whole_one_scores(case: Any, tau: float) -> None:
    query, documents, candidates, k = case
    carved = carve_queries(query, tau)
    exact = chamfer_matrix([query], documents)[0]
    saves = -(-carved.num_tokens // LANES) < -(-len(query) // LANES)
    rough = chamfer_matrix(carved, documents)[0] if saves else exact
    filled = [i for i in candidates if documents.lengths[i]]
    chosen = sorted(filled, key=lambda i: (-rough[i], i))[:k]
    expected = sorted(chosen, key=lambda i: (-exact[i], i))
    found = rerank([query], documents, [candidates], k, ball_carving_tau=tau)[0]
    assert found.ids.tolist() == expected and found.scores.tolist() == exact[expected].tolist()


@bitwise
@given(some.seeds, st.integers(1, 30))
def test_tau_1_with_distinct_tokens_is_the_full_rerank(seed: int, k: int) -> None:
    query, documents = collection("topics", seed, [5] * 30, 20, 16, np.float32)
    order = np.random.default_rng(seed).permutation(30)
    found = rerank([query], documents, [order], k, ball_carving_tau=1.0)[0]
    assert list(found) == list(rerank([query], documents, [order], k)[0])


def test_a_carved_query_of_as_many_panels_is_not_used() -> None:
    """It would cost as much and choose worse."""
    rng = np.random.default_rng(3)
    documents = MultiVectors.from_arrays(list(rng.standard_normal((40, 4, 8)).astype(np.float32)))
    chosen = []
    for count in (LANES, LANES + 1):
        query = rng.standard_normal((count, 8)).astype(np.float32)
        full, carved = (
            rerank([query], documents, [range(40)], 5, ball_carving_tau=tau)[0] for tau in (None, 0.01)
        )
        chosen.append(list(full) == list(carved))
    assert chosen == [True, False]


# -- bad input ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"k": 1, "patience": 0}, ValueError, "patience must be at least 1, got 0. Use None"),
        ({"k": 1, "patience": 2.0}, TypeError, "patience must be an int or None, got float"),
        ({"k": 1, "patience": True}, TypeError, "patience must be an int or None, got bool"),
        (
            {"k": 1, "ball_carving_tau": 1.2},
            ValueError,
            "ball_carving_tau must be above 0 and at most 1, .* got 1.2",
        ),
        (
            {"ball_carving_tau": 0.7},
            ValueError,
            "ball_carving_tau and patience leave out what is not .* k best. Give k.",
        ),
        (
            {"patience": 3},
            ValueError,
            "ball_carving_tau and patience leave out what is not .* k best. Give k.",
        ),
    ],
)
def test_bad_input_is_named(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        rerank(np.ones((2, 3)), MultiVectors.from_arrays([np.ones((1, 3))]), [[0]], **arguments)
