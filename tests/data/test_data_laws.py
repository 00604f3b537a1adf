"""Laws of the data layer: texts, batches, rankings and growing arrays.

Texts are joined, sliced and saved.
"""

from copy import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import strategies as some
from builders.token_collections import assert_same
from hypothesis import example, given, settings
from hypothesis import strategies as st

from muvera import MultiVectors, Ranking
from muvera.data.batches import (
    DocumentSample,
    as_batches,
    collection_batches,
    fit_share,
    mean_token,
    token_batches,
    valid_batches,
)
from muvera.data.ranking import best_first
from muvera.data.validation import as_ids, first_unusable, rows_of_texts, running_total, string_array
from muvera.utils.arrays import GrowingArray, load_npy, save_array
from muvera.utils.checks import has_repeats, require_int
from muvera.utils.parallel import run_in_ranges, split_by_count

LENGTHS = st.lists(st.integers(0, 6), max_size=9)


def texts_of(
    lengths: list[int], dimension: int = 3, dtype: Any = np.float32, ids: Any = None
) -> MultiVectors:
    tokens = np.arange(sum(lengths) * dimension).reshape(-1, dimension)
    return MultiVectors.from_flat(tokens.astype(dtype), lengths, ids=ids)


# -- MultiVectors -------------------------------------------------------------


@given(LENGTHS, st.data(), some.dtypes, st.booleans())
def test_joining_the_parts_gives_the_whole(
    lengths: list[int], data: st.DataObject, dtype: Any, named: bool
) -> None:
    """Round trip: slices concatenate to the same tokens, lengths and ids."""
    ids = [f"t{i}" for i in range(len(lengths))] if named else None
    texts = texts_of(lengths, dtype=dtype, ids=ids)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(lengths)), max_size=4)))
    bounds = [0, *cuts, len(lengths)]
    parts = [texts[a:b] for a, b in pairwise(bounds)]
    assert_same(MultiVectors.concatenate(parts), texts.with_ids(texts.ids))
    assert all(np.shares_memory(part.tokens, texts.tokens) for part in parts if part.num_tokens)


@given(LENGTHS, st.data())
def test_selecting_twice_is_selecting_the_selected(lengths: list[int], data: st.DataObject) -> None:
    """Composition: texts[a][b] is texts[a[b]], for positions and for a mask."""
    texts = texts_of(lengths)
    first = np.array(data.draw(st.permutations(range(len(lengths)))), np.int64)
    second = np.array(data.draw(st.permutations(range(len(lengths)))), np.int64)[: len(lengths) // 2]
    assert_same(texts[first][second], texts[first[second]])
    mask = np.isin(np.arange(len(lengths)), second)
    assert_same(texts[mask], texts[np.sort(second)])


@given(LENGTHS, st.data())
def test_rows_belong_to_their_texts(lengths: list[int], data: st.DataObject) -> None:
    """text_of inverts the offsets.

    rows_of_texts lists the rows of the chosen texts in order.
    """
    texts = texts_of(lengths)
    owners = [(text, token) for text, length in enumerate(lengths) for token in range(length)]
    assert [texts.text_of(row) for row in range(texts.num_tokens)] == owners
    chosen = np.array(data.draw(st.permutations(range(len(lengths)))), np.int64)
    rows, offsets = rows_of_texts(texts.offsets, chosen)
    assert [owners[row][0] for row in rows] == np.repeat(chosen, np.array(lengths, int)[chosen]).tolist()
    assert np.diff(offsets).tolist() == [lengths[i] for i in chosen]


@settings(max_examples=15)
@given(LENGTHS, some.dtypes, st.sampled_from(["none", "int", "str"]), st.booleans())
def test_saved_texts_are_read_again(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], dtype: Any, kind: str, mapped: bool
) -> None:
    """Round trip on disk: bits, dtype, lengths and ids, mapped or not."""
    ids: dict[str, Any] = {"none": None, "int": [7 - 3 * i for i in range(len(lengths))]}
    ids["str"] = [f"\u00e9{i}" for i in range(len(lengths))]
    texts = texts_of(lengths, dtype=dtype, ids=ids[kind])
    folder = tmp_path_factory.mktemp("texts") / "saved"
    texts.save(folder)
    assert_same(MultiVectors.load(folder, mmap=mapped), texts)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 3), st.booleans())
def test_padding_and_masking_are_inverse(lengths: list[int], extra: int, dense: bool) -> None:
    """from_padded finds the rows that a padded batch was made of.

    They are given by a mask or by rows of zeros.
    """
    tokens = np.ones((sum(lengths), 3), np.float32)
    tokens[:, 1] = 0  # a zero does not make a row padding
    texts = MultiVectors.from_flat(tokens, lengths)
    padded = np.zeros((len(lengths), max(lengths) + extra, 3), np.float32)
    mask = np.arange(padded.shape[1]) < np.array(lengths)[:, np.newaxis]
    padded[mask] = texts.tokens
    if dense:
        padded[~mask] = np.nan
    assert_same(MultiVectors.from_padded(padded, mask if dense else None), texts)


