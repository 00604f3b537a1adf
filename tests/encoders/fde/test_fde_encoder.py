"""FDEEncoder: the oracle against the compiled path, what must hold to the bit, what holds up to rounding."""

from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import strategies as some
from hypothesis import assume, given
from hypothesis import strategies as st

import muvera.encoders.fde.encoder as encoder_module
import muvera.encoders.fde.final_projection as final_module
import muvera.encoders.long_vectors as long_vectors
from muvera import FDEConfig, FDEEncoder, MultiVectors
from muvera.encoders.fde.draws import own

# float32 sums of at most a hundred terms, relative to the largest entry.
ROUNDING = 3e-6

PROJECTIONS = ["complementary", "rademacher", "count_sketch", "identity"]

# Every option, with and without the others that it meets in a kernel.
OPTIONS: list[dict[str, Any]] = [
    {},
    {"center": False},
    {"split_mean": False, "hyperplanes": "gaussian", "document_cells": "mean"},
    {"fill_empty_partitions": True, "center": False, "document_cells": "mean", "soft_query_cells": 0.0},
    {"fill_empty_partitions": True, "soft_query_cells": 0.2},
    {"soft_query_cells": 0.0, "document_cells": "mean"},
    {"num_simhash_projections": 0},
    {"num_simhash_projections": 1, "num_repetitions": 17, "fill_empty_partitions": True},
    {"num_simhash_projections": 7, "num_repetitions": 3},
    {"split_mean": False, "document_cells": "unit"},
    {"split_mean": False, "document_cells": "length"},
    {"split_mean": True, "document_cells": "unit", "center": False},
    {"split_mean": True, "document_cells": "length", "covariance": True, "fill_empty_partitions": True},
]

#: A sketch of whole tokens, without blocks beside it.
WHOLE: dict[str, Any] = {"split_mean": False, "document_cells": "unit"}

# Around the vector width, below it, and with both structures of the random matrices.
SHAPES = [
    (1, 1),
    (2, 1),
    (5, 5),
    (16, 16),
    (17, 3),
    (32, 20),
    (33, 16),
    (70, 1),
    (96, 16),
    (128, 16),
    (130, 24),
]


def fitted(documents: Any, **settings: Any) -> FDEEncoder:
    """An encoder, small unless said otherwise."""
    values = {"num_repetitions": 5, "num_simhash_projections": 3, **settings}
    if documents is None:  # nothing to learn from
        values = {**WHOLE, **values}
    return FDEEncoder(FDEConfig(**values)).fit(documents)


def matrices_of(encoder: FDEEncoder) -> tuple[np.ndarray, np.ndarray | None]:
    """Hyperplanes (R, k, d) and projections (R, p, d) in the tokens' own columns, for the oracle."""
    config, matrices = encoder.config, encoder.matrices
    dense = matrices.dense_hyperplanes
    shape = (config.num_repetitions, config.num_simhash_projections, dense.shape[1])
    planes = dense.reshape(shape)[:, :, : config.dimension]
    if not matrices.projections.size:
        return planes, None
    return planes, (matrices.projections @ matrices.basis)[:, :, : config.dimension]


def clear_of_planes(tokens: np.ndarray, encoder: FDEEncoder) -> np.ndarray:
    """The tokens whose cells, and nearest hyperplanes, float32 and float64 cannot disagree about."""
    planes, _ = matrices_of(encoder)
    if not planes.size:
        return tokens
    clear = np.ones(len(tokens), bool)
    for t, token in enumerate(tokens):
        length = max(1.0, float(np.linalg.norm(token)))
        for normals in planes:
            distances = np.sort(oracle.plane_distances(token - encoder.center, normals))
            clear[t] &= distances[0] > 1e-5 * length
            if encoder.config.soft_query_cells:  # only they ask which hyperplane is nearest
                clear[t] &= (np.diff(distances)[:1] > 1e-5 * length).all()
    return tokens[clear]


