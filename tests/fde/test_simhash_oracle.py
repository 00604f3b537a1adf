"""FDEEncoder: the oracle against the compiled path, properties, random matrices, the C++ reference, bad input."""

import dataclasses
import json
from importlib.util import find_spec
from typing import Any

import numpy as np
import oracle
import pytest
import strategies as some
from builders.muvfde import muvfde_fdes
from builders.paths import GOLDEN
from builders.token_collections import assert_close, ragged
from hypothesis import assume, given
from hypothesis import strategies as st

from muvera import FDEConfig, FDEEncoder, MultiVectors
from muvera.fde.UNKNOWN import draw_matrices
from muvera.fde.reference import count_sketch, standard_normals

SIDES = ["encode_documents", "encode_queries"]

# Every option, with and without the other options of the same kernel.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"center": False},
    {"split_mean": False, "document_cells": "mean"},
    {"fill_empty_partitions": True, "center": False, "document_cells": "mean", "soft_query_cells": 0.0},
    {"fill_empty_partitions": True, "soft_query_cells": 0.2},
    {"num_simhash_projections": 0},
    {"num_simhash_projections": 1, "num_repetitions": 17, "fill_empty_partitions": True},
    {"num_simhash_projections": 7, "num_repetitions": 3},
    {"split_mean": False, "document_cells": "unit"},
    {"split_mean": False, "document_cells": "length"},
    {"split_mean": True, "document_cells": "unit", "center": False},
]

SHAPES = [
    (1, 1, "complementary"),
    (17, 3, "rademacher"),
    (33, None, "identity"),
    (48, 5, "count_sketch"),
    (130, 24, "complementary"),
]

#: Options of a sketch of whole tokens, without moments; it needs no fit if there is no center.
WHOLE: dict[str, Any] = {"split_mean": False, "document_cells": "unit"}
PLAIN: dict[str, Any] = {**WHOLE, "center": False, "document_cells": "mean", "projection": "identity"}


# float32 entries of orthonormal rows, or similarities of unit vectors, summed over at most a few hundred terms.
ROUNDING = 1e-5


def projections_of(config: FDEConfig) -> np.ndarray:
    return np.asarray(draw_matrices(config).projections[:, :, : config.dimension], np.float64)


def made(documents: MultiVectors | None, **settings: Any) -> FDEEncoder:
    """Return an encoder, fitted to `documents` if there are some, small by default."""
    config = FDEConfig(**{"num_repetitions": 5, "num_simhash_projections": 3, **settings})
    return FDEEncoder(config) if documents is None else FDEEncoder(config).fit(documents)


def matrices_of(encoder: FDEEncoder) -> tuple[np.ndarray, np.ndarray | None]:
    """Return hyperplanes (R, k, d) and projections (R, p, d) as float64."""
    config, matrices = encoder.config, encoder.matrices
    planes = matrices.hyperplanes[:, : config.dimension].astype(np.float64)
    planes = planes.reshape(config.num_repetitions, config.num_simhash_projections, config.dimension)
    projections = matrices.projections[:, :, : config.dimension].astype(np.float64)
    return planes, projections if projections.size else None


def texts_for(encoder: FDEEncoder, seed: int) -> list[np.ndarray]:
    """Return texts around the center, of tokens whose cells and nearest planes are those of float64."""
    rng, dimension = np.random.default_rng(seed), encoder.config.dimension
    texts = []
    for length in (9, 1, 40, 0, 2):
        tokens = (rng.standard_normal((length, dimension)) + encoder.center).astype(np.float32)
        clear = np.ones(length, bool)
        for t, token in enumerate(tokens):
            least = 1e-5 * max(1.0, float(np.linalg.norm(token)))
            for normals in matrices_of(encoder)[0]:
                distances = np.sort(oracle.plane_distances(token - encoder.center, normals))
                clear[t] &= (distances[:1] > least).all()
                if encoder.config.soft_query_cells:
                    clear[t] &= (np.diff(distances)[:1] > least).all()
        texts.append(tokens[clear])
    return texts


