"""Token codecs: what a code stands for, and that nothing else than the token and the codec decides it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtri

from muvera.reranking.codecs import CODECS, fit_codec, read_codec, write_codec
from muvera.reranking.codecs.base import CodedVectors, TokenCodec
from muvera.reranking.codecs.int8 import Int8Codec
from muvera.reranking.codecs.residual import ResidualCodec, normal_levels, thresholds_between

#: Largest mean angle, as 1 - cosine, between a random unit token of 128 coordinates and what its code stands for:
#: a little above the Gaussian rate-distortion of a scalar quantizer (.363, .118, .0095 of the variance).
LOSS = {"int8": 1e-4, "4bit": 0.008, "2bit": 0.07, "1bit": 0.21}


def tokens(seed: int, count: int, dimension: int, spread: float = 1.0) -> np.ndarray:
    """Tokens around some topics, of length about 1."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((20, dimension))
    found = topics[rng.integers(0, 20, count)] + spread * rng.standard_normal((count, dimension))
    lengths = np.sqrt((found**2).sum(1, keepdims=True))
    return np.asarray(found / lengths, np.float32)


@pytest.fixture(params=CODECS)
def name(request: pytest.FixtureRequest) -> str:
    """A codec's name."""
    return str(request.param)


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> TokenCodec:
    """A fitted codec of 24 coordinates."""
    return fit_codec(request.param, tokens(0, 3000, 24), threads=1)


def test_a_code_has_as_many_bytes_as_it_says(codec: TokenCodec) -> None:
    assert codec.encode(tokens(1, 10, 24)).shape == (10, codec.bytes_per_token)


def test_bytes_of_128_coordinates() -> None:
    found = {name: fit_codec(name, tokens(0, 300, 128)).bytes_per_token for name in CODECS}
    assert found == {"int8": 130, "4bit": 67, "2bit": 35, "1bit": 19}


def test_what_is_lost_is_bounded(name: str) -> None:
    sample = np.random.default_rng(5).standard_normal((6000, 128)).astype(np.float32)
    codec = fit_codec(name, sample[:5000])
    some = sample[5000:]
    decoded = codec.decode(codec.encode(some))
    norms = np.linalg.norm(some, axis=1)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), norms, rtol=5e-3 if name == "int8" else 6e-4)
    cosines = (decoded * some).sum(1) / norms / np.linalg.norm(decoded, axis=1)
    assert 1 - cosines.mean() < LOSS[name]


@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 70), st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_int8_codes_of_what_was_decoded_are_the_same(
    seed: int, count: int, dimension: int, scale: float
) -> None:
    some = tokens(seed, count, dimension) * np.float32(scale)
    some[::3] *= np.float32(1e-6)  # nearer to each other than a typical token's steps
    codec = Int8Codec.fit(some)
    codes = codec.encode(some)
    np.testing.assert_array_equal(codec.encode(codec.decode(codes)), codes)


def any_codes(codec: ResidualCodec, count: int, rng: np.random.Generator) -> np.ndarray:
    """Codes of any centroids, factors and residuals: hardly one is that of the token nearest to it."""
    packed = np.packbits(rng.integers(0, 2, (count, codec.dimension * codec.bits)), axis=1)
    out = np.zeros((count, codec.bytes_per_token), np.uint8)
    numbers = rng.integers(0, len(codec.to_arrays()["centroids"]), count)
    codec.write_codes(numbers, 10 ** rng.uniform(-3, 3, count), packed, out)
    return out


