"""Tokens that are rows of a table: laws of the codec, of scores and of passages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors, MuveraIndex, chamfer
from muvera.fde.config import FDEConfig
from muvera.index.contents import IndexContents
from muvera.index.settings import IndexSettings
from muvera.kernels.row_bounds import add_gains, choose_cuts, list_gains
from muvera.reranking.codec_files import read_codec, write_codec
from muvera.reranking.coded_vectors import CodedVectors
from muvera.reranking.table_codec import TableCodec
from muvera.reranking.table_search import (
    TableScores,
    best_texts,
    look_up,
    mean_similarities,
    score_all,
    score_exact,
)


def table_of(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def texts_of(codec: TableCodec, lengths: list[int], seed: int = 0) -> CodedVectors:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, codec.num_rows, sum(lengths))
    return CodedVectors.from_lengths(codec, codec.codes(numbers), lengths)


def score_rounded(query: Any, codec: TableCodec, runs: Any, *options: Any) -> TableScores:
    return score_all(look_up(query, codec, runs, *options))


def index_of(texts: CodedVectors, ids: list[str] | None = None) -> MuveraIndex:
    codec = texts.codec
    index = MuveraIndex.of(
        IndexContents.empty(FDEConfig.preset("mean", codec.dimension), IndexSettings(), None, codec)
    )
    with index.change() as change:
        change.build([(texts if ids is None else texts.with_ids(ids), None)])
    return index


@settings(max_examples=30, deadline=None)
@given(
    rows=st.sampled_from([1, 7, 300]),
    columns=st.integers(1, 37),
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    tokens=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_exact_scores_are_the_chamfer_similarities_of_decoded_tokens(
    rows: int, columns: int, lengths: list[int], tokens: int, seed: int
) -> None:
    codec = TableCodec.of_table(table_of(rows, columns, seed))
    texts = texts_of(codec, lengths, seed)
    query = table_of(tokens, columns, seed + 100)
    query[0] = codec.table[np.linalg.norm(codec.table, axis=1).argmax()]  # the largest similarity
    query[0] *= np.linalg.norm(query, axis=1).max() / np.linalg.norm(query[0])
    runs = [(texts, np.arange(len(texts)))]
    scores = score_exact(query, codec, runs).scores
    wanted = [chamfer(query, own) if len(own) else -np.inf for own in texts.decoded()]
    np.testing.assert_array_equal(scores, np.array(wanted, np.float32))
    # Steps of a byte: half a step per coordinate, for the row and the query token.
    rounded = score_rounded(query, codec, runs).scores
    peaks = np.abs(query).max(axis=1) / 254
    bound = (
        np.abs(query).sum(axis=1) * np.abs(codec.table).max() / 254
        + columns * peaks * np.abs(codec.table).max() * 1.01
        + 1e-3
    ).sum()
    filled = np.isfinite(wanted)
    assert np.abs(rounded[filled] - scores[filled]).max(initial=0) <= bound


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 70), min_size=1, max_size=8),
    half=st.integers(1, 12),
    tokens=st.sampled_from([1, 16, 17, 33]),
    exact=st.booleans(),
)
def test_long_texts_have_the_score_of_their_best_passage(
    lengths: list[int], half: int, tokens: int, exact: bool
) -> None:
    codec = TableCodec.of_table(table_of(50, 8))
    texts, query = texts_of(codec, lengths), table_of(tokens, 8, 1)
    runs = [(texts, np.arange(len(texts)))]
    found = (score_exact if exact else score_rounded)(query, codec, runs, 2 * half)
    for i, numbers in enumerate(np.split(codec.numbers(texts.tokens), texts.offsets[1:-1])):
        count = len(numbers)
        starts = range(0, count - half, half) if count > 2 * half else [0]
        passages = [numbers[start : start + 2 * half] for start in starts]
        alone = CodedVectors.from_lengths(
            codec, codec.codes(np.concatenate(passages)), [len(own) for own in passages]
        )
        scores = (score_exact if exact else score_rounded)(query, codec, [(alone, np.arange(len(alone)))])
        assert found.scores[i] == scores.scores.max()
        assert scores.scores[found.places[i]] == scores.scores.max()


@pytest.mark.parametrize("passage", [None, 8])
def test_scores_do_not_depend_on_threads_order_or_other_texts(passage: int | None) -> None:
    codec = TableCodec.of_table(table_of(200, 16))
    lengths = np.random.default_rng(3).integers(0, 30, 20_000).tolist()
    texts, query = texts_of(codec, lengths), table_of(5, 16, 1)
    order = np.random.default_rng(4).permutation(len(texts))
    alone = score_rounded(query, codec, [(texts, np.arange(len(texts)))], passage, 1)
    several = score_rounded(query, codec, [(texts, np.arange(len(texts)))], passage, 3)
    mixed = score_rounded(query, codec, [(texts, order)], passage, 2)
    split = score_rounded(
        query, codec, [(texts[:7], np.arange(7)), (texts[7:], np.arange(len(texts) - 7))], passage
    )
    few = score_rounded(query, codec, [(texts, np.arange(5))], passage)
    np.testing.assert_array_equal(several.scores, alone.scores)
    np.testing.assert_array_equal(mixed.scores, alone.scores[order])
    np.testing.assert_array_equal(split.scores, alone.scores)
    np.testing.assert_array_equal(few.scores, alone.scores[:5])


def test_mean_similarities_do_not_depend_on_segments() -> None:
    codec = TableCodec.of_table(table_of(200, 16))
    texts, query = texts_of(codec, [5] * 3000), table_of(5, 16, 1)
    positions = np.array([0, 3, 7, 2_999])
    alone = look_up(query, codec, [(texts, np.arange(3000))])
    split = look_up(query, codec, [(texts[:7], np.arange(7)), (texts[7:], np.arange(2993))])
    np.testing.assert_array_equal(mean_similarities(split, positions), mean_similarities(alone, positions))


def frequent_rows(codec: TableCodec, count: int, seed: int = 0) -> CodedVectors:
    """Return texts of 1 to 20 tokens, a few rows of which are in most texts."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 20, count)
    shares = 1 / np.arange(1, codec.num_rows + 1)
    numbers = rng.choice(codec.num_rows, int(lengths.sum()), p=shares / shares.sum())
    return CodedVectors.from_lengths(codec, codec.codes(numbers), lengths)


