"""Changes and saves of tiny indexes that are interrupted at chosen lines, and the states that they leave.

``interrupts.py EVERY [CASE...]`` counts the faults of interrupts at every n-th line.
"""

import ast
import itertools
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
from muvera import FDEConfig, FDEEncoder, HNSWSettings, MultiVectors, MuveraIndex, TextIndex
from muvera.index import candidates, token_levels

DIMENSION, DOCUMENTS = 8, 14
CONFIG = FDEConfig(dimension=DIMENSION, num_repetitions=2, num_simhash_projections=2, projection_dimension=8)
GRAPH = HNSWSettings(m=8, ef_construction=40, ef=40)

#: Settings of the indexes.  The last three begin to have vectors, codes and a scan during a change.
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

_TRACED = tuple(
    str(Path(muvera.__file__).parent / folder) + "/" for folder in ("index", "mips", "texts", "utils")
)


@cache
def _with_lines(path: str) -> frozenset[int]:
    """Return the lines of a file on which a ``with`` statement begins."""
    statements = [node for node in ast.walk(ast.parse(Path(path).read_text())) if isinstance(node, ast.With)]
    lines = [statement.lineno for statement in statements]
    lines += [item.context_expr.lineno for statement in statements for item in statement.items]
    return frozenset(lines)


def _leaves_with(frame: FrameType) -> bool:
    """Return True at the end of a ``with`` statement: Python delivers no signal between a block and its exit."""
    if frame.f_lineno not in _with_lines(frame.f_code.co_filename):
        return False
    starts = [start for start, _, line in frame.f_code.co_lines() if line == frame.f_lineno]
    return frame.f_lasti > min(starts)


