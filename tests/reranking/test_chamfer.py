"""Exact Chamfer: the oracle, the properties that make it a ranking, and bits that depend on nothing else."""

import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import oracle
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

from muvera import MultiVectors, chamfer, chamfer_matrix, explain, rerank, top_k

# Each of at most some 70 products and as many roundings of float32, relative to the terms' size.
ROUNDING = 1e-5

#: The module, which the function of the same name hides.
module = sys.modules["muvera.reranking.chamfer"]

bitwise = pytest.mark.compiled("interpreted products are NumPy's, whose bits depend on the shape")


@st.composite
def pairs(draw: st.DrawFn) -> tuple[MultiVectors, MultiVectors]:
    """Queries, each with a token, and documents of any kind."""
    dimension = draw(some.dimensions)
    queries = draw(st.lists(some.token_arrays(dimension, least=1), min_size=1, max_size=4))
    return MultiVectors.from_arrays(queries, dtype=draw(some.dtypes)), draw(some.multivectors(dimension))


def whole_numbers(rng: np.random.Generator, lengths: Any, dimension: int = 8) -> MultiVectors:
    """Tokens of small whole numbers: every product and sum of them is exact in float32."""
    tokens = rng.integers(-4, 5, (int(np.sum(lengths)), dimension)).astype(np.float32)
    return MultiVectors.from_flat(tokens, lengths)


def sample(seed: int, lengths: Any, dimension: int = 24) -> MultiVectors:
    tokens = np.random.default_rng(seed).standard_normal((int(np.sum(lengths)), dimension))
    return MultiVectors.from_flat(tokens.astype(np.float32), lengths)


# -- the oracle ---------------------------------------------------------------


@given(pairs())
def test_matrix_is_the_oracles(both: tuple[MultiVectors, MultiVectors]) -> None:
    queries, documents = both
    scores = chamfer_matrix(queries, documents)
    assert scores.dtype == np.float32 and scores.shape == (len(queries), len(documents))
    for q, query in enumerate(queries):
        for p, document in enumerate(documents):
            if len(document) == 0:
                assert scores[q, p] == -np.inf
                continue
            size = np.linalg.norm(query, axis=1).sum() * np.linalg.norm(document, axis=1).max()
            assert scores[q, p] == pytest.approx(oracle.chamfer(query, document), abs=float(ROUNDING * size))


@given(pairs())
def test_mean_is_the_sum_by_the_number_of_tokens(both: tuple[MultiVectors, MultiVectors]) -> None:
    queries, documents = both
    expected = chamfer_matrix(queries, documents) / queries.lengths[:, np.newaxis]
    # One rounding before and one after the division.
    np.testing.assert_allclose(chamfer_matrix(queries, documents, mean=True), expected, rtol=2.5e-7)


def test_negative_similarities_are_not_clamped() -> None:
    """Padding with zero rows would make this 0."""
    assert chamfer([[1.0, 0.0]], [[-2.0, 0.0], [-0.5, 1.0]]) == -0.5
    documents = MultiVectors.from_arrays([[[-2.0, 0.0]], [[-0.5, 0.0]] * 3, [[-1.0, 9.0]]])
    assert top_k(np.array([[1.0, 0.0]]), documents, 3)[0].ids.tolist() == [1, 2, 0]
    assert explain([[1.0, 0.0]], documents[0]).similarities.tolist() == [-2.0]


# -- properties ---------------------------------------------------------------


@given(st.data())
def test_a_further_document_token_never_lowers_the_score(data: st.DataObject) -> None:
    dimension = data.draw(some.dimensions)
    query, document, more = (data.draw(some.token_arrays(dimension, least=1)) for _ in range(3))
    longer = np.concatenate([document, more])
    assert chamfer(query, longer) >= chamfer(query, document)
    assert chamfer(query, longer) == pytest.approx(chamfer(query, longer[::-1]), rel=1e-6)


@given(some.seeds, st.integers(1, 9))
def test_the_order_of_document_tokens_does_not_matter(seed: int, length: int) -> None:
    rng = np.random.default_rng(seed)
    query, document = whole_numbers(rng, [3])[0], whole_numbers(rng, [length])[0]
    assert chamfer(query, document) == chamfer(query, document[rng.permutation(length)])
    assert chamfer(query, document) == chamfer(query, np.concatenate([document, document]))


