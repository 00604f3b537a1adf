"""safetensors files, written by the library where it is installed and by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, everything

from muvera.convert.readers import safetensors as safetensors_reader

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "d"])


def by_hand(path: Path, metadata: Any = None, **tensors: tuple[str, np.ndarray]) -> Path:
    """Write tensors of the given type names."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    position = 0
    for name, (kind, array) in tensors.items():
        stop = position + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header).encode()
    body = b"".join(array.tobytes() for _, array in tensors.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def test_files_of_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    path = tmp_path / "docs.safetensors"
    library.save_file(
        {"tokens": DOCS.tokens, "offsets": DOCS.offsets}, path, {"ids": json.dumps(list("abcd"))}
    )
    assert safetensors_reader.matches(path)
    assert_same(everything(safetensors_reader.open_source(path)), DOCS)
    integers = np.array([3, 1, 2, 0])
    library.save_file({"embeddings": DOCS.tokens, "doclens": DOCS.lengths, "ids": integers}, path)
    assert_same(everything(safetensors_reader.open_source(path)), DOCS.with_ids(integers))
    library.save_file(dict(zip("abcd", DOCS, strict=True)), path)
    assert_same(everything(safetensors_reader.open_source(path)), DOCS)


def test_bfloat16(tmp_path: Path) -> None:
    exact = (DOCS.tokens.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    bits = (exact.view(np.uint32) >> 16).astype(np.uint16)
    path = by_hand(
        tmp_path / "docs.safetensors", tokens=("BF16", bits), lengths=("I32", DOCS.lengths.astype(np.int32))
    )
    got = everything(safetensors_reader.open_source(path), 2)
    assert got.tokens.dtype == np.float32
    np.testing.assert_array_equal(got.tokens, exact)


def test_truncated(tmp_path: Path) -> None:
    path = by_hand(tmp_path / "docs.safetensors", lengths=("I64", DOCS.lengths), tokens=("F32", DOCS.tokens))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(
        ValueError, match=r"is truncated: tokens ends at byte 128 of the tensors, but there are 127"
    ):
        safetensors_reader.open_source(path)
    for keep in (0, 5, 30):
        path.write_bytes(content[:keep])
        with pytest.raises(ValueError, match="truncated or no safetensors file"):
            safetensors_reader.open_source(path)
    path.write_bytes((4).to_bytes(8, "little") + b"oops" + content)
    with pytest.raises(ValueError, match="its header is not JSON"):
        safetensors_reader.open_source(path)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"tokens": ("F8_E4M3", np.ones((2, 2), np.uint8))}, "dtype F8_E4M3, which is not read"),
        (
            {"tokens": ("F32", np.ones((2, 2), np.float16))},
            r"tokens has 8 bytes, but \(2, 2\) of F32 needs 16",
        ),
        (
            {"tokens": ("F32", DOCS.tokens), "lengths": ("I64", np.array([3]))},
            "lengths add up to 3, but there are 6 token vectors",
        ),
    ],
)
def test_what_does_not_fit(tmp_path: Path, tensors: Any, sentence: str) -> None:
    path = by_hand(tmp_path / "docs.safetensors", **tensors)
    with pytest.raises(ValueError, match=sentence):
        safetensors_reader.open_source(path)


def test_damaged_ids(tmp_path: Path) -> None:
    path = by_hand(
        tmp_path / "docs.safetensors",
        {"ids": '["a", "b"'},
        tokens=("F32", DOCS.tokens),
        lengths=("I64", DOCS.lengths),
    )
    with pytest.raises(ValueError, match="the ids in its metadata are not a JSON list"):
        safetensors_reader.open_source(path)


def with_header(path: Path, header: str, numbers: bytes = bytes(32)) -> Path:
    """Write a file with a header of one's own."""
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + numbers)
    return path


def entry(name: str, shape: str, offsets: str, dtype: str = '"F32"') -> str:
    return f'"{name}": {{"dtype": {dtype}, "shape": {shape}, "data_offsets": {offsets}}}'


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        (
            entry("tokens", "[18446744073709551616, 4]", "[0, 0]"),
            "tokens has 0 bytes, but .* needs 295147905179352825856",
        ),
        (
            entry("tokens", "[-1, -8]", "[0, 32]"),
            "the header's entry for tokens is not dtype, shape, data_offsets",
        ),
        (entry("tokens", "[2.0, 4]", "[0, 32]"), "entry for tokens is not dtype"),
        (entry("tokens", "[true, 8]", "[0, 32]"), "entry for tokens is not dtype"),
        (entry("tokens", '"24"', "[0, 32]"), "entry for tokens is not dtype"),
        (entry("tokens", "[2, 4]", '["0", 32]'), "entry for tokens is not dtype"),
        (entry("tokens", "[2, 4]", "[-32, 0]"), "entry for tokens is not dtype"),
        (entry("tokens", "[2, 4]", "[0, 32]", "7"), "tokens has dtype 7"),
        (entry("tokens", "[2, 4]", "[0, 32]", "[1]"), r"tokens has dtype \[1\]"),
        (entry("a", "[2, 4]", "[0, 32]") + ", " + entry("b", "[1, 4]", "[16, 32]"), "a and b share bytes"),
        (
            entry("a", "[2, 4]", "[0, 32]") + ", " + entry("a", "[2, 4]", "[0, 32]"),
            "the key 'a' stands twice",
        ),
        (
            '"__metadata__": [1], ' + entry("a", "[2, 4]", "[0, 32]"),
            "__metadata__ in the header is not a JSON object",
        ),
        (
            '"__metadata__": {"ids": 7}, ' + entry("a", "[2, 4]", "[0, 32]"),
            "the ids in its metadata are not a JSON list",
        ),
        ('"a": ' + "[" * 100_000, "its header is not JSON"),
    ],
)
def test_headers_that_claim_something_else(tmp_path: Path, entries: str, sentence: str) -> None:
    path = with_header(tmp_path / "docs.safetensors", f"{{{entries}}}")
    with pytest.raises(ValueError, match=rf"docs\.safetensors.*{sentence}"):
        safetensors_reader.open_source(path)


def test_packed_ids_within_their_bytes(tmp_path: Path) -> None:
    path = by_hand(
        tmp_path / "docs.safetensors",
        tokens=("F32", DOCS.tokens),
        lengths=("I64", DOCS.lengths),
        ids_utf8=("U8", np.frombuffer(b"abcd", np.uint8)),
        ids_offsets=("I64", np.array([0, 1, 9, 3, 4])),
    )
    with pytest.raises(ValueError, match="ids_offsets must not fall, but entry 3 is 3 after 9"):
        safetensors_reader.open_source(path)
