"""Speed beside the peers: every job once a round, so that all meet the same machine.

A line of the table compares two jobs: their rates' ratio is taken round by round, and its
median, least and greatest are shown.  The same ratio of processor time stands beside: others
who use the machine disturb it less.  Nothing here passes or fails by a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..peers.environments import MUVERA, PEERS, Library, Worker, save_texts
from ..peers.workers.muvera_jobs import MANY

__all__ = ["LINES", "Job", "Line", "Sizes", "run", "write_inputs"]

DIMENSION = 128
QUERY_TOKENS = 32
EQUAL_TOKENS = 150

#: The peers' scores must be muvera's to this before they are timed.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Sizes:
    """How much work.

    Parameters
    ----------
    documents : int
        Documents of 80 to 220 tokens to encode.
    equal_documents : int
        Documents of 150 tokens to score.
    rounds : int
    """

    documents: int = 200
    equal_documents: int = 1000
    rounds: int = 7


@dataclass(frozen=True)
class Job:
    """One operation of one library; `repeat` calls a round, of which the median counts."""

    library: Library
    operation: str
    repeat: int = 1

    @property
    def name(self) -> str:
        """Its name in the stored results."""
        return f"{self.library.name} {self.operation}"


@dataclass(frozen=True)
class Line:
    """A comparison.

    Parameters
    ----------
    group : str
        Its jobs' rounds are run together.
    name : str
    muvera : Job
    others : tuple of Job
        The fastest counts in every round.
    unit : str
        Of the rates, work a second; where it is "ms", the time of a call.
    target : str
        In words, as it is printed beside.
    slower : bool
        The ratio says how many times longer muvera takes, instead of how many times faster it is.
    threads : int
        Of muvera; processor time says nothing about several.
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


def _peer(name: str, operation: str, repeat: int = 1) -> Job:
    return Job(PEERS[name], operation, repeat)


_DOCS = "documents/s"
_SGEMM = tuple(_muvera(f"sgemm_{size}") for size in (512, 1024, 2048))

#: The table's lines, in order.
LINES = [
    Line("documents", "encode_documents / muvera-python, batches",
         _muvera("documents_batch"), (_peer("muvera-python", "documents_batch"),), _DOCS, "10x"),
    Line("documents", "encode_documents, lists of arrays / muvera-python, batches",
         _muvera("documents_list"), (_peer("muvera-python", "documents_batch"),), _DOCS),
    Line("documents", "encode_documents / muvera-python, one by one",
         _muvera("documents_single"), (_peer("muvera-python", "documents_single"),), _DOCS),
    Line("documents", "encode_documents / muvfde",
         _muvera("documents_batch"), (_peer("muvfde", "documents_single"),), _DOCS, "30x"),
    Line("documents", "encode_documents, one by one / muvfde",
         _muvera("documents_single"), (_peer("muvfde", "documents_single"),), _DOCS),
    Line("documents", "encode_documents / fastembed",
         _muvera("documents_batch"), (_peer("fastembed", "documents_single"),), _DOCS),
    Line("documents", "encode_documents, two threads / one",
         _muvera("documents_many_2"), (_muvera("documents_many"),), _DOCS, "1.8x", threads=2),
    Line("query", "encode_queries, one query / muvera-python",
         _muvera("query", 100), (_peer("muvera-python", "query", 100),), "ms", "3x"),
    Line("query", "encode_queries, one query / muvfde",
         _muvera("query", 100), (_peer("muvfde", "query", 30),), "ms"),
    Line("query", "encode_queries, one query / fastembed",
         _muvera("query", 100), (_peer("fastembed", "query", 10),), "ms"),
    Line("chamfer", "Chamfer, one query / maxsim-cpu",
         _muvera("chamfer"), (_peer("maxsim-cpu", "chamfer", 3),), "ms", "2.3x"),
    Line("chamfer", "Chamfer, one query / maxsim-cpu, list of arrays",
         _muvera("chamfer"), (_peer("maxsim-cpu", "chamfer_ragged", 3),), "ms"),
    Line("chamfer", "Chamfer, one query / BLAS peak", _muvera("chamfer"), _SGEMM, "GFLOP/s", ".65x"),
    Line("chamfer", "Chamfer, one query, documents in random order / BLAS peak",
         _muvera("chamfer_at_random"), _SGEMM, "GFLOP/s", ".85x"),
    Line("decode", "PLAID decode of 1 M tokens / filling the array",
         _muvera("decode", 1), (_muvera("fill", 1),), "ms", "at most 4x the time", slower=True),
    Line("pooling", "Ward pooling of Cranfield / SciPy",
         _muvera("pooling", 3), (_muvera("pooling_scipy", 1),), "ms", "5x"),
    Line("pooling", "Ward pooling of Cranfield / SciPy, a mean a cluster",
         _muvera("pooling", 3), (_muvera("pooling_scipy_loop", 1),), "ms"),
]  # fmt: skip


def write_inputs(folder: Path, sizes: Sizes, pooled: Sequence[NDArray[np.float32]] | None = None) -> None:
    """Write what the workers read: seeded texts of unit vectors, and documents to pool."""
    stream = np.random.default_rng(0)
    lengths = stream.integers(80, 221, sizes.documents)
    save_texts(folder, "documents", [_unit(stream, int(length)) for length in lengths])
    np.save(folder / "query.npy", _unit(stream, QUERY_TOKENS))
    equal = _unit(stream, sizes.equal_documents * EQUAL_TOKENS)
    np.save(folder / "equal_documents.npy", equal.reshape(-1, EQUAL_TOKENS, DIMENSION))
    if pooled is not None:
        save_texts(folder, "pooled", pooled)


