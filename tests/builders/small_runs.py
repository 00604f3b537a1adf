"""Commands, runs and systems of the experiments on small collections.

One system fails on demand.
"""

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import yaml
from oracle import chamfer
from typer.testing import CliRunner

from experiments.__main__ import app
from experiments.datasets.collection import Collection, tokens_checksum
from experiments.datasets.synthetic import synthetic_collection
from experiments.runner.configuration import load_experiments
from experiments.runner.raw_store import Failure, Session
from experiments.runner.run import run_experiments
from experiments.systems.base import Answers, Material
from experiments.systems.baselines import Exhaustive
from experiments.systems.registry import SYSTEMS
from muvera import MultiVectors

#: Calls of the faulty systems.
CALLS: list[str] = []

#: Faults in answers: the array, the place and the wrong value.
WRONG: dict[str, tuple[str, Any, float]] = {
    "duplicates": ("ids", 1, 7),
    "few": ("ids", (2, slice(4, None)), -1),
    "unknown": ("ids", (0, 0), 99_999),
    "gap": ("ids", (0, 0), -1),
    "scores": ("scores", (0, 0), 1e6),
    "rising": ("scores", (1, 3), 1e6),
    "nan": ("scores", (1, 3), np.nan),
}


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
        if self.fault == "shape":
            return Answers(answers.ids[:, :1], answers.scores, answers.seconds)
        if self.fault in WRONG:
            name, place, value = WRONG[self.fault]
            getattr(answers, name)[place] = value
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
    """Return the exit code and output of ``python -m experiments``.

    Frames and line ends around errors are removed.
    """
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, " ".join(result.output.replace("│", " ").split())


def configured(folder: Path, name: str = "mine", **content: Any) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"title": name.title(), **content}))
    return str(path)


def small() -> Collection:
    """Return 40 generated documents and 12 queries."""
    return synthetic_collection("quick-wide", documents=40, queries=12)


def run(
    folder: Path, systems: list[dict[str, Any]], data: list[Any] | None = None, **content: Any
) -> list[Failure]:
    """Run one experiment of these systems in `folder`.

    It runs on :func:`small` unless other collections are given.
    """
    path = configured(folder, **{"k": 5, "metrics": ["5-recall@5", "nDCG@5"], "systems": systems, **content})
    gc.freeze()  # the collections before builds would visit the objects of all modules and tests
    session = Session(folder / "out", folder / "cache", 1, lambda _: None)
    return run_experiments(load_experiments([path]), data or [small()], session)


def results(folder: Path, name: str = "summary") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / f"{name}.json").read_text())
    return found


def collection_of(
    documents: MultiVectors, queries: MultiVectors | None = None, name: str = "small", **fields: Any
) -> Collection:
    """Return a collection of documents and queries.

    Default queries: the first tokens of six documents.
    """
    if queries is None:
        queries = MultiVectors.from_arrays([document[:3] for document in documents[:6]])
    names = [str(i) for i in range(len(documents))]
    checksum = tokens_checksum(documents, queries)
    return Collection(name, documents, queries, checksum, names, names[: len(queries)], **fields)


def material(collection: Collection, folder: Path, cache: Path | None = None) -> Material:
    return Material(collection, folder, cache or folder, seed=7, threads=1)


def built(name: str, collection: Collection, folder: Path, **build: Any) -> Any:
    system: Any = SYSTEMS[name](**build)
    system.build(material(collection, folder))
    return system


def exact_scores(queries: MultiVectors, documents: MultiVectors) -> np.ndarray:
    """Return Chamfer similarities by the oracle (n_queries, n_documents)."""
    return np.array([[chamfer(query, document) for document in documents] for query in queries])


def ask(system: Any, queries: MultiVectors, k: int, **query: Any) -> Answers:
    """Search with all queries, and check the properties of every answer."""
    answers: Answers = system.search(queries, k, **query)
    assert answers.ids.shape == answers.scores.shape == (len(queries), k)
    assert answers.seconds.shape == (len(queries),) and (answers.seconds > 0).all()
    for ids, scores in zip(answers.ids, answers.scores, strict=True):
        count = int((ids >= 0).sum())
        assert (ids[count:] == -1).all()
        assert len(set(ids[:count].tolist())) == count
        assert (np.diff(scores[:count]) <= 0).all()
    return answers
