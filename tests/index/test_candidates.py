"""CandidateSearch and measured recall: the best rows, the change to a scan, faults, warnings."""

import dataclasses
import sys
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.indexes import DOCUMENTS, EMPTY, MORE, QUERIES, WAYS, built
from builders.realistic_collections import CONFIG, documents_like_real

import muvera.index.candidates as module
from muvera import FDEEncoder, MultiVectors, MuveraIndex, top_k
from muvera.data.sampling import pseudo_queries
from muvera.index import two_stage_search
from muvera.index.candidates import CandidateSearch
from muvera.index.settings import IndexSettings

FILLED = np.setdiff1d(np.arange(200), EMPTY)
WINDOWS = pseudo_queries(DOCUMENTS[FILLED], 64, 32, np.random.default_rng(0))[0]
ENCODER = FDEEncoder(CONFIG).fit(DOCUMENTS)

#: An encoder with few floats and low recall.
POOR = dataclasses.replace(
    CONFIG, num_repetitions=1, num_simhash_projections=1, projection_dimension=2, split_mean=False
)


def filled(backend: Any = "exact", **hnsw: Any) -> CandidateSearch:
    search = CandidateSearch(ENCODER, IndexSettings(backend=backend, hnsw=hnsw))  # type: ignore[arg-type]
    search.add(np.arange(200), DOCUMENTS, threads=1)
    return search


def rows(candidates: Any) -> list[list[int]]:
    return [row.tolist() for row, _ in candidates]


def test_candidates_are_the_best_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    products = ENCODER.encode_queries(QUERIES) @ ENCODER.encode_documents(DOCUMENTS[FILLED]).T
    expected = FILLED[np.argsort(-products, axis=1)[:, :20]]
    for backend, recall in (("exact", 1.0), ("hnsw", 0.98)):
        candidates = rows(filled(backend).find(QUERIES, 20))
        hits = [len(np.intersect1d(a, b)) for a, b in zip(candidates, expected, strict=True)]
        assert np.mean(hits) / 20 >= recall - 0.005  # except for ties
    whole = rows(filled().find(QUERIES, 20))
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * CONFIG.vector_dimension * 7)
    assert rows(filled().find(QUERIES, 20)) == whole


@pytest.mark.parametrize("backend", ["exact", "hnsw", "scan"])
def test_documents_without_tokens(backend: Any) -> None:
    search = filled(backend)
    assert search.search.labels().tolist() == FILLED.tolist()
    assert [sorted(row) for row in rows(search.find(QUERIES, 10_000))] == [FILLED.tolist()] * 10
    search.remove(np.array([16, 17, 33]))  # two of them have no tokens
    assert len(search.search) == len(FILLED) - 1
    assert [sorted(row) for row in rows(search.find(QUERIES, 3, np.array([5, 16, 17, 40])))] == [[5, 40]] * 10


def test_auto_changes_to_a_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SCAN_FROM", 150)
    search = CandidateSearch(ENCODER, IndexSettings())
    search.add(np.arange(100), DOCUMENTS[:100])
    assert search.search.kind == "exact" and search.measure(WINDOWS) == 1.0
    assert not bool(search.recall_is_stale)
    before = rows(search.find(QUERIES, 500))[0]
    search.remove(np.array([3]))
    search.add(np.arange(100, 200), DOCUMENTS[100:])
    assert [search.search.kind] == ["scan"]
    assert bool(search.recall_is_stale)  # the recall of an exact search does not apply to the scan
    assert search.search.labels().tolist() == [row for row in FILLED.tolist() if row != 3]
    among = [row for row in before if row != 3]
    assert sorted(rows(search.find(QUERIES, 500, np.array(among)))[0]) == sorted(among)


def test_hnswlib_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    with pytest.raises(ImportError, match=r"pip install .*\[hnsw\]"):
        filled("hnsw")


@pytest.mark.parametrize("backend", ["exact", "hnsw", "scan"])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_add_that_fails_late(
    backend: Any, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FDEEncoder(CONFIG).fit(DOCUMENTS)
    search = CandidateSearch(encoder, IndexSettings(backend=backend))
    search.add(np.arange(50), DOCUMENTS[:50])
    before = rows(search.find(QUERIES, 30))
    encode, calls = encoder.encode_documents, []

    def breaks(documents: Any, **settings: Any) -> Any:
        calls.append(len(documents))
        if len(calls) == 3:
            raise error
        return encode(documents, **settings)

    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * CONFIG.vector_dimension * 40)
    monkeypatch.setattr(encoder, "encode_documents", breaks)
    with pytest.raises(error):
        copy(search).add(np.arange(50, 200), DOCUMENTS[50:])
    monkeypatch.undo()
    assert calls == [40, 40, 40] and rows(search.find(QUERIES, 30)) == before
    assert search.search.labels().tolist() == FILLED[FILLED < 50].tolist()
    # A graph has seen the rows; new ones are free.
    assert search.search.next_label >= 50
    search.add(np.arange(200, 350), DOCUMENTS[50:])
    both = MultiVectors.concatenate([DOCUMENTS[:50], DOCUMENTS[50:]])
    expected = CandidateSearch(encoder, search.settings)
    expected.add(np.concatenate([np.arange(50), np.arange(200, 350)]), both)
    assert rows(search.find(QUERIES, 200)) == rows(expected.find(QUERIES, 200))