def _unit(stream: np.random.Generator, count: int) -> NDArray[np.float32]:
    rows = stream.normal(size=(count, DIMENSION)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def run(
    lines: Iterable[Line],
    folder: Path,
    sizes: Sizes,
    cache: Path,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Time all jobs of `lines` in one run.

    Parameters
    ----------
    lines : iterable of Line
    folder : Path
        With the inputs; :func:`write_inputs` makes them.
    sizes : Sizes
    cache : Path
        For the peers' environments.
    progress : callable, optional
        Called with what is being done.

    Returns
    -------
    dict
        ``lines``, with rates and ratios; ``checks``, what was equal before timing; and
        ``share``, how much of the clock's time the jobs of one thread had a processor: far
        below 1 others used the machine too, and processor time is the better measure.
    """
    lines = list(lines)
    jobs = {job.name: job for line in lines for job in (line.muvera, *line.others)}
    found: list[dict[str, Any]] = []
    shares: list[float] = []
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for library in {job.library.name: job.library for job in jobs.values()}.values():
            progress(f"environment of {library.name}")
            workers[library.name] = stack.enter_context(Worker(library, folder, cache))
        checks = _check(jobs, workers, folder)
        for group in dict.fromkeys(line.group for line in lines):
            here = [line for line in lines if line.group == group]
            mine = {job.name: job for line in here for job in (line.muvera, *line.others)}
            seconds = _rounds(list(mine.values()), workers, sizes.rounds, progress)
            found += [_compare(line, seconds, sizes) for line in here]
            several = {line.muvera.name for line in here if line.threads > 1}
            shares += [
                share
                for name, (clock, processor) in seconds.items()
                if name not in several
                for share in processor / clock
            ]
    share = round(float(np.median(shares)), 3) if shares else None
    return {"lines": found, "checks": checks, "share": share}


def _rounds(
    jobs: list[Job], workers: dict[str, Worker], rounds: int, progress: Callable[[str], object]
) -> dict[str, NDArray[np.float64]]:
    """Return each job's seconds by the clock and of the processor, (2, rounds)."""
    for job in jobs:  # apart: the first call compiles, reads its inputs and wakes the caches
        progress(f"warming up {job.name}")
        workers[job.library.name].time(job.operation, 2)
    seconds: dict[str, list[NDArray[np.float64]]] = {job.name: [] for job in jobs}
    for turn in range(rounds):
        progress(f"round {turn + 1} of {rounds}: {', '.join(dict.fromkeys(j.library.name for j in jobs))}")
        # Every round begins with another job, so that none always follows the same one.
        first = turn % len(jobs)
        for job in jobs[first:] + jobs[:first]:
            times = workers[job.library.name].time(job.operation, job.repeat)
            seconds[job.name].append(np.median(times, axis=1))
    return {name: np.array(rows).T for name, rows in seconds.items()}


def _work(job: Job, sizes: Sizes, unit: str) -> float:
    """Return the work of one call in `unit`, without "/s"."""
    if unit == _DOCS:
        return sizes.documents * (MANY if job.operation.startswith("documents_many") else 1)
    if unit == "GFLOP/s":
        if job.operation.startswith("sgemm_"):
            return 2e-9 * int(job.operation.removeprefix("sgemm_")) ** 3
        return 2e-9 * QUERY_TOKENS * sizes.equal_documents * EQUAL_TOKENS * DIMENSION
    return 1.0


def _compare(line: Line, seconds: dict[str, NDArray[np.float64]], sizes: Sizes) -> dict[str, Any]:
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
        "muvera": _digits(np.median(shown[0])),
        "other": _digits(np.median(shown[1])),
        "ratio": _digits(np.median(ratios)),
        "least": _digits(ratios.min()),
        "greatest": _digits(ratios.max()),
        "processor_ratio": None if line.threads > 1 else _digits(np.median(by_processor)),
        "target": line.target,
    }


def _digits(value: Any) -> float:
    return float(f"{float(value):.4g}")


def _check(jobs: dict[str, Job], workers: dict[str, Worker], folder: Path) -> dict[str, Any]:
    """Compare results before anything is timed; what is not being run is not compared."""
    checks: dict[str, Any] = {}
    if "maxsim-cpu chamfer" in jobs:
        own = workers[MUVERA.name].result("chamfer", folder)
        for operation in ("chamfer", "chamfer_ragged"):
            scores = workers["maxsim-cpu"].result(operation, folder)
            gap = float(np.abs(own - scores).max())
            if not gap <= TOLERANCE:
                raise ValueError(
                    f"maxsim-cpu's {operation} differs by {gap:.2g} from muvera's scores, "
                    f"and at most {TOLERANCE} is allowed."
                )
            checks[f"greatest difference of scores, {operation}"] = gap
    if "muvera pooling" in jobs:
        labels = [
            workers[MUVERA.name].result(name, folder) for name in ("pooling_labels", "pooling_scipy_labels")
        ]
        checks["tokens whose cluster is SciPy's"] = float(np.mean(labels[0] == labels[1]))
    return checks