def expected(tokens: np.ndarray, encoder: FDEEncoder, side: str) -> np.ndarray:
    config, blocks = encoder.config, encoder.blocks
    planes, inner = matrices_of(encoder)
    if side == "encode_documents":
        sketch = oracle.document_fde(
            tokens, planes, inner, center=encoder.center, fill=config.fill_empty_partitions,
            cells=config.document_cells, split=config.split_mean,
        )  # fmt: skip
        if blocks is None:
            return sketch
        weight = blocks.coefficients[0] * blocks.units[0] / config.num_repetitions
        moments = oracle.document_moments(tokens, blocks.coefficients, blocks.units, blocks.offset)
        return np.concatenate([weight * sketch, moments])
    sketch = oracle.query_fde(tokens, planes, inner, center=encoder.center, softness=config.soft_query_cells)
    if blocks is None:
        return sketch
    return np.concatenate([sketch / blocks.units[0], oracle.query_moments(tokens, blocks.units)])


# -- the oracle -----------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())) or "default")
def test_oracle(options: dict[str, Any]) -> None:
    for dimension, block, projection in SHAPES:
        common = {"dimension": dimension, "projection": projection, "projection_dimension": block}
        encoder = made(ragged(dimension, 5), **common, **options)
        arrays = texts_for(encoder, dimension)
        texts = MultiVectors.from_arrays(arrays, dimension=dimension)
        for side in SIDES:
            fdes = getattr(encoder, side)(texts)
            assert fdes.shape == (len(texts), encoder.config.vector_dimension) and fdes.dtype == np.float32
            assert getattr(encoder, side)(texts[:0]).shape == (0, encoder.config.vector_dimension)
            for tokens, fde in zip(arrays, fdes, strict=True):
                assert_close(fde, expected(tokens, encoder, side))


def test_65536_cells() -> None:
    changes = {"projection": "complementary", "projection_dimension": 1, "fill_empty_partitions": True}
    encoder = made(None, dimension=20, num_repetitions=1, num_simhash_projections=16, **{**PLAIN, **changes})
    tokens = texts_for(encoder, 1)[0]
    planes, inner = matrices_of(encoder)
    assert inner is not None
    codes = oracle.token_codes(tokens, planes[0])
    differing = sum(((np.arange(2**16)[:, np.newaxis] ^ codes) >> bit) & 1 for bit in range(16))
    wanted = (tokens @ inner[0][0])[np.argmin(differing, axis=1)]  # no two tokens are in one cell
    assert_close(encoder.encode_documents(tokens)[0], wanted)
    assert_close(encoder.encode_queries(tokens)[0], expected(tokens, encoder, "encode_queries"))


@pytest.mark.parametrize("final", [1, 50])
def test_final_projections(final: int) -> None:
    common = {"dimension": 5, "num_repetitions": 15, **WHOLE}
    documents = ragged(5, 5)
    long = made(documents, **common)
    encoder = made(documents, **common, final_projection_dimension=final)
    matrices = encoder.matrices
    for side in SIDES:
        short = getattr(encoder, side)(documents)
        for fde, vector in zip(getattr(long, side)(documents), short, strict=True):
            wanted = oracle.final_count_sketch(fde, matrices.final_targets, matrices.final_signs, final)
            assert_close(vector, wanted, 5e-5)  # sums of 600 terms


def test_tokens_on_hyperplanes_and_tokens_that_cancel() -> None:
    encoder = made(None, dimension=16, **PLAIN)
    token = np.random.default_rng(0).standard_normal((1, 16)).astype(np.float32)
    alone = encoder.encode_documents(token).reshape(5, 8, 16)
    with_zero = encoder.encode_documents(np.concatenate([token, 0 * token])).reshape(5, 8, 16)
    in_zero = alone[:, 0].any(axis=1)  # a product of zero sets no bit
    np.testing.assert_array_equal(with_zero[~in_zero], alone[~in_zero])
    np.testing.assert_array_equal(with_zero[in_zero], alone[in_zero] / 2)
    units = made(None, dimension=16, num_simhash_projections=0, **{**PLAIN, **WHOLE})
    assert not units.encode_documents(np.concatenate([token, -token])).any()


def test_golden_vectors() -> None:
    with np.load(GOLDEN / "ours.npz") as golden:
        documents = MultiVectors.from_flat(golden["tokens"], golden["lengths"])
        for i, text in enumerate(golden["settings"]):
            config = FDEConfig.from_dict(json.loads(str(text)))
            assert str(golden["hashes"][i]) == config.hash
            encoder = FDEEncoder(config).fit(documents)
            assert_close(encoder.encode_documents(documents), golden[f"documents_{i}"])
            assert_close(encoder.encode_queries(documents), golden[f"queries_{i}"])


# -- properties ---------------------------------------------------------------------


