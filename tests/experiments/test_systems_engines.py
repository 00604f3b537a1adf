"""Engines in processes of their own: what is handed over, and what is made of what they find.

A stand-in answers for each engine.  The real ones are asked where ``MUVERA_PEERS`` names the cache folder of
the experiments; an environment that is missing there is made, with torch for WARP.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.system_inputs import ask, exact_scores, material, some_documents, unit_texts

from experiments.peers import environments as peers
from experiments.peers.environments import PEERS, Library
from experiments.systems.base import Material, NotApplicableError
from experiments.systems.registry import SYSTEMS
from experiments.systems.worker_system import WorkerSystem
from muvera import MultiVectors

CACHE = os.environ.get("MUVERA_PEERS")
QUERIES = unit_texts(50, [4, 1, 9])

ENGINES = ["tachiom", "warp", "qdrant"]

STAND_IN = """
import json
from pathlib import Path

import numpy as np


def build(inputs, index, **settings):
    documents = inputs["documents"]

    def work():
        path = Path(index)
        if path.suffix != ".bin":
            path.mkdir()
            path = path / "whole"
        with path.open("wb") as file:
            np.savez(file, tokens=np.concatenate(documents), lengths=[len(one) for one in documents])
        kinds = path.parent.parent / "token_ids.npy" if path.name == "whole" else path.parent / "token_ids.npy"
        said = {**settings, "token_ids": np.load(kinds).tolist() if kinds.exists() else None}
        Path("said.json").write_text(json.dumps(said))

    return work


def search(inputs, index, top_k, **settings):
    path = Path(index)
    saved = np.load(path / "whole" if path.is_dir() else path)
    documents = np.split(saved["tokens"], np.cumsum(saved["lengths"])[:-1])
    Path("asked.json").write_text(json.dumps({"top_k": top_k, **settings}))

    def work(query):
        scores = np.array([(query @ one.T.astype(np.float32)).max(axis=1).sum() for one in documents])
        scores = np.round(scores, 1)  # as approximate scores are
        best = np.argsort(-scores, kind="stable")[: min(top_k, 20)]
        out = np.full((top_k, 2), -1.0)
        out[: len(best), 0], out[: len(best), 1] = best, scores[best]
        return out

    return work


OPERATIONS = {"build": build, "search": search, "load": lambda _: lambda: None}
"""

needs_engines = pytest.mark.skipif(
    CACHE is None, reason="MUVERA_PEERS names no cache folder for environments with the engines"
)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one worker in this environment answer for all engines."""
    folder = tmp_path / "workers"
    folder.mkdir()
    shutil.copy(peers.WORKERS / "serve.py", folder)
    (folder / "stand_in_jobs.py").write_text(STAND_IN)
    monkeypatch.setattr(peers, "WORKERS", folder)
    for name in ENGINES:
        library = str(getattr(SYSTEMS[name], "library", ""))
        monkeypatch.setitem(PEERS, library, Library(library, "stand_in_jobs"))


@pytest.fixture
def system(request: pytest.FixtureRequest) -> Iterator[WorkerSystem]:
    """The engine that the test names, whose process is ended."""
    made = SYSTEMS[request.param]()
    assert isinstance(made, WorkerSystem)
    yield made
    made.close()


def inputs(documents: MultiVectors, folder: Path) -> Material:
    """Documents whose tokens are numbered, as words of a vocabulary are."""
    folder = folder / "scratch"
    folder.mkdir()
    ids = [np.arange(len(document), dtype=np.int64) for document in documents]
    cache = Path(CACHE) if CACHE else folder
    return replace(material(documents, folder, cache), document_token_ids=ids)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("system", ["tachiom", "warp"], indirect=True)