def expected(tokens: np.ndarray, encoder: FDEEncoder, side: str) -> np.ndarray:
    """The oracle's FDE."""
    config, blocks = encoder.config, encoder.blocks
    planes, inner = matrices_of(encoder)
    if side == "documents":
        sketch = oracle.document_fde(
            tokens, planes, inner, center=encoder.center, fill=config.fill_empty_partitions,
            cells=config.document_cells, split=config.split_mean,
        )  # fmt: skip
        if blocks is None:
            return sketch
        weight = blocks.coefficients[0] * blocks.units[0] / config.num_repetitions
        moments = oracle.document_moments(
            tokens, blocks.coefficients, blocks.units, blocks.offset, config.covariance
        )
        return np.concatenate([weight * sketch, moments])
    sketch = oracle.query_fde(tokens, planes, inner, center=encoder.center, softness=config.soft_query_cells)
    if blocks is None:
        return sketch
    return np.concatenate(
        [sketch / blocks.units[0], oracle.query_moments(tokens, blocks.units, blocks.metric)]
    )


def assert_close(actual: np.ndarray, wanted: np.ndarray, rounding: float = ROUNDING) -> None:
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=rounding * max(1.0, np.abs(wanted).max()))


def texts_for(
    encoder: FDEEncoder, seed: int, lengths: tuple[int, ...] = (9, 1, 40, 0, 2)
) -> list[np.ndarray]:
    """Ragged texts around the encoder's center, clear of its hyperplanes."""
    rng = np.random.default_rng(seed)
    dimension = encoder.config.dimension
    return [
        clear_of_planes((rng.standard_normal((n, dimension)) + encoder.center).astype(np.float32), encoder)
        for n in lengths
    ]


def sample(dimension: int, seed: int = 0, texts: int = 5, longest: int = 30) -> MultiVectors:
    """Ragged texts of float32, an empty one among them."""
    rng = np.random.default_rng([seed, dimension])
    lengths = rng.integers(1, longest, texts)
    lengths[texts // 2] = 0
    tokens = rng.standard_normal((lengths.sum(), dimension)) + 0.3
    return MultiVectors.from_flat(tokens.astype(np.float32), lengths)


# -- the oracle -----------------------------------------------------------------


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values())) or "default")
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize(("dimension", "block"), SHAPES)
def test_oracle(dimension: int, block: int, projection: str, options: dict[str, Any]) -> None:
    width = None if projection == "identity" else block
    encoder = fitted(
        sample(dimension), dimension=dimension, projection=projection, projection_dimension=width, **options
    )
    texts = texts_for(encoder, dimension)
    documents = encoder.encode_documents(MultiVectors.from_arrays(texts, dimension=dimension))
    queries = encoder.encode_queries(MultiVectors.from_arrays(texts, dimension=dimension))
    assert documents.shape == queries.shape == (len(texts), encoder.config.vector_dimension)
    assert documents.dtype == queries.dtype == np.float32
    for tokens, document, query in zip(texts, documents, queries, strict=True):
        assert_close(document, expected(tokens, encoder, "documents"))
        assert_close(query, expected(tokens, encoder, "queries"))


@given(st.data(), some.dimensions, st.sampled_from(PROJECTIONS), st.sampled_from(OPTIONS))
def test_oracle_on_any_shape(
    data: st.DataObject, dimension: int, projection: str, options: dict[str, Any]
) -> None:
    block = dimension if projection == "identity" else data.draw(st.integers(1, dimension))
    repetitions = data.draw(st.integers(1, 9))
    settings = {"num_repetitions": repetitions, "projection": projection, "projection_dimension": block}
    encoder = fitted(sample(dimension), dimension=dimension, **{**settings, **options})
    tokens = clear_of_planes(data.draw(some.token_arrays(dimension, most=20)), encoder)
    assert_close(encoder.encode_documents(tokens)[0], expected(tokens, encoder, "documents"))
    assert_close(encoder.encode_queries(tokens)[0], expected(tokens, encoder, "queries"))