@given(some.seeds, st.integers(1, 30), some.dimensions, some.dtypes, st.data())
def test_the_first_unusable_number_is_named(
    seed: int, count: int, dimension: int, dtype: Any, data: st.DataObject
) -> None:
    """Completeness: NaN, infinities and numbers from 1e12 on are found.

    They are found wherever they are, and other numbers pass.
    """
    tokens = np.random.default_rng(seed).standard_normal((count, dimension)).astype(dtype)
    assert first_unusable(tokens) is None
    bad = [np.nan, np.inf, -np.inf, *([1e12, -1e13] if dtype is np.float32 else [])]
    row, column = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, dimension - 1))
    tokens[row, column] = data.draw(st.sampled_from(bad))
    found = first_unusable(tokens)
    assert found is not None and found[:2] == (row, column)
    texts = MultiVectors.from_flat(tokens, [count])
    with pytest.raises(ValueError, match=rf"token {row}, coordinate {column}:"):
        texts.require_finite()


IDS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=6),
    st.lists(st.text(max_size=4).filter(lambda text: not text.endswith("\0")), max_size=6),
)


@given(IDS)
def test_ids_are_kept_or_refused_for_a_repeat(values: list[Any]) -> None:
    """Injectivity: unique ids survive unchanged, and any repeat is refused."""
    if len(set(values)) == len(values):
        assert as_ids(values, len(values)).tolist() == values
        assert as_ids(iter(values), len(values)).tolist() == values
    else:
        with pytest.raises(ValueError, match="must be unique"):
            as_ids(values, len(values))
    with pytest.raises(ValueError, match="Give one per text"):
        as_ids(values, len(values) + 1)
    texts = [value for value in values if isinstance(value, str)]
    assert string_array(texts).tolist() == texts


# -- batches and samples ------------------------------------------------------


@given(LENGTHS, st.integers(1, 12))
def test_batches_are_full_and_cover_every_text_once(lengths: list[int], most: int) -> None:
    """Greedy runs are within the limit or one text; the next text does not fit."""
    runs = list(token_batches(running_total(lengths), most))
    assert [i for start, stop in runs for i in range(start, stop)] == list(range(len(lengths)))
    for start, stop in runs:
        assert sum(lengths[start:stop]) <= most or stop == start + 1
        assert stop - start <= most or not lengths
        if stop < len(lengths) and stop - start < most:
            assert sum(lengths[start : stop + 1]) > most
    texts = texts_of(lengths)
    parts = list(collection_batches(texts, most))
    assert_same(MultiVectors.concatenate(parts), texts)
    assert [len(batch) for batch in as_batches(iter(parts))] == [stop - start for start, stop in runs]


@settings(max_examples=25)
@given(LENGTHS, st.integers(1, 5), some.seeds, st.integers(1, 12), st.integers(1, 12))
def test_a_sample_does_not_depend_on_the_batches(
    lengths: list[int], size: int, seed: int, one: int, other: int
) -> None:
    """Any division of a stream gives the same sample.

    It has texts with tokens, at most `size` of them.
    """
    texts = texts_of(lengths)
    samples = []
    for most in (one, other):
        sample = DocumentSample(8, seed, size)
        yielded = list(sample.sample_while_yielding(collection_batches(texts, most)))
        assert sum(len(part) for part in yielded) == len(texts)
        samples.append(sample.documents(3))
    assert_same(samples[0], samples[1])
    filled = [text.tobytes() for text in texts if len(text)]
    chosen = [text.tobytes() for text in samples[0]]
    assert len(chosen) == min(size, len(filled)) and set(chosen) <= set(filled)
    assert len(set(chosen)) == len(chosen)


@given(st.lists(LENGTHS, min_size=1, max_size=4), some.dtypes)
def test_the_mean_token_is_that_of_all_batches(batches: list[list[int]], dtype: Any) -> None:
    """Weighting: every token counts once, whatever its batch.

    Whole numbers make sums exact.
    """
    parts = [texts_of(lengths, dtype=dtype) for lengths in batches]
    rows = np.concatenate([part.tokens for part in parts]).astype(np.float64)
    if not len(rows):
        with pytest.raises(ValueError, match="at least one token"):
            list(valid_batches(parts, 3))
        return
    np.testing.assert_allclose(mean_token(parts, 3), rows.mean(axis=0), rtol=2e-7)


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_fit_shares_fall_with_the_documents_and_stay_within_bounds(one: int, other: int) -> None:
    """Monotony between .5 and .75, and 4,096 documents in between."""
    few, many = sorted((one, other))
    assert 0.5 <= fit_share(many) <= fit_share(few) <= 0.75
    for count in (few, many, 6000):
        expected = 0.75 if count * 3 <= 4 * 4096 else 0.5 if count >= 2 * 4096 else 4096 / count
        assert fit_share(count) == pytest.approx(expected)


