"""Pickles of plain data, and those that ask for more."""

from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from muvera.convert.parsing.safe_pickle import RefusedPickleError, load_npy_safely, load_plain


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("echo this must never run",)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol(protocol: int) -> None:
    value = {
        "a": [1, 2.5, (3, None)],
        7: "x",
        8: {"y": b"\xff", "z": b""},
        "n": [np.int64(4), np.float32(0.5)],
    }
    assert load_plain(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"a": Malicious()}, r"(posix|nt)\.system"),
        (collections.deque([1]), r"collections\.deque"),
        ({"a": np.zeros(2)}, r"numpy.*_reconstruct"),
        (print, r"builtins\.print"),
    ],
)
def test_anything_else_is_refused_by_name(value: object, name: str, tmp_path: Path) -> None:
    path = tmp_path / "map.pkl"
    path.write_bytes(pickle.dumps(value, 4))
    with pytest.raises(RefusedPickleError, match=rf"map\.pkl is a pickle that asks for {name}"):
        load_plain(path)


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "map.pkl"
    for content in (b"", b"hello", pickle.dumps({"a": 1})[:-3], b"\x80\x04]("):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"map\.pkl is damaged"):
            load_plain(path)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.dtype(">f4")])
def test_object_arrays_without_pickle(tmp_path: Path, kind: np.dtype) -> None:
    rows = [
        np.arange(6).reshape(3, 2).astype(kind),
        np.asfortranarray(np.ones((2, 2))).astype(kind, order="F"),
    ]
    array = np.empty(2, object)
    array[:] = rows
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    read = load_npy_safely(tmp_path / "a.npy")
    assert len(read) == 2
    for got, given in zip(read, rows, strict=True):
        assert got.dtype == given.dtype
        assert np.array_equal(got, given)


def test_object_arrays_of_other_things(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{"a": 1}, None], object), allow_pickle=True)
    assert load_npy_safely(path).tolist() == [{"a": 1}, None]
    header, plain = path.read_bytes()[:128], pickle.dumps([1])
    path.write_bytes(header + plain)
    with pytest.raises(ValueError, match=r"a\.npy is damaged \(a list instead of an array\)"):
        load_npy_safely(path)
    inner = np.empty(1, object)
    inner[0] = np.array([None, "x"], object)
    np.save(path, inner, allow_pickle=True)
    with pytest.raises(ValueError, match=r"a\.npy is damaged \(arrays of objects within each other\)"):
        load_npy_safely(path)
    np.save(path, np.array([Malicious(), None], object), allow_pickle=True)
    with pytest.raises(RefusedPickleError, match=r"asks for (posix|nt)\.system"):
        load_npy_safely(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"a\.npy is not a \.npy file, or its beginning is damaged: EOF"):
        load_npy_safely(path)
    np.save(path, np.ones((2, 3, 4)))
    assert [item.shape for item in load_npy_safely(path)] == [(3, 4), (3, 4)]
