"""Our draws for Weaviate, alone and through the oracle, against a Go program's golden file."""

import json
from dataclasses import replace

import numpy as np
import pytest
from builders import peer_oracles as oracle
from builders.paths import GOLDEN

from muvera.encoders.fde.draws import go_rand, weaviate
from muvera.encoders.fde.draws.sizes import DrawSizes

FILE = GOLDEN / "weaviate.npz"

# float32 sums of at most a few dozen terms, relative to the largest entry.
TOLERANCE = 2e-6


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * max(1.0, np.abs(expected).max()))


def test_golden() -> None:
    with np.load(FILE) as golden:
        for i, text in enumerate(golden["settings"]):
            settings = json.loads(str(text))
            sizes = DrawSizes(**{"seed": weaviate.DEFAULT_SEED, **settings})
            planes, inner = weaviate.hyperplanes(sizes), weaviate.projections(sizes)
            assert planes.dtype == inner.dtype == np.float32
            # Both sides round a float64 that they compute within a unit in its last place, so the float32
            # is the same but for one value in hundreds of millions.
            np.testing.assert_array_equal(planes, golden[f"hyperplanes_{i}"])
            scale = np.sqrt(np.float32(settings["projection_dimension"]))
            np.testing.assert_allclose(inner * scale, golden[f"signs_{i}"], rtol=2e-7)
            tokens = golden[f"tokens_{i}"]
            assert_close(oracle.weaviate_document(tokens, planes, inner), golden[f"document_{i}"])
            assert_close(oracle.weaviate_query(tokens, planes, inner), golden[f"query_{i}"])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 100])
def test_words_follow_the_recurrence(count: int) -> None:
    """Jumps over the 128-bit states against one step after the other in Python's integers."""
    seed_high, seed_low = 2**64 - 1, 12345
    state = seed_high << 64 | seed_low
    expected = []
    for _ in range(count):
        state = (state * 0x2360ED051FC65DA44385DF649FCCF645 + 0x5851F42D4C957F2D14057B7EF767814F) % 2**128
        high, low = divmod(state, 2**64)
        high ^= high >> 32
        high = high * 0xDA942042E4DD58B5 % 2**64
        high ^= high >> 48
        expected.append(high * (low | 1) % 2**64)
    assert go_rand.pcg_words(seed_high, seed_low, count).tolist() == expected


def test_repetitions_are_independent_of_their_number() -> None:
    few = DrawSizes(dimension=8, num_repetitions=2, num_simhash_projections=3, projection_dimension=4, seed=5)
    many = replace(few, num_repetitions=5)
    np.testing.assert_array_equal(weaviate.hyperplanes(few), weaviate.hyperplanes(many)[:2])
    np.testing.assert_array_equal(weaviate.projections(few), weaviate.projections(many)[:2])


def test_the_projection_is_scaled_and_never_skipped() -> None:
    sizes = DrawSizes(
        dimension=9, num_repetitions=2, num_simhash_projections=1, projection_dimension=9, seed=5
    )
    inner = weaviate.projections(sizes)
    assert inner.shape == (2, 9, 9)
    np.testing.assert_array_equal(np.abs(inner), np.full((2, 9, 9), 1 / 3, dtype=np.float32))
