"""Calls that change or save a tiny index and do not end.

They are interrupted at a line, or killed before a file operation.

Afterwards the index and its folder must hold the complete state before or after the
call.
"""

import ast
import dis
import itertools
import math
import os
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
from builders.text_encoders import HashEncoder

import muvera
from attack.processes import CONFIG, forked
from muvera import FDEEncoder, HNSWSettings, MultiVectors, MuveraIndex, TextIndex
from muvera.index import candidates, token_store

DIMENSION, DOCUMENTS = 8, 14
GRAPH = HNSWSettings(m=8, ef_construction=40, ef=40)

#: Settings of the indexes.  The last three begin to have vectors, codes and a scan
#: during a change.
SETTINGS: dict[str, dict[str, Any]] = {
    "all tokens": {"exact_tokens": 10**6},
    "exact": {"exact_tokens": 0, "backend": "exact"},
    "scan": {"exact_tokens": 0, "backend": "scan"},
    "hnsw": {"exact_tokens": 0, "backend": "hnsw", "hnsw": GRAPH},
    "exact 2bit": {"exact_tokens": 0, "backend": "exact", "tokens": "2bit"},
    "scan 4bit": {"exact_tokens": 0, "backend": "scan", "tokens": "4bit"},
    "hnsw int8 exact": {
        "exact_tokens": 0, "backend": "hnsw", "hnsw": GRAPH, "tokens": "int8", "keep_exact": True,
    },
    "hnsw first vectors": {"exact_tokens": 3 * DOCUMENTS + 4, "backend": "hnsw", "hnsw": GRAPH},
    "first codes": {"exact_tokens": 0, "backend": "exact", "tokens": "1bit"},
    "first scan": {"exact_tokens": 0},
}  # fmt: skip


def documents(ids: list[int], seed: int = 0) -> MultiVectors:
    """Return documents of three tokens; every seventh has none."""
    stream = np.random.default_rng([seed, *ids])
    arrays = [stream.standard_normal((0 if i % 7 == 6 else 3, DIMENSION)).astype(np.float32) for i in ids]
    return MultiVectors.from_arrays(arrays, ids=ids, dimension=DIMENSION)


QUERIES = documents([900, 901])