@st.composite
def encoders(draw: st.DrawFn) -> FDEEncoder:
    dimension = draw(some.dimensions)
    return made(
        ragged(dimension, 5),
        dimension=dimension,
        projection=draw(st.sampled_from(["complementary", "rademacher", "count_sketch", "identity"])),
        num_repetitions=draw(st.integers(1, 7)),
        final_projection_dimension=draw(st.none() | st.integers(1, 40)),
        **draw(st.sampled_from([{}, WHOLE, {"center": False, "fill_empty_partitions": True, **WHOLE}])),
    )


@given(st.data(), encoders())
def test_query_fdes_add_and_scale(data: st.DataObject, encoder: FDEEncoder) -> None:
    dimension = encoder.config.dimension
    first, second = (data.draw(some.token_arrays(dimension)) for _ in range(2))
    total = encoder.encode_queries(first)[0] + encoder.encode_queries(second)[0]
    assert_close(encoder.encode_queries(np.concatenate([first, second]))[0], total, 5e-5)
    if not encoder.config.center:
        # Cells depend on the length of tokens only with a center or soft cells.
        hard = FDEEncoder(dataclasses.replace(encoder.config, soft_query_cells=0.0))
        assert_close(hard.encode_queries(4 * first)[0], 4 * hard.encode_queries(first)[0], 5e-5)


@given(st.data(), encoders(), st.integers(2, 4))
def test_document_fdes_ignore_duplication_and_order(
    data: st.DataObject, encoder: FDEEncoder, times: int
) -> None:
    tokens = data.draw(some.token_arrays(encoder.config.dimension, least=1))
    # If the tokens of a unit cell nearly cancel, rounding errors determine its direction.
    assume(encoder.config.document_cells == "mean" or np.abs(tokens - encoder.center).max() > 1e-3)
    once, repeated = (encoder.encode_documents(t)[0] for t in (tokens, np.concatenate([tokens] * times)))
    columns = slice(None, -1 if encoder.config.split_mean else None)  # the bias has the number of tokens
    assert_close(repeated[columns], once[columns], 2e-4)
    if not encoder.config.fill_empty_partitions:
        order = data.draw(st.permutations(range(len(tokens))))
        assert_close(encoder.encode_documents(tokens[order])[0], once, 2e-4)


# -- structure of random matrices ------------------------------------------------------------------


