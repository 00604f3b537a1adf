"""Formats of paths, errors of readers, and the stream to a target.

A target is complete or absent.
"""

import errno
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import ROOT
from builders.token_collections import collection

from muvera.convert import convert, formats, open_source, read, registry
from muvera.convert.parsing import RefusedPickleError
from muvera.convert.pipeline import WRITERS
from muvera.convert.registry import ENDINGS, READERS, find_reader
from muvera.convert.sources import ReadError, Source, naming_errors
from muvera.data.multivectors import MultiVectors

DOCUMENTS = collection([3, 0, 5, 1], ids=["a", "b", "c", "d"])


@pytest.fixture(params=WRITERS)
def to(request: pytest.FixtureRequest) -> str:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return str(request.param)


@pytest.mark.parametrize("error", [ValueError("truncated"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_interrupted_work_leaves_the_old_target(to: str, error: BaseException, tmp_path: Path) -> None:
    def interrupted() -> Iterator[np.ndarray]:
        yield np.ones((3, 4), np.float32)
        yield np.ones((3, 4), np.float32)
        raise error

    target = tmp_path / ("out" if to in ("npy", "plaid") else f"out.{to}")
    with pytest.raises(type(error)):
        convert(interrupted(), target, to, max_tokens=3)
    assert list(tmp_path.iterdir()) == []
    convert([np.ones((2, 4))], target, to)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        convert(DOCUMENTS, target, to)
    with pytest.raises(type(error)):
        convert(interrupted(), target, to, max_tokens=3, overwrite=True)
    assert len(read(target)) == 1
    report = convert(DOCUMENTS, target, to, overwrite=True)
    assert (report.to, report.target) == (to, str(target))
    assert read(target).ids.tolist() == ["a", "b", "c", "d"]
    assert list(tmp_path.iterdir()) == [target]


class Watched(Source):
    """A source that records the batch sizes that are requested."""

    name, dimension, num_documents, num_tokens, lossy, nbits = "watched", 128, 10**9, 10**12, True, 2
    dropped_rows = 7

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        self.sizes.append(max_tokens)
        yield collection([2, 2], dimension=128)


def test_batches_are_bounded_and_the_report_describes_the_source(tmp_path: Path) -> None:
    source = Watched()
    report = convert(source, tmp_path / "out", drop_zero_rows=True)
    assert source.sizes == [64 * 2**20 // (4 * 128)]
    content = report.to_dict()
    assert (content["format"], content["lossy"], content["nbits"]) == ("watched", True, 2)
    assert (content["dropped_rows"], content["options"]) == (7, {"drop_zero_rows": True})
    for part in ("watched", "2 bits", "2 documents, 4 tokens, dimension 128", "7 padding rows"):
        assert part in report.text


def test_a_progress_bar_counts_tokens_or_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(DOCUMENTS, tmp_path / "a", progress=True)
    assert "9.00/9.00 [" in capsys.readouterr().err
    convert(iter([np.ones((1, 4))]), tmp_path / "b", progress=True)
    assert "1.00 texts" in capsys.readouterr().err
    convert(DOCUMENTS, tmp_path / "c")
    assert capsys.readouterr() == ("", "")


def test_no_documents_keep_the_dimension(tmp_path: Path) -> None:
    nothing = MultiVectors(np.empty((0, 5), np.float32), [0])
    report = convert(nothing, tmp_path / "out")
    assert report.written.to_dict()["documents"] == 0
    assert MultiVectors.load(tmp_path / "out").dimension == read(nothing).dimension == 5
    DOCUMENTS.save(tmp_path / "docs")
    assert isinstance(read(tmp_path / "docs").tokens, np.memmap), "an unchanged memory map stays one"


# -- formats and options ----------------------------------------------------------


def test_every_reader_is_a_format() -> None:
    assert list(READERS) == list(formats())


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    """A folder with files of no known format, and an empty folder."""
    (tmp_path / "notes.txt").write_bytes(b"\x80 a text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.bin").touch()
    return tmp_path


@pytest.mark.parametrize("name", READERS)
def test_no_reader_takes_unknown_or_missing_files(name: str, unknown: Path) -> None:
    for path in [*unknown.iterdir(), unknown, unknown / "missing"]:
        assert not READERS[name].matches(path), path


def test_an_unknown_format_is_an_error_that_lists_the_folder(unknown: Path) -> None:
    with pytest.raises(ValueError, match=r"is in no known format.* contains empty, notes\.txt, weights"):
        read(unknown)


def test_a_found_reader_yields_batches_of_at_least_a_token(tmp_path: Path) -> None:
    DOCUMENTS.save(tmp_path / "docs")
    assert find_reader(tmp_path / "docs").name == "npy"
    with pytest.raises(ValueError, match=r"max_tokens must be at least 1, got 0"):
        next(open_source(str(tmp_path / "docs")).batches(0))


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (DOCUMENTS, {"to": "faiss"}, "got 'faiss'"),
        (DOCUMENTS, {"pooling": "x"}, "got 'x'"),
        (DOCUMENTS, {"normalised": True}, "The memory reader has no option 'normalised'; it has mask, ids"),
        (DOCUMENTS, {"format": "npy"}, "format= need a path, but got MultiVectors"),
        (DOCUMENTS, {"isolated": True}, "isolated=True and format= need a path, but got MultiVectors"),
        (Watched(), {"part": "docs"}, "The watched reader has no option 'part'; it has none"),
        ("nothing", {}, "nothing does not exist"),
        ("nothing", {"format": "npy"}, "nothing does not exist"),
        ("docs", {"format": "faiss"}, r"format must be one of pylate, .*, got 'faiss'"),
        ("docs", {"prat": "docs"}, "The npy reader has no option 'prat'; it has part"),
    ],
)
def test_paths_and_options_that_are_refused(
    source: Any, options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    DOCUMENTS.save("docs")
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        convert(source, "out", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["docs"]


def test_the_guide_for_a_new_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guide = (ROOT / "docs" / "how-to" / "add-a-reader.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(guide.split("```python\n")[1].split("```")[0], names)
    (reader,) = names["READERS"]
    monkeypatch.setattr(registry, "READERS", {reader.name: reader, **READERS})
    np.arange(24, dtype=np.float32).tofile(tmp_path / "vectors.f32")
    (tmp_path / "counts.txt").write_text("2\n0\n4\n")
    for documents in (read(tmp_path, dimension=4), read(reader.open_source(tmp_path, dimension=4))):
        assert documents.lengths.tolist() == [2, 0, 4]
        np.testing.assert_array_equal(documents.tokens.ravel(), np.arange(24))


# -- errors -----------------------------------------------------------------------

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


@pytest.mark.parametrize("to", ["npy", "npz", "plaid"])
@pytest.mark.parametrize("name", ["out.h5", "out.PT", "out.json", "out.duckdb"])
def test_an_ending_of_another_format_is_refused(to: str, name: str, tmp_path: Path) -> None:
    """Otherwise a folder is called out.h5."""
    with pytest.raises(ValueError, match=r"out.*has the ending .* but would be .*choose among npy, npz"):
        convert(DOCUMENTS, tmp_path / name, to)
    assert list(tmp_path.iterdir()) == []


def test_every_ending_that_readers_name_is_known() -> None:
    """The descriptions name files and folders by their endings."""
    texts = [f"{reader.description} {reader.example}" for reader in READERS.values()]
    named = {ending for text in texts for ending in re.findall(r"(?<=[ (])\.[a-z]\w+\b", text)}
    internal = {".zgroup", ".byaldi"}  # names of files and folders, not endings
    assert named - internal <= set(ENDINGS)
