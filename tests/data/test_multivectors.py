"""MultiVectors: constructors, access, checks and files."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies as some
from builders.tensors import FakeTensor
from builders.token_collections import three
from hypothesis import given
from hypothesis import strategies as st

from muvera import MultiVectors
from muvera.data.multivectors import as_multivectors
from muvera.data.validation import as_ids

flat, arrays, joined = MultiVectors.from_flat, MultiVectors.from_arrays, MultiVectors.concatenate


# NumPy's functions drop the mask.
MASKED: Any = np.ma.masked_equal([[1.0, 2, 3], [4, 5, 6]], 2)


@given(st.data(), some.dimensions)
def test_all_constructors_agree(data: st.DataObject, dimension: int) -> None:
    texts = data.draw(some.ragged_arrays(dimension))
    lengths = [len(text) for text in texts]
    rows = np.concatenate(texts)
    padded = np.zeros((len(texts), max(lengths), dimension), np.float32)
    mask = np.zeros((len(texts), max(lengths)), bool)
    for i, text in enumerate(texts):
        padded[i, : len(text)], mask[i, : len(text)] = text, True
    for made in (
        arrays(texts, dimension=dimension),
        arrays(iter([text.astype(np.float64) for text in texts]), dimension=dimension),
        arrays([FakeTensor(text, "torch.bfloat16") for text in texts], dimension=dimension),
        flat(data.draw(some.disguised(rows)), lengths),
        flat(rows, np.array(lengths, np.float64)),
        MultiVectors(rows, np.concatenate([[0], np.cumsum(lengths)])),
        MultiVectors.from_padded(padded, mask),
        MultiVectors.from_padded(FakeTensor(padded), FakeTensor(mask.astype(np.int64), "torch.int64")),
        MultiVectors.from_padded(padded),  # no token of standard normals is all zero
    ):
        assert (len(made), made.dimension, made.num_tokens) == (len(texts), dimension, len(rows))
        assert made.tokens.dtype == np.float32 and made.tokens.flags.c_contiguous and not made.has_ids
        np.testing.assert_array_equal(made.tokens, rows)
        np.testing.assert_array_equal(made.lengths, lengths)
        np.testing.assert_array_equal(made.ids, np.arange(len(texts)))
        for actual, expected in zip(made, texts, strict=True):
            np.testing.assert_array_equal(actual, expected)


HALF, SINGLE = np.ones((2, 3), np.float16), np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("texts", "dtype"),
    [
        pytest.param(arrays([HALF, HALF]), np.float16, id="halves"),
        pytest.param(arrays([HALF, SINGLE]), np.float32, id="both precisions"),
        pytest.param(arrays([HALF, np.zeros((0, 3))]), np.float16, id="no tokens"),
        pytest.param(arrays([SINGLE], dtype=np.float16), np.float16, id="rounded"),
        pytest.param(arrays([[[1.0, 2.0]]]), np.float32, id="lists"),
        pytest.param(flat(np.ones((2, 3)), [2]), np.float32, id="float64"),
        pytest.param(flat(HALF, [2]), np.float16, id="flat halves"),
        pytest.param(joined([three(np.float16), three().with_ids(["x", "y", "z"])]), np.float32, id="joined"),
    ],
)
def test_dtypes(texts: MultiVectors, dtype: Any) -> None:
    assert texts.tokens.dtype == dtype


def test_dimensions_of_texts_without_tokens() -> None:
    assert arrays([np.zeros((0, 7)), []]).dimension == arrays([[], []], dimension=7).dimension == 7
    assert arrays([[], np.ones((1, 3))]).dimension == 3


def test_texts_are_views_of_a_flat_array() -> None:
    texts = flat(SINGLE, [1, 1])
    assert all(np.shares_memory(view, SINGLE) for view in (texts.tokens, texts[1:].tokens, texts[0]))


@given(st.data(), st.integers(1, 20))
def test_indexing_is_that_of_a_list(data: st.DataObject, dimension: int) -> None:
    texts = data.draw(some.ragged_arrays(dimension, most=8))
    count = len(texts)
    made = arrays(texts, ids=[f"t{i}" for i in range(count)], dimension=dimension)
    for key in (
        data.draw(st.slices(count)),
        np.array(data.draw(st.lists(st.sampled_from(range(-count, count)), max_size=1)), np.int64),
        np.array(data.draw(st.permutations(range(count)))[: data.draw(st.integers(0, count))], np.int64),
        np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool),
    ):
        positions, part = np.arange(count)[key], made[key]
        assert part.ids.tolist() == [f"t{i}" for i in positions]
        assert part.offsets[0] == 0 and part.offsets[-1] == part.num_tokens
        for actual, i in zip(part, positions, strict=True):
            np.testing.assert_array_equal(actual, texts[i])
    i = data.draw(st.integers(-count, count - 1))
    np.testing.assert_array_equal(made[i], texts[i])
    np.testing.assert_array_equal(made[np.int64(i)], texts[i])


def test_concatenate() -> None:
    both = joined([three(), three().with_ids(["d", "e", "f"])])
    assert both.ids.tolist() == list("abcdef") and both.lengths.tolist() == [2, 0, 3, 2, 0, 3]
    np.testing.assert_array_equal(both.tokens, np.concatenate([three().tokens] * 2))
    unnamed = flat(np.ones((3, 2)), [1, 2])
    assert unnamed[1:].ids.tolist() == [1] and unnamed[[1, 0]].ids.tolist() == [1, 0]
    assert joined([unnamed, unnamed]).ids.tolist() == [0, 1, 2, 3]


def test_one_long_id_does_not_widen_all() -> None:
    names = [f"d{i}" for i in range(20_000)]
    names[7] = "x" * 50_000  # as NumPy strings all would take 3.7 GiB
    tracemalloc.start()
    ids = as_ids(names, len(names))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ids.tolist() == names and peak < 20 << 20
    assert as_ids([3, np.int8(1)], 2).dtype == as_ids((), 0).dtype == np.int64
    texts = flat(np.ones((20_000, 1)), np.ones(20_000, int), ids=names)
    assert joined([texts[:10], texts[10:12]]).ids.tolist() == names[:12]


@pytest.mark.parametrize("ids", [None, ["ä", "b c", ""], [2**62, -1, 0]])
@pytest.mark.parametrize(("dtype", "mmap"), [(np.float32, True), (np.float16, False)])
def test_save_and_load(tmp_path: Path, mmap: bool, dtype: Any, ids: Any) -> None:
    texts = flat(three(dtype).tokens, [2, 0, 3], ids=ids)
    texts.save(tmp_path / "texts")
    loaded = MultiVectors.load(tmp_path / "texts", mmap=mmap)
    assert isinstance(loaded.tokens, np.memmap) == isinstance(loaded[1:].tokens, np.memmap) == mmap
    assert loaded.tokens.dtype == dtype and loaded.has_ids == (ids is not None)
    for name in ("tokens", "offsets", "ids"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(texts, name))


def test_saving_again_needs_overwrite(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    three()[:1].save(folder)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        three().save(folder)
    three().save(folder, overwrite=True)
    assert len(MultiVectors.load(folder)) == 3 and [path.name for path in tmp_path.iterdir()] == ["texts"]


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("kept", [0, 10, -1], ids=["nothing", "10 bytes", "all but one byte"])
def test_cut_tokens_are_refused(tmp_path: Path, kept: int, mmap: bool) -> None:
    three().save(tmp_path / "texts")
    tokens = tmp_path / "texts" / "tokens.npy"
    tokens.write_bytes(tokens.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"tokens\.npy"):
        MultiVectors.load(tmp_path / "texts", mmap=mmap)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokens\.npy"):
        MultiVectors.load(tmp_path)
    three().save(tmp_path / "texts")
    (tmp_path / "texts" / "lengths.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"lengths\.npy"):
        MultiVectors.load(tmp_path / "texts")


def test_ids_and_lengths_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    three().save(folder)
    (folder / "ids.json").write_text(json.dumps(["a"]))
    with pytest.raises(ValueError, match="1 entry for 3"):
        MultiVectors.load(folder)
    np.save(folder / "lengths.npy", np.array([2, 4]))
    with pytest.raises(ValueError, match=r"6.* 5 "):
        MultiVectors.load(folder)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: three().with_ids([1, "a", 2]), TypeError, "int, str"),
        (lambda: three().with_ids("abc"), TypeError, "'abc'"),
        (lambda: three().with_ids({"a": 1, "b": 2, "c": 3}), TypeError, "dict"),
        (lambda: three().with_ids(np.array("abc")), TypeError, r"got ndarray array\('abc'.*Give a list"),
        (lambda: three().with_ids(np.array(3)), TypeError, r"got ndarray array\(3\)"),
        (lambda: three().with_ids([1, 2]), ValueError, "2 entries for 3 texts"),
        (lambda: three().with_ids([7, 5, 7]), ValueError, "7 .*0 and 2"),
        (lambda: three().with_ids([1, 2, 2**63]), ValueError, "64 bits"),
        (lambda: three().with_ids(["a", "b", "a\0"]), ValueError, r"ids\[2\].*NUL"),
        (lambda: three().with_ids(["a", "b", "x" * 65_536]), ValueError, r"ids\[2\].*65536.*65535"),
        (lambda: three()[3], IndexError, "no text 3: the collection has 3 texts"),
        (lambda: three()[[0, 0]], ValueError, "twice"),
        (lambda: joined([three(), three()]), ValueError, "'a' .*0 and 3"),
        (lambda: joined([three(), flat(np.ones((3, 2)), [3])]), ValueError, r"parts\[1\] has 2 .*=4"),
        (lambda: joined([three(), three().with_ids([1, 2, 3])]), TypeError, "int .*str"),
        (lambda: joined([]), ValueError, "nothing"),
        (lambda: flat(np.ones((5, 0)), [5]), ValueError, r"\(5, 0\)"),
        (lambda: flat(np.ones((5, 2), int), [5]), TypeError, "int64.*float32"),
        (lambda: arrays([np.ones((2, 3)), np.ones((2, 4))]), ValueError, r"documents\[1\].* 4 .* 3"),
        (lambda: arrays([np.ones((2, 3))], dimension=4), ValueError, "3 .*=4"),
        (lambda: arrays([np.ones((1, 2, 3))]), ValueError, r"\(1, 2, 3\).*from_padded"),
        (lambda: arrays([[[1.0, 2.0], [1.0]]]), ValueError, r"documents\[0\]"),
        (lambda: arrays([[], []]), ValueError, "dimension="),
        (lambda: arrays(None), TypeError, "sequence of arrays .* got NoneType"),  # type: ignore[arg-type]
        (lambda: MultiVectors.from_padded(np.ones((2, 3))), ValueError, r"\(2, 3\)"),
        (
            lambda: MultiVectors.from_padded(np.ones((2, 3, 4)), np.ones((2, 4))),
            ValueError,
            r"\(2, 4\).*\(2, 3\)",
        ),
        (
            lambda: arrays([np.ones((2, 3)), MASKED]),
            TypeError,
            r"documents\[1\] is a masked array with 1 masked",
        ),
        (lambda: arrays([list(MASKED)]), TypeError, "masked array"),
        (lambda: as_ids(MASKED[0], 3), TypeError, "ids is a masked array"),
        (lambda: as_multivectors("text"), TypeError, "'text'"),
        (lambda: as_multivectors(np.ones(3), "queries"), ValueError, r"queries.*\(3,\)"),
        (lambda: three().require_dimension(5, "queries", "this index"), ValueError, "queries has 4 .*=5"),
    ],
)
def test_refused_input(call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize(("value", "row"), [(np.nan, 0), (np.inf, 1), (-np.inf, 2), (np.nan, 4)])
def test_the_first_number_that_is_not_finite_is_named(dtype: Any, value: float, row: int) -> None:
    texts = three(dtype)
    texts.require_finite()
    tokens = three(dtype).tokens
    tokens[row, 3] = tokens[4, 3] = value
    bad = flat(tokens, [2, 0, 3], ids=["a", "b", "c"])
    text, token = (0, row) if row < 2 else (2, row - 2)
    words = rf"\[{text}\] \(id '{'abc'[text]}'\) has {value} in its token {token}, coordinate 3"
    for _ in range(2):  # only success is cached
        with pytest.raises(ValueError, match="queries" + words):
            bad.require_finite("queries")
        with pytest.raises(ValueError, match="documents" + words):
            bad[:].require_finite()


@pytest.mark.parametrize("value", [-1e12, 1e300])
def test_numbers_too_large_for_products_are_named(value: float) -> None:
    tokens = three().tokens.astype(np.float64)
    tokens[3, 1] = value
    with pytest.raises(ValueError, match=r"documents\[2\].*its token 1, coordinate 1"):
        flat(tokens, [2, 0, 3]).require_finite()
    tokens[3, 1] = np.nextafter(np.float32(1e12), np.float32(0))
    flat(tokens, [2, 0, 3]).require_finite()
    flat(np.full((5, 3), 65504, np.float16), [2, 0, 3]).require_finite()
