"""Kills a process at every file operation of a save, and looks at what it left."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from muvera import FDEConfig, MultiVectors, MuveraIndex
from muvera.convert import convert

__all__ = ["OPERATIONS", "Kills", "kill_at_every_file_operation", "kills_table"]

#: Events of Python's audit hooks that change a disk; "open" is one where it may write.
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "os.chmod")

_RNG = np.random.default_rng(0)
_CONFIG = FDEConfig(dimension=8, num_repetitions=4, num_simhash_projections=2, projection_dimension=8)
_OLD = MultiVectors.from_arrays([_RNG.normal(size=(3, 8)).astype(np.float32) for _ in range(40)])
_NEW = MultiVectors.from_arrays([_RNG.normal(size=(3, 8)).astype(np.float32) for _ in range(50)])


@dataclass
class Kills:
    """What came of killing one operation.

    Parameters
    ----------
    points : int
        File operations, before each of which a process was killed.
    old, new, none : int
        What was there afterwards: what had been there, what was being written, nothing.
    most_files : int
        Files that a kill left beside what is there.
    faults : list of str
        States that must not be.
    """

    points: int = 0
    old: int = 0
    new: int = 0
    none: int = 0
    most_files: int = 0
    faults: list[str] = field(default_factory=list)


def _build(documents: MultiVectors, target: Path, overwrite: bool = False) -> None:
    how: dict[str, Any] = {"exact_tokens": 0, "backend": "hnsw", "threads": 1}
    MuveraIndex.build(documents, _CONFIG, path=target, overwrite=overwrite, **how)


def _save(target: Path) -> None:
    index = MuveraIndex.load(target)
    index.add(_NEW[len(_OLD) :], threads=1)
    index.save(target)


def _documents_of(target: Path) -> int:
    """Return how many documents are there, 0 where nothing is."""
    try:
        if (target / "manifest.json").exists():
            index = MuveraIndex.load(target, verify_files=True)
            index.search(_OLD[:3], 3, threads=1)
            return len(index)
        return len(MultiVectors.load(target))
    except FileNotFoundError:
        return 0


@dataclass(frozen=True)
class _Operation:
    #: What is there before, if anything, and what is killed.
    before: Callable[[Path], object] | None
    run: Callable[[Path], object]
    #: Whether there may be nothing afterwards.
    may_be_none: bool = False


#: What is killed, by name.
OPERATIONS = {
    "save of an index": _Operation(lambda target: _build(_OLD, target), _save),
    "first build": _Operation(None, lambda target: _build(_NEW, target), may_be_none=True),
    "build with overwrite": _Operation(
        lambda target: _build(_OLD, target), lambda target: _build(_NEW, target, overwrite=True)
    ),
    "save of token vectors": _Operation(
        lambda target: _OLD.save(target), lambda target: _NEW.save(target, overwrite=True)
    ),
    "convert with overwrite": _Operation(
        lambda target: convert(_OLD, target, "npy"),
        lambda target: convert(_NEW, target, "npy", overwrite=True),
    ),
}


def kill_at_every_file_operation(name: str, every: int = 1) -> Kills:
    """Run an operation again and again, killed before its first file operation, its second, and so on.

    After each kill there must be the old content or the new one, whole; and after the operation has been
    repeated, nothing else.

    Parameters
    ----------
    name : str
        Of :data:`OPERATIONS`.
    every : int
        Kill at every so many file operations only.
    """
    operation, found = OPERATIONS[name], Kills()
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template"
        template.mkdir()
        if operation.before is not None:
            operation.before(template / "target")
        number = 1
        while True:
            place = Path(folder) / f"kill-{number}"
            shutil.copytree(template, place)
            killed = _killed(operation, place / "target", number)
            if not killed:
                return found
            found.points += 1
            try:
                _look(operation, place / "target", found)
            except Exception as error:
                found.faults.append(f"{name}, killed at {number}: {type(error).__name__}: {error}")
            shutil.rmtree(place)
            number += every


def _look(operation: _Operation, target: Path, found: Kills) -> None:
    """Count what is there after a kill, repeat the operation, and raise where something is wrong."""
    before = set(_files(target.parent))
    count = _documents_of(target)
    kinds = {len(_OLD): "old", len(_NEW): "new", 0: "none"}
    if count not in kinds or (count == 0 and not operation.may_be_none):
        raise ValueError(f"There are {count} documents.")
    setattr(found, kinds[count], getattr(found, kinds[count]) + 1)
    if count == len(_NEW) and operation.run is _save:
        MuveraIndex.load(target).save(target)
    elif operation.before is None and count:
        _build(_NEW, target, overwrite=True)
    else:
        operation.run(target)
    if _documents_of(target) != len(_NEW):
        raise ValueError(f"There are {_documents_of(target)} documents after the next try.")
    after = set(_files(target.parent))
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "target"
        if operation.before is not None:
            operation.before(clean)
        operation.run(clean)
        wanted = len(_files(clean.parent))
    if len(after) != wanted:
        raise ValueError(f"There are {len(after)} files after the next try, of which {wanted} belong there.")
    found.most_files = max(found.most_files, len(before) - wanted)


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _killed(operation: _Operation, target: Path, number: int) -> bool:
    """Run an operation in a child process that dies before its file operation of this number."""
    child = os.fork()
    if child == 0:  # nothing of the parent's may run here
        try:
            _die_at(number)
            operation.run(target)
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if status != 0:
        raise RuntimeError(f"The operation itself failed: its process ended with status {status}.")
    return False


def _die_at(number: int) -> None:
    left = number

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            count()

    sync = os.fsync

    def counted(descriptor: Any) -> None:
        count()
        sync(descriptor)

    os.fsync = counted  # type: ignore[assignment]
    sys.addaudithook(hook)


def kills_table(found: dict[str, Kills]) -> str:
    """Return a Markdown table, a row an operation."""
    heads = (
        "killed",
        "file operations",
        "old content",
        "new content",
        "nothing yet",
        "most files left",
        "faults",
    )
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, each in found.items():
        numbers = (each.points, each.old, each.new, each.none, each.most_files, len(each.faults))
        lines.append(f"| {name} | " + " | ".join(map(str, numbers)) + " |")
    return "\n".join(lines)