@given(
    st.integers(0, 99),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([8, 9, 15, 24, 48, 128, 130, 300]),
    st.integers(1, 700),
    st.floats(0.01, 100),
)
@settings(max_examples=60, deadline=None)
def test_residual_codes_of_what_was_decoded_are_the_same(
    seed: int, bits: int, dimension: int, fitted: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    codec = ResidualCodec.fit(tokens(seed, fitted, dimension) * np.float32(scale), bits)
    for codes in (
        codec.encode(tokens(seed + 1, 30, dimension) * np.float32(scale)),
        any_codes(codec, 30, rng),
    ):
        np.testing.assert_array_equal(codec.encode(codec.decode(codes)), codes)


@given(st.integers(0, 99), st.sampled_from([1, 2, 4, 8]), st.sampled_from([30, 300, 70_000]))
@settings(max_examples=20, deadline=None)
def test_plaid_codes_of_what_was_decoded_are_the_same(seed: int, bits: int, centroids: int) -> None:
    rng = np.random.default_rng(seed)
    weights = (0.05 * ndtri((np.arange(2**bits) + 0.5) / 2**bits)).astype(np.float32)
    codec = ResidualCodec.of_plaid(tokens(seed, centroids, 32), weights)
    numbers = rng.integers(0, centroids, 20)
    codes = codec.plaid_codes(numbers, rng.integers(0, 256, (20, 4 * bits)).astype(np.uint8))
    np.testing.assert_array_equal(codec.encode(codec.decode(codes)), codes)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("dimension", [2, 3, 7])
def test_with_few_coordinates_coding_again_and_again_drifts_less_than_coding_once(
    bits: int, dimension: int
) -> None:
    some = tokens(3, 500, dimension)
    codec = ResidualCodec.fit(tokens(2, 5000, dimension), bits)
    once = codec.decode(codec.encode(some))
    again = once
    for _ in range(5):
        again = codec.decode(codec.encode(again))
    lost, drifted = ((some - once) ** 2).sum(), ((once - again) ** 2).sum()
    assert drifted < lost / 2


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_centroid_that_a_token_only_seems_to_name_does_not_matter(bits: int) -> None:
    codec = ResidualCodec.fit(tokens(0, 3000, 24), bits)
    some = tokens(1, 400, 24)
    named = some.copy()
    named[:, :4].view(np.uint32)[:] ^= np.random.default_rng(0).integers(0, 4, (400, 4)).astype(np.uint32)
    np.testing.assert_array_equal(codec.encode(named), codec.encode(some))


def test_codes_depend_on_the_token_alone(codec: TokenCodec) -> None:
    some = tokens(1, 9000, 24)
    codes = codec.encode(some, threads=1)
    np.testing.assert_array_equal(codec.encode(some, threads=2), codes)
    np.testing.assert_array_equal(codec.encode(some[8500:8507], threads=1), codes[8500:8507])
    np.testing.assert_array_equal(codec.decode(codes, 2)[8190:8200], codec.decode(codes[8190:8200], 1))


def test_a_fit_does_not_depend_on_threads(name: str) -> None:
    sample = tokens(0, 3000, 24)
    one, two = (fit_codec(name, sample, threads=threads).to_arrays() for threads in (1, 2))
    for key, array in one.items():
        np.testing.assert_array_equal(array, two[key])


@pytest.mark.parametrize("dimension", [1, 2, 3, 5, 13, 48])
@pytest.mark.parametrize("count", [1, 2, 300])
def test_any_dimension_and_few_tokens(name: str, dimension: int, count: int) -> None:
    some = tokens(0, count, dimension)
    codec = fit_codec(name, some)
    decoded = codec.decode(codec.encode(some))
    assert decoded.shape == some.shape and np.isfinite(decoded).all()
    if count == 1:
        np.testing.assert_allclose(decoded, some, atol=5e-3)


def test_constant_and_zero_tokens(name: str) -> None:
    same = np.tile(np.array([0.6, 0.8, 0], np.float32), (50, 1))
    codec = fit_codec(name, same)
    np.testing.assert_allclose(codec.decode(codec.encode(same)), same, atol=5e-3)
    zeros = np.zeros((5, 3), np.float32)
    np.testing.assert_allclose(codec.decode(codec.encode(zeros)), zeros, atol=1e-2)
    np.testing.assert_array_equal(fit_codec(name, zeros).decode(fit_codec(name, zeros).encode(zeros)), zeros)


def test_lengths_of_all_sizes_are_kept(name: str) -> None:
    some = tokens(4, 2000, 16) * np.float32(1000)
    some[::7] *= np.float32(0.01)
    codec = fit_codec(name, some)
    found = np.linalg.norm(codec.decode(codec.encode(some)), axis=1)
    np.testing.assert_allclose(found, np.linalg.norm(some, axis=1), rtol=0.1 if name == "int8" else 2e-3)


def oracle(arrays: dict[str, np.ndarray], code: np.ndarray) -> np.ndarray:
    """The token of a residual code of a one-byte centroid, as docs/index-format.md describes it."""
    bits = int(np.log2(len(arrays["levels"])))
    factor = np.frombuffer(code[1:3].tobytes(), "<f2")[0].astype(np.float64)
    flat = np.unpackbits(code[3:])
    total = []
    for j, scale in enumerate(arrays["scales"]):
        bucket = sum(int(flat[j * bits + i]) << i for i in range(bits))
        total.append(arrays["centroids"][code[0], j] + scale * arrays["levels"][bucket])
    found: np.ndarray = (
        factor * arrays["unit"][0] * (np.array(total) @ arrays["rotation"].T.astype(np.float64))
    )
    return found


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("dimension", [5, 24])
def test_the_format_is_the_documented_one(bits: int, dimension: int) -> None:
    codec = ResidualCodec.fit(tokens(0, 3000, dimension), bits)
    codes = codec.encode(tokens(1, 20, dimension))
    expected = np.array([oracle(codec.to_arrays(), code) for code in codes])
    np.testing.assert_allclose(codec.decode(codes), expected, atol=1e-5)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_levels_are_a_fixed_point(bits: int) -> None:
    levels = normal_levels(bits).astype(np.float64)
    known = {1: [0.7979], 2: [0.4528, 1.5104], 3: [0.2451, 0.7560, 1.3439, 2.1520]}
    if bits in known:
        np.testing.assert_allclose(levels[len(levels) // 2 :], known[bits], atol=1e-4)
    grid = np.linspace(-9, 9, 2_000_001)
    weights = np.exp(-(grid**2) / 2)
    bucket = np.searchsorted(thresholds_between(levels.astype(np.float32)), grid)
    means = np.bincount(bucket, weights * grid) / np.bincount(bucket, weights)
    np.testing.assert_allclose(means, levels, atol=1e-4)


def test_it_is_saved_and_read(codec: TokenCodec, tmp_path: Path) -> None:
    kind = write_codec(codec, tmp_path)
    read = read_codec(tmp_path, kind, 24)
    some = tokens(1, 100, 24)
    np.testing.assert_array_equal(read.encode(some), codec.encode(some))
    assert read.name == codec.name


def test_damaged_files_are_refused(codec: TokenCodec, tmp_path: Path) -> None:
    kind = write_codec(codec, tmp_path)
    with pytest.raises(ValueError, match="dimension=25"):
        read_codec(tmp_path, kind, 25)
    for path in sorted(tmp_path.iterdir()):
        before = np.load(path)
        for damaged in (before[..., :-1], np.full_like(before, np.nan), before.astype(np.float64)):
            if path.name == "codec_unit.npy" and damaged.dtype == np.float64:
                continue
            if path.name == "codec_rotation.npy" and not damaged.size:
                continue
            np.save(path, damaged)
            with pytest.raises(ValueError, match="codec"):
                read_codec(tmp_path, kind, 24)
        np.save(path, before)
    with pytest.raises(ValueError, match=r"no kind of codec 'zip'\. There are: int8, residual"):
        read_codec(tmp_path, "zip", 24)


def test_tokens_and_codes_of_another_codec_are_refused(codec: TokenCodec) -> None:
    with pytest.raises(
        ValueError, match="have 8 columns, but the codec was fitted on tokens of dimension=24"
    ):
        codec.encode(tokens(0, 3, 8))
    wrong: list[Any] = [np.zeros((3, 5), np.uint8), np.zeros((3, codec.bytes_per_token), np.int16)]
    for codes in wrong:
        with pytest.raises(
            ValueError, match=f"at dimension=24 are uint8 with {codec.bytes_per_token} columns"
        ):
            CodedVectors.from_lengths(codec, codes, [3])


def test_numbers_past_the_last_centroid_are_not_followed() -> None:
    codec = ResidualCodec.fit(tokens(0, 20, 8), 2)
    codes = codec.encode(tokens(0, 20, 8))
    codes[3, 0] = 255
    assert np.isfinite(codec.decode(codes)).all()