@given(some.seeds)
def test_shifting_all_document_tokens_changes_no_ranking(seed: int) -> None:
    """Every score moves by the same sum over the query; exact, for all numbers are whole."""
    rng = np.random.default_rng(seed)
    queries, documents = whole_numbers(rng, [1, 5]), whole_numbers(rng, rng.integers(1, 9, 12))
    shift = rng.integers(-9, 10, documents.dimension).astype(np.float32)
    moved = MultiVectors.from_flat(documents.tokens + shift, documents.lengths)
    for before, after in zip(top_k(queries, documents, 12), top_k(queries, moved, 12), strict=True):
        assert before.ids.tolist() == after.ids.tolist()
    sums = np.array([query.sum(axis=0) @ shift for query in queries])
    assert (chamfer_matrix(queries, moved) - chamfer_matrix(queries, documents) == sums[:, np.newaxis]).all()


@given(some.seeds, st.integers(1, 6), st.integers(1, 6))
def test_scores_add_up_over_query_tokens(seed: int, first: int, second: int) -> None:
    rng = np.random.default_rng(seed)
    query, document = whole_numbers(rng, [first + second])[0], whole_numbers(rng, [7])[0]
    assert chamfer(query, document) == chamfer(query[:first], document) + chamfer(query[first:], document)


# -- bits ---------------------------------------------------------------------


@bitwise
@given(pairs(), st.data())
def test_a_pair_alone_scores_as_in_any_batch(
    both: tuple[MultiVectors, MultiVectors], data: st.DataObject
) -> None:
    queries, documents = both
    scores = chamfer_matrix(queries, documents, threads=2)
    np.testing.assert_array_equal(scores, chamfer_matrix(queries, documents, threads=1))
    order = data.draw(st.permutations(range(len(documents))))
    np.testing.assert_array_equal(scores[:, order], chamfer_matrix(queries, documents[order]))
    for q, query in enumerate(queries):
        for p, document in enumerate(documents):
            if len(document):
                assert chamfer(query, document) == scores[q, p]


@bitwise
@given(st.data())
def test_dtype_strides_and_flags_do_not_matter(data: st.DataObject) -> None:
    dimension = data.draw(some.dimensions)
    query, document = (data.draw(some.token_arrays(dimension, least=1)).astype(np.float16) for _ in range(2))
    expected = chamfer(query.astype(np.float32), document.astype(np.float32))
    assert expected == chamfer(query, document)
    for dtype in (np.float16, np.float32, np.float64):
        pair = (
            data.draw(some.disguised(query.astype(dtype))),
            data.draw(some.disguised(document.astype(dtype))),
        )
        assert chamfer(*pair) == expected


@bitwise
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_memory_maps_score_like_memory(tmp_path: Path, dtype: Any) -> None:
    documents = sample(0, [3, 0, 40, 1, 7])
    documents = MultiVectors.from_flat(documents.tokens.astype(dtype), documents.lengths)
    documents.save(tmp_path / "documents")
    mapped = MultiVectors.load(tmp_path / "documents")
    assert isinstance(mapped.tokens, np.memmap)
    queries = sample(1, [4, 19])
    np.testing.assert_array_equal(chamfer_matrix(queries, mapped), chamfer_matrix(queries, documents))
    mapped_bits = [explain(queries[0], text).similarities for text in mapped if len(text)]
    bits = [explain(queries[0], text).similarities for text in documents if len(text)]
    for found, expected in zip(mapped_bits, bits, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("lengths", "dimension"), [([300, 3, 0, 513, 256], 128), ([9, 17, 0, 1], 40_000)])
def test_documents_of_several_blocks_score_as_their_tokens_do(
    lengths: list[int], dimension: int, dtype: Any
) -> None:
    rng = np.random.default_rng(dimension)
    tokens = rng.standard_normal((sum(lengths), dimension)).astype(dtype)
    documents = MultiVectors.from_flat(tokens, lengths)
    query = rng.standard_normal((19, dimension)).astype(np.float32)
    scores = chamfer_matrix(query, documents, threads=1)[0]
    # Every token is a document of one block.
    products = [
        chamfer_matrix(token[np.newaxis], list(tokens[:, np.newaxis]), threads=1)[0] for token in query
    ]
    for score, start, stop in zip(scores, documents.offsets[:-1], documents.offsets[1:], strict=True):
        expected = sum(float(row[start:stop].max()) for row in products) if stop > start else -np.inf
        assert score == pytest.approx(expected, rel=1e-6, abs=1e-4)