@pytest.mark.compiled("65,536 cells are visited one by one")
@pytest.mark.parametrize("fill", [False, True])
def test_the_most_cells(fill: bool) -> None:
    encoder = fitted(
        sample(20), dimension=20, num_repetitions=1, num_simhash_projections=16, projection_dimension=1,
        fill_empty_partitions=fill, split_mean=False, document_cells="mean",
    )  # fmt: skip
    tokens = texts_for(encoder, 1, (25,))[0]
    planes, inner = matrices_of(encoder)
    assert inner is not None
    codes = oracle.token_codes(tokens - encoder.center, planes[0])
    document = encoder.encode_documents(tokens)[0]
    assert document.shape == (65536,)
    values = (tokens - encoder.center).astype(np.float64) @ inner[0][0]
    for code in {*codes.tolist(), 0, 1, 40000, 65535}:
        if code in codes:
            wanted = values[codes == code].mean()
        else:
            wanted = values[np.argmin([oracle.hamming(code, other) for other in codes])] if fill else 0.0
        assert document[code] == pytest.approx(wanted, abs=1e-5)
    if not fill:
        assert set(np.flatnonzero(document)) <= set(codes.tolist())
    query = encoder.encode_queries(tokens)[0]
    assert_close(query, expected(tokens, encoder, "queries"))


@pytest.mark.parametrize("final", [1, 15, 16, 50])
@pytest.mark.parametrize("projection", ["complementary", "identity"])
def test_final_projections(projection: str, final: int) -> None:
    """p = 5 and R * 2**k * p = 600: the dense map's depth is cut at no multiple of anything."""
    dimension = 5
    common = {"dimension": dimension, "projection": projection, "num_repetitions": 15, **WHOLE}
    documents = sample(dimension)
    long = fitted(documents, **common)
    for kind in ("rademacher", "count_sketch"):
        encoder = fitted(documents, **common, final_projection=kind, final_projection_dimension=final)
        for side in ("encode_documents", "encode_queries"):
            short = getattr(encoder, side)(documents)
            assert short.shape == (len(documents), final)
            for fde, got in zip(getattr(long, side)(documents), short, strict=True):
                if kind == "rademacher":
                    wanted = oracle.final_rademacher(fde, dense_signs(encoder.config))
                else:
                    matrices = encoder.matrices
                    wanted = oracle.final_count_sketch(
                        fde, matrices.final_targets, matrices.final_signs, final
                    )
                # Sums of 600 terms: sixteen times a block's.
                assert_close(got, wanted, 16 * ROUNDING)


def dense_signs(config: FDEConfig) -> np.ndarray:
    """The dense final map as +-1 (R * 2**k * p, D)."""
    rows = config.num_cells * config.block_width
    parts = []
    for r in range(config.num_repetitions):
        bits = own.final_signs(config.seed, r, rows, config.vector_dimension)
        plus = (bits[:, :, np.newaxis] >> np.arange(16)) & 1
        parts.append(plus.transpose(1, 0, 2).reshape(rows, -1)[:, : config.vector_dimension] * 2.0 - 1)
    return np.concatenate(parts)