# -- recall -------------------------------------------------------------------


def test_recall_of_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEASURED_K", 10)  # any graph finds the best hundred of so few
    good = filled("hnsw")
    assert good.recall is None and good.recall_is_stale and good.info()["recall"] is None
    assert (good.measure(WINDOWS) or 0) > 0.99 and good.warnings() == []
    assert good.info()["recall_measured_at"] == len(FILLED)
    poor = filled("hnsw", m=3, ef_construction=1, ef=1)
    recall = poor.measure(WINDOWS)
    assert recall is not None and recall < 0.95
    assert len(poor.warnings()) == 1 and f"{recall:.1%}" in poor.warnings()[0]
    poor.remove(np.array([4, 5]))
    (state, _), live = poor.save(tmp_path, lambda path: None), np.setdiff1d(FILLED, [4, 5])
    loaded = CandidateSearch.load(tmp_path, ENCODER, poor.settings, state, live)
    assert loaded.info() == poor.info() and loaded.warnings() == poor.warnings()
    assert rows(loaded.find(QUERIES, 50)) == rows(poor.find(QUERIES, 50))
    half = CandidateSearch(ENCODER, IndexSettings(backend="hnsw"))
    half.add(np.arange(90), DOCUMENTS[:90])
    half.measure(WINDOWS)
    half.add(np.arange(90, 180), DOCUMENTS[90:180])
    assert not half.recall_is_stale
    half.add(np.arange(180, 200), DOCUMENTS[180:])
    assert half.recall_is_stale


@pytest.mark.parametrize("config", [CONFIG, POOR])
@pytest.mark.parametrize("backend", ["exact", "hnsw"])
def test_measured_recall_is_what_searches_find(config: Any, backend: Any) -> None:
    index = built(encoder=config, backend=backend)
    measured = index.measure_recall([np.empty((0, 16), np.float32), *QUERIES], k=10, candidates=30)
    rankings = index.search(QUERIES, 10, candidates=30)
    hits = [
        np.isin(b.ids, a.ids).mean() for a, b in zip(rankings, top_k(QUERIES, DOCUMENTS, 10), strict=True)
    ]
    assert measured is not None and measured.recall == pytest.approx(np.mean(hits))
    assert (measured.k, measured.candidates, measured.queries, measured.pseudo_queries) == (10, 30, 10, False)


def test_an_index_measures_its_first_stage(tmp_path: Path) -> None:
    documents = documents_like_real(400)
    good = MuveraIndex.build(documents, CONFIG, **WAYS["hnsw"])
    poor = MuveraIndex.build(documents, POOR, path=tmp_path / "poor", **WAYS["hnsw"])
    stages = []
    for index in (good, poor):
        info = index.info()
        assert info.vectors is not None and info.vectors["recall"] > 0.97  # of the graph
        assert info.first_stage is not None and info.first_stage.pseudo_queries
        assert info.first_stage.documents == int((documents.lengths > 0).sum())
        assert (info.first_stage.k, info.first_stage.candidates, info.first_stage.queries) == (10, 100, 64)
        stages.append(info.first_stage)
    assert stages[0].recall > 0.9 > stages[1].recall
    assert good.info().warnings == () and len(poor.info().warnings) == 1
    assert f"{stages[1].recall:.0%}" in poor.info().warnings[0]
    loaded = MuveraIndex.load(tmp_path / "poor").info()
    assert loaded.first_stage == stages[1] and loaded.warnings == poor.info().warnings
    assert loaded.to_dict()["first_stage"]["recall"] == stages[1].recall


def test_when_the_first_stage_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"exact_tokens": 0, "backend": "exact"}
    documents = documents_like_real(400)
    index = MuveraIndex.build(documents[:190], CONFIG, **settings)
    first = index.info().first_stage
    for threads in (1, 2):
        assert (
            MuveraIndex.build(documents[:190], CONFIG, threads=threads, **settings).info().first_stage
            == first
        )
    assert first is not None
    few = MORE[:10]
    index.add(MultiVectors(few.tokens, few.offsets))
    assert index.info().first_stage == first
    index.add(MultiVectors(documents[190:].tokens, documents[190:].offsets))
    second = index.info().first_stage
    assert second is not None and second.documents > 2 * first.documents
    assert built(**WAYS["all tokens"]).info().first_stage is None
    assert built(**WAYS["all tokens"]).measure_recall(QUERIES) is None
    assert built(DOCUMENTS[:100]).info().first_stage is None  # all of them are candidates
    monkeypatch.setattr(two_stage_search, "_PRODUCTS", 1)
    fewest = built().info().first_stage
    assert fewest is not None and fewest.queries == 16
