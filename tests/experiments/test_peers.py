"""Peers: worker processes, and systems with a stand-in for each library.

The real libraries run if ``MUVERA_PEERS`` names the experiments' cache folder; missing
environments are made there, two of them with torch.  Libraries that are installed here
run in this environment.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from builders.small_runs import ask, collection_of, exact_scores, material
from builders.token_collections import random_texts

from experiments.datasets.synthetic import synthetic_collection
from experiments.evaluation.metrics import recall
from experiments.peers import environments as peers
from experiments.peers.environments import MUVERA, PEERS, Library, Worker, process_environment, save_texts
from experiments.systems.registry import SYSTEMS
from muvera import MultiVectors

CACHE = os.environ.get("MUVERA_PEERS")
QUERIES = random_texts(3, 50, dimension=16)

STAND_IN = """
import json, os, pickle, sys
from pathlib import Path
import numpy as np

calls = []

def scaled(inputs, factor=1):
    calls.append(factor)
    return lambda text: text.sum(axis=0) * factor

def count(inputs):
    return lambda: len(calls)

def end(inputs, words=""):
    def work():
        sys.stderr.write(words)
        sys.stderr.flush()
        os._exit(3)
    return work

def build(inputs, index, **settings):
    documents = inputs["documents"]
    def work():
        path = Path(index)  # a file or a folder
        if path.suffix != ".bin":
            path.mkdir()
        pickle.dump(documents, (path / "whole" if path.is_dir() else path).open("wb"))
        settings["token_ids"] = Path("token_ids.npy").exists()
        Path("built.json").write_text(json.dumps(settings))
    return work

def search(inputs, index, top_k, **settings):
    path = Path(index)
    documents = pickle.loads((path / "whole" if path.is_dir() else path).read_bytes())
    Path("asked.json").write_text(json.dumps({"top_k": top_k, **settings}))
    def work(query):
        scores = np.array([(query @ text.T.astype(np.float32)).max(axis=1).sum() for text in documents])
        scores = np.round(scores, 1)  # as approximate scores are
        best = np.argsort(-scores, kind="stable")[: min(top_k, 20)]
        return list(zip(best, scores[best]))
    return work

def load(inputs):
    return lambda: None
"""


def replace_libraries(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let one worker in this environment stand in for all libraries."""
    (folder / "workers").mkdir()
    shutil.copy(peers.WORKERS / "serve.py", folder / "workers")
    (folder / "workers" / "stand_in_jobs.py").write_text(STAND_IN)
    patch.setattr(peers, "WORKERS", folder / "workers")
    for name in PEERS:
        patch.setitem(PEERS, name, Library(name, "stand_in_jobs"))


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_libraries(monkeypatch, tmp_path)


@pytest.mark.usefixtures("stand_in")
def test_a_worker_calls_operations_with_fresh_inputs_and_reports_its_end(tmp_path: Path) -> None:
    texts = [np.ones((2, 3), np.float32), np.full((1, 3), 5, np.float32)]
    save_texts(tmp_path, "texts", texts)
    with Worker(PEERS["muvfde"], tmp_path, tmp_path) as worker:
        results, seconds = worker.each("scaled", "texts", tmp_path, factor=3)
        np.testing.assert_array_equal(results, [[6, 6, 6], [15, 15, 15]])
        assert seconds.shape == (2, 2) and (seconds[0] > 0).all()
        save_texts(tmp_path, "texts", texts[1:])
        np.testing.assert_array_equal(worker.each("scaled", "texts", tmp_path, factor=3)[0], [[15, 15, 15]])
        worker.each("scaled", "texts", tmp_path)
        assert worker.result("count", tmp_path) == 2  # prepared once per options
        assert not [path for path in tmp_path.glob("result-*") if "count" not in path.name]
        for _ in range(2):  # and nothing hangs afterwards
            with pytest.raises(RuntimeError, match=r"^muvfde, end: the process ended: out of luck$"):
                worker.time("end", words="first\nout of luck\n")
    with Worker(PEERS["muvfde"], tmp_path, tmp_path) as worker:
        with pytest.raises(RuntimeError, match="muvfde, nothing: KeyError"):
            worker.time("nothing")
        with pytest.raises(RuntimeError, match=r"the process ended: exit code 3$"):
            worker.time("end")


