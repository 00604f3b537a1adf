"""Voyager's files, read without Voyager; its own answers are the oracle where it is installed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from builders.paths import GOLDEN

from muvera.convert.parsing.voyager_file import read_voyager

FILE = GOLDEN / "convert" / "pylate_voyager" / "index.voyager"


@pytest.mark.parametrize("kind", ["Float32", "Float8", "E4M3"])
@pytest.mark.parametrize("space", ["Cosine", "Euclidean"])
def test_vectors_are_those_that_voyager_returns(tmp_path: Path, kind: str, space: str) -> None:
    voyager = pytest.importorskip("voyager", reason="the library is the oracle")
    stored = getattr(voyager.StorageDataType, kind)
    index = voyager.Index(getattr(voyager.Space, space), num_dimensions=9, storage_data_type=stored)
    rng = np.random.default_rng(1)
    ids = rng.permutation(500)[:200]
    index.add_items(
        np.clip(rng.normal(size=(200, 9)), -0.99, 0.99).astype(np.float32), ids=ids, num_threads=2
    )
    index.save(str(tmp_path / "a.voyager"))
    file = read_voyager(tmp_path / "a.voyager")
    assert file.ids.tolist() == sorted(ids.tolist())
    assert file.nbits == (None if kind == "Float32" else 8)
    np.testing.assert_array_equal(file.vectors(ids[:50]), index.get_vectors(ids[:50]))


def test_every_small_float_is_voyagers(tmp_path: Path) -> None:
    voyager = pytest.importorskip("voyager", reason="the library is the oracle")
    index = voyager.Index(voyager.Space.Euclidean, 1, storage_data_type=voyager.StorageDataType.E4M3)
    index.add_items(np.zeros((256, 1), np.float32), ids=np.arange(256))
    index.save(str(tmp_path / "a.voyager"))
    file = read_voyager(tmp_path / "a.voyager")
    content = bytearray((tmp_path / "a.voyager").read_bytes())
    *_, record, _, place = struct.unpack_from("<QQQQQQ", content, 19)[:6]
    for i in range(255):
        content[115 + i * record + place] = i if i not in (254, 255) else 0
    (tmp_path / "a.voyager").write_bytes(content)
    loaded = voyager.Index.load(str(tmp_path / "a.voyager"))
    order = np.arange(254)
    np.testing.assert_array_equal(
        read_voyager(tmp_path / "a.voyager").vectors(file.ids[order]), loaded.get_vectors(file.ids[order])
    )


def test_unknown_ids() -> None:
    file = read_voyager(FILE)
    assert file.vectors(np.array([], np.int64)).shape == (0, 16)
    with pytest.raises(ValueError, match="there is no vector 299 among 299"):
        file.vectors(np.array([0, 299]))


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        (0, b"VOYB", "begins with b'VOYB' and version 1"),
        (4, struct.pack("<i", 2), "begins with b'VOYA' and version 2"),
        (8, struct.pack("<i", 1000), "has records of 108 bytes for dimension=1000"),
        (8, struct.pack("<i", -1), "has records of 108 bytes for dimension=-1"),
        (13, b"\x40", "has numbers of kind 64 and transformed=0"),
        (18, b"\x01", "has numbers of kind 32 and transformed=1"),
        (35, struct.pack("<Q", 2**63), "is truncated: 9223372036854775808 records of 108 bytes need"),
        (
            35,
            struct.pack("<Q", 400),
            "is truncated: 400 records of 108 bytes need 43315 bytes, but it has 35783",
        ),
        (51, struct.pack("<Q", 101), "has records of 108 bytes"),
        (59, struct.pack("<Q", 2**64 - 1), "has records of 108 bytes"),
        (115 + 100, struct.pack("<Q", 7), "has ids that are not unique"),
        (115 + 100, struct.pack("<Q", 2**63), "has ids that are not unique"),
    ],
)
def test_damage_is_one_sentence(tmp_path: Path, place: int, content: bytes, message: str) -> None:
    """The library ended the process for some of them."""
    whole = bytearray(FILE.read_bytes())
    whole[place : place + len(content)] = content
    (tmp_path / "a.voyager").write_bytes(whole)
    with pytest.raises(ValueError, match=rf"a\.voyager {message}"):
        read_voyager(tmp_path / "a.voyager")


def test_truncated_files(tmp_path: Path) -> None:
    for keep in (0, 20, 114, 1000):
        (tmp_path / "a.voyager").write_bytes(FILE.read_bytes()[:keep])
        with pytest.raises(ValueError, match=r"a\.voyager is truncated"):
            read_voyager(tmp_path / "a.voyager")
