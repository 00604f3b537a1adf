"""Damaged files and folders are read, or refused in one sentence.

There is no crash, no hang and no raw error.

``MUVERA_ATTACK=N`` tries N mutations of each sample instead of a few.  ``--basetemp``
in memory, such as a folder in /dev/shm, makes this several times faster: 1,250
mutations of each take about 6 minutes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.paths import environment

from attack.mutations import MARKER, mutate
from attack.samples import SAMPLES, make_sample

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits processes as Linux does")

MUTATIONS = int(os.environ.get("MUVERA_ATTACK", "25"))

#: Samples whose libraries in C, C++ or Rust can crash or hang on damage;
#: ``isolated=True`` limits that.
NATIVE = ("arrow_file", "arrow_stream", "hdf5", "lancedb", "parquet", "zarr")


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


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.close()


@pytest.mark.parametrize("name", SAMPLES)
def test_damage_is_read_or_refused_in_a_sentence(reader: Reader, tmp_path: Path, name: str) -> None:
    sample = make_sample(name, tmp_path)
    assert reader.read(sample) == ("read", "")
    counts, faults = Counter[str](), []
    for number in range(MUTATIONS):
        copy = tmp_path / f"case-{number}" / sample.name
        copy.parent.mkdir()
        (shutil.copytree if sample.is_dir() else shutil.copyfile)(sample, copy)
        damage = mutate(copy, name, number)
        kind, text = reader.read(copy)
        counts[kind] += 1
        if kind not in ("read", "refused") and not (name in NATIVE and kind in ("abort", "hang")):
            faults.append(f"{number}, {damage}: {kind}: {text[:200]}")
        shutil.rmtree(copy.parent)
    print(f"{name}: {dict(counts)}, {len(faults)} faults", *faults, sep="\n")
    assert not faults, "\n".join(faults)
    assert counts["refused"] > 0
