"""Laws of the token codecs: bounds, fixed points, scales and scores.

Bounds are of decode(encode(x)); scores are of codes.
"""

from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies as some
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from muvera import MultiVectors, chamfer_matrix
from muvera.kernels.token_codes import byte_table
from muvera.reranking import codecs
from muvera.reranking.codec_files import read_codec, write_codec
from muvera.reranking.codecs import CODECS, ResidualCodec, TokenCodec
from muvera.reranking.coded_vectors import CodedVectors, rank_decoded, score_coded

each_codec = pytest.mark.parametrize("name", CODECS)
each_residual = pytest.mark.parametrize("bits", [1, 2, 4])

DIMENSIONS = st.sampled_from([1, 3, 16, 33, 64, 70])


def tokens(seed: int, count: int, dimension: int) -> Any:
    """Unit tokens around some topics."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((20, dimension))[rng.integers(0, 20, count)]
    rows = rows + rng.standard_normal((count, dimension))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@cache
def fitted(name: str, dimension: int) -> TokenCodec:
    return CODECS[name](tokens(0, 400, dimension), threads=1)


def factors(codes: Any, start: int) -> Any:
    return np.ascontiguousarray(codes[:, start : start + 2]).view("<f2")[:, 0].astype(np.float64)


# -- bounds -------------------------------------------------------------------


@given(some.seeds, st.integers(0, 20), DIMENSIONS, st.floats(1e-2, 1e2))
def test_int8_is_off_by_at_most_half_a_step(seed: int, count: int, dimension: int, scale: float) -> None:
    """A step is a 127th of the largest centered entry, rounded to float16.

    So .505 includes float32's rounding.
    """
    codec = fitted("int8", dimension)
    rows = tokens(seed, count, dimension) * np.float32(scale)
    codes = codec.encode(rows)
    steps = factors(codes, 0) * codec.arrays["unit"][0]
    errors = np.abs(codec.decode(codes).astype(np.float64) - rows)
    assert (errors <= 0.505 * steps[:, np.newaxis] + 2e-7 * np.abs(rows)).all()
    peaks = np.abs(rows - codec.arrays["center"]).max(axis=1, initial=0)
    smallest = codec.arrays["unit"][0] * 2.0**-10
    assert (steps <= np.maximum(peaks / 127, smallest) * (1 + 2.0**-10)).all()


@each_residual
def test_levels_are_the_means_of_the_normal_values_nearest_to_them(bits: int) -> None:
    """Lloyd and Max: nothing else has a smaller squared error."""
    levels = CODECS[f"{bits}bit"](tokens(0, 400, 16), threads=1).arrays["levels"].astype(np.float64)
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    means = -np.diff(norm.pdf(edges)) / np.diff(norm.cdf(edges))
    np.testing.assert_allclose(means, levels, atol=1e-3)


@each_residual
@given(some.seeds, st.integers(1, 20), DIMENSIONS, st.integers(-8, 8))
def test_decoded_tokens_have_the_length_of_the_token(
    bits: int, seed: int, count: int, dimension: int, exponent: int
) -> None:
    """The factor restores lengths: float16 has 11 bits, and float32 sums add 1e-5."""
    codec = fitted(f"{bits}bit", dimension)
    rows = tokens(seed, count, dimension) * np.float32(2.0**exponent)
    decoded = codec.decode(codec.encode(rows))
    lengths = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), lengths, rtol=2.0**-11 + 1e-5)


@each_residual
@settings(max_examples=15)
@given(some.seeds, st.integers(1, 20), DIMENSIONS)
def test_directions_are_the_best_of_all_stretches(bits: int, seed: int, count: int, dimension: int) -> None:
    """Oracle: nearest centroid, and nearest level of each coordinate.

    The stretch has the largest cosine.
    """
    codec = fitted(f"{bits}bit", dimension)
    rows, arrays = tokens(seed, count, dimension), codec.arrays
    decoded = codec.decode(codec.encode(rows)).astype(np.float64)
    cosines = (decoded * rows).sum(axis=1) / np.linalg.norm(decoded, axis=1)
    rotated = rows.astype(np.float64) @ arrays["rotation"]
    centroids = arrays["centroids"].astype(np.float64)
    nearest = centroids[(rotated @ centroids.T - np.square(centroids).sum(axis=1) / 2).argmax(axis=1)]
    best = np.full(count, -1.0)
    for stretch in (1, 0.95, 1.05, 0.9, 1.1):
        values = (rotated * stretch - nearest) / arrays["scales"]
        levels = arrays["levels"][np.abs(values[:, :, None] - arrays["levels"]).argmin(axis=2)]
        points = nearest + arrays["scales"] * levels
        best = np.maximum(best, (points * rotated).sum(axis=1) / np.linalg.norm(points, axis=1))
    np.testing.assert_allclose(cosines, best, atol=2e-5)


@settings(max_examples=15)
@given(some.seeds, st.sampled_from([16, 33, 64]))
def test_more_bits_lose_less(seed: int, dimension: int) -> None:
    """Rate and distortion: each doubling of bits halves the error at least.

    It is the mean error of 60 tokens.
    """
    rows = tokens(seed, 60, dimension)
    errors = []
    for name in ("1bit", "2bit", "4bit", "int8"):
        codec = fitted(name, dimension)
        errors.append(float(np.square(codec.decode(codec.encode(rows)) - rows).sum(axis=1).mean()))
    assert all(later < earlier / 2 for earlier, later in pairwise(errors))


# -- fixed points and scales --------------------------------------------------


@given(some.seeds, st.integers(1, 20), DIMENSIONS)
def test_int8_codes_with_a_full_step_are_fixed_points(seed: int, count: int, dimension: int) -> None:
    """encode(decode(c)) == c for every code with an entry of 127 steps.

    Its factor is at least 1.
    """
    codec, rng = fitted("int8", dimension), np.random.default_rng(seed)
    codes = np.zeros((count, codec.bytes_per_token), np.uint8)
    codes[:, :2] = rng.uniform(1, 8, count).astype("<f2").view(np.uint8).reshape(count, 2)
    codes[:, 2 : 2 + dimension] = rng.integers(1, 256, (count, dimension))
    full = rng.integers(0, dimension, count)
    codes[np.arange(count), 2 + full] = rng.choice([1, 255], count)
    np.testing.assert_array_equal(codec.encode(codec.decode(codes)), codes)


@each_residual
@given(some.seeds, st.integers(1, 20), DIMENSIONS, st.integers(0, 6))
def test_a_scaled_token_has_the_same_code_but_the_factor(
    bits: int, seed: int, count: int, dimension: int, exponent: int
) -> None:
    """Only the direction is quantized.

    Powers of two change the factor's exponent and nothing else.
    """
    codec = fitted(f"{bits}bit", dimension)
    rows = tokens(seed, count, dimension)
    one, other = codec.encode(rows), codec.encode(rows * np.float32(2.0**exponent))
    np.testing.assert_array_equal(one[:, 3:], other[:, 3:])
    np.testing.assert_array_equal(one[:, 0], other[:, 0])
    np.testing.assert_array_equal(factors(one, 1) * 2.0**exponent, factors(other, 1))
    np.testing.assert_array_equal(codec.decode(one) * np.float32(2.0**exponent), codec.decode(other))


@given(st.sampled_from([1, 2, 4, 8]), some.seeds, st.integers(0, 9), st.integers(1, 9))
def test_residual_bits_survive_splitting_and_joining(nbits: int, seed: int, count: int, eighths: int) -> None:
    """Round trip: plaid_codes and split_codes are inverse.

    Tokens decode to length 1.
    """
    rng, dimension = np.random.default_rng(seed), 8 * eighths
    codec = ResidualCodec.of_plaid(
        rng.standard_normal((5, dimension)).astype(np.float32),
        np.sort(rng.standard_normal(2**nbits)).astype(np.float32),
    )
    numbers = rng.integers(0, 5, count)
    packed = rng.integers(0, 256, (count, dimension * nbits // 8)).astype(np.uint8)
    codes = codec.plaid_codes(numbers, packed)
    for found, expected in zip(codec.split_codes(codes), (numbers, packed), strict=True):
        np.testing.assert_array_equal(found, expected)
    lengths = np.linalg.norm(codec.decode(codes), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=2.0**-10)


@given(st.sampled_from([1, 2, 4, 8]), some.seeds)
def test_the_table_of_bytes_reads_each_bit_once(nbits: int, seed: int) -> None:
    """Definition: coordinates from the highest bit on, as in PLAID.

    The lowest bit of each is first.
    """
    weights = np.random.default_rng(seed).standard_normal(2**nbits).astype(np.float32)
    table = byte_table(weights, nbits)
    assert table.shape == (256, 8 // nbits)
    for byte in np.random.default_rng(seed).integers(0, 256, 8).tolist():
        bits = [byte >> (7 - i) & 1 for i in range(8)]
        for key in range(8 // nbits):
            bucket = sum(bits[key * nbits + i] << i for i in range(nbits))
            assert table[byte, key] == weights[bucket]


# -- batches and files --------------------------------------------------------


@each_codec
@given(some.seeds, st.integers(0, 30), DIMENSIONS, st.data())
def test_codes_depend_on_their_token_alone(
    name: str, seed: int, count: int, dimension: int, data: st.DataObject
) -> None:
    """Batches: permuted tokens have permuted codes and decoded tokens, bit for bit."""
    codec, rows = fitted(name, dimension), tokens(seed, count, dimension)
    order = np.array(data.draw(st.permutations(range(count))), np.int64)
    codes = codec.encode(rows, threads=2)
    np.testing.assert_array_equal(codec.encode(rows[order]), codes[order])
    np.testing.assert_array_equal(codec.decode(codes[order]), codec.decode(codes, 2)[order])
    halves = rows.astype(np.float16)
    np.testing.assert_array_equal(codec.encode(halves), codec.encode(halves.astype(np.float32)))


@each_codec
@settings(max_examples=6)
@given(some.seeds, DIMENSIONS)
def test_a_codec_read_from_files_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, name: str, seed: int, dimension: int
) -> None:
    """Round trip on disk: the same codes and the same decoded bits."""
    folder: Path = tmp_path_factory.mktemp("codec")
    codec = fitted(name, dimension)
    read = read_codec(folder, write_codec(codec, folder), dimension)
    rows = tokens(seed, 20, dimension)
    codes = codec.encode(rows)
    np.testing.assert_array_equal(read.encode(rows), codes)
    np.testing.assert_array_equal(read.decode(codes), codec.decode(codes))
    assert (read.name, read.bytes_per_token) == (codec.name, codec.bytes_per_token)


@each_codec
@settings(max_examples=20)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.data())
def test_slices_of_codes_decode_to_slices(name: str, lengths: list[int], data: st.DataObject) -> None:
    """Coding and selecting texts commute."""
    codec, texts = fitted(name, 16), MultiVectors.from_flat(tokens(1, sum(lengths), 16), lengths)
    coded = CodedVectors.of(codec, texts)
    chosen = np.array(data.draw(st.lists(st.sampled_from(range(len(lengths))), unique=True)), np.int64)
    part, expected = coded[chosen], texts[chosen]
    np.testing.assert_array_equal(part.tokens, codec.encode(expected.tokens))
    np.testing.assert_array_equal(part.lengths, expected.lengths)
    np.testing.assert_array_equal(part.decoded().tokens, codec.decode(part.tokens))


# -- scores -------------------------------------------------------------------


@st.composite
def coded_cases(draw: st.DrawFn, name: str | None = None) -> Any:
    """A codec, coded texts, a query of some panels, and candidates in runs."""
    kind = draw(st.sampled_from(list(CODECS))) if name is None else name
    dimension = draw(DIMENSIONS)
    lengths = draw(st.lists(st.integers(0, 80), min_size=1, max_size=6))
    seed = draw(some.seeds)
    codec = fitted(kind, dimension)
    coded = CodedVectors.of(codec, MultiVectors.from_flat(tokens(seed, sum(lengths), dimension), lengths))
    order = np.array(draw(st.permutations(range(len(lengths)))), np.int64)
    cut = draw(st.integers(0, len(lengths)))
    query = tokens(seed + 1, draw(st.integers(1, 40)), dimension)
    return codec, coded, query, order, [(coded, order[:cut]), (coded, order[cut:])]


@settings(max_examples=30)
@given(coded_cases("int8"))
def test_int8_scores_are_within_the_rounding_of_the_query(case: Any) -> None:
    """Bound: half a 127th of the query token's peak.

    It is multiplied by the sum of a document token's sizes.
    """
    codec, coded, query, order, runs = case
    scores = score_coded(query, codec, runs, threads=1)
    decoded = coded.decoded()
    exact = chamfer_matrix([query], decoded)[0][order]
    centered = np.abs(decoded.tokens.astype(np.float64) - codec.arrays["center"]).sum(axis=1)
    for score, wanted, position in zip(scores, exact, order, strict=True):
        own = centered[coded.offsets[position] : coded.offsets[position + 1]]
        if not len(own):
            assert score == wanted == -np.inf
            continue
        bound = (np.abs(query).max(axis=1) / 254 * own.max()).sum()
        assert abs(score - wanted) <= bound * 1.001 + 1e-5 * len(query)


@settings(max_examples=40)
@given(coded_cases())
def test_scores_of_codes_have_the_same_bits_in_any_run(case: Any) -> None:
    """Runs, order and threads do not matter.

    Rounding moves a score by at most .02 per query token.
    """
    codec, coded, query, order, runs = case
    scores = score_coded(query, codec, runs, threads=1)
    whole = score_coded(query, codec, [(coded, np.arange(len(coded)))], threads=2)
    np.testing.assert_array_equal(scores, whole[order])
    exact = chamfer_matrix([query], coded.decoded())[0]
    np.testing.assert_array_equal(whole == -np.inf, coded.lengths == 0)
    filled = coded.lengths > 0
    np.testing.assert_allclose(whole[filled], exact[filled], atol=0.02 * len(query))


@settings(max_examples=30)
@given(coded_cases())
def test_decoded_scores_are_chamfer_of_decoded_texts(case: Any) -> None:
    """A rotation of the query replaces one of each token, up to float32.

    Without a rotation, the bits are equal.
    """
    codec, coded, query, order, runs = case
    scores = rank_decoded(query, codec, runs, 2, None)
    exact = chamfer_matrix([query], coded.decoded())[0][order]
    if codec.name == "int8":
        np.testing.assert_array_equal(scores, exact)
    np.testing.assert_allclose(scores, exact, rtol=1e-5, atol=1e-5 * len(query))


@settings(max_examples=30)
@given(coded_cases(), st.integers(-6, 6))
def test_scores_of_codes_are_homogeneous_in_the_query(case: Any, exponent: int) -> None:
    """Queries are rounded relative to their largest entry.

    So powers of two scale scores exactly.
    """
    codec, coded, query, _, runs = case
    scaled = score_coded(query * np.float32(2.0**exponent), codec, runs, threads=1)
    np.testing.assert_array_equal(scaled, score_coded(query, codec, runs, threads=1) * 2.0**exponent)
    assert len(scaled) == len(coded)


# -- fits -----------------------------------------------------------------------------


@each_residual
def test_scales_are_the_deviations_of_residuals(bits: int) -> None:
    """Each rotated coordinate has one, at least a quarter of the typical one."""
    sample = tokens(2, 3000, 12)
    sample[:, :3] *= np.float32(6)
    codec = CODECS[f"{bits}bit"](sample, threads=1)
    units = sample / np.linalg.norm(sample, axis=1, keepdims=True)
    rotated = units.astype(np.float64) @ codec.arrays["rotation"].astype(np.float64)
    centroids = codec.arrays["centroids"].astype(np.float64)
    distances = np.square(centroids).sum(axis=1) - 2 * rotated @ centroids.T
    residuals = rotated - centroids[distances.argmin(axis=1)]
    deviations = np.sqrt(np.square(residuals).mean(axis=0))
    typical = np.sqrt(np.square(deviations).mean())
    assert deviations.max() > 1.1 * deviations.min()
    np.testing.assert_allclose(codec.arrays["scales"], np.maximum(deviations, typical / 4), rtol=1e-3)


def test_rotation_and_centroids_are_drawn_from_different_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of one stream would make one part depend on the other."""
    states: list[Any] = []
    for name in ("_random_rotation", "_direction_centroids"):
        drawing = getattr(codecs, name)

        def drawn(*arguments: Any, drawing: Any = drawing) -> Any:
            (stream,) = (one for one in arguments if isinstance(one, np.random.Generator))
            states.append(stream.bit_generator.state["state"])
            return drawing(*arguments)

        monkeypatch.setattr(codecs, name, drawn)
    CODECS["2bit"](tokens(0, 400, 16), threads=1)
    assert len(states) == 2 and states[0] != states[1]


def test_a_few_huge_tokens_of_the_sample_cost_the_others_no_precision() -> None:
    """Bytes of a usual token are a 127th of its largest entry, as without them."""
    rows = tokens(0, 400, 16)
    sample = np.concatenate([rows, rows[:3] * np.float32(1e6), rows[:3] * np.float32(-1e6)])
    codec = CODECS["int8"](sample, threads=1)
    peaks = np.abs(rows - codec.arrays["center"]).max(axis=1)
    errors = np.abs(codec.decode(codec.encode(rows)) - rows).max(axis=1)
    assert (errors <= 0.51 * peaks / 127 + 1e-6 * peaks).all()