@bitwise
def test_blocks_of_queries_and_tasks_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, documents = sample(2, [5, 1, 20, 3, 3]), sample(3, [9, 0, 31, 2, 16, 1])
    scores, rankings = chamfer_matrix(queries, documents), top_k(queries, documents, 3)
    for name, value in (("_QUERY_TOKENS", 4), ("_TASK_TOKENS", 3), ("_HELD_SCORES", 7)):
        monkeypatch.setattr(module, name, value)
    np.testing.assert_array_equal(chamfer_matrix(queries, documents, threads=2), scores)
    for found, expected in zip(top_k(queries, documents, 3, threads=2), rankings, strict=True):
        assert list(found) == list(expected)


# -- rankings -----------------------------------------------------------------


@given(pairs(), st.data())
def test_top_k_orders_by_score_then_position(
    both: tuple[MultiVectors, MultiVectors], data: st.DataObject
) -> None:
    queries, documents = both
    filled = int((documents.lengths > 0).sum())
    if filled == 0:
        assert [len(ranking) for ranking in top_k(queries, documents, 1)] == [0] * len(queries)
        return
    k = data.draw(st.integers(1, filled + 3))
    for row, ranking in zip(chamfer_matrix(queries, documents), top_k(queries, documents, k), strict=True):
        expected = sorted(range(len(row)), key=lambda i: (-row[i], i))[: min(k, filled)]
        assert ranking.ids.tolist() == expected
        assert ranking.scores.tolist() == row[expected].tolist()


def test_ties_go_to_the_earlier_document() -> None:
    document = [[1.0, 2.0], [0.5, 0.0]]
    documents = MultiVectors.from_arrays([[[0.0, 0.0]], *[document] * 5], ids=list("zedcba"))
    query = np.ones((1, 2))
    assert top_k(query, documents, 3)[0].ids.tolist() == ["e", "d", "c"]
    assert rerank(query, documents, [["a", "b", "z"]])[0].ids.tolist() == ["b", "a", "z"]
    assert rerank(query, documents.with_ids(range(10, 16)), [[15, 14, 10]])[0].ids.tolist() == [14, 15, 10]


@bitwise
@given(pairs(), st.data())
def test_rerank_is_top_k_of_what_it_is_given(
    both: tuple[MultiVectors, MultiVectors], data: st.DataObject
) -> None:
    queries, documents = both
    places = st.lists(st.integers(0, len(documents) - 1), max_size=8)
    candidates = [data.draw(places) for _ in queries]
    k = data.draw(st.one_of(st.none(), st.integers(1, 5)))
    rankings = rerank(queries, documents, candidates, k, threads=data.draw(st.sampled_from([1, 2])))
    scores = chamfer_matrix(queries, documents)
    for row, picked, ranking in zip(scores, candidates, rankings, strict=True):
        filled = [i for i in set(picked) if documents.lengths[i]]
        expected = sorted(filled, key=lambda i: (-row[i], i))[:k]
        assert ranking.ids.tolist() == expected and ranking.scores.tolist() == row[expected].tolist()


def test_documents_without_tokens_are_never_returned() -> None:
    documents = sample(4, [0, 2, 0, 5])
    assert sorted(top_k(sample(5, [3]), documents, 2)[0].ids) == [1, 3]
    assert rerank(sample(5, [3]), documents, [[0, 2]])[0].ids.tolist() == []
    assert len(rerank(sample(5, [3]), documents, [[]])[0]) == 0


def test_no_queries_and_no_documents_give_empty_answers() -> None:
    none, documents = MultiVectors.from_arrays([], dimension=24), sample(6, [2, 3])
    assert top_k(none, documents, 1) == [] and rerank(none, documents, []) == []
    assert top_k([], documents, 1) == [] and rerank([], documents, []) == []
    assert [len(row) for row in top_k(documents, none, 3)] == [0, 0]
    assert [len(row) for row in top_k(documents, [], 3)] == [0, 0] and top_k([], [], 3) == []
    some = [documents[0], np.empty((0, 24)), documents[1]]
    for found in (top_k(some, documents, 3), rerank(some, documents, [[0, 1]] * 3, 3)):
        assert [len(row) for row in found] == [2, 0, 2]
    assert chamfer_matrix(none, documents).shape == (0, 2)
    assert chamfer_matrix(documents, none).shape == (2, 0)


# -- explain ------------------------------------------------------------------