@pytest.mark.parametrize("tokens", [1, 8, 20])
@pytest.mark.parametrize("shift", [0.0, -3.0, 3.0])
def test_bounds_lose_none_of_the_best_texts(tokens: int, shift: float) -> None:
    codec = TableCodec.of_table(table_of(3000, 16) + np.float32(shift) * (np.arange(16) == 0))
    first, second = frequent_rows(codec, 20_000), frequent_rows(codec, 9_000, 1)
    query = table_of(tokens, 16, 1) + (np.arange(16) == 0).astype(np.float32)
    runs = [(first, np.arange(0, 20_000, 2)), (second, np.arange(9_000))]
    wanted = [best_texts(look_up(query, codec, runs), k) for k in (1, 10, 300)]
    for texts in (first, second):
        while texts.row_lists() is None:
            pass
    for k, (positions, scores) in zip((1, 10, 300), wanted, strict=True):
        found = best_texts(look_up(query, codec, runs), k)
        np.testing.assert_array_equal(found[0], positions)
        np.testing.assert_array_equal(found[1], scores)


def test_bounds_are_at_least_the_scores() -> None:
    codec = TableCodec.of_table(table_of(3000, 16))
    texts, query = frequent_rows(codec, 2_000), table_of(20, 16, 1)
    while (lists := texts.row_lists()) is None:
        pass
    lookups = look_up(query, codec, [(texts, np.arange(2_000))])
    cuts, sizes = np.empty(32, np.int16), np.diff(lists.starts)
    for budget in (0, 200, 10**9):
        choose_cuts(lookups.similarities, lookups.size, sizes, budget, cuts)
        rows, gains = np.empty(3000, np.int64), np.empty(3000, np.int64)
        number = list_gains(lookups.similarities, lookups.size, sizes, cuts, rows, gains)
        bounds = np.zeros(2_000, np.int64)
        add_gains(lists.starts, lists.texts, rows[:number], gains[:number], bounds)
        scores = score_all(lookups).scores / lookups.unit
        assert (bounds + cuts.sum(dtype=np.int64) + 1 >= scores).all()
        assert number <= 3000 if budget else number == 0


