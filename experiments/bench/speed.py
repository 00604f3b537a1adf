"""Speed compared with other libraries, each in its own process.

Every job runs once per round.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray

from ..datasets.discovery import CACHE
from ..peers.environments import MUVERA, PEERS, Worker, save_texts
from ..report.table import Column, Table, number
from .plumbing import Cache, Rounds, Save, finish, interleaved, measured_on, progress

_DIMENSION, _QUERY_TOKENS, _EQUAL_TOKENS = 128, 32, 150

# Number of documents to score, and calls of a short and of a long operation per round.
_SCORED, _SHORT, _LONG = 1000, 20, 3

# Candidates of a search, and the tokens of the shortest and the longest one.
_CANDIDATES, _SHORTEST, _LONGEST = 100, 80, 320

# Allowed difference from muvera's float32 scores, for a query of `_QUERY_TOKENS`.
# muvera's own are of tokens in float16 and int8.  NumKong's choice of the nearest token
# is rounded, so it adds similarities of other tokens; 1 is an eighth of a score.
_TOLERANCES = {"maxsim-cpu": 1e-4, "muvera": 0.05, "numkong": 1.0}

# muvera's operation with exact scores, by the beginning of operations that score the
# same documents.
_EXACT = {"chamfer": "chamfer", "candidates": "candidates_float32"}

#: Library and operation.
Job = tuple[str, str]


class Line(NamedTuple):
    """A comparison of an operation of muvera with one of another library."""

    name: str
    own: str
    library: str
    other: str

    @property
    def jobs(self) -> tuple[Job, Job]:
        """Library and operation of both sides."""
        return (MUVERA.name, self.own), (self.library, self.other)


#: The table's lines, in order.
LINES = [
    Line("encode_documents, 10,240 floats / muvera-python, batches",
         "documents_paper", "muvera-python", "documents_batch"),
    Line("encode_documents / muvera-python, batches", "documents_batch", "muvera-python", "documents_batch"),
    Line("encode_documents, lists of arrays / muvera-python, batches",
         "documents_list", "muvera-python", "documents_batch"),
    Line("encode_documents / muvera-python, one by one", "documents_single", "muvera-python",
         "documents_single"),
    Line("encode_documents / muvfde", "documents_batch", "muvfde", "documents_single"),
    Line("encode_documents, one by one / muvfde", "documents_single", "muvfde", "documents_single"),
    Line("encode_documents / fastembed", "documents_batch", "fastembed", "documents_single"),
    Line("encode_queries, one query / muvera-python", "query", "muvera-python", "query"),
    Line("encode_queries, one query / muvfde", "query", "muvfde", "query"),
    Line("encode_queries, one query / fastembed", "query", "fastembed", "query"),
    Line("Chamfer, one query / maxsim-cpu", "chamfer", "maxsim-cpu", "chamfer"),
    Line("Chamfer, one query / maxsim-cpu, list of arrays", "chamfer", "maxsim-cpu", "chamfer_list"),
    Line("Chamfer, one query / NumKong", "chamfer", "numkong", "chamfer"),
    Line("Chamfer, 100 candidates / maxsim-cpu", "candidates_float32", "maxsim-cpu", "candidates_float32"),
    Line("Chamfer, 100 candidates / NumKong", "candidates_float32", "numkong", "candidates_float32"),
    Line("Chamfer, 100 candidates, float16 / NumKong, float16",
         "candidates_float16", "numkong", "candidates_float16"),
    Line("Chamfer, 100 candidates, float16 / NumKong, bfloat16",
         "candidates_float16", "numkong", "candidates_bfloat16"),
    Line("Chamfer, 100 candidates, int8 / NumKong, bfloat16",
         "candidates_int8", "numkong", "candidates_bfloat16"),
]  # fmt: skip


def write_inputs(folder: Path, documents: int, scored: int = _SCORED) -> None:
    """Write the workers' inputs: seeded texts of unit vectors."""
    stream = np.random.default_rng(0)

    def unit(count: int) -> NDArray[np.float32]:
        rows = stream.normal(size=(count, _DIMENSION)).astype(np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    lengths = stream.integers(80, 221, documents)
    save_texts(folder, "documents", [unit(int(length)) for length in lengths])
    np.save(folder / "query.npy", unit(_QUERY_TOKENS))
    equal = unit(scored * _EQUAL_TOKENS)
    np.save(folder / "equal_documents.npy", equal.reshape(-1, _EQUAL_TOKENS, _DIMENSION))
    lengths = stream.integers(_SHORTEST, _LONGEST + 1, _CANDIDATES)
    save_texts(folder, "candidates", [unit(int(length)) for length in lengths])


def run(lines: Iterable[Line], folder: Path, documents: int, rounds: int, cache: Path) -> list[Table]:
    """Time the jobs of `lines` with the inputs in `folder`.

    Return a table of lines, and one of checks before timing.
    """
    lines, on = list(lines), measured_on()
    jobs = dict.fromkeys(job for line in lines for job in line.jobs)
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in dict.fromkeys(library for library, _ in jobs):
            progress(f"environment of {name}")
            library = MUVERA if name == MUVERA.name else PEERS[name]
            workers[name] = stack.enter_context(Worker(library, folder, cache))
        checks = _check(jobs, workers, folder)

        def call(library: str, operation: str) -> Callable[[], NDArray[np.float64]]:
            repeat = _SHORT if operation.startswith(("query", "candidates")) else _LONG
            return lambda: np.median(workers[library].time(operation, repeat), axis=1)

        progress(f"{rounds} rounds of {len(jobs)} jobs")
        seconds = interleaved({job: call(*job) for job in jobs}, rounds)
    columns = ["muvera / other", "muvera", "other", "unit", "ratio", "min - max", "processor time"]
    caption = (
        "muvera encodes with the preset `simhash` (5,249 floats), in the first row with `paper`. The "
        f"others encode with R=20, k=5, p=16, as `paper` does (10,240 floats). Median of {rounds} "
        "interleaved rounds, one thread each. "
        "NumKong's documents are packed before timing, and it scores them in one call each. Its time is "
        "nearly the same for all kinds of numbers, because it finds nearest tokens by int8 copies and "
        "computes only their similarities with the numbers themselves. muvera computes all similarities "
        "in float32, to which float16 tokens are widened first; products of int8 codes are its like form. "
        f'"processor time" is the ratio of processor times. {on}'
    )
    rows = [compare(line, seconds, documents) for line in lines]
    checked = Table(
        "Checked before timing",
        ["scores", "mean", *(Column(f"{name} difference", format="{:.2g}") for name in ("mean", "largest"))],
        checks,
        "Scores, and their differences from muvera's Chamfer similarities of the same tokens in float32. "
        "NumKong finds each query token's nearest token by products of int8 without the tokens' scales, "
        "so that it often adds the similarity of another token than the nearest one; this is measured "
        "with version 7.8.6 on this processor.",
    )
    return [Table("Operations", columns, rows, caption), *([checked] if checks else [])]


def compare(line: Line, seconds: dict[Job, NDArray[np.float64]], documents: int) -> list[float | str]:
    """Return a line's cells from the wall and processor seconds of its jobs.

    Ratios are taken round by round.
    """
    (own, _), (other, _) = times = [seconds[job] for job in line.jobs]
    ratios, by_processor = times[1] / times[0]
    encodes = line.own.startswith("documents")
    shown = [documents / np.median(wall) if encodes else 1e3 * np.median(wall) for wall in (own, other)]
    return [
        *(line.name, *map(float, shown), "documents/s" if encodes else "ms"),
        *(f"{number(float(np.median(ratios)))}x", f"{number(ratios.min())} - {number(ratios.max())}"),
        f"{number(float(np.median(by_processor)))}x",
    ]


def _check(jobs: Iterable[Job], workers: dict[str, Worker], folder: Path) -> list[list[float | str]]:
    """Return the means of scores, and their differences from muvera's in float32.

    Raise ValueError if one is too large.
    """
    checks: list[list[float | str]] = []
    for library, operation in jobs:
        exact = next((own for own in _EXACT if operation.startswith(own)), "")
        if not exact or (library, operation) == (MUVERA.name, _EXACT[exact]):
            continue
        own = workers[MUVERA.name].result(_EXACT[exact], folder)
        scores = workers[library].result(operation, folder)
        gap = float(np.abs(own - scores).max())
        if not gap <= _TOLERANCES[library]:
            raise ValueError(
                f"{library}'s {operation} differs by {gap:.2g} from muvera's scores, but at most "
                f"{_TOLERANCES[library]} is allowed."
            )
        name = f"{library}, {operation.replace('_', ', ')}"
        checks.append([name, float(scores.mean()), float((scores - own).mean()), gap])
    return checks


def speed(
    rounds: Rounds = 7,
    documents: Annotated[int, typer.Option(min=1, help="Documents to encode.")] = 200,
    only: Annotated[str, typer.Option(help="Measure only lines with this in their name.")] = "",
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Time muvera and the peers, interleaved, on one thread.

    Create missing environments first.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_inputs(Path(folder), documents)
        lines = [line for line in LINES if only in line.name]
        tables = run(lines, Path(folder), documents, rounds, cache)
    finish("speed", "Speed compared with other libraries", tables, save)
