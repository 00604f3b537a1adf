"""Kill a process before every file operation of a call: the folder must hold the complete state before or after it.

A script: ``kills.py EVERY [CASE...]`` kills before each EVERY-th operation of the calls of interrupts.py.
"""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from attack.interrupts import CASES, SETTINGS, VectorCase, check, expected_states
from attack.processes import forked

#: Audit events of operations that change a disk; "open" is one if it may write.
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate", "os.chmod")

#: One case for each kind of index; the graph has files of its own.
NAMES = ("hnsw", "texts exact", "durable exact")


def die_before(number: int) -> None:
    """Kill this process before its file operation of this number."""
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


def killed(case: VectorCase, call: str, folder: Path, number: int) -> bool:
    """Call in a child process that dies before its file operation of this number; return False if it ended before."""

    def work() -> None:
        index = case.prepare(folder / "index")
        die_before(number)
        case.calls[call](index, folder / "index")

    status = os.waitpid(forked(work), 0)[1]
    if status not in (0, signal.SIGKILL):
        raise RuntimeError(f"The call itself failed: its process ended with status {status}.")
    return status == signal.SIGKILL


def files_after(case: VectorCase, call: str, folder: Path) -> int:
    """Check what a call left, make it again, and return the number of files."""
    expected = expected_states(case, call, folder.with_name("expected"))
    new = folder / "new"
    if new.exists():
        assert case.state(case.load(new)) == expected[1], "the new folder is wrong"
        shutil.rmtree(new)  # only its writer may save there again
    index = case.open(folder / "index")
    if not case.durable and case.state(index) != expected[1]:
        case.change(index)
    check(case, call, index, folder, expected)
    if case.durable:  # the next save removes the files of a killed one
        index = case.open(folder / "index")
        index.update(["a last cat"], ids=[300], threads=1)
        index.save()
        index.close()
    return sum(path.is_file() for path in folder.rglob("*"))


def attack(name: str, every: int) -> tuple[int, list[str]]:
    """Return the number of kills, and the faults."""
    kind, settings = CASES[name]
    kills, faults = 0, []
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "work")
        case = kind(SETTINGS[settings], Path(parent, "template"))
        for call in case.calls:
            killed(case, call, folder, 0)
            files = files_after(case, call, folder)
            shutil.rmtree(folder)
            number = 1
            while killed(case, call, folder, number):
                try:
                    left = files_after(case, call, folder)
                    assert left == files, f"{left} files instead of {files}"
                except Exception as error:
                    faults.append(f"{name}, {call}, operation {number}: {type(error).__name__}: {error}")
                shutil.rmtree(folder)
                kills, number = kills + 1, number + every
            shutil.rmtree(folder)
    return kills, faults


if __name__ == "__main__":
    for name in sys.argv[2:] or NAMES:
        kills, faults = attack(name, int(sys.argv[1]))
        print(f"{name}: {kills} kills, {len(faults)} faults", *faults, sep="\n", flush=True)