@bitwise
@given(st.data())
def test_explain_adds_up_to_the_score(data: st.DataObject) -> None:
    dimension, dtype = data.draw(some.dimensions), data.draw(some.dtypes)
    query, document = (
        data.draw(some.token_arrays(dimension, least=1, most=40)).astype(dtype) for _ in range(2)
    )
    explanation = explain(query, document)
    assert explanation.score == chamfer(query, document)
    for q, (token, similarity) in enumerate(zip(explanation.tokens, explanation.similarities, strict=True)):
        assert similarity == chamfer(query[q : q + 1], document[token : token + 1])
        assert similarity == max(chamfer(query[q : q + 1], token[np.newaxis]) for token in document)


def test_explain_names_the_first_of_equal_tokens() -> None:
    document = [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]] * 10
    assert explain([[1.0, 0.0], [0.0, 1.0]], document).tokens.tolist() == [1, 0]


# -- bad input ----------------------------------------------------------------

GOOD = MultiVectors.from_arrays([np.ones((2, 3)), np.ones((1, 3))])
NAMED = GOOD.with_ids(["a", "b"])


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: chamfer(np.ones((0, 3)), GOOD[0]), ValueError, r"query must have shape .* got \(0, 3\)"),
        (lambda: chamfer(GOOD[0], np.ones((0, 3))), ValueError, r"document must have .* got \(0, 3\)"),
        (lambda: chamfer(np.ones(3), GOOD[0]), ValueError, r"query must have .* got \(3,\)"),
        (lambda: chamfer(np.ones((1, 4)), GOOD[0]), ValueError, "have 4 columns, but documents have 3"),
        (lambda: explain(np.ones((1, 3)), np.ones((1, 2))), ValueError, "have 3 .* documents have 2"),
        (lambda: chamfer(np.ones((1, 3), int), GOOD[0]), TypeError, "dtype int64"),
        (
            lambda: chamfer_matrix([np.ones((1, 3)), np.ones((0, 3))], GOOD),
            ValueError,
            r"queries\[1\] has no tokens",
        ),
        (lambda: chamfer([[1.0, np.nan, 0.0]], GOOD[0]), ValueError, "has nan in its token 0, coordinate 1"),
        (lambda: top_k([GOOD[0] * 1e19], GOOD, 1), ValueError, r"queries\[0\] .*must be below 1e\+12 in size"),
        (lambda: top_k(GOOD, [GOOD[0] * 1e19], 1), ValueError, r"documents\[0\] .*must be below 1e\+12 in size"),
        (lambda: chamfer(GOOD[0], [[0.0, 1.0, np.inf]]), ValueError, "has inf in its token 0, coordinate 2"),
        (lambda: top_k(GOOD, GOOD, 0), ValueError, "k must be at least 1, got 0"),
        (lambda: top_k(GOOD, GOOD, cast(int, 1.0)), TypeError, "k must be an int, got float"),
        (lambda: top_k(GOOD, GOOD, True), TypeError, "k must be an int, got bool"),
        (lambda: top_k(GOOD, GOOD, 1, threads=0), ValueError, "threads must be at least 1, got 0"),
        (lambda: rerank(GOOD, GOOD, [[0]]), ValueError, "1 candidate lists for 2 queries"),
        (lambda: rerank(GOOD, GOOD, [[0], [1, 2]]), ValueError, r"candidates\[1\] has position 2, .* 2 doc"),
        (lambda: rerank(GOOD, GOOD, [[-1], [1]]), ValueError, r"candidates\[0\] has position -1"),
        (lambda: rerank(GOOD, GOOD, [[0.5], [1]]), TypeError, r"candidates\[0\] must be integer .* float64"),
        (lambda: rerank(GOOD, GOOD, [[0], [[1]]]), TypeError, r"candidates\[1\] must be integer .*\(1, 1\)"),
        (lambda: rerank(GOOD, GOOD, [[0], [1]], 0), ValueError, "k must be at least 1, got 0"),
        (lambda: rerank(GOOD, NAMED, [["a"], ["b", "c"]]), ValueError, r"candidates\[1\] has id 'c', which none of"),
        (lambda: rerank(GOOD, NAMED, [["a"], [0.5]]), TypeError, r"candidates\[1\] must be integer ids .* float64"),
        (lambda: top_k("text", GOOD, 1), TypeError, "got the text str 'text'. Encode it with your model first"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
