"""Pickles of plain data are read; every other pickle is refused before it runs."""

from __future__ import annotations

import collections
import os
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.convert.parsing.pickles import RefusedPickleError, load_npy_safely, load_plain

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=300)
)
PLAIN: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text() | st.integers(-9, 9), inner, max_size=5)
    ),
    max_leaves=30,
)


@settings(max_examples=50)
@given(value=PLAIN, protocol=st.integers(2, pickle.HIGHEST_PROTOCOL))
def test_plain_data_of_every_protocol(value: Any, protocol: int) -> None:
    shared = [value, value, {"a": value}, np.int64(4), np.float32(0.5)]
    assert repr(load_plain(pickle.dumps(shared, protocol), "map.pkl")) == repr([*shared[:3], 4, 0.5])


def test_large_and_shared_containers() -> None:
    shared = ("x", 1)
    rows = {f"d{i}": [*range(i % 400), 10**9, 0.5, shared] for i in range(3000)}
    start = time.process_time()
    for protocol in (2, pickle.HIGHEST_PROTOCOL):
        assert load_plain(pickle.dumps(rows, protocol), "map.pkl") == rows
    assert time.process_time() - start < 5, "runs of numbers are read at once"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"a": os.system}, r"(posix|nt)\.system"),
        (collections.deque([1]), r"collections\.deque"),
        ({"a": np.zeros(2)}, r"numpy.*_reconstruct"),
    ],
)
def test_all_other_names_are_refused(value: object, name: str) -> None:
    with pytest.raises(RefusedPickleError, match=rf"map\.pkl is a pickle that refers to {name}"):
        load_plain(pickle.dumps(value, 4), "map.pkl")


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}K\x01" + b"2\x86" * 40 + b"K\x01s.",  # would need 2**40 steps for the hash of one key
        b"\x80\x02}K\x01\x85q\x00K\x02sh\x00.",
        b"\x80\x02}K\x01\x85q\x000(h\x00K\x02u.",
        b"\x80\x04\x8f(K\x01\x85\x90.",
        b"X\xff\xff\xff\xffa.",
        b"\x8a\x0a" + b"1" * 10 + b".",
        b"\x82\x01.",
        b"h\x05.",
        b"(K\x01a.",
        b"K\x01e.",
        b"q\x00.",
        b"\xff.",
        b"K\x01",
        b"",
        pickle.dumps({"a": 1})[:-3],
    ],
    ids=repr,
)
def test_instructions_that_no_pickler_writes_are_refused(content: bytes) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=r"^map\.pkl is damaged"):
        load_plain(content, "map.pkl")
    assert time.process_time() - start < 5


# Lists of the list before, twice: the last one describes 2**40 lists.  Memo 240 holds all of them.
NESTED = b"(]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(40)) + b"tq\xf0"
DTYPE, ARRAY = b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n"
OBJECTS = DTYPE + b"\x8c\x02O8\x85Rq\x01"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NESTED + DTYPE + b"h\x28\x85R.", "a list as dtype"),
        (
            b"(" + b"N" * 10**5 + b"tq\x00" + ARRAY + b"q\x01](" + b"h\x01h\x00R" * 10**5 + b"e.",
            "copies more",
        ),
        (b"ca\n" + b"b" * 10**6 + b"\n.", r"refers to a\.b{198}, which"),
    ],
    ids=["dtype", "arguments", "name"],
)
def test_small_pickles_that_describe_much_are_refused_soon(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([None], object), allow_pickle=True)
    path.write_bytes(path.read_bytes()[:128] + content)
    start = time.process_time()
    with pytest.raises(ValueError, match=message):
        load_npy_safely(path)
    assert time.process_time() - start < 5


def test_one_list_of_many_object_arrays_is_not_copied(tmp_path: Path) -> None:
    """The arrays would take 80 GB."""
    count, path = 10**5, tmp_path / "a.npy"
    np.save(path, np.array([None], object), allow_pickle=True)
    state = b"(K\x01J" + count.to_bytes(4, "little") + b"\x85h\x01\x89h\x00tb"
    content = (
        b"](" + b"N" * count + b"eq\x00" + OBJECTS + ARRAY + b"q\x02](" + (b"h\x02)R" + state) * count + b"e."
    )
    path.write_bytes(path.read_bytes()[:128] + content)
    with pytest.raises(ValueError, match="must contain an array, got a list"):
        load_npy_safely(path)


def test_numbers_after_the_end_are_ignored() -> None:
    assert load_plain(pickle.dumps("a") + b"K\x07", "map.pkl") == "a"


def test_copies_of_one_string_are_bounded() -> None:
    """Each call of 3 bytes would copy a megabyte."""
    text = b"X" + (10**6).to_bytes(4, "little") + b"x" * 10**6 + b"q\x00"
    call = b"c_codecs\nencode\nq\x01" + text + b"q\x02\x85q\x03R" + b"h\x01h\x03R" * 1000 + b"N."
    with pytest.raises(ValueError, match=r"map\.pkl is damaged, .*copies more bytes than it contains"):
        load_plain(b"\x80\x02" + call, "map.pkl")
    assert load_plain(pickle.dumps([b"x" * 10**6, b"y" * 10**6], 2), "map.pkl") == [
        b"x" * 10**6,
        b"y" * 10**6,
    ]


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.dtype(">f4")])
def test_object_arrays_of_numbers(tmp_path: Path, kind: np.dtype) -> None:
    array = np.empty(2, object)
    array[0] = np.arange(6).reshape(3, 2).astype(kind)
    array[1] = np.asfortranarray(np.ones((2, 2))).astype(kind, order="F")
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    for got, wanted in zip(load_npy_safely(tmp_path / "a.npy"), array, strict=True):
        assert got.dtype == wanted.dtype and np.array_equal(got, wanted)


def test_object_arrays_of_other_things(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}, None], object), allow_pickle=True)
    assert load_npy_safely(path).tolist() == [{"a": 1}, None]
    header = path.read_bytes()[:128]
    inner = np.empty(1, object)
    inner[0] = np.array([None, "x"], object)
    for content, message in (
        (header + pickle.dumps([1]), "must contain an array, got a list"),
        (header + pickle.dumps(inner), "an array of objects in an array"),
        (header + pickle.dumps(np.array([os.system], object)), r"refers to (posix|nt)\.system"),
        (b"nothing", "is not a .npy file"),
    ):
        path.write_bytes(content)
        with pytest.raises((ValueError, RefusedPickleError), match=rf"a\.npy .*{message}"):
            load_npy_safely(path)
