"""Damage samples, and read them in a child process."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from builders.paths import environment

from attack.mutations import MARKER, mutate
from attack.samples import make_sample

#: Samples whose libraries in C, C++ or Rust can crash or hang on damage;
#: ``isolated=True`` limits that.
NATIVE = ("arrow_file", "arrow_stream", "duckdb", "hdf5", "lancedb", "parquet", "zarr")

#: A folder in memory, where it exists: reading from it is several times faster.
MEMORY = Path("/dev/shm")


class Reader:
    """The child process that reads samples; a new one starts after each death."""

    process: subprocess.Popen[str] | None = None

    def read(self, path: Path) -> tuple[str, str]:
        if self.process is None:
            pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            command = [sys.executable, str(Path(__file__).with_name("child.py"))]
            self.process = subprocess.Popen(command, text=True, env=environment(OMP_NUM_THREADS="1"), **pipes)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(str(path)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.close()
            kind = "hang" if -code in (signal.SIGXCPU, signal.SIGALRM) else "abort"
            return kind, f"the process ended with {code}"
        outcome: tuple[str, str] = tuple(json.loads(line))
        return ("unsound", "a program was run") if (path.parent / MARKER).exists() else outcome

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def damage(reader: Reader, folder: Path, name: str, count: int) -> tuple[dict[str, int], list[str]]:
    """Read a sample with `count` damages, one at a time.

    Return the number of each outcome, and the faults.
    """
    sample = make_sample(name, folder)
    assert reader.read(sample) == ("read", "")
    counts, faults = Counter[str](), []
    for number in range(count):
        copy = folder / f"case-{number}" / sample.name
        copy.parent.mkdir()
        (shutil.copytree if sample.is_dir() else shutil.copyfile)(sample, copy)
        text = mutate(copy, name, number)
        kind, message = reader.read(copy)
        counts[kind] += 1
        if kind not in ("read", "refused") and not (name in NATIVE and kind in ("abort", "hang")):
            faults.append(f"{name} {number}, {text}: {kind}: {message[:200]}")
        shutil.rmtree(copy.parent)
    return dict(counts), faults


def damage_alone(name: str, count: int) -> tuple[dict[str, int], list[str]]:
    """Damage a sample in a temporary folder; do nothing without its library."""
    reader = Reader()
    try:
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
            return damage(reader, Path(folder), name, count)
    except pytest.skip.Exception as skipped:
        return {f"skipped ({skipped})": 1}, []
    finally:
        reader.close()