@pytest.mark.parametrize("kind", ["rademacher", "count_sketch"])
def test_final_projections_in_blocks_and_with_signs_drawn_again(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = sample(12, texts=9)
    settings = {"dimension": 12, "final_projection": kind, "final_projection_dimension": 33}
    whole = fitted(documents, **settings)
    monkeypatch.setattr(encoder_module, "_BLOCK_BYTES", 2 * 4 * whole.config.sketch_dimension)
    monkeypatch.setattr(final_module, "_KEPT_SIGN_BYTES", 0)
    parts = fitted(documents, **settings)
    for side in ("encode_documents", "encode_queries"):
        np.testing.assert_array_equal(getattr(whole, side)(documents), getattr(parts, side)(documents))


def test_ties_go_to_the_first_of_equally_near_tokens() -> None:
    """A filled FDE depends on the order of the tokens, by the rule that the oracle states."""
    settings = {"dimension": 8, "projection": "identity", "center": False, "fill_empty_partitions": True}
    encoder = fitted(None, **settings, document_cells="mean")
    tokens = texts_for(encoder, 3, (6,))[0]
    there, back = (encoder.encode_documents(t)[0] for t in (tokens, tokens[::-1]))
    assert not np.array_equal(there, back)
    assert_close(there, expected(tokens, encoder, "documents"))
    assert_close(back, expected(tokens[::-1], encoder, "documents"))


def test_a_token_on_a_hyperplane_has_bit_zero() -> None:
    encoder = fitted(None, dimension=16, center=False, projection="identity", soft_query_cells=0.0)
    zero = np.zeros((1, 16), np.float32)
    both = np.concatenate([zero, zero])
    assert not encoder.encode_documents(zero).any()
    # One zero token in code 0 halves the mean there, and only there.
    unscaled = fitted(None, dimension=16, center=False, projection="identity", document_cells="mean")
    token = np.random.default_rng(0).standard_normal((1, 16)).astype(np.float32)
    alone = unscaled.encode_documents(token).reshape(5, 8, 16)
    with_zero = unscaled.encode_documents(np.concatenate([token, zero])).reshape(5, 8, 16)
    in_zero = alone[:, 0].any(axis=1)
    np.testing.assert_array_equal(with_zero[~in_zero], alone[~in_zero])
    np.testing.assert_array_equal(with_zero[in_zero], alone[in_zero] / 2)
    assert not encoder.encode_queries(both).any()


def test_tokens_that_cancel_leave_a_unit_cell_empty() -> None:
    encoder = fitted(None, dimension=16, num_simhash_projections=0, center=False)
    token = np.random.default_rng(0).standard_normal((1, 16)).astype(np.float32)
    assert not encoder.encode_documents(np.concatenate([token, -token])).any()


# -- to the bit -------------------------------------------------------------------


@st.composite
def encoders(draw: st.DrawFn) -> FDEEncoder:
    """An encoder of any projection, fitted where it needs it."""
    dimension = draw(some.dimensions)
    projection = draw(st.sampled_from(PROJECTIONS))
    final = draw(st.sampled_from([None, "rademacher", "count_sketch"]))
    return fitted(
        sample(dimension),
        dimension=dimension,
        projection=projection,
        num_repetitions=draw(st.integers(1, 7)),
        final_projection=final,
        final_projection_dimension=None if final is None else draw(st.integers(1, 40)),
        **draw(st.sampled_from([{}, WHOLE, {"center": False, "fill_empty_partitions": True, **WHOLE}])),
    )


@given(st.data(), encoders(), st.sampled_from(["encode_documents", "encode_queries"]))
def test_batch_is_one_by_one(data: st.DataObject, encoder: FDEEncoder, side: str) -> None:
    texts = data.draw(some.multivectors(encoder.config.dimension))
    encode = getattr(encoder, side)
    batch = encode(texts, threads=1)
    for i in range(len(texts)):
        np.testing.assert_array_equal(batch[i], encode(texts[i])[0])
    np.testing.assert_array_equal(batch, encode(texts, threads=2))
    order = data.draw(st.permutations(range(len(texts))))
    np.testing.assert_array_equal(batch[order], encode(texts[order]))


@pytest.mark.parametrize("final", [None, "rademacher"])
@pytest.mark.parametrize("side", ["encode_documents", "encode_queries"])
def test_threads_and_tasks_do_not_show(side: str, final: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = sample(24, texts=40)
    encoder = fitted(texts, dimension=24, final_projection=final, final_projection_dimension=final and 20)
    whole = getattr(encoder, side)(texts, threads=1)
    monkeypatch.setattr(long_vectors, "_TASK_TOKENS", 16)
    for threads in (1, 2, 5):
        np.testing.assert_array_equal(whole, getattr(encoder, side)(texts, threads=threads))


@given(st.data(), encoders(), st.sampled_from(["encode_documents", "encode_queries"]))
def test_dtype_strides_and_flags_do_not_matter(data: st.DataObject, encoder: FDEEncoder, side: str) -> None:
    halves = data.draw(some.token_arrays(encoder.config.dimension)).astype(np.float16)
    encode = getattr(encoder, side)
    plain = encode(halves.astype(np.float32))
    np.testing.assert_array_equal(plain, encode(halves))
    np.testing.assert_array_equal(plain, encode(halves.astype(np.float64)))
    for array in (halves, halves.astype(np.float32)):
        disguise = data.draw(some.disguised(array))
        np.testing.assert_array_equal(array, disguise)
        np.testing.assert_array_equal(plain, encode(disguise))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_memory_maps_in_and_out(tmp_path: Path, dtype: Any) -> None:
    texts = sample(24)
    texts = MultiVectors.from_flat(texts.tokens.astype(dtype), texts.lengths)
    encoder = fitted(texts, dimension=24)
    texts.save(tmp_path / "texts")
    mapped = MultiVectors.load(tmp_path / "texts")
    assert isinstance(mapped.tokens, np.memmap)
    shape = (len(texts), encoder.config.vector_dimension)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, shape)
    written = encoder.encode_documents(mapped, out=out)
    np.testing.assert_array_equal(written, encoder.encode_documents(texts))
    out.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), written)


