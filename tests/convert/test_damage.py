"""Whatever a reader raises leaves as one sentence that names the file."""

from __future__ import annotations

import errno
import json
import pickle
import sqlite3
import tokenize
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from muvera.convert import convert, read
from muvera.convert.damage import NamedSource, naming_errors
from muvera.data.multivectors import MultiVectors

PLACE = "/data/docs.npz"


class PanicException(BaseException):
    """As pyo3 calls the panic of a library that is written in Rust."""


def raised(error: BaseException) -> BaseException:
    with pytest.raises(BaseException) as caught, naming_errors(PLACE, "npz"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        pickle.UnpicklingError("invalid load key, 'x'."),
        tokenize.TokenError("EOF in multi-line statement", (2, 0)),
        RecursionError("maximum recursion depth exceeded"),
        zlib.error("Error -3 while decompressing data"),
        NotImplementedError("That compression method is not supported"),
        OverflowError("Python int too large to convert to C long"),
        SystemError("returned a result with an exception set"),
        AttributeError("'list' object has no attribute 'get'"),
        ZeroDivisionError("integer modulo by zero"),
        KeyError("tokens"),
        TypeError("'NoneType' object is not iterable"),
        AssertionError(),
        sqlite3.DatabaseError("file is not a database"),
        RuntimeError("lance error:\n  LanceError(IO): EOF, file.rs:1"),
        OSError("Couldn't deserialize thrift: TProtocolException: Invalid data"),
        OSError(errno.EINVAL, "Invalid argument"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        json.JSONDecodeError("Expecting value", "{", 0),
        PanicException("called `Option::unwrap()` on a `None` value"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_raw_error_becomes_a_sentence(error: BaseException) -> None:
    named = raised(error)
    assert type(named) is ValueError
    text = str(named)
    assert text.startswith(f"{PLACE} is damaged, or is not in the format 'npz' (")
    assert text.endswith("). Copy or export it again.") and "\n" not in text
    assert named.__cause__ is error


def test_a_long_detail_is_shortened() -> None:
    assert len(str(raised(RuntimeError("x" * 5000)))) < 400


def test_a_sentence_with_the_file_stays() -> None:
    for error in (ValueError(f"{PLACE} has no tokens. Export it again."), TypeError(f"{PLACE}: int8.")):
        assert raised(error) is error


@pytest.mark.parametrize("kind", [ValueError, TypeError, FileNotFoundError, BlockingIOError])
def test_a_sentence_without_the_file_gets_it(kind: type[Exception]) -> None:
    named = raised(kind("ids must be unique, but 'a' comes twice."))
    assert type(named) is kind
    assert str(named) == f"{PLACE}: ids must be unique, but 'a' comes twice."


def test_what_the_system_refuses_keeps_its_number() -> None:
    named = raised(PermissionError(errno.EACCES, "Permission denied", "/data/docs.npz"))
    assert type(named) is PermissionError and named.errno == errno.EACCES
    assert str(named) == f"{PLACE} cannot be read: Permission denied."
    inside = raised(OSError(errno.EIO, "Input/output error", "/data/other"))
    assert str(inside) == f"{PLACE} cannot be read: Input/output error (/data/other)."


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 7 TiB"), OSError(errno.ENOMEM, "Cannot")])
def test_too_little_memory_stays_a_memory_error(error: Exception) -> None:
    named = raised(error)
    assert type(named) is MemoryError
    assert str(named).startswith(f"{PLACE} cannot be read in the memory there is")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ImportError("pip install it")])
def test_what_is_not_of_the_file_passes(error: BaseException) -> None:
    assert raised(error) is error


class Breaks:
    name, dimension, num_documents, num_tokens, lossy, nbits = "npz", 2, None, None, False, None
    note, dropped_rows = "a note", 3

    def __init__(self, last: object) -> None:
        self.last = last

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        yield MultiVectors(np.ones((2, 2), np.float32), [0, 1, 2])
        if isinstance(self.last, BaseException):
            raise self.last
        yield MultiVectors(np.full((1, 2), np.inf, np.float32), [0, 1])


def test_batches_are_watched_to_the_end() -> None:
    source = NamedSource(Breaks(zlib.error("Error -3")), PLACE)
    assert (source.note, source.dropped_rows) == ("a note", 3)
    batches = source.batches(5)
    assert len(next(batches)) == 2
    with pytest.raises(ValueError, match=r"/data/docs\.npz is damaged, .* \(error: Error -3\)"):
        next(batches)
    with pytest.raises(ValueError, match=r"/data/docs\.npz: document 2 has inf in its token 0, coordinate 0"):
        list(NamedSource(Breaks(None), PLACE).batches(5))
    with pytest.raises(ValueError, match=r"^max_tokens must be at least 1, got 0\.$"):
        next(source.batches(0))


def test_a_folder_of_damaged_files_names_the_folder(tmp_path: Path) -> None:
    MultiVectors(np.ones((2, 2), np.float32), [0, 2], ids=["a"]).save(tmp_path / "docs")
    for name, content in (("ids.json", b"[" * 200_000), ("tokens.npy", b"\x93NUMPY\x01\x00\x08\x00{'descr'")):
        good = (tmp_path / "docs" / name).read_bytes()
        (tmp_path / "docs" / name).write_bytes(content)
        with pytest.raises(ValueError, match=r"/docs.* is (damaged|not a \.npy file)"):
            read(tmp_path / "docs")
        (tmp_path / "docs" / name).write_bytes(good)
    assert read(tmp_path / "docs").num_tokens == 2


def test_tokens_have_numbers() -> None:
    source = Breaks(None)
    source.dimension = 0
    with pytest.raises(ValueError, match=r"^/data/docs\.npz has token vectors without numbers"):
        NamedSource(source, PLACE)


@pytest.mark.parametrize("to", ["npy", "npz"])
def test_an_id_in_two_batches_names_the_file(tmp_path: Path, to: str) -> None:
    rows = [{"id": "a", "tokens": [[1.0]]}, {"id": "a", "tokens": [[2.0]]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        ValueError, match=r"a\.jsonl: ids must be unique, but 'a' stands at positions 0 and 1"
    ):
        convert(tmp_path / "a.jsonl", tmp_path / "out", to, max_tokens=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
