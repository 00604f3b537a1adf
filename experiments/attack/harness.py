"""Runs mutations in child processes with limits, and counts what happened to each reader."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .hostile import MARKER
from .mutations import mutate
from .samples import ROOT

__all__ = ["KINDS", "Attack", "Limits", "Tally", "table"]

#: What can happen to a damaged file; the first two are right.
KINDS = ("read", "refused", "raw", "nameless", "abort", "hang", "unsound")


@dataclass(frozen=True)
class Limits:
    """What a child process may take for one file."""

    #: Seconds of processor time, after which a file counts as a hang.
    processor_seconds: float = 10.0
    #: Seconds of the clock, for a child that waits.
    seconds: float = 120.0
    #: Bytes of address space; 0 for no limit.
    memory: int = 6 << 30


@dataclass
class Tally:
    """What happened to one sample's mutations."""

    counts: Counter[str] = field(default_factory=Counter)
    #: What went wrong: number of the mutation, kind, damage and message.
    faults: list[tuple[int, str, str, str]] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def total(self) -> int:
        """Mutations tried."""
        return sum(self.counts.values())


class Attack:
    """Damaged copies of the samples, read one after the other by a child process.

    Parameters
    ----------
    samples : dict of str to Path
        What :func:`~experiments.attack.samples.make_samples` made.
    limits : Limits
    isolated : bool
        Read with ``isolated=True``.
    """

    #: What starts a child; the bytes of address space that it may have follow.
    command: tuple[str, ...] = (sys.executable, "-m", "experiments.attack.worker")

    def __init__(
        self, samples: dict[str, Path], limits: Limits | None = None, isolated: bool = False
    ) -> None:
        self.samples = samples
        self.limits = Limits() if limits is None else limits
        self.isolated = isolated
        self._child: subprocess.Popen[str] | None = None

    def run(self, name: str, numbers: Iterable[int]) -> Iterator[tuple[int, str, str, str, float]]:
        """Yield (number, kind, damage, message, processor seconds) of each mutation of a sample."""
        sample = self.samples[name]
        with tempfile.TemporaryDirectory(prefix="attack-") as folder:
            for number in numbers:
                case = Path(folder) / f"case-{number}"
                copy = case / sample.name
                case.mkdir()
                (shutil.copytree if sample.is_dir() else shutil.copyfile)(sample, copy)
                damage = mutate(copy, name, number)
                kind, text, took = self._ask(copy, case)
                if (case / MARKER).exists():
                    kind, text = "unsound", f"A program was run. {text}"
                yield number, kind, damage, text, took
                shutil.rmtree(case, ignore_errors=True)

    def tally(self, name: str, numbers: Iterable[int]) -> Tally:
        """Return the counts of a sample's mutations."""
        found = Tally()
        for number, kind, damage, text, took in self.run(name, numbers):
            found.counts[kind] += 1
            found.slowest = max(found.slowest, took)
            if kind not in KINDS[:2]:
                found.faults.append((number, kind, damage, text))
        return found

    def close(self) -> None:
        """End the child process."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
                if stream is not None:
                    stream.close()
            self._child = None

    def _ask(self, path: Path, folder: Path) -> tuple[str, str, float]:
        """Have the child read a file, and return what happened and its processor seconds."""
        child = self._started()
        assert child.stdin is not None
        before, begun = _processor_seconds(child.pid), time.monotonic()
        child.stdin.write(
            json.dumps({"path": str(path), "folder": str(folder), "isolated": self.isolated}) + "\n"
        )
        child.stdin.flush()
        answer: dict[str, Any] | None = None
        while answer is None:
            if self._selector.select(0.5):
                assert child.stdout is not None
                line = child.stdout.readline()
                if not line:
                    child.wait()
                    code = child.returncode
                    self.close()
                    return "abort", f"the process ended with {code}", 0.0
                answer = json.loads(line)
            spent = _processor_seconds(child.pid) - before
            if answer is None and (
                spent > self.limits.processor_seconds or time.monotonic() - begun > self.limits.seconds
            ):
                self.close()
                return "hang", f"no answer after {spent:.0f} s of processor time", spent
        return answer["kind"], answer["text"], spent

    def _started(self) -> subprocess.Popen[str]:
        if self._child is None:
            environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            self._child = subprocess.Popen(
                [*self.command, str(self.limits.memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
                cwd=ROOT,
            )
            self._selector = selectors.DefaultSelector()
            assert self._child.stdout is not None
            self._selector.register(self._child.stdout, selectors.EVENT_READ)
        return self._child


def _processor_seconds(process: int) -> float:
    """Return the processor time of a process and of its children that ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def table(tallies: dict[str, Tally]) -> str:
    """Return a Markdown table, a row a sample and the sum."""
    heads = ("reader", "mutations", *KINDS)
    total = Tally()
    rows = []
    for name, tally in tallies.items():
        total.counts.update(tally.counts)
        rows.append((name, tally))
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, tally in [*rows, ("**all**", total)]:
        numbers = [tally.total, *(tally.counts[kind] for kind in KINDS)]
        lines.append(f"| {name} | " + " | ".join(f"{number:,}" for number in numbers) + " |")
    return "\n".join(lines)