@pytest.mark.parametrize(("dimension", "block"), [(1, 1), (70, 7), (130, 16)])
def test_complementary_projections_lose_nothing_together(dimension: int, block: int) -> None:
    group = -(-dimension // block)
    config = FDEConfig(dimension=dimension, num_repetitions=2 * group, projection_dimension=block)
    inner = projections_of(config)
    for start in (0, group):
        total = sum(rows.T @ rows for rows in inner[start : start + group])
        np.testing.assert_allclose(total / group, np.eye(dimension), atol=ROUNDING)
    assert dimension == 1 or not np.allclose(inner[:group], inner[group:])


@pytest.mark.parametrize("projection", ["complementary", "rademacher", "count_sketch", "identity"])
@pytest.mark.parametrize("dimension", [7, 130])
def test_repetitions_do_not_depend_on_their_number(dimension: int, projection: Any) -> None:
    common: dict[str, Any] = {"dimension": dimension, "projection": projection}
    few, many = (draw_matrices(FDEConfig(num_repetitions=count, **common)) for count in (3, 17))
    np.testing.assert_allclose(few.hyperplanes, many.hyperplanes[:9], atol=ROUNDING)
    np.testing.assert_allclose(few.projections, many.projections[:3], atol=ROUNDING)
    planes = {rows.tobytes() for rows in many.hyperplanes.reshape(17, 3, -1)}
    # The next seed is not the next repetition.
    other = draw_matrices(FDEConfig(num_repetitions=17, seed=43, **common)).hyperplanes
    assert len(planes | {rows.tobytes() for rows in other.reshape(17, 3, -1)}) == 34
    if projection != "identity":
        assert len({rows.tobytes() for rows in many.projections}) == 17


def test_targets_are_within_the_vector() -> None:
    """Compiled code writes to them without bounds checks."""
    config = FDEConfig.preset("paper", 96, num_repetitions=2, final_projection_dimension=30)
    matrices = draw_matrices(config)
    for target in (30, -1):
        wrong = np.append(matrices.final_targets[1:], target)
        with pytest.raises(ValueError, match="'final_targets' must be within"):
            FDEEncoder(config, matrices=dataclasses.replace(matrices, final_targets=wrong))


# -- the paper's proofs; margins are five standard errors of the tested mean, and seeds are fixed ----


def assert_mean(samples: list[float], wanted: float) -> None:
    error = np.std(samples, ddof=1) / np.sqrt(len(samples))
    assert abs(np.mean(samples) - wanted) < 5 * error + 1e-6, (wanted, error)


def pair(dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two unit vectors at an angle of 1, with most of their length in few columns."""
    rng = np.random.default_rng(dimension)
    q, p = rng.standard_normal((2, dimension)) / np.sqrt(1 + np.arange(dimension))
    q /= np.linalg.norm(q)
    p -= (p @ q) * q
    return q, np.cos(1) * q + np.sin(1) * p / np.linalg.norm(p)


@pytest.mark.parametrize("dimension", [3, 130])
@pytest.mark.parametrize("kind", ["complementary", "rademacher", "count_sketch"])
def test_inner_projections_are_unbiased(kind: Any, dimension: int) -> None:
    """E <psi(q), psi(p)> = <q, p> (Fact A.2)."""
    q, p = pair(dimension)
    common: dict[str, Any] = {"projection": kind, "projection_dimension": min(dimension, 7)}
    samples = []
    for seed in range(120):
        config = FDEConfig(dimension=dimension, num_repetitions=1, seed=seed, **common)
        (rows,) = projections_of(config)
        samples.append(float(rows @ q @ (rows @ p)))
    assert_mean(samples, float(q @ p))


@pytest.mark.parametrize("dimension", [2, 40])
def test_bits_differ_as_often_as_the_angle_says(dimension: int) -> None:
    """Pr[signs differ] = angle / pi (Claim A.4)."""
    q, p = pair(dimension)
    samples = []
    for seed in range(60):
        config = FDEConfig(dimension=dimension, num_repetitions=10, num_simhash_projections=5, seed=seed)
        normals = draw_matrices(config).hyperplanes[:, :dimension].astype(np.float64)
        samples.append(float(np.mean((normals @ q > 0) != (normals @ p > 0))))
    assert_mean(samples, 1.0 / np.pi)
    # Binomial, and a third for luck.
    assert np.std(samples) < 1.33 * np.sqrt(1 / np.pi * (1 - 1 / np.pi) / 50)


def estimate(encoder: FDEEncoder, query: np.ndarray, document: np.ndarray) -> float:
    """Return <Fq, Fd> / R in float64."""
    fdes = encoder.encode_queries(query)[0], encoder.encode_documents(document)[0]
    return float(fdes[0].astype(np.float64) @ fdes[1].astype(np.float64) / encoder.config.num_repetitions)


@given(st.data(), st.integers(1, 70), st.integers(0, 6), st.integers(1, 5))
def test_one_sided(data: st.DataObject, dimension: int, bits: int, repetitions: int) -> None:
    """Lemma A.3: with p = d and fill the estimate never exceeds Chamfer; it is exact for one token."""
    query, document = (data.draw(some.token_arrays(dimension, least=1, most=16, unit=True)) for _ in range(2))
    cells: dict[str, Any] = {"num_simhash_projections": bits, "num_repetitions": repetitions}
    seed = data.draw(st.integers(0, 1000))
    encoder = FDEEncoder(FDEConfig.preset("paper", dimension, projection="identity", seed=seed, **cells))
    assert estimate(encoder, query, document) <= oracle.chamfer(query, document) + ROUNDING
    exact = oracle.chamfer(query, document[:1])
    assert estimate(encoder, query, document[:1]) == pytest.approx(exact, abs=ROUNDING)


# -- the C++ reference: golden files, and muvfde if it is installed ---------------------------


def config_of(case: dict[str, Any]) -> FDEConfig:
    """Return our configuration of a case of the golden file; the program uses signed seeds modulo 2**32."""
    return FDEConfig.preset(
        "reference", case["dimension"], num_repetitions=case["num_repetitions"],
        num_simhash_projections=case["num_simhash_projections"], projection=case["kind"],
        projection_dimension=case["projection_dimension"] or None, fill_empty_partitions=case["fill"],
        final_projection_dimension=case["final_dimension"] or None, seed=case["seed"] % 2**32,
    )  # fmt: skip


def our_fdes(config: FDEConfig, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    encoder = FDEEncoder(config)
    return encoder.encode_documents(tokens)[0], encoder.encode_queries(tokens)[0]


def test_golden_vectors_of_the_program() -> None:
    with np.load(GOLDEN / "muvfde.npz") as golden:
        for i, text in enumerate(golden["settings"]):
            config, tokens = config_of(json.loads(str(text))), golden[f"tokens_{i}"]
            for ours, side in zip(our_fdes(config, tokens), ("document", "query"), strict=True):
                assert_close(ours, golden[f"{side}_{i}"])
            # The program reads out of bounds with fill and returns NaN for k = 0.
            assert not any(fde.any() for fde in our_fdes(config, tokens[:0]))


@pytest.mark.skipif(find_spec("muvfde") is None, reason="muvfde is not installed")
def test_muvfde() -> None:
    with np.load(GOLDEN / "muvfde.npz") as golden:
        cases = [json.loads(str(text)) for text in golden["settings"]]
    cases.append({**cases[-1], "num_simhash_projections": 2, "final_dimension": 1_000_003})
    for case in cases:
        tokens = np.random.default_rng(0).standard_normal((9, case["dimension"])).astype(np.float32)
        tokens[4] = 0  # on every hyperplane
        for ours, theirs in zip(our_fdes(config_of(case), tokens), muvfde_fdes(tokens, case), strict=True):
            assert_close(ours, theirs)


# -- draws of libstdc++, from a C++ program -----------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32 - 1])
def test_normals_of_libstdcxx(seed: int) -> None:
    with np.load(GOLDEN / "libstdcxx.npz") as golden:
        wanted = golden[f"normals_{seed}"]
    drawn = standard_normals(seed, len(wanted))
    assert drawn.dtype == np.float32
    # glibc's logf is off by one unit for some arguments, which the square root and the product carry on.
    assert np.abs(drawn.view(np.int32).astype(np.int64) - wanted.view(np.int32)).max() <= 3
    assert np.mean(drawn == wanted) > 0.98
    for count in (0, 1, 2, 7):
        np.testing.assert_array_equal(standard_normals(seed, count), drawn[:count])
    np.testing.assert_array_equal(standard_normals(seed - 2**32, 10), drawn[:10])


@pytest.mark.parametrize(
    ("seed", "size"), [(1, 1), (1, 16), (2, 12), (3, 10_240), (4, 1_000_003), (5, 1_600_000_001)]
)
def test_sketches_of_libstdcxx(seed: int, size: int) -> None:
    with np.load(GOLDEN / "libstdcxx.npz") as golden:
        wanted = golden[f"sketch_{seed}_{size}"]
    targets, signs = count_sketch(seed, len(wanted), size)
    np.testing.assert_array_equal(targets, wanted[:, 0])
    np.testing.assert_array_equal(signs, wanted[:, 1])


# -- configuration, bad input -------------------------------------------------------


def test_dictionaries_and_hashes_have_every_value() -> None:
    changes: dict[str, Any] = {
        "dimension": 127, "num_repetitions": 21, "num_simhash_projections": 4, "projection_dimension": 15,
        "projection": "rademacher", "center": False, "fill_empty_partitions": True, "document_cells": "mean",
        "split_mean": False, "soft_query_cells": 0.1, "final_projection_dimension": 10, "seed": 2**70,
    }  # fmt: skip
    base = FDEConfig(dimension=128)
    configs = [base, *(dataclasses.replace(base, **{name: value}) for name, value in changes.items())]
    configs.append(FDEConfig.preset("reference", 128))
    assert {"dialect", *changes} == {field.name for field in dataclasses.fields(FDEConfig)}
    assert len({config.hash for config in configs}) == len(configs)
    for config in configs:
        through_json = FDEConfig.from_dict(json.loads(json.dumps(config.to_dict())))
        assert through_json == config and through_json.hash == config.hash
    integer, number = (dataclasses.replace(base, soft_query_cells=zero) for zero in (0, 0.0))
    assert integer.hash == number.hash
    with pytest.raises(ValueError, match="needs dimension"):
        FDEConfig.from_dict({})
    with pytest.raises(ValueError, match="papier"):
        FDEConfig.preset("papier", 96)


def test_wrong_arguments() -> None:
    encoder = made(None, dimension=4, num_repetitions=1, num_simhash_projections=1, **PLAIN)
    frozen = np.frombuffer(bytes(32), np.float32).reshape(1, 8)
    strided = np.zeros((1, 16), np.float32)[:, ::2]
    for out in (np.zeros((2, 8), np.float32), np.zeros((1, 8)), [0.0] * 8, frozen, strided):
        with pytest.raises(ValueError, match=r"float32|C-contiguous"):
            encoder.encode_documents(np.ones((2, 4)), out=out)  # type: ignore[arg-type]
