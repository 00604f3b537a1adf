"""Commands of experiments, and runs on a tiny collection with a system that fails on demand."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import yaml
from typer.testing import CliRunner

from experiments.__main__ import app
from experiments.datasets.collection import Collection
from experiments.datasets.synthetic import synthetic_collection
from experiments.runner.configuration import load_experiments
from experiments.runner.raw_store import Failure, Session
from experiments.runner.run import run_experiments
from experiments.systems.base import Answers, Material
from experiments.systems.baselines import Exhaustive
from experiments.systems.registry import SYSTEMS
from muvera import MultiVectors

#: Calls of the fake systems.
CALLS: list[str] = []


class Faulty(Exhaustive):
    """A system that answers exactly, except for an injected fault."""

    name: ClassVar[str] = "faulty"

    def __init__(self, *, fault: str = "none") -> None:
        self.fault = fault

    def build(self, material: Material) -> None:
        CALLS.append(f"build {self.fault}")
        if self.fault == "build":
            raise RuntimeError("the process ended")
        super().build(material)

    def search(self, queries: MultiVectors, k: int, *, offset: int = 0) -> Answers:
        CALLS.append(f"search {self.fault} {queries.ids.tolist()}")
        if self.fault == "search":
            raise RuntimeError("no answer")
        if self.fault == "interrupt":
            raise KeyboardInterrupt
        answers = super().search(queries, k)
        ids, scores = answers.ids, answers.scores
        if self.fault == "duplicates":
            ids[1, 2] = ids[1, 0]
        elif self.fault == "few":
            ids[2, 4:] = -1
        elif self.fault == "unknown":
            ids[0, 0] = 99_999
        elif self.fault == "gap":
            ids[0, 0] = -1
        elif self.fault == "scores":
            scores[0, 1] += 1
        elif self.fault == "rising":
            scores[1, 3] += 100
        elif self.fault == "nan":
            scores[1, 3] = np.nan
        elif self.fault == "shape":
            return Answers(ids[:, :1], scores, answers.seconds)
        return answers

    def close(self) -> None:
        CALLS.append(f"close {self.fault}")
        super().close()


@contextmanager
def faulty_system() -> Iterator[None]:
    """Register the system "faulty", so that configurations can use it."""
    CALLS.clear()
    SYSTEMS["faulty"] = Faulty
    yield
    del SYSTEMS["faulty"]


def command(*arguments: object) -> tuple[int, str]:
    """Return the exit code and output of ``python -m experiments``, without frames and line ends around errors."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def small() -> Collection:
    """Return 40 generated documents and 12 queries."""
    return synthetic_collection("quick-wide", documents=40, queries=12)


def run(
    folder: Path, systems: list[dict[str, Any]], data: list[Collection] | None = None, **content: Any
) -> list[Failure]:
    """Run one experiment of these systems in `folder`, on :func:`small` unless other collections are given."""
    path = folder / "mine.yaml"
    filled = {"title": "Mine", "k": 5, "metrics": ["5-recall@5", "nDCG@5"], "systems": systems, **content}
    path.write_text(yaml.safe_dump(filled))
    session = Session(folder / "out", folder / "cache", 1, lambda _: None)
    return run_experiments(load_experiments([str(path)]), data or [small()], session)


def summary(folder: Path) -> dict[str, Any]:
    """Return the summary of such a run."""
    found: dict[str, Any] = json.loads((folder / "out" / "summary.json").read_text())
    return found
