"""Speed compared with peers: every job runs once per round, so that all run under the same conditions.

A line of the table compares two jobs by the ratio of their rates in each round.  The ratio of processor times
depends less on other users of the machine.  The command does not fail for slow results.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from ..datasets.discovery import CACHE
from ..peers.environments import MUVERA, PEERS, WORKERS, Library, Worker, process_environment, save_texts
from ..peers.workers.muvera_jobs import MANY
from ..report.table import Column, Table, number
from .plumbing import Cache, Rounds, Save, finish, interleaved, measured_on, progress

__all__ = ["LINES", "Job", "Line", "Sizes", "compare", "first_calls", "run", "speed", "write_inputs"]

_DIMENSION, _QUERY_TOKENS, _EQUAL_TOKENS = 128, 32, 150

# Largest difference between the peers' scores and muvera's.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Sizes:
    """Documents of 80 to 220 tokens to encode, and documents of 150 tokens to score."""

    documents: int = 200
    equal_documents: int = 1000


@dataclass(frozen=True)
class Job:
    """One operation of one library; a round's result is the median of `repeat` calls."""

    library: Library
    operation: str
    repeat: int = 1

    @property
    def name(self) -> str:
        """Library and operation."""
        return f"{self.library.name} {self.operation}"


@dataclass(frozen=True)
class Line:
    """A comparison; the jobs of a group are interleaved, and each round uses the fastest of `others`.

    `unit` is the unit of the rates, work per second; with "ms" the time of a call.  `slower`: the ratio is that of
    times, muvera's over the other.  `threads` are muvera's; with several the processor time is not compared.
    """

    group: str
    name: str
    muvera: Job
    others: tuple[Job, ...]
    unit: str
    target: str = ""
    slower: bool = False
    threads: int = 1


def _muvera(operation: str, repeat: int = 3) -> Job:
    return Job(MUVERA, operation, repeat)


def _peer(name: str, operation: str, repeat: int = 1) -> tuple[Job]:
    return (Job(PEERS[name], operation, repeat),)


_DOCS = "documents/s"
_SGEMM = tuple(_muvera(f"sgemm_{size}") for size in (512, 1024, 2048))

#: The table's lines, in order.
LINES = [
    Line("documents", "encode_documents / muvera-python, batches",
         _muvera("documents_batch"), _peer("muvera-python", "documents_batch"), _DOCS, "10x"),
    Line("documents", "encode_documents, lists of arrays / muvera-python, batches",
         _muvera("documents_list"), _peer("muvera-python", "documents_batch"), _DOCS),
    Line("documents", "encode_documents / muvera-python, one by one",
         _muvera("documents_single"), _peer("muvera-python", "documents_single"), _DOCS),
    Line("documents", "encode_documents / muvfde",
         _muvera("documents_batch"), _peer("muvfde", "documents_single"), _DOCS, "30x"),
    Line("documents", "encode_documents, one by one / muvfde",
         _muvera("documents_single"), _peer("muvfde", "documents_single"), _DOCS),
    Line("documents", "encode_documents / fastembed",
         _muvera("documents_batch"), _peer("fastembed", "documents_single"), _DOCS),
    Line("documents", "encode_documents, two threads / one",
         _muvera("documents_many_2"), (_muvera("documents_many"),), _DOCS, "1.8x", threads=2),
    Line("query", "encode_queries, one query / muvera-python",
         _muvera("query", 100), _peer("muvera-python", "query", 100), "ms", "3x"),
    Line("query", "encode_queries, one query / muvfde",
         _muvera("query", 100), _peer("muvfde", "query", 30), "ms"),
    Line("query", "encode_queries, one query / fastembed",
         _muvera("query", 100), _peer("fastembed", "query", 10), "ms"),
    Line("chamfer", "Chamfer, one query / maxsim-cpu",
         _muvera("chamfer"), _peer("maxsim-cpu", "chamfer", 3), "ms", "2.3x"),
    Line("chamfer", "Chamfer, one query / maxsim-cpu, list of arrays",
         _muvera("chamfer"), _peer("maxsim-cpu", "chamfer_ragged", 3), "ms"),
    Line("chamfer", "Chamfer, one query / BLAS peak", _muvera("chamfer"), _SGEMM, "GFLOP/s", ".65x"),
    Line("chamfer", "Chamfer, one query, documents in random order / BLAS peak",
         _muvera("chamfer_at_random"), _SGEMM, "GFLOP/s", ".85x"),
    Line("decode", "PLAID decode of 1 M tokens / filling the array",
         _muvera("decode", 1), (_muvera("fill", 1),), "ms", "at most 4x the time", slower=True),
]  # fmt: skip


