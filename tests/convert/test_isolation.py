"""Reading in a child process: the same documents, and its errors unchanged.

A crash becomes one sentence.
"""

import json
import pickle
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import GOLDEN
from builders.token_collections import assert_same, collection, everything

from muvera import convert
from muvera.convert.registry import IsolationLimits, isolated_source

DOCS = collection([3, 0, 1, 2], ids=["a", "b", "c", "dé"])


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    DOCS.save(tmp_path / "docs")
    return tmp_path / "docs"


def test_the_documents_and_the_report_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    padded = np.zeros((2, 3, 4), np.float16)
    padded[0], padded[1, 1:] = 2, 1
    np.save(tmp_path / "x.npy", padded)
    (tmp_path / "numpy.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    source = convert.open_source("x.npy", isolated=True)
    assert (source.name, source.dimension, source.num_documents, source.num_tokens) == ("npy", 4, 2, 5)
    for max_tokens in (2, 100):
        assert_same(everything(source, max_tokens), convert.read(padded))
    report = convert.convert("x.npy", "out", isolated=IsolationLimits(30, 1 << 30))
    plain = convert.survey("x.npy")
    assert report.read.to_dict() == plain.read.to_dict() and report.dropped_rows == plain.dropped_rows == 1
    assert convert.read("out").tokens.dtype == np.float16


def test_errors_are_those_of_the_reader(tmp_path: Path, docs: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"/nothing does not exist\."):
        convert.read(tmp_path / "nothing", isolated=True)
    with pytest.raises(TypeError, match="'column'"):
        convert.read(docs, column="x", isolated=True)
    (tmp_path / "embeddings").mkdir()
    malicious = GOLDEN / "convert" / "torch_files" / "malicious.pt"
    shutil.copy(malicious, tmp_path / "embeddings" / "embeddings_0.pt")
    with pytest.raises(pickle.UnpicklingError, match=r"embeddings_0\.pt is a pickle that refers to"):
        convert.read(tmp_path, format="byaldi", isolated=True)


def test_too_little_memory_is_an_error_of_the_child(tmp_path: Path) -> None:
    tokens = np.zeros((1 << 28, 1), np.float32)
    np.savez_compressed(tmp_path / "bomb.npz", tokens=tokens, lengths=[1 << 28])
    with pytest.raises((MemoryError, ChildProcessError), match=re.escape(str(tmp_path))):
        convert.read(tmp_path / "bomb.npz", isolated=IsolationLimits(60, 512 << 20))


def test_the_child_cannot_fill_the_disk(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", tokens=np.zeros((1 << 18, 2), np.float32), lengths=[1 << 18])
    script = """
import shutil
from types import SimpleNamespace
from muvera.convert import convert, registry
shutil.disk_usage = lambda folder: SimpleNamespace(free=1 << 20)
registry.answer(convert)
"""
    command = (sys.executable, "-c", script)
    with pytest.raises(OSError, match="could not be written: File too large"):
        isolated_source(tmp_path / "bomb.npz", None, {}, IsolationLimits(), command)


def test_links_out_of_a_folder_are_refused(tmp_path: Path, docs: Path) -> None:
    (docs / "inside.npy").symlink_to("tokens.npy")
    assert_same(convert.read(docs, isolated=True), DOCS)
    (docs / "lengths.npy").rename(tmp_path / "lengths.npy")
    (docs / "lengths.npy").symlink_to(tmp_path / "lengths.npy")
    with pytest.raises(ValueError, match=rf"{docs}/lengths\.npy is a link out of {docs}"):
        convert.read(docs, isolated=True)


@pytest.mark.parametrize("name", ["seconds", "memory_bytes"])
def test_bad_arguments(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least"):
        IsolationLimits(**{name: 0})


def reporting(**report: Any) -> str:
    return f"open(folder + '/report.json', 'w').write({json.dumps(report)!r})"


REPORT = reporting(format="npy", lossy=False, nbits=None, dropped_rows=0)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("os.abort()", "was ended by the signal SIGABRT"),
        ("os.kill(os.getpid(), 9)", "exceeded its limit"),
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("time.sleep(60)", "did not end within 4 seconds"),
        ("open(folder + '/report.json', 'w').write('7')", "gave an invalid answer"),
        (reporting(), "gave an invalid answer"),
        (REPORT, "gave an invalid answer"),  # without the documents
        (reporting(error="LanceError", text="it is damaged.", errno=None), ""),
    ],
)
def test_a_crash_or_a_false_answer_is_one_sentence(docs: Path, script: str, why: str) -> None:
    limits = IsolationLimits(1 if "4 seconds" in why else 60)
    start = "import json, os, sys, time\nfolder = json.loads(sys.argv[1])['folder']\n"
    with pytest.raises((ChildProcessError, ValueError)) as caught:
        isolated_source(docs, None, {}, limits, (sys.executable, "-c", start + script))
    message = f"{docs} could not be read: the reading process {why}"
    if why:
        assert caught.type is ChildProcessError and str(caught.value).startswith(message)
        assert f"{limits.seconds} seconds or 4096 MiB" in str(caught.value)
    else:  # an error of an unknown kind
        assert caught.type is ValueError and str(caught.value) == "it is damaged."