def test_codes_of_four_bytes_are_looked_up_as_codes_of_two() -> None:
    table = table_of(70_000, 4)
    long, short = TableCodec.of_table(table), TableCodec.of_table(table[:100].copy())
    lengths = [30] * 3000  # more tokens than rows that they contain, so nothing is copied
    numbers = np.random.default_rng(0).integers(0, 100, 90_000)
    query = table_of(3, 4, 1)
    scores = [
        score_rounded(
            query, codec, [(CodedVectors.from_lengths(codec, codec.codes(numbers), lengths), np.arange(3000))]
        ).scores
        for codec in (long, short)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)  # the unit depends on the longest row


def test_mean_similarity_is_the_product_of_sum_and_mean() -> None:
    codec = TableCodec.of_table(table_of(40, 8))
    texts, query = texts_of(codec, [3, 0, 9]), table_of(20, 8, 1)
    means = mean_similarities(look_up(query, codec, [(texts, np.arange(3))]), np.arange(3))
    wanted = [query.sum(axis=0) @ own.mean(axis=0) if len(own) else 0 for own in texts.decoded()]
    np.testing.assert_allclose(means, wanted, atol=0.3)  # 20 tokens, each rounded by up to .015


def test_decoding_and_encoding_are_inverse_and_need_the_table(tmp_path: Path) -> None:
    table = table_of(70_000, 4)
    codec = TableCodec.of_table(table)
    numbers = np.array([0, 69_999, 5])
    codes = codec.codes(numbers)
    assert codes.shape == (3, 4)
    np.testing.assert_array_equal(codec.decode(codes), table[numbers])
    np.testing.assert_array_equal(codec.encode(table[numbers]), codes)
    with pytest.raises(ValueError, match="Token 1 is not a row of the table"):
        codec.encode(np.stack([table[0], table[0] + 1]))
    kind = write_codec(codec, tmp_path)
    read = read_codec(tmp_path, kind, 4)
    assert isinstance(read, TableCodec)
    with pytest.raises(ValueError, match=r"TextIndex\.load"):
        read.decode(codes)
    read.attach(codec)
    np.testing.assert_array_equal(read.decode(codes), table[numbers])


def test_another_table_and_rows_beyond_it_are_refused(tmp_path: Path) -> None:
    codec = TableCodec.of_table(table_of(9, 4))
    other = TableCodec.of_table(table_of(9, 4, 1))
    with pytest.raises(ValueError, match=r"checksum [0-9a-f]{12}.*the encoder that built it"):
        other.attach(codec)
    with pytest.raises(ValueError, match="row 9 of a table with only 9 rows"):
        codec.codes(np.array([3, 9]))
    damaged = np.array([[8, 0], [9, 0]], np.uint8)
    texts = CodedVectors.from_lengths(codec, damaged, [1, 1])
    with pytest.raises(ValueError, match="row 9 of a table"):
        codec.decode(damaged)
    with pytest.raises(ValueError, match="row 9 of a table"):
        score_rounded(table_of(1, 4), codec, [(texts, np.arange(2))])
    with pytest.raises(ValueError, match=re.escape("Row 2 of the table has nan in column 1")):
        TableCodec.of_table(np.where(np.arange(36).reshape(9, 4) == 9, np.nan, 0).astype(np.float32))


def test_index_ranks_everything_exactly_and_hides_a_deleted_text_at_once() -> None:
    codec = TableCodec.of_table(table_of(100, 12))
    texts = texts_of(codec, np.random.default_rng(1).integers(1, 40, 3000).tolist())
    index = index_of(texts, [f"t{i}" for i in range(3000)])
    queries = MultiVectors.from_arrays([table_of(6, 12, 5), table_of(20, 12, 6)])
    exact = MuveraIndex.build(texts.decoded(), ids=[f"t{i}" for i in range(3000)], exact_tokens=10**9)
    for ranking, wanted in zip(index.search(queries), exact.search(queries), strict=True):
        assert ranking.exact
        assert ranking.ids.tolist() == wanted.ids.tolist()
        np.testing.assert_array_equal(ranking.scores, wanted.scores)
    [first, _] = index.search(queries, 1)
    index.delete([first.ids[0]])
    assert first.ids[0] not in index.search(queries)[0].ids
    index.rebuild()
    exact.delete([first.ids[0]])
    assert index.search(queries)[0].ids.tolist() == exact.search(queries)[0].ids.tolist()
    assert index.info().token_codec["bytes_per_token"] == 2
    index.add([codec.table[[1, 2]]], ids=["new"])
    np.testing.assert_array_equal(index.tokens(["new"])[0], codec.table[[1, 2]])
