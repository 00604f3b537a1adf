"""What a pickle does is looked at before it is done."""

from __future__ import annotations

import collections
import pickle
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera.convert.parsing.pickle_scan import scan_pickle
from muvera.convert.parsing.safe_pickle import load_plain

PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text() | st.integers(-9, 9), inner, max_size=5)
    ),
    max_leaves=30,
)


@given(value=PLAIN, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_what_picklers_write_passes(value: Any, protocol: int) -> None:
    scan_pickle(pickle.dumps(value, protocol))
    scan_pickle(pickle.dumps([value, value, {"a": value}], protocol))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_large_and_shared_containers_pass(protocol: int) -> None:
    shared = ("x", 1)
    rows = {f"d{i}": [*range(i % 400), 10**9, 0.5, shared] for i in range(3000)}
    scan_pickle(pickle.dumps(rows, protocol))
    scan_pickle(pickle.dumps({"set": {1, 2}, "ordered": collections.OrderedDict(a=1)}, protocol))
    scan_pickle(pickle.dumps(np.arange(5.0), protocol))


def test_numbers_are_passed_over_quickly() -> None:
    """A map of a million tokens is looked at in a fraction of what its making took."""
    content = pickle.dumps({i: list(range(i, i + 50)) for i in range(20_000)}, 4)
    start = time.process_time()
    scan_pickle(content)
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # 8 GiB for the memo before, and more than 90 s.
        (b"\x80\x02K\x01r\x00\x00\x00\x20.", "it remembers object 536870912 after 3 instructions"),
        (b"(lp99999999\n.", "it remembers object 99999999 after 3 instructions"),
        # 2**40 steps for the hash of one key before.
        (b"\x80\x02}K\x01" + b"2\x86" * 40 + b"K\x01s.", "a tuple or frozenset is a key"),
        (b"\x80\x02}K\x01\x85q\x00K\x02sh\x00.", "a tuple or frozenset is a key"),
        (b"\x80\x02}K\x01\x85q\x000(h\x00K\x02u.", "a tuple or frozenset is a key"),
        (b"\x80\x02(K\x01\x85K\x02d.", "a tuple or frozenset is a key"),
        (b"\x80\x04\x8f(K\x01\x85\x90.", "a tuple or frozenset is a key or a member of a set"),
        (b"\x80\x04(K\x01\x85\x91.", "a tuple or frozenset is a key or a member of a set"),
        (
            b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x.",
            "BYTEARRAY8 needs 1099511627776 bytes, but 2",
        ),
        (b"\x80\x04\x95" + (99).to_bytes(8, "little") + b"K\x01.", "a frame reaches past its end"),
        (b"X\xff\xff\xff\xffa.", "BINUNICODE needs 4294967295 bytes, but 2 follow"),
        (b"\x8a\x0a" + b"1" * 10 + b".", "an integer has 10 bytes, more than fit in 64 bits"),
        (b"L" + b"9" * 30 + b"L\n.", "a number has 32 digits"),
        (b"(" * 1001 + b".", "it nests deeper than 1000"),
        (b"\x82\x01.", "EXT1 asks for something outside"),
        (b"\x97.", "NEXT_BUFFER asks for something outside"),
        (b"h\x05.", "it recalls object 5, which it did not remember"),
        (b"gx\n.", "GET with b'x', which is no index"),
        (b"(K\x01a.", "APPEND takes more than there is"),
        (b"K\x01e.", "APPENDS without a mark"),
        (b"q\x00.", "there is no object to take"),
        (b"\xff.", "byte 0 is no instruction"),
        (b"cos", "it ends within a line"),
        (b"K\x01", "it ends before its last instruction"),
        (b"", "it ends before its last instruction"),
    ],
)
def test_what_no_pickler_writes_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scan_pickle(content)
    start = time.process_time()
    with pytest.raises(ValueError, match=rf"^map\.pkl is damaged .*{message}"):
        load_plain(content, "map.pkl")
    assert time.process_time() - start < 5


def test_copies_of_one_string_are_bounded() -> None:
    """Each call of 3 bytes made a copy of a megabyte before."""
    text = b"X" + (10**6).to_bytes(4, "little") + b"x" * 10**6 + b"q\x00"
    call = b"c_codecs\nencode\nq\x01" + text + b"q\x02\x85q\x03R0" + b"h\x01h\x03R0" * 1000 + b"N."
    with pytest.raises(ValueError, match=r"map\.pkl is damaged .*it copies more than it holds"):
        load_plain(b"\x80\x02" + call, "map.pkl")
    assert load_plain(pickle.dumps([b"x" * 10**6, b"y" * 10**6], 2)) == [b"x" * 10**6, b"y" * 10**6]