def test_out_is_written_whole() -> None:
    """Whatever it held before, in cells that stay empty too."""
    texts = sample(10)
    for options in ({}, {"final_projection": "count_sketch", "final_projection_dimension": 9}):
        encoder = fitted(texts, dimension=10, **options)
        for side in ("encode_documents", "encode_queries"):
            out = np.full((len(texts), encoder.config.vector_dimension), np.nan, np.float32)
            assert np.shares_memory(getattr(encoder, side)(texts, out=out), out)
            np.testing.assert_array_equal(out, getattr(encoder, side)(texts))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("dimension", [1, 15, 16, 17, 70, 96, 130])
def test_neighbors_in_memory_are_neither_read_nor_written(dimension: int, dtype: Any) -> None:
    """Whole vectors are loaded and stored: what lies beside the tokens and the result is not touched."""
    texts = sample(dimension)
    count = texts.num_tokens
    around = np.full((count + 40, dimension), np.nan, dtype)
    around[20 : 20 + count] = texts.tokens
    inside = MultiVectors.from_flat(around[20 : 20 + count], texts.lengths)
    for options in ({"projection": "identity"}, {"projection_dimension": 1}, {"fill_empty_partitions": True}):
        encoder = fitted(inside, dimension=dimension, **options)
        for side in ("encode_documents", "encode_queries"):
            wanted = getattr(encoder, side)(MultiVectors.from_flat(inside.tokens.copy(), texts.lengths))
            out = np.full((len(texts) + 2, encoder.config.vector_dimension), np.nan, np.float32)
            getattr(encoder, side)(inside, out=out[1:-1])
            np.testing.assert_array_equal(out[1:-1], wanted)
            assert np.isnan(out[[0, -1]]).all()
            assert np.isfinite(wanted).all()


def test_a_rebuilt_encoder_gives_the_same_bits() -> None:
    """From the saved matrices and center, as an index does."""
    texts = sample(20)
    encoder = fitted(texts, dimension=20)
    config = FDEConfig.from_dict(encoder.config.to_dict())
    again = FDEEncoder(config, matrices=encoder.matrices, center=encoder.center, blocks=encoder.blocks)
    drawn = FDEEncoder(config, center=encoder.center, blocks=encoder.blocks)
    for other in (again, drawn):
        np.testing.assert_array_equal(encoder.encode_documents(texts), other.encode_documents(texts))
        np.testing.assert_array_equal(encoder.encode_queries(texts), other.encode_queries(texts))


