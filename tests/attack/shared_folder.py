"""Processes that write, load and search one folder, and are killed at random."""

from __future__ import annotations

import mmap
import os
import random
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from builders.text_encoders import HashEncoder

from attack.processes import CONFIG, forked
from muvera import MultiVectors, MuveraIndex, TextIndex
from muvera.index.generations import IndexFolderError

_DOCUMENTS, _WRITERS, _READERS = 12, 2, 2

# Cells of the board: the last acknowledged version, and counts of each process.
_ACKNOWLEDGED, _COUNTS, _CELLS = 0, 1, 16
_NAMES = ("changes", "loads", "refused")

# Versions whose writers are remembered.
_VERSIONS = 1 << 17

# Seconds that a process may live.
_LIFE = (0.05, 1.5)


class Board:
    """Numbers that all processes see: what was acknowledged, and counts."""

    def __init__(self) -> None:
        shared = mmap.mmap(-1, 8 * (_CELLS + _VERSIONS))
        self.cells = np.frombuffer(shared, np.int64)
        self.writers = self.cells[_CELLS:]

    def acknowledged(self) -> int:
        return int(self.cells[_ACKNOWLEDGED])

    def acknowledge(self, version: int, writer: int) -> None:
        assert not self.writers[version], f"two writers wrote version {version}"
        self.writers[version] = writer
        self.cells[_ACKNOWLEDGED] = max(version, self.acknowledged())

    def count(self, name: str, role: int) -> None:
        self.cells[_COUNTS + 4 * _NAMES.index(name) + role] += 1

    def total(self, name: str) -> int:
        start = _COUNTS + 4 * _NAMES.index(name)
        return int(self.cells[start : start + 4].sum())


def _texts(version: int) -> list[str]:
    """Return the texts of all documents; each change replaces all of them."""
    return [f"version{version} document{i} of many" for i in range(_DOCUMENTS)]


def _tokens(version: int) -> MultiVectors:
    """Return the documents of a version: their first column is its number."""
    tokens = np.random.default_rng(version).normal(size=(_DOCUMENTS, 2, 8)).astype(np.float32)
    tokens[:, :, 0] = version
    return MultiVectors.from_arrays(list(tokens), ids=list(range(_DOCUMENTS)))


def _text_version(index: TextIndex) -> int:
    """Return the version of all texts, vectors and answers of an index."""
    texts = [one.text for one in index]
    version = int(texts[0].split()[0].removeprefix("version"))
    assert sorted(texts) == sorted(_texts(version)), f"a mixed state: {texts}"
    encoder = HashEncoder(8)
    ids = [one.id for one in index]
    for vectors, text in zip(index.index.tokens(ids), texts, strict=True):
        expected = encoder.encode_documents([text])[0]
        assert np.array_equal(vectors, expected), f"the vectors of {text!r} are of another text"
    hits = index.search(f"version{version} document3", 3, words=0, mean=0, candidates=1000, threads=1)
    assert hits[0].text == _texts(version)[3], f"a wrong answer: {[hit.text for hit in hits]}"
    return version


def _vector_version(index: MuveraIndex) -> int:
    """Return the version of all tokens and answers of an index."""
    tokens = index.tokens(index.ids.tolist())
    version = int(tokens.tokens[0, 0])
    expected = _tokens(version)
    assert np.array_equal(tokens.tokens, expected.tokens), f"a mixed state: {tokens.tokens[:, 0]}"
    found = index.search(expected[3], 1, candidates=_DOCUMENTS, threads=1)[0]
    best = max(float((expected[3] @ one.T).max(axis=1).sum()) for one in expected)
    assert np.isclose(found.scores[0], best, rtol=1e-5), f"a wrong answer: {found}"
    return version


def _write_texts(folder: Path, board: Board, role: int) -> None:
    while True:
        try:
            index = TextIndex.open(folder, HashEncoder(8), save_changes=7, save_seconds=0.2)
        except IndexFolderError as error:
            assert "Another process or an open TextIndex is writing" in str(error), str(error)
            board.count("refused", role)
            time.sleep(0.02)
            continue
        version = _text_version(index)
        # A killed writer may have stored a change without acknowledging it.
        assert version in (board.acknowledged(), board.acknowledged() + 1), "an acknowledged change is lost"
        if version > board.acknowledged():
            board.acknowledge(version, role + 1)
        while True:
            version += 1
            index.update(_texts(version), ids=list(range(_DOCUMENTS)), threads=1)
            board.acknowledge(version, role + 1)
            board.count("changes", role)