def write_inputs(folder: Path, sizes: Sizes) -> None:
    """Write the workers' inputs: seeded texts of unit vectors."""
    stream = np.random.default_rng(0)

    def unit(count: int) -> NDArray[np.float32]:
        rows = stream.normal(size=(count, _DIMENSION)).astype(np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    lengths = stream.integers(80, 221, sizes.documents)
    save_texts(folder, "documents", [unit(int(length)) for length in lengths])
    np.save(folder / "query.npy", unit(_QUERY_TOKENS))
    equal = unit(sizes.equal_documents * _EQUAL_TOKENS)
    np.save(folder / "equal_documents.npy", equal.reshape(-1, _EQUAL_TOKENS, _DIMENSION))


def run(lines: Iterable[Line], folder: Path, sizes: Sizes, rounds: int, cache: Path) -> list[Table]:
    """Time all jobs of `lines` with the inputs in `folder`: a table of lines, and one of comparisons before timing."""
    lines, on = list(lines), measured_on()
    jobs = {job.name: job for line in lines for job in (line.muvera, *line.others)}
    compared: list[dict[str, Any]] = []
    shares: list[float] = []
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for library in {job.library.name: job.library for job in jobs.values()}.values():
            progress(f"environment of {library.name}")
            workers[library.name] = stack.enter_context(Worker(library, folder, cache))

        def call(job: Job) -> Callable[[], NDArray[np.float64]]:
            worker = workers[job.library.name]
            return lambda: np.median(worker.time(job.operation, job.repeat), axis=1)

        checks = _check(jobs, workers, folder)
        for group in dict.fromkeys(line.group for line in lines):
            own = [line for line in lines if line.group == group]
            names = dict.fromkeys(job.name for line in own for job in (line.muvera, *line.others))
            progress(f"{rounds} rounds of {', '.join(names)}")
            seconds = interleaved({name: call(jobs[name]) for name in names}, rounds)
            compared += [compare(line, seconds, sizes) for line in own]
            several = {line.muvera.name for line in own if line.threads > 1}
            for name, (clock, processor) in seconds.items():
                shares += [] if name in several else list(processor / clock)

    def times(key: str) -> Callable[[dict[str, Any]], str | None]:
        return lambda row: row[key] and f"{number(row[key])}x"

    columns = [
        *(Column("muvera / other", "name"), Column("muvera"), Column("other"), Column("unit")),
        Column("ratio", times("ratio")),
        Column("min - max", lambda row: f"{number(row['least'])} - {number(row['greatest'])}"),
        *(Column("processor time", times("processor_ratio")), Column("target")),
    ]
    caption = (
        f"Median of {rounds} interleaved rounds, one thread each unless stated otherwise. Jobs ran on a processor "
        f'{np.median(shares or [0]):.0%} of the time. "processor time" is the ratio of processor times. {on}'
    )
    return [
        Table.of("Operations", columns, compared, caption),
        Table(
            "Checked before timing",
            ["check", "value"],
            [[name, f"{gap:.3g}"] for name, gap in checks.items()],
        ),
    ]


def _work(job: Job, sizes: Sizes, unit: str) -> float:
    """Return the work of one call in `unit`, without "/s"."""
    if unit == _DOCS:
        return sizes.documents * (MANY if job.operation.startswith("documents_many") else 1)
    if unit == "GFLOP/s":
        if job.operation.startswith("sgemm_"):
            return 2e-9 * int(job.operation.removeprefix("sgemm_")) ** 3
        return 2e-9 * _QUERY_TOKENS * sizes.equal_documents * _EQUAL_TOKENS * _DIMENSION
    return 1.0


def compare(line: Line, seconds: dict[str, NDArray[np.float64]], sizes: Sizes) -> dict[str, Any]:
    """Return the rates and ratios of a line from the wall and processor seconds of its jobs."""

    def rates(job: Job) -> NDArray[np.float64]:
        return _work(job, sizes, line.unit) / seconds[job.name]

    own = rates(line.muvera)
    other = np.max([rates(job) for job in line.others], axis=0)
    ratios, by_processor = other / own if line.slower else own / other
    shown = [1e3 / rate[0] if line.unit == "ms" else rate[0] for rate in (own, other)]
    return {
        "group": line.group,
        "name": line.name,
        "unit": line.unit,
        "muvera": float(np.median(shown[0])),
        "other": float(np.median(shown[1])),
        "ratio": float(np.median(ratios)),
        "least": float(ratios.min()),
        "greatest": float(ratios.max()),
        "processor_ratio": None if line.threads > 1 else float(np.median(by_processor)),
        "target": line.target,
    }


def _check(jobs: dict[str, Job], workers: dict[str, Worker], folder: Path) -> dict[str, Any]:
    """Compare scores with maxsim-cpu's before anything is timed."""
    checks: dict[str, Any] = {}
    if "maxsim-cpu chamfer" in jobs:
        own = workers[MUVERA.name].result("chamfer", folder)
        for operation in ("chamfer", "chamfer_ragged"):
            gap = float(np.abs(own - workers["maxsim-cpu"].result(operation, folder)).max())
            if not gap <= _TOLERANCE:
                raise ValueError(
                    f"maxsim-cpu's {operation} differs by {gap:.2g} from muvera's scores, but at most "
                    f"{_TOLERANCE} is allowed."
                )
            checks[f"greatest difference of scores, {operation}"] = gap
    return checks


def first_calls(repeat: int = 3) -> Table:
    """Return the seconds of the import and of first calls in new processes, with and without the disk cache.

    Seconds are medians of `repeat` processes; compiling is timed once.
    """

    def seconds(call: str, key: str, repeat: int, **variables: str) -> float:
        command = [sys.executable, str(WORKERS / "first_call.py"), call]
        environment = process_environment(MUVERA, **variables)
        times = []
        for _ in range(repeat):
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
            times.append(json.loads(done.stdout)[key])
        return float(np.median(times))

    rows: list[list[Any]] = [["import muvera", seconds("nothing", "import", repeat), "under 1 s"]]
    for name in ("encode_documents", "encode_queries", "chamfer"):
        with tempfile.TemporaryDirectory() as folder:
            for how, count in (("compiling", 1), ("from the disk cache", repeat)):
                taken = seconds(name, "first", count, NUMBA_CACHE_DIR=folder)
                rows.append([f"{name}, first call, {how}", taken, None])
    return Table("In a new process", ["call", Column("time", format="{:.2f}", unit="s"), "target"], rows)


def speed(
    rounds: Rounds = 7,
    documents: Annotated[int, typer.Option(min=1, help="Documents to encode.")] = 200,
    only: Annotated[
        str, typer.Option(help="Measure only lines with this in their name, or of this group.")
    ] = "",
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Time muvera and the peers, interleaved, on one thread; create missing environments first."""
    sizes = Sizes(documents)
    lines = [line for line in LINES if only in line.name or only == line.group]
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), sizes)
        tables = run(lines, Path(folder), sizes, rounds, cache)
    if not only or only == "first calls":
        progress("first calls in new processes")
        tables.append(first_calls())
    finish("speed", "Speed compared with other libraries", [table for table in tables if table.rows], save)
