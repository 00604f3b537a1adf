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
from muvera.convert.sources import Source
from muvera.data.multivectors import MultiVectors

PLACE = "/data/docs.npz"


class PanicException(BaseException):
    """Stands in for pyo3's exception of a panic in Rust."""


def raised(error: BaseException) -> BaseException:
    with pytest.raises(BaseException) as caught, naming_errors(PLACE, "npz"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (KeyError("tokens"), ReadError, "is damaged, or is not in the format 'npz' (KeyError: 'tokens')."),
        (RuntimeError("lance:\n  EOF"), ReadError, "is damaged, .* (RuntimeError: lance: EOF)."),
        (OSError("Couldn't deserialize thrift"), ReadError, "is damaged, .* (Couldn't deserialize thrift)."),
        (OSError(errno.EINVAL, "Invalid"), ReadError, "is damaged"),
        (PanicException("called `unwrap()` on `None`"), ReadError, "is damaged"),
        (RuntimeError("x" * 5000), ReadError, "is damaged"),
        (ReadError("it has no ids."), ReadError, ": it has no ids."),
        (RefusedPickleError("it refers to os.system."), pickle.UnpicklingError, ": it refers to os.system."),
        (OSError(errno.EIO, "I/O error", "/data/b"), OSError, " cannot be read: I/O error (/data/b)."),
        (PermissionError(errno.EACCES, "Denied", PLACE), PermissionError, " cannot be read: Denied."),
        (MemoryError("Unable to allocate 7 TiB"), MemoryError, " does not fit in the available memory"),
        (OSError(errno.ENOMEM, "Cannot"), MemoryError, " does not fit in the available memory"),
    ],
    ids=repr,
)
def test_errors_become_sentences(error: BaseException, kind: type[Exception], message: str) -> None:
    named = raised(error)
    assert isinstance(named, kind) and named.__cause__ is error
    assert str(named).startswith(PLACE) and "\n" not in str(named) and len(str(named)) < 400
    assert all(part in str(named) for part in message.split(" .* "))
    assert raised(named) is named
    if kind in (OSError, PermissionError):
        assert getattr(named, "errno", None) == getattr(error, "errno", None)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), ImportError("pip install it")])
def test_other_errors_pass(error: BaseException) -> None:
    assert raised(error) is error


class Broken(Source):
    name, dimension, note, dropped_rows = "npz", 2, "a note", 3

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
