"""Kill a process before every file operation of a save: the folder must hold the complete old or new content.

A script: ``kills.py EVERY`` kills before each EVERY-th operation.
"""

import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from builders.text_encoders import HashEncoder

from attack.processes import forked
from muvera import FDEConfig, MultiVectors, MuveraIndex, TextIndex
from muvera.convert import convert

#: Audit events of operations that change a disk; "open" is one if it may write.
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "os.chmod")

RNG = np.random.default_rng(0)
CONFIG = FDEConfig(dimension=8, num_repetitions=4, num_simhash_projections=2, projection_dimension=8)
NEW = MultiVectors.from_arrays([RNG.normal(size=(3, 8)).astype(np.float32) for _ in range(50)])
OLD = NEW[:40]
WORDS = [f"text {i}" for i in range(50)]


def build(documents: MultiVectors, target: Path) -> None:
    settings: dict[str, Any] = {"exact_tokens": 0, "backend": "hnsw", "threads": 1}
    MuveraIndex.build(documents, CONFIG, path=target, overwrite=True, **settings)


def add_and_save(target: Path) -> None:
    index = MuveraIndex.load(target)
    if len(index) == len(OLD):
        index.add(NEW[len(OLD) :], threads=1)
    index.save(target)


def build_texts(count: int, target: Path) -> None:
    TextIndex.build(WORDS[:count], HashEncoder(), path=target, overwrite=True, threads=1)


def add_texts_and_save(target: Path) -> None:
    texts = TextIndex.load(target, HashEncoder())
    if len(texts) == len(OLD):
        texts.add(WORDS[len(OLD) :])
    texts.save(target)


class Operation(NamedTuple):
    """An operation to kill and then repeat, and the content written before it."""

    before: Callable[[Path], object] | None
    run: Callable[[Path], object]


OPERATIONS = {
    "save an index": Operation(lambda target: build(OLD, target), add_and_save),
    "build an index": Operation(None, lambda target: build(NEW, target)),
    "replace an index": Operation(lambda target: build(OLD, target), lambda target: build(NEW, target)),
    "save texts": Operation(lambda target: build_texts(40, target), add_texts_and_save),
    "save token vectors": Operation(OLD.save, lambda target: NEW.save(target, overwrite=True)),
    "convert": Operation(
        lambda target: convert(OLD, target, "npy"), lambda target: convert(NEW, target, "npy", overwrite=True)
    ),
}


def count_documents(target: Path) -> int:
    """Load the folder, use it and return the number of documents; 0 if the folder does not exist."""
    if not target.exists():
        return 0
    if list(target.rglob("texts.sqlite")):
        texts = TextIndex.load(target, HashEncoder())
        texts.search("text 7", k=3)
        return len(texts)
    if (target / "manifest.json").exists():
        index = MuveraIndex.load(target, verify_files=True)
        index.search(OLD[:3], 3, threads=1)
        return len(index)
    return len(MultiVectors.load(target))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def attack(name: str, every: int) -> tuple[Counter[int], list[str]]:
    """Return how often each number of documents was left after a kill, and the faults."""
    operation, left = OPERATIONS[name], Counter[int]()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        template, clean = Path(folder, "template"), Path(folder, "clean")
        template.mkdir()
        if operation.before is not None:
            operation.before(template / "target")
        shutil.copytree(template, clean)
        operation.run(clean / "target")
        number = 1
        while True:
            place = Path(folder, "killed")
            shutil.copytree(template, place)
            if not killed(operation, place / "target", number):
                return left, faults
            try:
                count = count_documents(place / "target")
                left[count] += 1
                assert count in (len(NEW), 0 if operation.before is None else len(OLD)), f"{count} documents"
                operation.run(place / "target")
                assert count_documents(place / "target") == len(NEW), "the next try failed"
                assert len(files(place)) == len(files(clean)), "the next try left files of the killed one"
            except Exception as error:
                faults.append(f"{name}, killed before operation {number}: {type(error).__name__}: {error}")
            shutil.rmtree(place)
            number += every


def killed(operation: Operation, target: Path, number: int) -> bool:
    """Run an operation in a child process that dies before its file operation of this number."""

    def work() -> None:
        die_before(number)
        operation.run(target)

    status = os.waitpid(forked(work), 0)[1]
    if status not in (0, signal.SIGKILL):
        raise RuntimeError(f"The operation itself failed: its process ended with status {status}.")
    return status == signal.SIGKILL


def die_before(number: int) -> None:
    operations, sync = 0, os.fsync

    def count() -> None:
        nonlocal operations
        operations += 1
        if operations == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
            count()

    def counted(descriptor: Any) -> None:
        count()
        sync(descriptor)

    os.fsync = counted  # type: ignore[assignment]
    sys.addaudithook(hook)


if __name__ == "__main__":
    for name in OPERATIONS:
        left, faults = attack(name, int(sys.argv[1]))
        print(f"{name}: {dict(left)}", *faults, sep="\n", flush=True)
