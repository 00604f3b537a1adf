"""FDEEncoder: what must hold to the bit, what holds up to rounding, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies as some
from builders.fde_oracle import (
    OPTIONS,
    ROUNDING,
    assert_close,
    encoders,
    fitted,
    sample,
)
from hypothesis import assume, given
from hypothesis import strategies as st

import muvera.encoders.long_vectors as long_vectors
from muvera import FDEConfig, FDEEncoder, MultiVectors

# -- to the bit ---------------------------------------------------------------


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


# -- up to rounding -----------------------------------------------------------


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


# -- bad input ----------------------------------------------------------------


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