class Interrupt:
    """Count the lines of a call, or raise an error at one of them."""

    def __init__(self, line: int = -1, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.line, self.error, self.count, self.place = line, error, 0, ""

    def run(self, work: Callable[[], object]) -> None:
        sys.settrace(self._called)
        try:
            work()
        except BaseException as error:
            if not self.place or isinstance(error, TimeoutError):
                raise
        finally:
            sys.settrace(None)

    def _called(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        traced = code.co_filename.startswith(_TRACED) and code.co_name != "__del__"
        return self._stepped if traced else None

    def _stepped(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line" and not _leaves_with(frame):
            if self.count == self.line:
                self.place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise self.error
            self.count += 1
        return self._stepped


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in a block that runs longer, as if a lock stays held; a stopped process does not run."""
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


def documents(ids: list[int], seed: int = 0) -> MultiVectors:
    """Return documents of three tokens; every seventh has none."""
    stream = np.random.default_rng([seed, *ids])
    arrays = [stream.standard_normal((0 if i % 7 == 6 else 3, DIMENSION)).astype(np.float32) for i in ids]
    return MultiVectors.from_arrays(arrays, ids=ids, dimension=DIMENSION)


QUERIES = documents([900, 901])


@contextmanager
def small_limits() -> Iterator[None]:
    """Fit codecs and scan codes from few tokens and vectors on, and do not wait for the disk."""
    with (
        patch.object(token_levels, "FIT_TOKENS", 40),
        patch.object(candidates, "SCAN_FROM", DOCUMENTS),
        patch.object(os, "fsync"),
    ):
        yield


class VectorCase:
    """An index of token vectors with unsaved changes, and calls that change or save it."""

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

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self.template, self.expected = folder, dict[str, tuple[Any, Any, Any]]()
        self.build({"path": folder, "threads": 1, **settings})

    def build(self, settings: dict[str, Any]) -> None:
        encoder = FDEEncoder(CONFIG).fit(documents(list(range(50))))
        if settings.get("tokens") == "1bit":  # a build fits the codec, additions wait for enough tokens
            folder, threads = settings.pop("path"), settings.pop("threads")
            index = MuveraIndex(encoder, **settings)
            index.add(documents(list(range(DOCUMENTS))), threads=threads)
            index.save(folder)
        else:
            MuveraIndex.build(documents(list(range(DOCUMENTS))), encoder, **settings)

    def load(self, folder: Path) -> Any:
        return MuveraIndex.load(folder, verify_files=True)

    def open(self, folder: Path) -> Any:
        """Return the index in `folder` for changes."""
        return self.load(folder)

    def change(self, index: Any) -> None:
        """Make the changes that are not saved."""
        index.update(documents([0]), threads=1)
        index.delete([1])

    def prepare(self, folder: Path) -> Any:
        """Return a fresh index in `folder`, with changes."""
        shutil.copytree(self.template, folder)
        index = self.open(folder)
        self.change(index)
        return index

    def close(self, index: Any) -> None:
        """Release the folder of an index."""

    def state(self, index: Any) -> Any:
        """Return all that can be read from an index; ids, tokens and answers."""
        ids = index.ids.tolist()
        tokens = [row.tolist() for row in index.tokens(ids)]
        answers = [list(row) for row in index.search(QUERIES, 3, candidates=7, threads=1)]
        some = [list(row) for row in index.search(QUERIES, 2, candidates=3, ids=ids[::2], threads=1)]
        return ids, tokens, answers, some, len(index), index.info().empty_documents


class TextCase(VectorCase):
    """An index of texts."""

    calls: ClassVar[dict[str, Callable[[Any, Path], object]]] = {
        "add": lambda index, _: index.add(
            ["a new cat", "a new dog"], ids=[100, 101], metadata=[{"n": 9}, {}], threads=1
        ),
        "update": lambda index, _: index.update(["a red cat", "a hen"], ids=[2, 200], threads=1),
        **{name: VectorCase.calls[name] for name in ("delete", "save", "save new", "save over")},
        "save and rebuild path": lambda index, folder: (
            index.save(folder),
            index.index.rebuild(path=folder, threads=1),
        ),
    }

    def build(self, settings: dict[str, Any]) -> None:
        animals = ("cat", "dog", "hen", "owl", "fox", "cow", "")
        texts = [f"{animals[i % 7]} number{i}" if i % 7 < 6 else "" for i in range(DOCUMENTS)]
        metadata = [{"n": i % 4} for i in range(DOCUMENTS)]
        TextIndex.build(texts, HashEncoder(DIMENSION), vectors=CONFIG, metadata=metadata, **settings)

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
    """Close the index, open it again and close it."""
    index.close()
    TextIndex.open(folder, HashEncoder(DIMENSION)).close()


class DurableCase(TextCase):
    """An index of texts with a journal."""

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


def lines_of(case: VectorCase, call: str, folder: Path) -> int:
    """Return the number of lines at which a call can be interrupted."""
    counted = Interrupt()
    index = case.prepare(folder / "index")
    with small_limits():
        counted.run(lambda: case.calls[call](index, folder / "index"))
    case.close(index)
    shutil.rmtree(folder)
    return counted.count


def fault_after(case: VectorCase, call: str, line: int, folder: Path) -> str | None:
    """Interrupt a call at one line; return what is wrong afterwards, if anything."""
    interrupt = Interrupt(line, (KeyboardInterrupt, MemoryError)[line % 2])
    with small_limits():
        try:
            expected = expected_states(case, call, folder / "expected")
            index = case.prepare(folder / "index")
            with deadline(20), warnings.catch_warnings():
                interrupt.run(lambda: case.calls[call](index, folder / "index"))
                check(case, call, index, folder, expected, copied=line % 5 == 0)
        except Exception as error:
            return f"{call} interrupted at {interrupt.place}: {type(error).__name__}: {error}"[:500]
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return None


def expected_states(case: VectorCase, call: str, folder: Path) -> tuple[Any, Any, Any]:
    """Return the states before and after a call, and the state of the folder before."""
    if call not in case.expected:
        index = case.prepare(folder / "index")
        saved, before = case.state(case.load(folder / "index")), case.state(index)
        case.calls[call](index, folder / "index")
        case.expected[call] = before, case.state(index), saved
        case.close(index)
        shutil.rmtree(folder)
    return case.expected[call]


def check(
    case: VectorCase,
    call: str,
    index: Any,
    folder: Path,
    expected: tuple[Any, Any, Any],
    copied: bool = False,
) -> None:
    """Require the state before or after a call, in memory and on disk; if it is the one before, make the call again."""

    def stored(path: Path) -> Any:
        return case.state(case.load(path))

    before, after, saved = expected
    state, place, new = case.state(index), folder / "index", folder / "new"
    assert state in (before, after), "the index is neither as before nor as after"
    correct = (state,) if case.durable else (saved, after) if "save" in call or "path" in call else (saved,)
    assert stored(place) in correct, "the folder is wrong"
    assert not new.exists() or stored(new) == after, "the new folder is wrong"
    if state == before:  # before and after are the same for saves
        case.calls[call](index, place)
        assert case.state(index) == after, "the second attempt fails"
    case.close(index)
    assert not case.durable or stored(place) == after, "the folder is wrong after it was closed"
    for path in [place] * (not case.durable) + [folder / "copy"] * copied:
        index.save(path)
        assert stored(path) == case.state(index) == after, f"a later save to {path.name} is wrong"


def faults_of(
    name: str, folder: Path, choose: Callable[[range], Iterable[int]]
) -> Iterator[tuple[str, list[str | None]]]:
    """Interrupt each call at some of its lines; yield the call and what is wrong after each interrupt."""
    kind, settings = CASES[name]
    case = kind(SETTINGS[settings], folder / "template")
    for call in case.calls:
        lines = choose(range(lines_of(case, call, folder / "count")))
        yield call, [fault_after(case, call, line, folder / "work") for line in lines]


def main(every: int, names: list[str]) -> None:
    """Interrupt at every n-th line; print the number of interrupted calls, and the faults."""
    for name in names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            for call, found in faults_of(name, Path(folder), lambda lines: lines[::every]):
                faults = [fault for fault in found if fault is not None]
                print(
                    f"{name}, {call}: {len(found)} interrupted calls, {len(faults)} faults", *faults, sep="\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
