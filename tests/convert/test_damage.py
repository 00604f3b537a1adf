"""Every error of a reader becomes one sentence that names the file."""

from __future__ import annotations

import errno
import json
import pickle
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from muvera.convert import convert
from muvera.convert.damage import ReadError, naming_errors
from muvera.convert.parsing.pickles import RefusedPickleError
from muvera.convert.registry import NamedSource
from muvera.convert.sources.base import Source
from muvera.data.multivectors import MultiVectors

PLACE = "/data/docs.npz"


class PanicException(BaseException):
    """Stands in for pyo3's exception of a panic in Rust."""


def raised(error: BaseException) -> BaseException:
    with pytest.raises(BaseException) as caught, naming_errors(PLACE, "npz"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        RecursionError("maximum recursion depth exceeded"),
        AttributeError("'list' object has no attribute 'get'"),
        KeyError("tokens"),
        RuntimeError("lance error:\n  LanceError(IO): EOF, file.rs:1"),
        OSError("Couldn't deserialize thrift: TProtocolException: Invalid data"),
        OSError(errno.EINVAL, "Invalid argument"),
        PanicException("called `Option::unwrap()` on a `None` value"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_libraries_mean_damage(error: BaseException) -> None:
    named = raised(error)
    assert type(named) is ReadError
    assert PLACE in str(named) and "'npz'" in str(named) and "\n" not in str(named)
    assert named.__cause__ is error
    assert len(str(raised(RuntimeError("x" * 5000)))) < 400


@pytest.mark.parametrize("kind", [ReadError, FileNotFoundError])
def test_errors_of_readers_keep_their_sentence(kind: type[Exception]) -> None:
    error = kind(f"{PLACE} has no tokens. Export it again")
    assert raised(error) is error
    named = raised(kind("ids must be unique"))
    assert type(named) is kind and str(named) == f"{PLACE}: ids must be unique"
    refused = raised(RefusedPickleError("it refers to os.system"))
    assert isinstance(refused, pickle.UnpicklingError) and "os.system" in str(refused)


def test_system_errors_keep_their_number() -> None:
    named = raised(PermissionError(errno.EACCES, "Permission denied", PLACE))
    assert type(named) is PermissionError and named.errno == errno.EACCES
    assert str(named) == f"{PLACE} cannot be read: Permission denied."
    other = raised(OSError(errno.EIO, "Input/output error", "/data/other"))
    assert str(other) == f"{PLACE} cannot be read: Input/output error (/data/other)."
    assert raised(other) is other, "of a file in the folder"


@pytest.mark.parametrize("error", [MemoryError("Unable to allocate 7 TiB"), OSError(errno.ENOMEM, "Cannot")])
def test_memory_errors_stay_memory_errors(error: Exception) -> None:
    named = raised(error)
    assert type(named) is MemoryError and str(named).startswith(PLACE)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ImportError("pip install it")])
def test_other_errors_pass(error: BaseException) -> None:
    assert raised(error) is error


class Broken(Source):
    name, dimension, num_documents, num_tokens, lossy, nbits = "npz", 2, None, None, False, None
    note, dropped_rows = "a note", 3

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        yield MultiVectors(np.ones((2, 2), np.float32), [0, 1, 2])
        if self.error is not None:
            raise self.error
        yield MultiVectors(np.full((1, 2), np.inf, np.float32), [0, 1])


def test_all_batches_of_a_source_are_checked() -> None:
    source = NamedSource(Broken(zlib.error("Error -3")), PLACE)
    batches = source.batches(5)
    assert len(next(batches)) == 2
    with pytest.raises(ValueError, match=r"/data/docs\.npz .*\(error: Error -3\)"):
        next(batches)
    assert (source.note, source.dropped_rows) == ("a note", 3)
    with pytest.raises(ValueError, match=r"/data/docs\.npz: document 2 has inf in its token 0, coordinate 0"):
        list(NamedSource(Broken(None), PLACE).batches(5))


def test_an_id_in_two_batches_names_the_file(tmp_path: Path) -> None:
    rows = [{"id": "a", "tokens": [[1.0]]}, {"id": "a", "tokens": [[2.0]]}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=r"a\.jsonl.* 'a' .* 0 and 1"):
        convert(tmp_path / "a.jsonl", tmp_path / "out", max_tokens=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
