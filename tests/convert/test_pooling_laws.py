"""Laws of pooling and of the other transforms of token vectors."""

from typing import Any

import numpy as np
import pytest
import strategies as some
from builders.token_collections import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors
from muvera.convert.transforms import RULES, Options, PoolingRule, pool_tokens, unit

PLAIN = PoolingRule(protected=0)


@st.composite
def documents(draw: st.DrawFn, dtype: Any = np.float32) -> MultiVectors:
    """Unit tokens, some of them equal, of documents that may be empty."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=4))
    dimension = draw(st.sampled_from([2, 5, 16]))
    rng = np.random.default_rng(draw(some.seeds))
    tokens = rng.standard_normal((sum(lengths), dimension))
    if sum(lengths) and draw(st.booleans()):
        tokens = tokens[rng.integers(0, sum(lengths), sum(lengths))]
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return MultiVectors.from_flat(tokens.astype(dtype), lengths)


FACTORS = st.sampled_from([1.0, 1.5, 2.0, 3.0, 100.0])


@pytest.mark.parametrize(("name", "place"), [("sentence-transformers", 0), ("pylate", 0), ("pylate-1.4", -1)])
def test_the_first_token_is_not_pooled(name: str, place: int) -> None:
    """It stands for the whole text in these models; its copies are pooled."""
    tokens = np.array([[1, 0], [1, 0], [0.6, 0.8], [0.6, 0.8], [0, 1]], np.float32)[[2, 0, 1, 3, 4]]
    pooled = pool_tokens(MultiVectors.from_arrays([tokens]), 100, name)[0]
    assert pooled.shape == (2, 2)
    np.testing.assert_allclose(pooled[place], tokens[0], atol=1e-6)


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=15)
@given(documents(), FACTORS)
def test_pooling_leaves_at_most_a_share_of_the_tokens(name: str, texts: MultiVectors, factor: float) -> None:
    """Size: protected tokens and at most 1 / factor of the rest, at least one.

    An empty document stays empty.
    """
    rule = RULES[name]
    pooled = pool_tokens(texts, factor, rule)
    for before, after in zip(texts.lengths.tolist(), pooled.lengths.tolist(), strict=True):
        protected = min(rule.protected, before)
        counted = before if rule.count_protected else before - protected
        assert after <= protected + max(int(counted // factor), 1) and after <= before
        assert (after > 0) == (before > 0)
        assert after >= protected
    assert pooled.dimension == texts.dimension and not pooled.has_ids


@settings(max_examples=25)
@given(documents(), st.floats(1.01, 4))
def test_pooled_tokens_are_in_the_convex_hull(texts: MultiVectors, factor: float) -> None:
    """Means: a pooled token lies between the smallest and the largest entry.

    This holds in every coordinate.
    """
    pooled = pool_tokens(texts, factor, PLAIN)
    for before, after in zip(texts, pooled, strict=True):
        if len(before):
            assert (after <= before.max(axis=0) + 1e-6).all() and (after >= before.min(axis=0) - 1e-6).all()


@settings(max_examples=25)
@given(documents())
def test_one_cluster_is_the_mean_of_the_tokens_that_are_not_protected(texts: MultiVectors) -> None:
    """A large factor: the first tokens stay, bit for bit.

    The mean of the rest follows or precedes them.
    """
    for last in (False, True):
        pooled = pool_tokens(texts, 100, PoolingRule(protected=2, protected_last=last))
        for before, after in zip(texts, pooled, strict=True):
            first, mean = (after[: len(before[:2])], after[2:]) if not last else (after[-2:], after[:-2])
            if len(before) <= 2:
                np.testing.assert_array_equal(after, before)
                continue
            np.testing.assert_array_equal(first, before[:2])
            np.testing.assert_allclose(mean, before[2:].mean(axis=0, keepdims=True), atol=1e-6)


@settings(max_examples=20)
@given(documents(), st.integers(2, 3))
def test_equal_tokens_are_pooled_first(texts: MultiVectors, times: int) -> None:
    """Zero distances merge first.

    A document repeated `times` times is pooled to its tokens by this factor.
    """
    for tokens in texts:
        distinct = np.unique(tokens, axis=0)
        if len(distinct) < 2:
            continue
        repeated = MultiVectors.from_arrays([np.tile(distinct, (times, 1))])
        pooled = np.unique(pool_tokens(repeated, times, PLAIN)[0].round(5), axis=0)
        np.testing.assert_allclose(pooled, distinct.round(5), atol=3e-5)


@pytest.mark.parametrize(("dtype", "slack"), [(np.float32, 1e-6), (np.float16, 2e-3)])
@settings(max_examples=20)
@given(documents(), st.floats(1.0, 3), st.sampled_from(["sentence-transformers", "colpali"]))
def test_renormalized_pools_are_unit_tokens(
    dtype: Any, slack: float, texts: MultiVectors, factor: float, rule: str
) -> None:
    """Rules that renormalize return tokens of length 1, of the same dtype."""
    own = MultiVectors(texts.tokens.astype(dtype), texts.offsets)
    pooled = pool_tokens(own, factor, rule)
    assert pooled.tokens.dtype == dtype
    np.testing.assert_allclose(np.linalg.norm(pooled.tokens.astype(float), axis=1), 1, atol=slack)


@settings(max_examples=25)
@given(documents(), st.integers(-9, 9))
def test_normalizing_twice_or_after_scaling_is_normalizing_once(texts: MultiVectors, exponent: int) -> None:
    """Idempotence and scale invariance.

    A second pass moves entries by one unit of float32 at most.
    """
    scaled = MultiVectors(texts.tokens * np.float32(2.0**exponent), texts.offsets)
    once = unit(scaled)
    np.testing.assert_array_equal(once.tokens, unit(texts).tokens)
    np.testing.assert_allclose(unit(once).tokens, once.tokens, rtol=1.2e-7)


@settings(max_examples=25)
@given(documents(), some.seeds)
def test_dropping_zeros_is_idempotent_and_undoes_their_insertion(texts: MultiVectors, seed: int) -> None:
    """Zero rows anywhere are counted and dropped; the other tokens keep their order."""
    rng = np.random.default_rng(seed)
    texts.tokens[:, -1] = 0  # a zero does not make a token padding
    texts.tokens[:, 0] += 2
    arrays, zeros = [], 0
    for tokens in texts:
        at = rng.integers(0, len(tokens) + 1, int(rng.integers(0, 3)))
        zeros += len(at)
        arrays.append(np.insert(tokens, at, 0, axis=0))
    padded = MultiVectors.from_arrays(arrays, dimension=texts.dimension)
    options = Options(drop_zero_rows=True)
    kept, dropped = options.apply(padded)
    assert_same(kept, texts)
    assert dropped == zeros and options.apply(kept) == (kept, 0)


@settings(max_examples=25)
@given(documents(), st.integers(1, 2))
def test_truncation_keeps_the_first_columns_and_unit_length(texts: MultiVectors, columns: int) -> None:
    """Matryoshka: the direction of the first columns.

    A second truncation equals the shorter one.
    """
    short, _ = Options(truncate_dimension=columns).apply(texts)
    exact = texts.tokens[:, :columns].astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(short.tokens, exact, atol=1e-6)
    middle, _ = Options(truncate_dimension=2).apply(texts)
    twice, _ = Options(truncate_dimension=columns).apply(middle)
    np.testing.assert_allclose(twice.tokens, short.tokens, atol=3e-7)


def test_clusters_are_compact_instead_of_chains() -> None:
    """Nearest tokens alone would join all tokens on an arc but the last."""
    angles = np.radians([0, 5, 10, 15, 20, 25, 30, 36])
    arc = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    pooled = pool_tokens(MultiVectors.from_arrays([arc]), 4, PLAIN)[0]
    found = np.degrees(np.arctan2(pooled[:, 1], pooled[:, 0]))
    assert found.max() < 35  # the last token is not alone, although its gap is the largest
