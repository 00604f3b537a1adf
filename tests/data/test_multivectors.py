"""MultiVectors: every way in, what it is afterwards, and its folder."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies as some
from builders.token_collections import three
from hypothesis import given
from hypothesis import strategies as st

from muvera import MultiVectors
from muvera.data.multivectors import as_kernel_arrays
from muvera.data.validation import MAX_ID_LENGTH, as_ids


class Tensor:
    """What a tensor of any library looks like from outside: on a device, with a graph."""

    def __init__(self, array: np.ndarray, dtype: str = "float32", on_device: bool = True) -> None:
        self.array, self.dtype, self.on_device = array, f"torch.{dtype}", on_device

    def detach(self) -> "Tensor":
        return self

    def cpu(self) -> "Tensor":
        return Tensor(self.array, self.dtype.removeprefix("torch."), on_device=False)

    def float(self) -> "Tensor":
        return Tensor(self.array, "float32", self.on_device)

    def numpy(self) -> np.ndarray:
        if self.on_device or "bfloat16" in self.dtype:
            raise TypeError("not without cpu() and float()")
        return self.array


# -- making -------------------------------------------------------------------


@given(st.data(), some.dimensions)
def test_every_way_in_gives_the_same(data: st.DataObject, dimension: int) -> None:
    arrays = data.draw(some.ragged_arrays(dimension))
    lengths = [len(array) for array in arrays]
    flat = np.concatenate(arrays)
    longest = max(lengths)
    padded = np.zeros((len(arrays), longest, dimension), np.float32)
    mask = np.zeros((len(arrays), longest), bool)
    for i, array in enumerate(arrays):
        padded[i, : len(array)], mask[i, : len(array)] = array, True
    ways = [
        MultiVectors.from_arrays(arrays, dimension=dimension),
        MultiVectors.from_arrays(iter([array.astype(np.float64) for array in arrays]), dimension=dimension),
        MultiVectors.from_arrays([Tensor(array, "bfloat16") for array in arrays], dimension=dimension),
        MultiVectors.from_flat(data.draw(some.disguised(flat)), lengths),
        MultiVectors.from_flat(flat, np.array(lengths, np.float64)),
        MultiVectors.from_flat(flat, offsets=np.concatenate([[0], np.cumsum(lengths)])),
        MultiVectors.from_padded(padded, mask),
        MultiVectors.from_padded(Tensor(padded), Tensor(mask.astype(np.int64))),
        MultiVectors.from_padded(padded),  # no token of standard normals is all zero
    ]
    for texts in ways:
        assert (len(texts), texts.dimension, texts.num_tokens) == (len(arrays), dimension, len(flat))
        assert texts.tokens.dtype == np.float32
        assert texts.tokens.flags.c_contiguous
        np.testing.assert_array_equal(texts.tokens, flat)
        np.testing.assert_array_equal(texts.lengths, lengths)
        np.testing.assert_array_equal(texts.ids, np.arange(len(arrays)))
        assert not texts.has_ids
        for got, wanted in zip(texts, arrays, strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_dtypes() -> None:
    half, single = np.ones((2, 3), np.float16), np.ones((2, 3), np.float32)
    assert MultiVectors.from_arrays([half, half]).tokens.dtype == np.float16
    assert MultiVectors.from_arrays([half, single]).tokens.dtype == np.float32
    assert MultiVectors.from_arrays([half, np.zeros((0, 3))]).tokens.dtype == np.float16
    assert MultiVectors.from_arrays([single], dtype=np.float16).tokens.dtype == np.float16
    assert MultiVectors.from_arrays([[[1.0, 2.0]]]).tokens.dtype == np.float32
    assert MultiVectors.from_flat(np.ones((2, 3)), [2]).tokens.dtype == np.float32
    assert MultiVectors.from_flat(half, [2]).tokens.dtype == np.float16
    assert (
        MultiVectors.concatenate([three(np.float16), three().with_ids(["x", "y", "z"])]).tokens.dtype
        == np.float32
    )


def test_what_need_not_be_copied_is_not() -> None:
    tokens = np.ones((5, 4), np.float32)
    texts = MultiVectors.from_flat(tokens, [2, 3])
    assert np.shares_memory(texts.tokens, tokens)
    assert np.shares_memory(texts[1:].tokens, tokens)
    assert np.shares_memory(texts[0], tokens)


def test_the_dimension_of_texts_without_tokens() -> None:
    assert MultiVectors.from_arrays([np.zeros((0, 7)), []]).dimension == 7
    assert MultiVectors.from_arrays([[], []], dimension=7).dimension == 7
    assert MultiVectors.from_arrays([[], np.ones((1, 3))]).dimension == 3
    with pytest.raises(ValueError, match="to take the dimension from"):
        MultiVectors.from_arrays([[], []])


def test_kernels_see_one_kind() -> None:
    floats, halves = as_kernel_arrays(three())
    assert (floats.shape, halves.shape) == ((5, 4), (0, 4))
    floats, halves = as_kernel_arrays(three(np.float16))
    assert (floats.shape, halves.shape) == ((0, 4), (5, 4))
    assert floats.dtype == np.float32 and halves.dtype == np.uint16
    assert not halves.flags.writeable


# -- looking ------------------------------------------------------------------


def test_repr() -> None:
    assert repr(three()) == "MultiVectors(3 texts, 5 tokens, dimension=4, float32)"


@given(st.data(), st.integers(1, 20))
def test_picking_is_picking_from_the_list(data: st.DataObject, dimension: int) -> None:
    arrays = data.draw(some.ragged_arrays(dimension, most=8))
    count = len(arrays)
    texts = MultiVectors.from_arrays(arrays, ids=[f"t{i}" for i in range(count)], dimension=dimension)
    keys: list[Any] = [
        data.draw(st.slices(count)),
        data.draw(st.lists(st.sampled_from(range(-count, 0)), unique=True)),
        np.array(data.draw(st.lists(st.sampled_from(range(count)), unique=True)), np.int64),
        np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool),
    ]
    for key in keys:
        positions = np.arange(count)[np.array(key, np.int64) if isinstance(key, list) else key]
        part = texts[np.array(key, np.int64) if isinstance(key, list) else key]
        assert part.ids.tolist() == [f"t{i}" for i in positions]
        assert part.offsets[0] == 0
        assert part.offsets[-1] == part.num_tokens
        for got, i in zip(part, positions, strict=True):
            np.testing.assert_array_equal(got, arrays[i])
    i = data.draw(st.integers(-count, count - 1))
    np.testing.assert_array_equal(texts[i], arrays[i])
    np.testing.assert_array_equal(texts[np.int64(i)], arrays[i])


def test_positions_go_along_as_ids() -> None:
    texts = MultiVectors.from_flat(np.ones((3, 2)), [1, 1, 1])
    assert texts[1:].ids.tolist() == [1, 2]
    assert texts[[2, 0]].ids.tolist() == [2, 0]


def test_picking_what_is_not_there() -> None:
    for i in (3, -4):
        with pytest.raises(IndexError):
            three()[i]
    with pytest.raises(ValueError, match="picked twice"):
        three()[[0, 0]]
    with pytest.raises(IndexError):
        three()[[0, 3]]


def test_concatenate() -> None:
    both = MultiVectors.concatenate([three(), three().with_ids(["d", "e", "f"])])
    assert both.ids.tolist() == list("abcdef")
    assert both.lengths.tolist() == [2, 0, 3, 2, 0, 3]
    np.testing.assert_array_equal(both.tokens, np.concatenate([three().tokens] * 2))
    unnamed = MultiVectors.from_flat(np.ones((3, 2)), [1, 2])
    assert MultiVectors.concatenate([unnamed, unnamed]).ids.tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="'a' stands at positions 0 and 3"):
        MultiVectors.concatenate([three(), three()])
    with pytest.raises(ValueError, match=r"parts\[1\] has dimension=2, but parts\[0\] has dimension=4"):
        MultiVectors.concatenate([three(), unnamed])
    with pytest.raises(TypeError, match="int ids and with str ids"):
        MultiVectors.concatenate([three(), three().with_ids([1, 2, 3])])
    with pytest.raises(ValueError, match="nothing to concatenate"):
        MultiVectors.concatenate([])


# -- ids ----------------------------------------------------------------------


def test_ids_are_int64_or_strings() -> None:
    assert as_ids([3, np.int8(1)], 2).dtype == np.int64
    assert as_ids(np.array([3, 1], np.uint16), 2).dtype == np.int64
    assert as_ids(["x", np.str_("long")], 2).tolist() == ["x", "long"]
    assert as_ids((), 0).dtype == np.int64


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        ([1, "a", 2], TypeError, "all int or all str, got int, str"),
        ([1.0, 2.0, 3.0], TypeError, "got float"),
        ([True, False, 1], TypeError, "bool"),
        ([1.0, 2.0, 3.0], TypeError, "must be all int or all str, got float"),
        ("abc", TypeError, "ids must be a sequence of int or of str, got str 'abc'"),
        ({"a": 1, "b": 2, "c": 3}, TypeError, "ids must be a sequence of int or of str, got dict"),
        ({1, 2, 3}, TypeError, "ids must be a sequence of int or of str, got set"),
        (np.ma.masked_equal([1, 2, 3], 2), TypeError, "ids is a masked array with 1 masked entries"),
        ([b"a", b"b", b"c"], TypeError, "bytes"),
        ([None, 1, 2], TypeError, "NoneType"),
        ([1, 2], ValueError, "ids has 2 entries for 3 texts"),
        ([7, 5, 7], ValueError, "7 stands at positions 0 and 2"),
        (["x", "y", "y"], ValueError, "'y' stands at positions 1 and 2"),
        ([1, 2, 2**63], ValueError, "outside 64 bits"),
        (["a", "b", "a\0"], ValueError, "ends in a NUL"),
    ],
)
def test_ids_refused(ids: Any, error: type[Exception], words: str) -> None:
    for make in (three().with_ids, lambda ids: MultiVectors.from_flat(np.ones((3, 2)), [1, 1, 1], ids=ids)):
        with pytest.raises(error, match=words):
            make(ids)


def test_one_long_id_does_not_widen_all() -> None:
    """20,000 documents with one long id asked for 3.7 GiB before."""
    names = [f"d{i}" for i in range(20_000)]
    names[7] = "x" * 50_000
    tracemalloc.start()
    ids = as_ids(names, len(names))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ids.tolist() == names
    assert peak < 20 << 20
    texts = MultiVectors.from_flat(np.ones((20_000, 1)), np.ones(20_000, int), ids=names)
    assert texts[5:9].ids.tolist() == names[5:9]
    joined = MultiVectors.concatenate([texts[:10], texts[10:12]])
    assert joined.ids.tolist() == names[:12]


def test_an_id_may_have_so_many_characters() -> None:
    assert as_ids(["x" * MAX_ID_LENGTH], 1).tolist() == ["x" * MAX_ID_LENGTH]
    with pytest.raises(ValueError, match=r"ids\[1\] has 65536 characters, but an id has at most 65535"):
        as_ids(["a", "x" * 65_536], 2)


# -- keeping ------------------------------------------------------------------


@pytest.mark.parametrize("ids", [None, ["ä", "b c", ""], [2**62, -1, 0]])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("mmap", [True, False])
def test_save_and_load(tmp_path: Path, mmap: bool, dtype: Any, ids: Any) -> None:
    texts = MultiVectors.from_flat(three(dtype).tokens, [2, 0, 3], ids=ids)
    texts.save(tmp_path / "texts")
    again = MultiVectors.load(tmp_path / "texts", mmap=mmap)
    assert isinstance(again.tokens, np.memmap) == mmap
    assert isinstance(again[1:].tokens, np.memmap) == mmap
    assert again.tokens.dtype == dtype
    assert again.has_ids == (ids is not None)
    np.testing.assert_array_equal(again.tokens, texts.tokens)
    np.testing.assert_array_equal(again.offsets, texts.offsets)
    np.testing.assert_array_equal(again.ids, texts.ids)


def test_save_replaces_only_when_told(tmp_path: Path) -> None:
    three().save(tmp_path / "texts")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        three().save(tmp_path / "texts")
    three()[:1].save(tmp_path / "texts", overwrite=True)
    assert len(MultiVectors.load(tmp_path / "texts")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["texts"]


def test_folders_that_do_not_load(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no tokens.npy; a MultiVectors folder has"):
        MultiVectors.load(tmp_path)
    three().save(tmp_path / "texts")
    folder = tmp_path / "texts"
    (folder / "lengths.npy").rename(folder / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"has no lengths\.npy"):
        MultiVectors.load(folder)
    (folder / "elsewhere").rename(folder / "lengths.npy")

    whole = (folder / "tokens.npy").read_bytes()
    for cut in (0, 10, len(whole) - 1):
        (folder / "tokens.npy").write_bytes(whole[:cut])
        for mmap in (True, False):
            with pytest.raises(ValueError, match=r"damaged|is truncated"):
                MultiVectors.load(folder, mmap=mmap)
    (folder / "tokens.npy").write_bytes(whole)

    np.save(folder / "lengths.npy", np.array([2, 4]))
    with pytest.raises(ValueError, match="add up to 6, but there are 5"):
        MultiVectors.load(folder)
    np.save(folder / "lengths.npy", np.array([2, 0, 3]))
    (folder / "ids.json").write_text(json.dumps(["a"]))
    with pytest.raises(ValueError, match="1 entries for 3 texts"):
        MultiVectors.load(folder)