class VectorCase:
    """An index with unsaved changes, and calls that change or save it.

    It is an index of token vectors.
    """

    calls: ClassVar[dict[str, Callable[[Any, Path], object]]] = {
        "add": lambda index, _: index.add(documents([100, 101, 104]), threads=1),
        "update": lambda index, _: index.update(documents([2, 5, 200], 1), threads=1),
        "delete": lambda index, _: index.delete([3, 4]),
        "rebuild": lambda index, _: index.rebuild(threads=1),
        "rebuild path": lambda index, folder: index.rebuild(path=folder, threads=1),
        "save": lambda index, folder: index.save(folder),
        "save new": lambda index, folder: index.save(folder.with_name("new")),
        "save over": lambda index, folder: index.save(folder, overwrite=True),
    }
    #: True if changes are durable without a save.
    durable = False

    def __init__(self, settings: str, parent: Path) -> None:
        self.template, self._expected = parent / "template", dict[str, tuple[Any, Any, Any]]()
        self.build(**SETTINGS[settings])

    def build(self, **settings: Any) -> None:
        encoder, texts = FDEEncoder(CONFIG).fit(documents(list(range(50)))), documents(list(range(DOCUMENTS)))
        if settings.get("tokens") == "1bit":  # a build fits the codec, additions wait for enough tokens
            index = MuveraIndex(encoder, **settings)
            index.add(texts, threads=1)
            index.save(self.template)
        else:
            MuveraIndex.build(texts, encoder, path=self.template, threads=1, **settings)

    def load(self, folder: Path) -> Any:
        return MuveraIndex.load(folder, verify_files=True)

    def open(self, folder: Path) -> Any:
        return self.load(folder)

    def change(self, index: Any) -> None:
        index.update(documents([0]), threads=1)
        index.delete([1])

    def prepare(self, folder: Path) -> Any:
        shutil.copytree(self.template, folder)
        index = self.open(folder)
        self.change(index)
        return index

    def close(self, index: Any) -> None:
        pass

    def state(self, index: Any) -> Any:
        """Return all that can be read from an index; ids, tokens and answers."""
        ids = index.ids.tolist()
        tokens = [row.tolist() for row in index.tokens(ids)]
        answers = [list(row) for row in index.search(QUERIES, 3, candidates=7, threads=1)]
        some = [list(row) for row in index.search(QUERIES, 2, candidates=3, ids=ids[::2], threads=1)]
        return ids, tokens, answers, some, len(index), index.info().empty_documents

    def expected(self, call: str, work: Path) -> tuple[Any, Any, Any]:
        """Return the states before and after a call, and the folder's state before."""
        if call not in self._expected:
            index = self.prepare(work / "index")
            saved, before = self.state(self.load(work / "index")), self.state(index)
            self.calls[call](index, work / "index")
            self._expected[call] = before, self.state(index), saved
            self.close(index)
            shutil.rmtree(work)
        return self._expected[call]

    def check(self, call: str, index: Any, work: Path, copied: bool = False) -> None:
        """Require the state before or after a call, in memory and on disk.

        If it is the one before, repeat the call.
        """

        def stored(path: Path) -> Any:
            return self.state(self.load(path))

        before, after, saved = self.expected(call, work.with_name("expected"))
        state, place, new = self.state(index), work / "index", work / "new"
        assert state in (before, after), "the index is neither as before nor as after"
        correct = [state if self.durable else saved, *[after] * ("save" in call or "path" in call)]
        assert stored(place) in correct, "the folder is wrong"
        assert not new.exists() or stored(new) == after, "the new folder is wrong"
        if state == before:  # before and after are the same for saves
            self.calls[call](index, place)
            assert self.state(index) == after, "the second attempt fails"
        self.close(index)
        assert not self.durable or stored(place) == after, "the folder is wrong after it was closed"
        for path in [place] * (not self.durable) + [work / "copy"] * copied:
            index.save(path)
            assert stored(path) == self.state(index) == after, f"a later save to {path.name} is wrong"


class TextCase(VectorCase):
    calls: ClassVar[dict[str, Callable[[Any, Path], object]]] = {
        "add": lambda index, _: index.add(
            ["a new cat", "a new dog"], ids=[100, 101], metadata=[{"n": 9}, {}], threads=1
        ),
        "update": lambda index, _: index.update(["a red cat", "a hen"], ids=[2, 200], threads=1),
        **{name: VectorCase.calls[name] for name in ("delete", "save", "save new", "save over")},
        "save and rebuild path": lambda index, folder: (
            index.save(folder), index.index.rebuild(path=folder, threads=1)),
    }  # fmt: skip

    def build(self, **settings: Any) -> None:
        animals = ("cat", "dog", "hen", "owl", "fox", "cow", "")
        texts = [f"{animals[i % 7]} number{i}" if i % 7 < 6 else "" for i in range(DOCUMENTS)]
        settings |= {"vectors": CONFIG, "metadata": [{"n": i % 4} for i in range(DOCUMENTS)]}
        TextIndex.build(texts, HashEncoder(DIMENSION), path=self.template, threads=1, **settings)

    def load(self, folder: Path) -> Any:
        return TextIndex.load(folder, HashEncoder(DIMENSION))

    def change(self, index: Any) -> None:
        index.update(["cat number0"], ids=[0], threads=1)
        index.delete([1])

    def state(self, index: Any) -> Any:
        ids = index.index.ids.tolist()
        tokens = [row.tolist() for row in index.index.tokens(ids)]
        kept = sorted((each.id, each.text, sorted(each.metadata.items())) for each in index)
        hits = index.search("a red cat", 3, threads=1)
        return ids, tokens, kept, [(hit.id, hit.score, hit.text) for hit in hits], index.select({"n": 3})


def reopen(index: Any, folder: Path) -> None:
    index.close()
    TextIndex.open(folder, HashEncoder(DIMENSION)).close()


