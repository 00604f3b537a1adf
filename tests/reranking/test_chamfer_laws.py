"""Laws of Chamfer similarity: invariances, monotony, bounds and spans.

Also linearity, and carved queries.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from muvera import MultiVectors, chamfer, chamfer_matrix, explain, rerank, top_k
from muvera.reranking.chamfer import carve_queries, rank_spans, score_spans, spans_from_characters

Floats = NDArray[np.float32]

# At most 70 products, with as many float32 roundings, relative to the size of the
# terms.
ROUNDING = 1e-5


@st.composite
def texts(draw: st.DrawFn, count: int, most: int = 12) -> list[Floats]:
    """Some texts of one dimension, each with at least one token."""
    dimension = draw(some.dimensions)
    return [draw(some.token_arrays(dimension, least=1, most=most)) for _ in range(count)]


@st.composite
def collections(draw: st.DrawFn) -> tuple[MultiVectors, MultiVectors]:
    """Queries with tokens, and documents of any kind."""
    dimension = draw(some.dimensions)
    queries = draw(st.lists(some.token_arrays(dimension, least=1), min_size=1, max_size=3))
    return MultiVectors.from_arrays(queries), draw(some.multivectors(dimension))


def size(query: Any, document: Any) -> float:
    """Return the Cauchy-Schwarz bound: query lengths times the longest token.

    It is the longest token of the document.
    """
    lengths = [np.linalg.norm(np.asarray(text, np.float64), axis=1) for text in (query, document)]
    return float(lengths[0].sum() * lengths[1].max())


def whole_numbers(rng: np.random.Generator, lengths: Any, dimension: int = 8) -> MultiVectors:
    """Tokens of small whole numbers: products and sums are exact in float32."""
    tokens = rng.integers(-4, 5, (int(np.sum(lengths)), dimension)).astype(np.float32)
    return MultiVectors.from_flat(tokens, lengths)


# -- invariances --------------------------------------------------------------


@given(texts(2), st.randoms(use_true_random=False))
def test_the_order_of_document_tokens_changes_no_bit(pair: list[Floats], random: Any) -> None:
    """Permutation: a maximum does not depend on the order of its terms."""
    query, document = pair
    order = random.sample(range(len(document)), len(document))
    assert chamfer(query, document[order]) == chamfer(query, document)


@given(texts(2), st.integers(2, 4))
def test_repeated_document_tokens_change_no_bit(pair: list[Floats], times: int) -> None:
    """Duplication: a document is a set of tokens."""
    query, document = pair
    assert chamfer(query, np.repeat(document, times, axis=0)) == chamfer(query, document)


@given(texts(2), st.randoms(use_true_random=False))
def test_the_order_of_query_tokens_changes_only_the_rounding(pair: list[Floats], random: Any) -> None:
    """Permutation: scores differ by one unit at most.

    A float64 sum is rounded to float32 once.
    """
    query, document = pair
    order = random.sample(range(len(query)), len(query))
    assert chamfer(query[order], document) == pytest.approx(chamfer(query, document), rel=2e-7, abs=1e-12)


@given(texts(2), st.integers(2, 5))
def test_repeated_query_tokens_multiply_the_score(pair: list[Floats], times: int) -> None:
    """A query is a multiset: each token counts as often as it occurs."""
    query, document = pair
    repeated = chamfer(np.tile(query, (times, 1)), document)
    assert repeated == pytest.approx(times * chamfer(query, document), rel=5e-7)


@given(texts(2), some.seeds)
def test_a_rotation_of_both_texts_changes_only_the_rounding(pair: list[Floats], seed: int) -> None:
    """Orthogonal maps preserve inner products; float32 tokens are rounded once more."""
    query, document = pair
    dimension = query.shape[1]
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((dimension, dimension)))
    turned = [(text @ rotation).astype(np.float32) for text in pair]
    assert abs(chamfer(*turned) - chamfer(query, document)) <= ROUNDING * size(query, document)


@given(texts(2), st.integers(-8, 8), st.integers(-8, 8))
def test_scores_are_homogeneous_in_query_and_document(pair: list[Floats], left: int, right: int) -> None:
    """Positive homogeneity: powers of two scale each product without rounding."""
    query, document = pair
    scaled = chamfer(query * np.float32(2.0**left), document * np.float32(2.0**right))
    assert scaled == 2.0 ** (left + right) * chamfer(query, document)


@given(some.seeds)
def test_moving_all_document_tokens_adds_the_same_to_all_scores(seed: int) -> None:
    """Translation by v adds <sum of q, v>; exact, because all numbers are whole."""
    rng = np.random.default_rng(seed)
    queries, documents = whole_numbers(rng, [1, 5]), whole_numbers(rng, rng.integers(1, 9, 12))
    shift = rng.integers(-9, 10, documents.dimension).astype(np.float32)
    moved = MultiVectors.from_flat(documents.tokens + shift, documents.lengths)
    sums = np.array([query.sum(axis=0) @ shift for query in queries])
    added = chamfer_matrix(queries, moved) - chamfer_matrix(queries, documents)
    np.testing.assert_array_equal(added, np.repeat(sums[:, np.newaxis], len(documents), axis=1))


@given(collections())
def test_half_precision_documents_score_like_their_floats(
    both: tuple[MultiVectors, MultiVectors],
) -> None:
    """Tokens in float16 are widened exactly.

    The bits are those of the same numbers in float32.
    """
    queries, documents = both
    halves = MultiVectors(documents.tokens.astype(np.float16), documents.offsets)
    floats = MultiVectors(halves.tokens.astype(np.float32), documents.offsets)
    np.testing.assert_array_equal(chamfer_matrix(queries, halves), chamfer_matrix(queries, floats))


@given(texts(2), st.integers(1, 20))
def test_columns_of_zeros_change_no_bit(pair: list[Floats], columns: int) -> None:
    """Padding a dimension adds products of zero at the end of each sum."""
    wide = [np.pad(text, ((0, 0), (0, columns))) for text in pair]
    assert chamfer(*wide) == chamfer(*pair)


# -- monotony, additivity and bounds ------------------------------------------


@given(texts(3))
def test_a_union_scores_at_least_as_each_of_its_parts(three: list[Floats]) -> None:
    """Monotony in document tokens, and subadditivity over the union.

    Both hold for each query token.
    """
    query, one, other = three
    union = np.concatenate([one, other])
    parts = [chamfer(query, one), chamfer(query, other)]
    assert chamfer(query, union) >= max(parts)
    for token in query[:, np.newaxis]:
        assert chamfer(token, union) == max(chamfer(token, one), chamfer(token, other))


@given(texts(2), st.integers(0, 12))
def test_scores_add_up_over_query_tokens(pair: list[Floats], cut: int) -> None:
    """Additivity; each of three scores is rounded to float32 once."""
    query, document = pair
    parts = [part for part in (query[:cut], query[cut:]) if len(part)]
    total = sum(chamfer(part, document) for part in parts)
    rounding = sum(abs(chamfer(part, document)) for part in parts) * 1.2e-7
    assert abs(total - chamfer(query, document)) <= rounding + 1e-12


@given(texts(2))
def test_no_score_exceeds_the_product_of_lengths(pair: list[Floats]) -> None:
    """Cauchy-Schwarz, with the slack of float32 products.

    One token of a document is a lower bound.
    """
    query, document = pair
    bound = size(query, document)
    score = chamfer(query, document)
    assert abs(score) <= bound * (1 + ROUNDING)
    least = max(float((query.astype(np.float64) @ token).sum()) for token in document.astype(np.float64))
    assert score >= least - ROUNDING * bound


@given(st.data(), some.dimensions)
def test_no_unit_text_is_closer_to_a_unit_query_than_itself(data: st.DataObject, dimension: int) -> None:
    """Self-similarity of unit tokens is their number, the maximum.

    Rounding of float32 is allowed.
    """
    query, document = (data.draw(some.token_arrays(dimension, least=1, unit=True)) for _ in range(2))
    assert chamfer(query, query) == pytest.approx(len(query), rel=ROUNDING)
    assert chamfer(query, document) <= len(query) * (1 + ROUNDING)


@given(texts(3), st.floats(0, 1))
def test_scores_are_convex_in_a_query_token(three: list[Floats], share: float) -> None:
    """A maximum of linear functions is convex in the query token.

    Rounding of float32 is allowed.
    """
    one, other, document = three[0][:1], three[1][:1], three[2]
    mixed = (share * one + (1 - share) * other).astype(np.float32)
    bound = share * chamfer(one, document) + (1 - share) * chamfer(other, document)
    slack = ROUNDING * (size(one, document) + size(other, document))
    assert chamfer(mixed, document) <= bound + slack


# -- rankings -----------------------------------------------------------------


@given(collections(), st.integers(1, 8), st.integers(0, 7))
def test_the_best_of_two_halves_are_the_best_of_all(
    both: tuple[MultiVectors, MultiVectors], k: int, cut: int
) -> None:
    """Chunks: the k best are the k best of the k best of the parts.

    All ties are included.
    """
    queries, documents = both
    cut = min(cut, len(documents))
    parts = [top_k(queries, part, k) for part in (documents[:cut], documents[cut:])]
    for q, whole in enumerate(top_k(queries, documents, k)):
        merged = [pair for part in parts for pair in part[q]]
        assert list(whole) == sorted(merged, key=lambda pair: -pair[1])[:k]


@given(collections(), st.integers(1, 8))
def test_a_shorter_ranking_is_the_beginning_of_a_longer_one(
    both: tuple[MultiVectors, MultiVectors], k: int
) -> None:
    """Prefixes: k changes the length of a ranking and nothing else."""
    queries, documents = both
    for short, long in zip(top_k(queries, documents, k), top_k(queries, documents, k + 3), strict=True):
        assert list(short) == list(long)[:k]


@given(collections(), st.data())
def test_reranking_every_document_in_any_order_is_exact_search(
    both: tuple[MultiVectors, MultiVectors], data: st.DataObject
) -> None:
    """The order of candidates and repeats of them do not change the result."""
    queries, documents = both
    names = [f"d{9 - i}" for i in range(len(documents))]
    documents = documents.with_ids(names)
    order = data.draw(st.permutations(names))
    reranked = rerank(queries, documents, [[*order, *order[:2]]] * len(queries))
    for own, best in zip(reranked, top_k(queries, documents, len(documents)), strict=True):
        assert list(own) == list(best)


@given(texts(2), st.randoms(use_true_random=False))
def test_explanations_follow_the_tokens(pair: list[Floats], random: Any) -> None:
    """Equivariance: permuted documents have the same maxima.

    They are at permuted positions, the first of ties.
    """
    query, document = pair
    order = np.array(random.sample(range(len(document)), len(document)))
    one, other = explain(query, document), explain(query, document[order])
    np.testing.assert_array_equal(one.similarities, other.similarities)
    np.testing.assert_array_equal(document[one.tokens], document[order][other.tokens])
    singles = MultiVectors.from_arrays([token[np.newaxis] for token in query])
    columns = chamfer_matrix(singles, [token[np.newaxis] for token in document])
    np.testing.assert_array_equal(one.tokens, columns.argmax(axis=1))


# -- spans --------------------------------------------------------------------


@given(texts(2), st.data())
def test_a_span_scores_at_least_as_each_span_inside_it(pair: list[Floats], data: st.DataObject) -> None:
    """Monotony: the document is the best span, and an empty span scores -inf."""
    query, document = pair
    ends = st.integers(0, len(document))
    a, b, c, d = sorted(data.draw(st.tuples(ends, ends, ends, ends)))
    inner, outer, whole, empty = score_spans(query, document, [[b, c], [a, d], [0, len(document)], [a, a]])
    assert inner <= outer <= whole == np.float32(chamfer(query, document))
    assert empty == -np.inf


@settings(max_examples=25)
@given(texts(4), st.floats(0, 2), st.integers(1, 9), st.data())
def test_spans_are_ranked_by_span_plus_alpha_times_document(
    four: list[Floats], alpha: float, k: int, data: st.DataObject
) -> None:
    """Definition of the score, with ties to the earlier document and span.

    `k` cuts the list.
    """
    query, documents = four[0], four[1:]
    spans = []
    for document in documents:
        ends = st.tuples(st.integers(0, len(document)), st.integers(0, len(document))).map(sorted)
        spans.append(data.draw(st.lists(ends, max_size=3)))
    documents.append(documents[0])  # whose spans tie with those of the first document
    spans.append(spans[0])
    expected = []
    for number, (document, own) in enumerate(zip(documents, spans, strict=True)):
        for (start, stop), score in zip(own, score_spans(query, document, own).tolist(), strict=True):
            if stop > start:
                expected.append((number, start, stop, score + alpha * chamfer(query, document)))
    expected.sort(key=lambda span: -span[3])
    best = rank_spans(query, documents, spans, k, alpha=alpha)
    assert [(s.document, s.start, s.stop, s.score) for s in best] == expected[:k]


@given(st.lists(st.integers(0, 4), max_size=12), st.lists(st.integers(0, 30), max_size=5))
def test_tokens_belong_to_the_range_of_their_first_character(lengths: list[int], cuts: list[int]) -> None:
    """A partition of characters is one of the tokens that have characters."""
    ends = np.cumsum([0, *lengths]).tolist()
    characters = list(pairwise(ends))
    bounds = sorted({0, *cuts, ends[-1] + 1})
    ranges = list(pairwise(bounds))
    spans = spans_from_characters(ranges, characters)
    inside = [i for start, stop in spans.tolist() for i in range(start, stop) if lengths[i]]
    assert inside == [i for i, length in enumerate(lengths) if length]
    for (start, stop), (first, last) in zip(ranges, spans.tolist(), strict=True):
        assert all(start <= characters[i][0] < stop for i in range(first, last) if lengths[i])


# -- carved queries -----------------------------------------------------------

TAUS = st.sampled_from([0.05, 0.3, 0.7, 0.95, 1.0])


@given(texts(2), TAUS)
def test_a_carved_query_scores_at_most_as_the_query(pair: list[Floats], tau: float) -> None:
    """A ball matches one document token.

    So its sum cannot exceed the sum of its tokens' maxima.
    """
    query, document = pair
    carved = carve_queries(query, tau)[0]
    assert chamfer(carved, document) <= chamfer(query, document) + ROUNDING * size(query, document)


@given(texts(1), TAUS)
def test_carving_preserves_the_sum_of_a_querys_tokens(one: list[Floats], tau: float) -> None:
    """Conservation: balls are sums, and each token is in one ball.

    So a one-token document scores alike.
    """
    (query,) = one
    carved = carve_queries(query, tau)[0]
    assert 1 <= len(carved) <= len(query)
    sums = [text.sum(axis=0, dtype=np.float64) for text in (query, carved)]
    np.testing.assert_allclose(sums[1], sums[0], atol=1e-6 * np.abs(query).sum())


@given(texts(2), st.integers(1, 4))
def test_repeated_query_tokens_are_carved_into_multiples(pair: list[Floats], times: int) -> None:
    """Equal directions form one ball for every tau.

    Tau = 1 leaves scores as they are.
    """
    query, document = pair
    carved = carve_queries(np.tile(query, (times, 1)), 1.0)[0]
    assert len(carved) <= len(query)
    score = times * chamfer(query, document)
    assert abs(chamfer(carved, document) - score) <= times * ROUNDING * size(query, document)