def test_what_is_found_is_ranked_exactly(system: WorkerSystem, tmp_path: Path) -> None:
    documents = some_documents(0, 60, dtype=np.float16)
    system.build(inputs(documents, tmp_path))
    assert not list((tmp_path / "scratch").glob("documents*"))
    assert system.build_seconds is not None
    assert system.build_seconds > 0
    exact = exact_scores(QUERIES, documents)
    rounded = ask(system, QUERIES, 5)
    np.testing.assert_allclose(rounded.scores, np.round(-np.sort(-exact, axis=1)[:, :5], 1), atol=0.11)
    again = ask(system, QUERIES, 5, candidates=20)
    np.testing.assert_array_equal(again.ids, np.argsort(-exact, axis=1)[:, :5])
    np.testing.assert_allclose(again.scores, -np.sort(-exact, axis=1)[:, :5], rtol=1e-5)
    assert not system.reads_tokens()
    assert system.reads_tokens(candidates=20)
    short = ask(system, QUERIES, 25)
    assert ((short.ids >= 0).sum(axis=1) == 20).all()


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("system", ["qdrant"], indirect=True)
def test_scores_of_qdrant_stay(system: WorkerSystem, tmp_path: Path) -> None:
    documents = some_documents(0, 60, dtype=np.float16)
    system.build(inputs(documents, tmp_path))
    exact = exact_scores(QUERIES, documents)
    found = ask(system, QUERIES, 5, candidates=20)
    np.testing.assert_allclose(found.scores, -np.sort(-exact, axis=1)[:, :5], atol=0.051)
    assert not system.reads_tokens(candidates=20)
    assert system.bytes_per_document() > 0


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("system", ["tachiom"], indirect=True)
def test_tachiom_groups_by_token_ids(system: WorkerSystem, tmp_path: Path) -> None:
    documents = some_documents(0, 60, dtype=np.float16)
    system.build(inputs(documents, tmp_path))
    said = (tmp_path / "scratch" / "said.json").read_text()
    assert f'"token_ids": {list(range(len(documents[0])))}'[:-1] in said
    assert '"seed": 7' in said
    ask(system, QUERIES, 5, candidates=40, k_docs_to_score=10, k_centroids=50)
    asked = (tmp_path / "scratch" / "asked.json").read_text()
    # No fewer are scored than are returned, and the walk keeps at least the lists that are read.
    for words in ('"top_k": 40', '"k_docs_to_score": 40', '"ef_search": 50'):
        assert words in asked


def test_tachiom_needs_token_ids(tmp_path: Path) -> None:
    with pytest.raises(
        NotApplicableError, match=r"^The collection has no token ids, by which tachiom groups"
    ):
        SYSTEMS["tachiom"]().build(material(some_documents(0, 60), tmp_path))


@needs_engines
@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("tachiom", {"k_centroids": 100, "alpha": None, "candidates": 150}),
        ("qdrant", {"candidates": 300}),
        ("warp", {"nprobe": 32, "candidates": 150}),
    ],
)
def test_the_real_engines_find_most_of_the_best(name: str, query: dict[str, Any], tmp_path: Path) -> None:
    # Documents around common directions, as tokens of a model are: WARP drops what is far from its centroids.
    stream = np.random.default_rng(0)
    centers = stream.normal(size=(40, 128))
    lengths = stream.integers(5, 30, 300)
    tokens = centers[stream.integers(0, 40, lengths.sum())] + 0.5 * stream.normal(size=(lengths.sum(), 128))
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    documents = MultiVectors.from_flat(tokens.astype(np.float16), lengths.tolist())
    queries = MultiVectors.from_arrays([documents[i][:6].astype(np.float32) for i in (3, 77, 200)])
    system = SYSTEMS[name]()
    try:
        system.build(inputs(documents, tmp_path))
        found = ask(system, queries, 10, **query)
        best = np.argsort(-exact_scores(queries, documents), axis=1)[:, :10]
        shares = [np.isin(best[i], found.ids[i]).mean() for i in range(len(queries))]
        assert np.mean(shares) >= 0.9, shares
        tokens_per_document = documents.num_tokens / len(documents)
        assert 32 * tokens_per_document < system.bytes_per_document()
    finally:
        system.close()


def test_they_are_registered() -> None:
    for name in ENGINES:
        assert SYSTEMS[name].name == name
        assert SYSTEMS[name].family == "peer"