class DurableCase(TextCase):
    durable = True
    calls: ClassVar[dict[str, Callable[[Any, Path], object]]] = {
        **{name: TextCase.calls[name] for name in ("add", "update", "delete", "save", "save new")},
        "metadata": lambda index, _: index.update(ids=[2, 5], metadata=[{"n": 3}, {}]),
        "rebuild": lambda index, _: index.rebuild(threads=1),
        "close": lambda index, _: index.close(),
        "open": reopen,
    }

    def open(self, folder: Path) -> Any:
        return TextIndex.open(folder, HashEncoder(DIMENSION))

    def close(self, index: Any) -> None:
        index.close()


#: Kind of index and its settings.
CASES: dict[str, tuple[type[VectorCase], str]] = {
    **{name: (VectorCase, name) for name in SETTINGS},
    "texts exact": (TextCase, "exact"),
    "texts hnsw": (TextCase, "hnsw"),
    "durable exact": (DurableCase, "exact"),
}


def _made(name: str, parent: Path) -> VectorCase:
    return CASES[name][0](CASES[name][1], parent)


# -- interrupts -------------------------------------------------------------------

_ROOT = Path(muvera.__file__).parent
_TRACED = tuple(f"{_ROOT / folder}/" for folder in ("index", "mips", "texts", "utils"))


@cache
def _with_lines(path: str) -> frozenset[int]:
    """Return the lines of a file on which a ``with`` statement begins."""
    statements = [node for node in ast.walk(ast.parse(Path(path).read_text())) if isinstance(node, ast.With)]
    contexts = [item.context_expr for statement in statements for item in statement.items]
    return frozenset([node.lineno for node in statements] + [node.lineno for node in contexts])


def _leaves_with(frame: FrameType) -> bool:
    """Return True at the end of a ``with`` statement.

    Python delivers no signal between a block and its exit.
    """
    if frame.f_lineno not in _with_lines(frame.f_code.co_filename):
        return False
    return frame.f_lasti > min(start for start, _, line in frame.f_code.co_lines() if line == frame.f_lineno)


def _begins_try(frame: FrameType) -> bool:
    """Return True at the line ``try:``.

    It is an instruction without effect, at which Python delivers no signal.
    """
    return frame.f_code.co_code[frame.f_lasti] == dis.opmap["NOP"]


