"""ColBERT's codec, fitted: its centroids, and what its buckets stand for."""

from __future__ import annotations

import numpy as np
import pytest

from muvera.reranking.codecs.base import score_coded
from muvera.reranking.codecs.residual import fit_plaid_codec, plaid_centroids, require_plaid_bits


def tokens(seed: int, count: int, dimension: int = 32) -> np.ndarray:
    """Tokens of any length around some topics."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((20, dimension))
    return np.asarray(
        topics[rng.integers(0, 20, count)] + rng.standard_normal((count, dimension)), np.float32
    )


def residuals(found: dict[str, np.ndarray], some: np.ndarray) -> np.ndarray:
    units = some / np.linalg.norm(some, axis=1, keepdims=True)
    rest: np.ndarray = units - found["centroids"][(units @ found["centroids"].T).argmax(axis=1)]
    return rest


@pytest.mark.parametrize("nbits", [1, 2, 4, 8])
def test_weights_are_colberts_or_the_buckets_means(nbits: int) -> None:
    some, count = tokens(0, 3000), 2**nbits
    middles = fit_plaid_codec(some, nbits, 16).to_arrays()
    means = fit_plaid_codec(some, nbits, 16, bucket_means=True).to_arrays()
    np.testing.assert_array_equal(middles["centroids"], means["centroids"])
    rest = np.sort(residuals(middles, some), axis=None)
    np.testing.assert_allclose(
        middles["levels"], np.quantile(rest, (np.arange(count) + 0.5) / count), atol=1e-5
    )
    expected = [part.mean() for part in np.array_split(rest, count)]
    np.testing.assert_allclose(means["levels"], expected, atol=1e-4)


def test_centroids_have_length_1_and_half_precision() -> None:
    learned = fit_plaid_codec(tokens(0, 3000), 2, 16).to_arrays()["centroids"]
    assert learned.shape == (16, 32)
    np.testing.assert_array_equal(learned, learned.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(learned, axis=1), 1, atol=2e-3)


@pytest.mark.parametrize("nbits", [1, 2, 4])
def test_means_lose_less_than_middles(nbits: int) -> None:
    some = tokens(0, 4000)
    units = some / np.linalg.norm(some, axis=1, keepdims=True)
    lost = []
    for bucket_means in (True, False):
        codec = fit_plaid_codec(units, nbits, 64, bucket_means=bucket_means)
        lost.append(((codec.decode(codec.encode(units)) - units) ** 2).sum())
    assert lost[0] < lost[1]


def test_it_does_not_depend_on_threads() -> None:
    some = tokens(0, 3000)
    one, two = (fit_plaid_codec(some, 2, 64, threads=threads).to_arrays() for threads in (1, 2))
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_and_equal_tokens(count: int) -> None:
    same = np.tile(np.full(8, 0.5, np.float32), (count, 1))
    codec = fit_plaid_codec(same, 2, 16)
    codes = codec.encode(same)
    np.testing.assert_allclose(codec.decode(codes), same, rtol=1e-3)
    score_coded(same, codec, [], 0)


def test_as_many_centroids_as_colbert_takes() -> None:
    assert [plaid_centroids(count) for count in (0, 1, 100, 56_658, 10**6)] == [16, 16, 128, 2048, 8192]


def test_bits_that_do_not_fit_are_refused() -> None:
    require_plaid_bits(4, 2)
    with pytest.raises(ValueError, match=r"nbits must be one of 1, 2, 4, 8, got 5\."):
        require_plaid_bits(5, 128)
    with pytest.raises(ValueError, match=r"dimension=100 at nbits=1 makes 100 bits\. Use nbits=8, or cut"):
        fit_plaid_codec(tokens(0, 3, 100), 1, 4)