def _write_vectors(folder: Path, board: Board, role: int) -> None:
    while True:
        acknowledged = board.acknowledged()
        index = MuveraIndex.load(folder)
        version = _vector_version(index)
        assert version >= acknowledged, "an acknowledged save is lost"
        index.update(_tokens(version + 1), threads=1)
        try:
            index.save(folder)
        except IndexFolderError as error:
            assert "nother" in str(error) or "generation" in str(error), str(error)
            board.count("refused", role)
            continue
        board.acknowledge(version + 1, role + 1)
        board.count("changes", role)


def _read(load: Callable[[], int], board: Board, role: int) -> None:
    seen = 0
    while True:
        acknowledged = board.acknowledged()
        version = load()
        assert version >= acknowledged, f"version {version} after {acknowledged} was acknowledged"
        assert version >= seen, f"version {version} after {seen} was seen"
        seen = version
        board.count("loads", role)


def _stop(child: int) -> None:
    """Kill a process, which may have ended by an error."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _noting(work: Callable[[], object], notes: Path) -> None:
    """Write an error of `work` to a file."""
    try:
        work()
    except Exception as error:
        with notes.open("a") as stream:
            stream.write(f"{type(error).__name__}: {error}\n")


def _build_texts(folder: Path) -> None:
    settings: dict[str, Any] = {"vectors": CONFIG, "tokens": "float32", "exact_tokens": 0}
    ids = list(range(_DOCUMENTS))
    TextIndex.build(_texts(0), HashEncoder(8), ids=ids, path=folder, threads=1, **settings)
    with TextIndex.open(folder, HashEncoder(8)) as index:
        index.update(_texts(0), ids=ids, threads=1)


def _build_vectors(folder: Path) -> None:
    index = MuveraIndex.build(_tokens(0), CONFIG, path=folder, threads=1, exact_tokens=0)
    index.update(_tokens(0), threads=1)
    index.save(folder)


def share(kind: str, kills: int) -> tuple[dict[str, int], list[str]]:
    """Kill processes that write or read one folder; start each anew.

    The kind is "texts", whose writers open the folder and whose changes go to its
    journal, or "vectors", whose writers load the folder and save it.  Return counts,
    and the faults.
    """
    stream, board = random.Random(f"{kind} {kills}"), Board()
    kinds: dict[str, tuple[Any, Any, Any]] = {
        "texts": (
            _build_texts,
            _write_texts,
            lambda path: _text_version(TextIndex.load(path, HashEncoder(8))),
        ),
        "vectors": (_build_vectors, _write_vectors, lambda path: _vector_version(MuveraIndex.load(path))),
    }
    build, write, load = kinds[kind]
    with tempfile.TemporaryDirectory() as parent, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder, notes = Path(parent, "index"), Path(parent, "notes")
        notes.touch()
        build(folder)
        load(folder)  # the children need not compile what their parent has compiled
        work = [partial(write, folder, board, role) for role in range(_WRITERS)]
        work += [partial(_read, partial(load, folder), board, role) for role in range(_READERS)]
        children = [forked(partial(_noting, each, notes)) for each in work]
        try:
            for _ in range(kills):
                time.sleep(stream.uniform(*_LIFE) / len(work))
                number = stream.randrange(len(work))
                _stop(children[number])
                children[number] = forked(partial(_noting, work[number], notes))
            time.sleep(_LIFE[1])
        finally:
            for child in children:
                _stop(child)
        _noting(lambda: _require_kept(load(folder), board), notes)
        faults = notes.read_text().splitlines()
    return {name: board.total(name) for name in _NAMES}, faults


def _require_kept(version: int, board: Board) -> None:
    assert version >= board.acknowledged(), f"version {version}, not {board.acknowledged()}, at the end"