class Interrupt:
    """Count the lines of a call, or raise an error at one of them."""

    def __init__(self, line: int = -1, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.line, self.error, self.count, self.place = line, error, 0, ""

    def run(self, work: Callable[..., object], *arguments: object) -> None:
        before = sys.gettrace()
        sys.settrace(self._called)
        try:
            work(*arguments)
        except BaseException as error:
            if not self.place or isinstance(error, TimeoutError):
                raise
        finally:
            sys.settrace(before)

    def _called(self, frame: FrameType, event: str, _: Any) -> Any:
        traced = frame.f_code.co_filename.startswith(_TRACED) and frame.f_code.co_name != "__del__"
        return self._stepped if traced else None

    def _stepped(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and not _leaves_with(frame) and not _begins_try(frame):
            if self.count == self.line:
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise self.error
            self.count += 1
        return self._stepped


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in a block that runs longer, as if a lock stays held.

    A stopped process does not run.
    """
    ticks = itertools.count(1)

    def tick(*_: Any) -> None:
        if next(ticks) >= seconds:  # again and again: a clean-up may wait, too
            raise TimeoutError("a lock stays held")

    before = signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def small_limits() -> Iterator[None]:
    """Fit codecs and scan codes from few tokens and vectors on.

    Do not wait for the disk.
    """
    limits = (
        patch.object(token_store, "FIT_TOKENS", 40),
        patch.object(candidates, "SCAN_FROM", DOCUMENTS * CONFIG.vector_dimension),
    )
    with limits[0], limits[1], patch.object(os, "fsync"):
        yield


def interrupt(name: str, parent: Path, choose: Callable[[range], Iterable[int]]) -> list[str]:
    """Interrupt each call of a case at some of its lines.

    Return what is wrong afterwards.
    """
    case, work, faults = _made(name, parent), parent / "work", list[str]()
    with small_limits():
        for call in case.calls:
            counted, index = Interrupt(), case.prepare(work / "index")
            counted.run(case.calls[call], index, work / "index")
            case.close(index)
            for line in choose(range(counted.count)):
                shutil.rmtree(work, ignore_errors=True)
                interrupted = Interrupt(line, (KeyboardInterrupt, MemoryError)[line % 2])
                try:
                    case.expected(call, parent / "expected")
                    index = case.prepare(work / "index")
                    with deadline(20), warnings.catch_warnings():
                        interrupted.run(case.calls[call], index, work / "index")
                        case.check(call, index, work, copied=line % 5 == 0)
                except Exception as error:
                    faults.append(f"{call}, {interrupted.place}: {type(error).__name__}: {error}"[:500])
            shutil.rmtree(work, ignore_errors=True)
    return faults


def interrupt_some(name: str, count: int) -> tuple[int, list[str]]:
    """Interrupt the calls of a case at about `count` lines, spread over all of them.

    Return the number of interrupts, and the faults.
    """
    interrupts = 0
    of_a_call = math.ceil(count / len(CASES[name][0].calls))

    def choose(lines: range) -> range:
        nonlocal interrupts
        chosen = lines[:: max(1, len(lines) // of_a_call)]
        interrupts += len(chosen)
        return chosen

    with tempfile.TemporaryDirectory() as parent:
        faults = interrupt(name, Path(parent), choose)
    return interrupts, [f"{name}, {fault}" for fault in faults]


# -- kills ------------------------------------------------------------------------

#: Audit events of operations that change a disk; "open" is one if it may write.
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "os.chmod")


def _die_before(number: int) -> None:
    """Kill this process before its file operation of this number."""
    operations = itertools.count(1)

    def count(*_: Any) -> None:
        if next(operations) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            count()

    os.fsync = count  # type: ignore[assignment]  # what a killed process wrote is kept without it
    sys.addaudithook(hook)


def _killed(case: VectorCase, call: str, work: Path, number: int) -> bool:
    """Call in a child process that dies before its file operation of this number.

    Return False if it ended before.
    """

    def run() -> None:
        index = case.prepare(work / "index")
        _die_before(number)
        case.calls[call](index, work / "index")

    status = os.waitpid(forked(run), 0)[1]
    if status not in (0, signal.SIGKILL):
        raise RuntimeError(f"The call itself failed: its process ended with status {status}.")
    return status == signal.SIGKILL


def _files_after(case: VectorCase, call: str, work: Path) -> int:
    """Check what a call left, make it again, and return the number of files.

    Remove them.
    """
    after, new = case.expected(call, work.with_name("expected"))[1], work / "new"
    if new.exists():
        assert case.state(case.load(new)) == after, "the new folder is wrong"
        shutil.rmtree(new)  # only its writer may save there again
    index = case.open(work / "index")
    if not case.durable and case.state(index) != after:
        case.change(index)
    case.check(call, index, work)
    if case.durable:  # the next save removes the files of a killed one
        index = case.open(work / "index")
        index.update(["a last cat"], ids=[300], threads=1)
        index.save()
        index.close()
    files = sum(path.is_file() for path in work.rglob("*"))
    shutil.rmtree(work)
    return files


def kill_each(name: str, every: int) -> tuple[int, list[str]]:
    """Kill the calls of a case before each `every`-th file operation.

    Return the number of kills, and the faults.
    """
    kills, faults = 0, []
    with patch.object(os, "fsync"), tempfile.TemporaryDirectory() as parent:
        work, case = Path(parent, "work"), _made(name, Path(parent))
        for call in case.calls:
            _killed(case, call, work, 0)
            files, number = _files_after(case, call, work), 1
            while _killed(case, call, work, number):
                try:
                    left = _files_after(case, call, work)
                    assert left == files, f"{left} files instead of {files}"
                except Exception as error:
                    faults.append(f"{name}, {call}, operation {number}: {type(error).__name__}: {error}")
                    shutil.rmtree(work, ignore_errors=True)
                kills, number = kills + 1, number + every
            shutil.rmtree(work)
    return kills, faults