def test_environments_of_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    variables = process_environment(PEERS["muvera-python"])
    assert "PYTHONPATH" not in variables and "OPENBLAS_CORETYPE" not in variables
    assert {variables[name] for name in peers.THREAD_VARIABLES} == {"1"}
    assert process_environment(MUVERA)["PYTHONPATH"] == str(peers.CHECKOUT)
    monkeypatch.setitem(PEERS, "fast-plaid", Library("fast-plaid", "nothing_jobs"))
    system = SYSTEMS["plaid"]()
    with pytest.raises(RuntimeError, match=r"^fast-plaid, load: the process ended: ModuleNotFoundError"):
        system.prepare(material(collection_of(random_texts(3, dimension=16)), tmp_path))
    system.close()


class Built(NamedTuple):
    """A library's system that is built, and the exact scores of its documents."""

    name: str
    system: Any
    exact: np.ndarray
    folder: Path

    def settings(self, name: str) -> Any:
        """Return what the stand-in was given."""
        return json.loads((self.folder / f"{name}.json").read_text())


@pytest.fixture(scope="module", params=["plaid", "tachiom", "warp", "qdrant"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    folder = tmp_path_factory.mktemp("library")
    documents = MultiVectors.from_arrays(list(random_texts(60, dimension=16)), dtype=np.float16)
    ids = [np.arange(len(document), dtype=np.int64) for document in documents]
    (folder / "scratch").mkdir()
    system: Any = SYSTEMS[request.param]()
    given = material(collection_of(documents, document_token_ids=ids), folder / "scratch")
    with pytest.MonkeyPatch.context() as patch:
        replace_libraries(patch, folder)
        system.prepare(given)
        system.build(given)
        yield Built(request.param, system, exact_scores(QUERIES, documents), folder / "scratch")
        system.close()


def test_a_library_is_built_from_documents_that_are_then_deleted(library: Built) -> None:
    assert not list(library.folder.glob("documents*"))
    assert library.system.build_seconds > 0 and library.system.bytes_per_document() > 0
    settings = library.settings("built")
    assert (settings["seed"], settings["token_ids"]) == (7, library.name == "tachiom")


def test_answers_of_a_library_have_its_own_scores(library: Built) -> None:
    rounded = ask(library.system, QUERIES, 5)
    expected = np.round(-np.sort(-library.exact, axis=1)[:, :5], 1)
    np.testing.assert_allclose(rounded.scores, expected, atol=0.11)
    assert not library.system.reads_tokens()
    assert ((ask(library.system, QUERIES, 25).ids >= 0).sum(axis=1) == 20).all()


def test_candidates_of_a_library_are_ranked_exactly(library: Built) -> None:
    ranked = ask(library.system, QUERIES, 5, candidates=20)
    if library.name != "qdrant":
        np.testing.assert_allclose(ranked.scores, -np.sort(-library.exact, axis=1)[:, :5], rtol=1e-5)
        assert library.system.reads_tokens(candidates=20)
    if library.name == "tachiom":
        ask(library.system, QUERIES, 5, candidates=40, k_docs_to_score=10, k_centroids=50)
        options = library.settings("asked")
        assert (options["top_k"], options["k_docs_to_score"], options["ef_search"]) == (40, 40, 50)


@pytest.mark.skipif(CACHE is None, reason="MUVERA_PEERS names no cache folder of environments")
@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("plaid", {"n_ivf_probe": 1000, "n_full_scores": 1200, "candidates": 150}),
        ("tachiom", {"k_centroids": 100, "alpha": None, "candidates": 150}),
        ("qdrant", {"candidates": 300}),
        ("warp", {"nprobe": 32, "candidates": 150}),
        ("lemur", {"candidates": 150}),
    ],
)
def test_the_real_libraries_find_most_of_the_best(name: str, query: dict[str, Any], tmp_path: Path) -> None:
    # Documents around common directions, as tokens of a model are: WARP drops tokens
    # far from its centroids.
    collection = synthetic_collection("quick-wide", documents=300, queries=3)
    given = material(collection, tmp_path, Path(str(CACHE)))
    with contextlib.closing(SYSTEMS[name]()) as system:
        system.prepare(given)
        system.build(given)
        answers = ask(system, collection.queries, 10, **query)
    best = np.argsort(-exact_scores(collection.queries, collection.documents), axis=1)[:, :10]
    assert recall(answers.ids, best).mean() >= 0.9
