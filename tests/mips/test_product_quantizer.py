"""ProductQuantizer: round trips and bounds, and the same bits whatever the threads and the batch."""

from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given
from hypothesis import strategies as st

from muvera.mips.product_quantizer import CENTROIDS, ProductQuantizer

SETTINGS: Any = {"most": 1000, "seed": 3, "threads": 1}


def random_quantizer(rng: np.random.Generator, dimension: int, width: int) -> ProductQuantizer:
    groups = -(-dimension // width)
    return ProductQuantizer(rng.standard_normal((groups, CENTROIDS, width)).astype(np.float32), dimension)


@given(some.seeds, st.integers(1, 20), st.integers(1, 9))
def test_what_a_code_stands_for_is_coded_without_loss(seed: int, dimension: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    quantizer = random_quantizer(rng, dimension, width)
    assert quantizer.groups == -(-dimension // width)
    codes = rng.integers(0, CENTROIDS, (3, quantizer.groups)).astype(np.uint8)
    decoded = quantizer.decode(codes)
    assert decoded.shape == (3, dimension) and decoded.dtype == np.float32
    if dimension % width == 0:  # a last group's columns past the dimension are zeros in a vector
        # Squared distances are right to float32's rounding, so distances to its root.
        np.testing.assert_allclose(quantizer.decode(quantizer.encode(decoded, 1)), decoded, atol=2e-3)


@given(some.seeds, st.integers(1, 20), st.integers(1, 9))
def test_products_are_those_with_the_decoded(seed: int, dimension: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    quantizer = random_quantizer(rng, dimension, width)
    codes = rng.integers(0, CENTROIDS, (6, quantizer.groups)).astype(np.uint8)
    queries = rng.standard_normal((3, dimension)).astype(np.float32)
    queries[1, : dimension // 2] = 0
    picked = np.array([5, 0, 3])
    found = quantizer.products(codes, picked, queries, 1)
    expected = quantizer.decode(codes)[picked].astype(np.float64) @ queries.T
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.compiled("k-means of many points")
def test_no_code_word_is_nearer_than_the_chosen_one() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((500, 12)).astype(np.float32)
    quantizer = ProductQuantizer.train(vectors, 4, **SETTINGS)
    best = ((vectors - quantizer.decode(quantizer.encode(vectors))) ** 2).sum(axis=1)
    for _ in range(20):
        other = rng.integers(0, CENTROIDS, (500, 3)).astype(np.uint8)
        assert (((vectors - quantizer.decode(other)) ** 2).sum(axis=1) >= best - 1e-4).all()
    # k-means of a Gaussian: far below its variance of 12 a vector.
    assert best.mean() < 0.2 * 12


@pytest.mark.compiled("k-means of many points")
def test_training_depends_on_the_seed_and_on_nothing_else() -> None:
    vectors = np.random.default_rng(2).standard_normal((600, 40)).astype(np.float32)
    one = ProductQuantizer.train(vectors, 2, **SETTINGS)
    two = ProductQuantizer.train(vectors, 2, **{**SETTINGS, "threads": 2})
    np.testing.assert_array_equal(one.centroids, two.centroids)
    other = ProductQuantizer.train(vectors, 2, **{**SETTINGS, "seed": 4})
    assert (one.centroids != other.centroids).any()
    fewer = ProductQuantizer.train(vectors, 2, **{**SETTINGS, "most": 300})
    picked = np.random.default_rng(3).permutation(600)[:300]
    errors = [((vectors[picked] - q.decode(q.encode(vectors[picked]))) ** 2).mean() for q in (one, fewer)]
    assert errors[1] < errors[0]  # it saw these alone


@pytest.mark.compiled("interpreted products are NumPy's, whose bits depend on the shape")
def test_bits_do_not_depend_on_batch_threads_or_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    import muvera.mips.product_quantizer as module

    rng = np.random.default_rng(4)
    quantizer = random_quantizer(rng, 30, 4)
    vectors = rng.standard_normal((70, 30)).astype(np.float32)
    queries = rng.standard_normal((5, 30)).astype(np.float32)
    codes = quantizer.encode(vectors, 1)
    products = quantizer.products(codes, np.arange(70), queries, 1)
    monkeypatch.setattr(module, "_VECTORS", 3)
    monkeypatch.setattr(module, "_SCANNED_BYTES", 50)
    np.testing.assert_array_equal(quantizer.encode(vectors, 2), codes)
    np.testing.assert_array_equal(np.concatenate([quantizer.encode(v[np.newaxis]) for v in vectors]), codes)
    np.testing.assert_array_equal(quantizer.products(codes, np.arange(70), queries, 2), products)
    picked = rng.permutation(70)[:9]
    for i in range(5):
        alone = quantizer.products(codes, picked, queries[i : i + 1], 2)
        np.testing.assert_array_equal(alone[:, 0], products[picked, i])


def test_few_equal_and_zero_vectors_lose_nothing() -> None:
    rng = np.random.default_rng(5)
    few = rng.standard_normal((50, 10)).astype(np.float32)
    few[7:20] = 0
    for vectors in (few, few[:1], np.tile(few[:1], (60, 1)), np.zeros((20, 10), np.float32)):
        quantizer = ProductQuantizer.train(vectors, 4, **SETTINGS)
        np.testing.assert_array_equal(quantizer.decode(quantizer.encode(vectors)), vectors)


@pytest.mark.compiled("k-means of many points")
def test_many_equal_and_zero_vectors_lose_nothing() -> None:
    rng = np.random.default_rng(6)
    for vectors in (np.zeros((700, 8), np.float32), np.full((700, 8), 0.1, np.float32)):
        quantizer = ProductQuantizer.train(vectors, 4, **SETTINGS)
        np.testing.assert_allclose(quantizer.decode(quantizer.encode(vectors)), vectors, rtol=1e-6)
    half = rng.standard_normal((700, 8)).astype(np.float32)
    half[:, :4] *= rng.integers(0, 2, (700, 1))  # empty cells stay empty, to the bit
    quantizer = ProductQuantizer.train(half, 4, **SETTINGS)
    decoded = quantizer.decode(quantizer.encode(half))
    assert (decoded[:, :4][(half[:, :4] == 0).all(axis=1)] == 0).all()


@pytest.mark.parametrize(
    ("centroids", "message"),
    [
        (
            np.zeros((3, 256, 4), np.float64),
            r"must be float32 \(groups, 256, width\) .*got float64 \(3, 256, 4\)",
        ),
        (np.zeros((3, 255, 4), np.float32), r"got float32 \(3, 255, 4\)"),
        (np.zeros((2, 256, 4), np.float32), r"for dimension=10, got float32 \(2, 256, 4\)"),
        (np.zeros((3, 256), np.float32), r"got float32 \(3, 256\)"),
        (np.full((3, 256, 4), np.nan, np.float32), "NaN or an infinity"),
    ],
)
def test_a_wrong_codebook_is_refused(centroids: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProductQuantizer(centroids, 10)
