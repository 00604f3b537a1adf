"""Reading in a child process: the same batches, its errors unchanged, a crash in one sentence."""

from __future__ import annotations

import gc
import json
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, everything

from muvera import convert
from muvera.convert.isolation import IsolatedSource, IsolationLimits

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "dé"])


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    DOCS.save(tmp_path / "docs")
    return tmp_path / "docs"


def isolated(path: Path, seconds: float = 60, **options: Any) -> IsolatedSource:
    return IsolatedSource(path, None, options, IsolationLimits(seconds))


def children() -> set[str]:
    return set(Path("/proc/self/task", str(os.getpid()), "children").read_text().split())


def test_the_batches_are_the_same(docs: Path) -> None:
    source = isolated(docs)
    assert (source.name, source.dimension, source.num_documents, source.num_tokens) == ("npy", 4, 4, 6)
    assert (source.lossy, source.nbits, source.note, source.dropped_rows) == (False, None, None, 0)
    for max_tokens in (2, 100):  # each time by another child
        assert_same(everything(source, max_tokens), DOCS)
    (docs / "lengths.npy").unlink()
    np.save(docs / "lengths.npy", [0, 0, 6, 0])
    assert [len(batch) for batch in isolated(docs).batches(2)] == [2, 1, 1]


def test_convert_read_and_survey(tmp_path: Path) -> None:
    padded = np.zeros((2, 3, 4), np.float16)
    padded[0], padded[1, 1:] = 2, 1
    np.save(tmp_path / "x.npy", padded)
    report = convert.convert(tmp_path / "x.npy", tmp_path / "out", isolated=True)
    plain = convert.survey(tmp_path / "x.npy")
    assert report.dropped_rows == plain.dropped_rows == 1
    assert convert.survey(tmp_path / "x.npy", isolated=True).to_dict() == plain.to_dict()
    got = convert.read(tmp_path / "x.npy", isolated=IsolationLimits(30, 1 << 30))
    assert_same(got, convert.read(tmp_path / "out"))
    assert got.tokens.dtype == np.float16


def test_relative_paths_are_the_callers(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (docs.parent / "numpy.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(docs.parent)
    assert_same(convert.read("docs", isolated=True), DOCS)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit",)


def test_errors_are_those_of_the_reader(tmp_path: Path, docs: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"/nothing does not exist\."):
        convert.read(tmp_path / "nothing", isolated=True)
    with pytest.raises(TypeError, match="'column'"):
        convert.read(docs, column="x", isolated=True)
    with pytest.raises(ValueError, match=rf"{docs}.* is damaged"):
        (docs / "ids.json").write_text("[" * 200_000)
        convert.read(docs, isolated=True)
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(Hostile()))
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "a.pt").rename(tmp_path / "embeddings" / "embeddings_0.pt")
    with pytest.raises(pickle.UnpicklingError, match=r"embeddings_0\.pt is a pickle that refers to"):
        convert.read(tmp_path, format="byaldi", isolated=True)


def test_too_little_memory_is_an_error_of_the_child(tmp_path: Path) -> None:
    count = 1 << 28
    np.lib.format.open_memmap(tmp_path / "tokens.npy", "w+", np.float32, (count, 1))
    np.save(tmp_path / "lengths.npy", [count])  # a sparse file: 1 GiB of zeros in one document
    with pytest.raises((MemoryError, ChildProcessError), match=re.escape(str(tmp_path))):
        convert.read(tmp_path, isolated=IsolationLimits(60, 512 << 20))


def test_links_out_of_a_folder_are_refused(tmp_path: Path, docs: Path) -> None:
    (docs / "inside.npy").symlink_to("tokens.npy")
    assert_same(convert.read(docs, isolated=True), DOCS)
    (docs / "lengths.npy").rename(tmp_path / "lengths.npy")
    (docs / "lengths.npy").symlink_to(tmp_path / "lengths.npy")
    with pytest.raises(ValueError, match=rf"{docs}/lengths\.npy is a link out of {docs}"):
        convert.read(docs, isolated=True)


def test_bad_arguments() -> None:
    with pytest.raises(TypeError, match=r"isolated=True .* MultiVectors"):
        convert.read(DOCS, isolated=True)
    with pytest.raises(ValueError, match="seconds must be at least 1"):
        IsolationLimits(0)
    with pytest.raises(ValueError, match="memory_bytes must be at least"):
        IsolationLimits(memory_bytes=1)


CONNECT = "import json, os, sys, time, multiprocessing.connection as m; c = m.Connection(int(sys.argv[1])); c.recv()\n"
SOURCE = dict.fromkeys(("num_documents", "num_tokens", "nbits"), None) | {
    "name": "npy",
    "dimension": 2,
    "lossy": False,
}


def scripted(monkeypatch: pytest.MonkeyPatch, script: str, *answers: Any) -> None:
    """Let a few lines of Python be the child, which send objects as JSON, and bytes."""
    sent = [answer if isinstance(answer, bytes) else json.dumps(answer).encode() for answer in answers]
    lines = f"{CONNECT}for answer in {sent!r}: c.send_bytes(answer)\n{script}"
    monkeypatch.setattr(IsolatedSource, "command", (sys.executable, "-c", lines))


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("os.abort()", "was ended by the signal SIGABRT"),
        ("os.kill(os.getpid(), 9)", "exceeded its limit"),
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("time.sleep(60)", "sent nothing for 4 seconds"),
        ("os.write(c.fileno(), b'x' * 100); time.sleep(60)", "sent an invalid answer"),
    ],
)
def test_a_crash_is_one_sentence(docs: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str) -> None:
    before = children()
    scripted(monkeypatch, script)
    seconds = 1 if "4 seconds" in why else 60
    with pytest.raises(ChildProcessError) as caught:
        isolated(docs, seconds)
    assert str(caught.value).startswith(f"{docs} could not be read: the reading process {why}")
    assert f"{seconds} seconds or 4096 MiB" in str(caught.value)
    assert children() == before


@pytest.mark.parametrize(
    "answers",
    [
        ({"dropped_rows": 0, "note": None},),
        (SOURCE | {"dimension": 0},),
        (SOURCE | {"dimension": True},),
        (7,),
        (SOURCE, SOURCE),
        (SOURCE, {"ids": None, "dtype": "float32"}, np.int64(-7).tobytes(), bytes(8)),
        (SOURCE, {"ids": ["a", "b"], "dtype": "float32"}, np.int64(1).tobytes(), bytes(8)),
        (SOURCE, {"ids": None, "dtype": "object"}, np.int64(1).tobytes(), bytes(16)),
    ],
    ids=["no source", "no columns", "a flag", "no object", "no batch", "lengths", "ids", "dtype"],
)
def test_false_answers(docs: Path, monkeypatch: pytest.MonkeyPatch, answers: Any) -> None:
    scripted(monkeypatch, "time.sleep(30)", *answers)
    with pytest.raises(ChildProcessError, match=r"the reading process sent an invalid answer"):
        list(isolated(docs, 5).batches(10))


def test_an_unknown_kind_of_error_is_a_value_error(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, "", {"error": "LanceError", "text": "it is damaged.", "errno": None})
    with pytest.raises(ValueError, match=r"^it is damaged\.$"):
        isolated(docs)


def test_no_child_is_left(docs: Path) -> None:
    before = children()
    source = isolated(docs)
    assert len(children()) == len(before) + 1
    next(source.batches(1)).tokens.sum()  # the rest is not read
    gc.collect()
    assert children() == before
    source = isolated(docs)
    del source
    gc.collect()
    assert children() == before