# -- rankings -----------------------------------------------------------------

SCORES = st.lists(st.integers(-5, 5), max_size=12)


@given(SCORES, st.slices(12), st.booleans())
def test_a_ranking_is_sliced_like_its_list(values: list[int], key: slice, exact: bool) -> None:
    """Slices keep pairs, the flag and the expected recall; an index gives the pair."""
    scores = np.array(sorted(values, reverse=True), np.float32)
    ranking = Ranking(np.array([f"d{i}" for i in range(len(scores))], np.str_), scores, exact, 0.5)
    part = ranking[key]
    assert list(part) == list(ranking)[key] and (part.exact, part.expected_recall) == (exact, 0.5)
    assert [ranking[i] for i in range(-len(ranking), len(ranking))] == 2 * list(ranking)
    assert part.to_dict()["ids"] == [name for name, _ in part]


@pytest.mark.parametrize("times", [1, 60])  # more than 256 scores are selected before they are sorted
@given(st.lists(st.integers(-4, 4), min_size=5, max_size=12), st.integers(1, 299))
def test_the_best_first_do_not_depend_on_the_way_to_sort(times: int, values: list[int], k: int) -> None:
    """Selection of a part and sorting of all agree, with ties by position."""
    scores = np.tile(np.array(values, np.float32), times)
    expected = np.argsort(-scores, kind="stable")[:k]
    np.testing.assert_array_equal(best_first(scores, k), expected)
    few = best_first(scores, k)
    np.testing.assert_array_equal(best_first(scores, len(scores) + 1)[:k], few)


# -- arrays, checks and threads -----------------------------------------------


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 9).map(lambda i: i > 8)), max_size=15)
)
def test_copies_of_a_growing_array_are_independent_lists(steps: list[tuple[bool, int, bool]]) -> None:
    """Model: two copies behave like two lists.

    A view taken before an append keeps its values.
    """
    arrays: list[Any] = [GrowingArray(np.arange(20)), None]
    arrays[0].extend(np.arange(2))  # leaves room for eight values
    lists: list[Any] = [[*range(20), 0, 1], None]
    arrays[1], lists[1] = copy(arrays[0]), list(lists[0])
    number = 10
    for which, count, wide in steps:
        view, before = arrays[which].values, list(lists[which])
        new = np.arange(number, number + count) + (0.5 if wide else 0)
        arrays[which].extend(new)
        lists[which] += new.tolist()
        number += count
        assert view.tolist() == before
        for array, values in zip(arrays, lists, strict=True):
            assert array.values.tolist() == values and len(array) == len(values)


@settings(max_examples=15)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.sampled_from(["f4", "f2", "i8", "u1", "?", "U3"]),
    st.booleans(),
    st.booleans(),
)
@example([2, 3], "f4", True, True)
@example([2, 3], "i8", True, False)
def test_arrays_survive_their_files(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], kind: str, fortran: bool, mapped: bool
) -> None:
    """Round trip of any shape, dtype and memory order, mapped or read."""
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(kind)
    path = tmp_path_factory.mktemp("arrays") / "array.npy"
    save_array(path, np.asfortranarray(array) if fortran else array)
    loaded = load_npy(path, mmap=mapped)
    assert loaded.dtype == array.dtype and loaded.shape == array.shape
    np.testing.assert_array_equal(loaded, array)


@given(st.lists(st.integers(-3, 9), max_size=12))
def test_repeats_are_found_in_any_order(values: list[int]) -> None:
    """Definition: fewer distinct values than values."""
    assert has_repeats(np.array(values, np.int64)) == (len(set(values)) < len(values))


@given(st.integers(-9, 9), st.none() | st.integers(-5, 5), st.none() | st.integers(-5, 5))
def test_integers_are_accepted_within_closed_bounds(value: int, low: int | None, high: int | None) -> None:
    """Both bounds belong to the accepted values."""
    if (low is None or low <= value) and (high is None or value <= high):
        assert require_int("k", np.int16(value), low, high) == value
    else:
        with pytest.raises(ValueError, match=f"got {value}"):
            require_int("k", value, low, high)


@settings(max_examples=25)
@given(st.integers(0, 50), st.integers(-1, 12), st.integers(1, 4))
def test_ranges_of_a_size_are_worked_once_by_any_threads(count: int, size: int, threads: int) -> None:
    """Partition: full ranges but the last, and each entry is written once."""
    ranges = split_by_count(count, size)
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(count))
    assert all(stop - start == max(1, size) for start, stop in ranges[:-1])
    done = np.zeros(count, np.int64)

    def work(start: int, stop: int) -> None:
        done[start:stop] += 1

    run_in_ranges(work, ranges, threads)
    assert (done == 1).all()