def test_every_way_of_fitting_gives_the_same_centre() -> None:
    texts = sample(20)
    encoder = fitted(texts, dimension=20)
    for way in (list(texts), iter(texts), [texts[:2], texts[2:]], iter([texts[:2], texts[2:]])):
        np.testing.assert_array_equal(encoder.center, fitted(way, dimension=20).center)
    np.testing.assert_allclose(encoder.center, texts.tokens.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_array_equal(fitted(None, dimension=20, center=False).center, np.zeros(20))


def test_empty_texts_are_zero() -> None:
    for options in OPTIONS:
        encoder = fitted(sample(12), dimension=12, **options)
        empty = MultiVectors.from_arrays([np.zeros((0, 12))] * 2, dimension=12)
        for side in ("encode_documents", "encode_queries"):
            fdes = getattr(encoder, side)(empty)
            np.testing.assert_array_equal(fdes, np.zeros((2, encoder.config.vector_dimension)))


def test_no_texts_at_all() -> None:
    encoder = fitted(sample(12), dimension=12)
    none = MultiVectors.from_flat(np.zeros((0, 12), np.float32), lengths=[])
    assert encoder.encode_documents(none).shape == (0, encoder.config.vector_dimension)
    assert encoder.encode_queries(none).shape == (0, encoder.config.vector_dimension)


# -- up to rounding -----------------------------------------------------------------


@given(st.data(), encoders())
def test_query_fdes_add_and_scale(data: st.DataObject, encoder: FDEEncoder) -> None:
    """Linear in the tokens; scaling only where cells do not depend on length: no center, no soft cells."""
    dimension = encoder.config.dimension
    one, other = (data.draw(some.token_arrays(dimension)) for _ in range(2))
    parts = encoder.encode_queries(one)[0] + encoder.encode_queries(other)[0]
    assert_close(encoder.encode_queries(np.concatenate([one, other]))[0], parts, 16 * ROUNDING)
    if not encoder.config.center:
        hard = FDEEncoder(FDEConfig.from_dict({**encoder.config.to_dict(), "soft_query_cells": 0.0}))
        # A power of two: no rounding, so no token changes its cell.
        assert_close(hard.encode_queries(4 * one)[0], 4 * hard.encode_queries(one)[0], 16 * ROUNDING)


@given(st.data(), encoders(), st.integers(2, 4))
def test_document_fdes_ignore_duplication(data: st.DataObject, encoder: FDEEncoder, times: int) -> None:
    tokens = data.draw(some.token_arrays(encoder.config.dimension, least=1))
    centered = tokens - encoder.center
    # A unit cell whose tokens nearly cancel has a direction made of rounding.
    assume(encoder.config.document_cells == "mean" or np.abs(centered).max() > 1e-3)
    once, repeated = (encoder.encode_documents(t)[0] for t in (tokens, np.concatenate([tokens] * times)))
    columns = slice(None, -1 if encoder.config.split_mean else None)  # the bias knows the number of tokens
    assert_close(repeated[columns], once[columns], 64 * ROUNDING)


@given(st.data(), encoders())
def test_document_order_matters_to_filled_cells_only(data: st.DataObject, encoder: FDEEncoder) -> None:
    assume(not encoder.config.fill_empty_partitions)
    tokens = data.draw(some.token_arrays(encoder.config.dimension, least=1))
    order = data.draw(st.permutations(range(len(tokens))))
    once, again = (encoder.encode_documents(t)[0] for t in (tokens, tokens[order]))
    assert_close(again, once, 64 * ROUNDING)


# -- bad input ------------------------------------------------------------------------


def test_the_encoder_wants_a_config() -> None:
    with pytest.raises(TypeError, match=r"^config must be an FDEConfig, got dict\.$"):
        FDEEncoder({"dimension": 3})  # type: ignore[arg-type]


def test_a_wrong_centre_or_wrong_matrices() -> None:
    with pytest.raises(ValueError, match=r"^center has 3 entries, but dimension=4\.$"):
        FDEEncoder(FDEConfig(dimension=4), center=np.zeros(3))
    matrices = FDEEncoder(FDEConfig(dimension=20, num_simhash_projections=2)).matrices
    with pytest.raises(ValueError, match=r"hyperplanes have shape \(80, 32\), which does not fit FDEConfig"):
        FDEEncoder(FDEConfig(dimension=20, num_simhash_projections=3), matrices=matrices)


def test_fit_comes_first_and_once() -> None:
    encoder = FDEEncoder(FDEConfig(dimension=4))
    needed = [encoder.needs_fit]
    tokens = np.ones((2, 4), np.float32)
    for call in (encoder.encode_documents, encoder.encode_queries):
        with pytest.raises(ValueError, match=r"split_mean=True.*fit\(documents\) first"):
            call(tokens)
    with pytest.raises(ValueError, match="split_mean=True"):
        _ = encoder.center
    assert encoder.fit(tokens) is encoder
    assert [*needed, encoder.needs_fit] == [True, False]
    with pytest.raises(ValueError, match="Make a new encoder"):
        encoder.fit(tokens)


def test_fit_wants_finite_tokens_of_the_right_width() -> None:
    encoder = FDEEncoder(FDEConfig(dimension=4))
    empty: list[Any] = []
    for nothing in (empty, MultiVectors.from_flat(np.zeros((0, 4), np.float32), lengths=[0, 0])):
        with pytest.raises(ValueError, match="at least one token, and these have none"):
            encoder.fit(nothing)
    with pytest.raises(ValueError, match=r"^documents has 3 columns, but this encoder has dimension=4\.$"):
        encoder.fit(np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"documents\[1\] \(id 1\) has nan in its token 0, coordinate 2"):
        encoder.fit([np.ones((2, 4)), np.array([[0, 0, np.nan, 0]])])
    assert encoder.needs_fit


@pytest.mark.parametrize("side", ["documents", "queries"])
def test_encoding_wants_finite_tokens_of_the_right_width(side: str) -> None:
    encode = getattr(fitted(None, dimension=4, center=False), f"encode_{side}")
    with pytest.raises(ValueError, match=rf"^{side} has 5 columns, but this encoder has dimension=4\.$"):
        encode(np.ones((2, 5)))
    for value, name in ((np.nan, "nan"), (-np.inf, "-inf")):
        for dtype in (np.float32, np.float16):
            bad = np.zeros((3, 4), dtype)
            bad[2, 1] = value
            texts = MultiVectors.from_arrays([np.ones((5, 4), dtype), bad], ids=["a", "b"])
            with pytest.raises(
                ValueError, match=rf"^{side}\[1\] \(id 'b'\) has {name} in its token 2, coordinate 1"
            ):
                encode(texts)
    with pytest.raises(TypeError, match="floating point"):
        encode(np.ones((2, 4), np.int8))
    with pytest.raises(
        TypeError, match=rf"^{side} must be token vectors, got the text str 'text'. Encode it"
    ):
        encode("text")
    with pytest.raises(ValueError, match=rf"^{side} has shape \(4,\)"):
        encode(np.ones(4))


def test_out_must_fit() -> None:
    encoder = fitted(None, dimension=4, center=False, num_repetitions=1, num_simhash_projections=1)
    tokens = np.ones((2, 4), np.float32)
    wrong: list[tuple[Any, str]] = [
        (np.zeros((2, 8), np.float32), r"float32 \(2, 8\)"),
        (np.zeros((1, 8)), r"float64 \(1, 8\)"),
        ([0.0] * 8, "list"),
    ]
    for out, found in wrong:
        with pytest.raises(ValueError, match=rf"float32 array of shape \(1, 8\), got {found}"):
            encoder.encode_documents(tokens, out=out)
    frozen = np.zeros((1, 8), np.float32)
    frozen.flags.writeable = False
    wide = np.zeros((1, 16), np.float32)[:, ::2]
    for out in (frozen, np.broadcast_to(wide, (1, 8))):
        with pytest.raises(ValueError, match="C-contiguous and writeable"):
            encoder.encode_queries(tokens, out=out)


@pytest.mark.parametrize(
    ("threads", "error", "words"),
    [(0, ValueError, "at least 1, got 0"), (1.5, TypeError, "got float"), (True, TypeError, "got bool")],
)
def test_threads_must_be_a_count(threads: Any, error: type[Exception], words: str) -> None:
    encoder = fitted(None, dimension=4, center=False)
    with pytest.raises(error, match=words):
        encoder.encode_documents(np.ones((2, 4)), threads=threads)
