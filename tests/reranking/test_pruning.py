"""Cheaper reranking: early exit is exact; estimates stop at the right candidate."""

from typing import Any

import numpy as np
import strategies as some
from hypothesis import example, given
from hypothesis import strategies as st

from muvera import MultiVectors, chamfer_matrix, rerank
from muvera.kernels.tile import LANES
from muvera.reranking.pruning import (
    RerankOptions,
    rank_candidates,
    rank_short,
    score_candidates,
)

KINDS = ["topics", "whole numbers", "alike", "negative", "long and short", "tiny", "huge", "zeros"]


def collection(
    kind: str, seed: int, lengths: list[int], query_tokens: int, dimension: int, dtype: Any
) -> Any:
    """A query and documents of few directions.

    They have ties, duplicates, any norms, and zero tokens.
    """
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
    tokens = (tokens * {"tiny": 1e-18, "huge": 1e11}.get(kind, 1.0)).astype(np.float32)
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
    return score_candidates(query, [(documents, candidates)], options, threads)


@given(cases(), st.sampled_from([1, 2, 3]))
@example((*collection("topics", 0, [3] * 40, 40, 24, np.float32), np.arange(40), 1), 1)
@example((*collection("whole numbers", 0, [2] * 40, 40, 2, np.float32), np.arange(40), 39), 2)
def test_early_exit_equals_the_full_rerank(case: Any, threads: int) -> None:
    """Ids, order, scores and ties for any k.

    Scores that were not finished are below the k best.
    """
    query, documents, candidates, k = case
    scores = chamfer_matrix([query], documents)[0]
    filled = [i for i in candidates if documents.lengths[i]]
    expected = sorted(filled, key=lambda i: (-scores[i], i))[:k]
    ranking = rerank([query], documents, [candidates], k, threads=threads)[0]
    assert ranking.ids.tolist() == expected and ranking.scores.tolist() == scores[expected].tolist()
    full, left = scored(case, RerankOptions(k, early_exit=False)), scored(case, RerankOptions(k))
    stopped = left != full
    assert (left[stopped] == -np.inf).all()
    assert not stopped.any() or full[stopped].max() < np.sort(full)[-k]


@given(some.seeds, st.integers(LANES + 1, 4 * LANES), st.integers(1, 3), st.integers(1, 20), some.dtypes)
def test_bounds_that_are_tight_skip_no_document_of_the_best(
    seed: int, query_tokens: int, directions: int, k: int, dtype: Any
) -> None:
    """Query tokens of few directions make a bound the score itself.

    Copies of documents make near ties: a bound that is too low changes a ranking.
    """
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((directions, 16))
    query = topics[rng.integers(0, directions, query_tokens)] * rng.uniform(0.5, 2, (query_tokens, 1))
    originals = [
        topics[rng.integers(0, directions, length)] * rng.uniform(0.1, 3, (length, 1))
        for length in rng.integers(1, 6, 4)
    ]
    # Copies are longer or shorter by a millionth, and have more tokens, which are
    # short.
    copies = [
        np.concatenate([original * (1 + 1e-6 * rng.standard_normal()), 0.01 * rng.standard_normal((2, 16))])
        for original in [originals[i] for i in rng.integers(0, 4, 40)]
    ]
    documents = MultiVectors.from_arrays(copies, dtype=dtype)
    tokens, order = query.astype(np.float32), rng.permutation(40)
    scores = chamfer_matrix([tokens], documents)[0]
    best, own = rank_candidates(tokens, order, [(documents, order)], RerankOptions(k), 1)
    expected = sorted(range(40), key=lambda i: (-scores[i], i))[:k]
    assert best.tolist() == expected and own.tolist() == scores[expected].tolist()


@given(cases())
def test_short_queries_together_rank_as_alone(case: Any) -> None:
    query, documents, candidates, k = case
    queries, rows = [query[:LANES], query[:1], query[:LANES]], [candidates, candidates[:2], candidates[::-1]]
    texts = MultiVectors.from_arrays(queries)
    together = rank_short(texts, rows, lambda at: [(documents, at)], k)
    for own, candidates, result in zip(queries, rows, together, strict=True):
        alone = rank_candidates(own, candidates, [(documents, candidates)], RerankOptions(k), 1)
        for one, other in zip(alone, result, strict=True):
            np.testing.assert_array_equal(one, other)


def test_candidates_far_from_the_query_cost_two_panels_each() -> None:
    rng = np.random.default_rng(0)
    query = rng.standard_normal(32) + 0.1 * rng.standard_normal((4 * LANES, 32))
    documents = MultiVectors.from_arrays([*[query] * 3, *[-query] * 50])
    case = (query.astype(np.float32), documents, np.arange(53), 3)
    assert np.isfinite(scored(case, RerankOptions(3, early_exit=False))).all()
    # Scoring stops only between two panels and the other two.
    assert np.flatnonzero(np.isfinite(scored(case, RerankOptions(3)))).tolist() == [0, 1, 2]


def estimated(exact: np.ndarray, estimates: np.ndarray, k: int) -> int:
    """Number of candidates scored before coding errors rule out the next one."""
    errors: list[float] = []
    seen: list[float] = []
    for i in range(len(exact)):
        chance = estimates[i] + np.mean(errors) + 5 * np.std(errors, ddof=1) if len(errors) >= 8 else np.inf
        if len(errors) >= k and chance < sorted(seen)[-k]:
            return i
        if exact[i] > -np.inf:
            errors.append(float(exact[i]) - float(estimates[i]))
            seen.append(float(exact[i]))
    return len(exact)


@given(st.integers(0, 999), st.integers(1, 60), st.integers(1, 12), st.floats(0.001, 1), st.integers(1, 3))
def test_estimates_stop_where_the_errors_say(seed: int, count: int, k: int, noise: float, parts: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 7, count)
    tokens = np.repeat(rng.standard_normal((count, 16)), lengths, axis=0)
    tokens += 0.5 * rng.standard_normal(tokens.shape)
    query = rng.standard_normal((5, 16)).astype(np.float32)
    documents = MultiVectors.from_flat(tokens.astype(np.float32), lengths)
    exact = chamfer_matrix([query], documents, threads=1)[0]
    estimates = exact - np.float32(2) + noise * rng.standard_normal(count)
    order = np.argsort(-estimates, kind="stable")
    estimates = estimates[order].astype(np.float32)
    runs = [(documents, run) for run in np.array_split(order, parts)]
    expected = exact[order].copy()
    expected[estimated(exact[order], estimates, k) :] = -np.inf
    options = RerankOptions(k, early_exit=False, estimates=estimates)
    for threads in (1, 2):
        np.testing.assert_array_equal(score_candidates(query, runs, options, threads), expected)
