"""Formats of paths, and the stream from source to target: complete, in bounded memory, or nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import collection

from muvera.convert import convert, formats, open_source, read
from muvera.convert.pipeline import WRITERS
from muvera.convert.registry import READERS, find_reader
from muvera.convert.sources import Source
from muvera.data.multivectors import MultiVectors

NAMES = {
    "npy": "out", "npz": "out.npz", "safetensors": "out.safetensors", "parquet": "out.parquet", "plaid": "out",
}  # fmt: skip
DOCUMENTS = collection([3, 0, 5, 1], ids=["a", "b", "c", "d"])


@pytest.fixture(params=WRITERS)
def to(request: pytest.FixtureRequest) -> str:
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return str(request.param)


@pytest.mark.parametrize("error", [ValueError("truncated"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_interrupted_work_leaves_nothing(to: str, error: BaseException, tmp_path: Path) -> None:
    def interrupted() -> Iterator[np.ndarray]:
        yield np.ones((3, 4), np.float32)
        yield np.ones((3, 4), np.float32)
        raise error

    with pytest.raises(type(error)):
        convert(interrupted(), tmp_path / NAMES[to], to, max_tokens=3)
    assert list(tmp_path.iterdir()) == []


def test_an_old_target_stays_until_the_new_one_is_complete(to: str, tmp_path: Path) -> None:
    target = tmp_path / NAMES[to]
    convert([np.ones((2, 4))], target, to)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        convert(DOCUMENTS, target, to)
    with pytest.raises(ValueError, match="finite"):
        convert([np.ones((1, 4)), np.full((1, 4), np.nan)], target, to, overwrite=True)
    assert len(read(target)) == 1
    report = convert(DOCUMENTS, target, to, overwrite=True)
    assert (report.to, report.target) == (to, str(target))
    assert read(target).ids.tolist() == ["a", "b", "c", "d"]
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[to]]


class Watched(Source):
    """A source that records the batch sizes that are requested."""

    name, dimension, num_documents, num_tokens, lossy, nbits = "watched", 128, 10**9, 10**12, True, 2
    note = "exact vectors exist"
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
    assert (content["dropped_rows"], content["notes"]) == (7, ["exact vectors exist"])
    assert content["options"] == {"drop_zero_rows": True}
    for part in ("watched", "2 bits", "2 documents, 4 tokens, dimension 128", "7 padding rows", source.note):
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


def test_bad_arguments_leave_nothing(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{"to": "faiss"}, {"normalised": True}, {"pooling": "x"}]
    for change in changes:
        with pytest.raises((ValueError, TypeError), match=r"got '(faiss|x)'|no option 'normalised'"):
            convert(DOCUMENTS, tmp_path / "out", **change)
    assert list(tmp_path.iterdir()) == []


def test_names_of_readers_and_detection(tmp_path: Path) -> None:
    assert list(READERS) == list(formats())
    (tmp_path / "notes.txt").write_bytes(b"\x80 a text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.bin").touch()
    for name in READERS:
        for path in [*tmp_path.iterdir(), tmp_path, tmp_path / "missing"]:
            assert not READERS[name].matches(path)
    DOCUMENTS.save(tmp_path / "docs")
    assert find_reader(tmp_path / "docs").name == "npy"
    source = open_source(str(tmp_path / "docs"))
    assert (source.name, source.dimension, source.num_documents, source.lossy) == ("npy", 4, 4, False)
    with pytest.raises(ValueError, match=r"max_tokens must be at least 1, got 0"):
        next(source.batches(0))


def test_paths_and_options_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"weights\.bin"):
        (tmp_path / "weights.bin").touch()
        read(tmp_path)
    for format in (None, "npy"):
        with pytest.raises(FileNotFoundError, match="nothing does not exist"):
            read(tmp_path / "nothing", format=format)
    with pytest.raises(ValueError, match=r"format must be one of pylate, .*, got 'faiss'"):
        read(tmp_path, format="faiss")
    with pytest.raises(TypeError, match="format= need a path, but got list"):
        read([np.ones((1, 2))], format="npy")
    np.savez(tmp_path / "a.npz", tokens=np.ones((2, 3), np.float32), lengths=[2])
    with pytest.raises(TypeError, match="'collumn'; it has part"):
        read(tmp_path / "a.npz", collumn="x")
