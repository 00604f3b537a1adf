"""FDE candidates: the right rows, the change from reading all to a graph, and recall that is measured."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import CONFIG, DIM, documents_like_real, queries_like_real

import muvera.index.candidates as module
from muvera import FDEConfig, FDEEncoder, MuveraIndex, load_encoder, mips
from muvera.data.sampling import pseudo_queries
from muvera.index.candidates import CandidateSearch
from muvera.index.settings import IndexSettings
from muvera.mips import ExactSearch, HNSWSearch, HNSWSettings
from muvera.mips.exact import MAX_ROUNDED

DOCUMENTS = documents_like_real(300)
QUERIES = queries_like_real(DOCUMENTS, 12)
FILLED = np.flatnonzero(DOCUMENTS.lengths > 0)
WINDOWS = pseudo_queries(DOCUMENTS[FILLED], 64, 32, np.random.default_rng(0))[0]


@pytest.fixture(scope="module")
def encoder() -> FDEEncoder:
    return FDEEncoder(CONFIG).fit(DOCUMENTS)


def filled(encoder: FDEEncoder, backend: Any = "exact", **hnsw: Any) -> CandidateSearch:
    search = CandidateSearch(encoder, IndexSettings(backend=backend, hnsw=HNSWSettings(**hnsw)))
    search.add(np.arange(300), DOCUMENTS, threads=1)
    return search


def test_candidates_are_the_best_fdes(encoder: FDEEncoder) -> None:
    products = encoder.encode_queries(QUERIES) @ encoder.encode_documents(DOCUMENTS[FILLED]).T
    expected = FILLED[np.argsort(-products, axis=1)[:, :20]]
    for backend, recall in (("exact", 1.0), ("hnsw", 0.98)):
        found = filled(encoder, backend).find(QUERIES, 20)
        hits = [len(np.intersect1d(a, b)) for a, b in zip(found, expected, strict=True)]
        assert np.mean(hits) / 20 >= recall - 0.005  # but for equal products


@pytest.mark.parametrize("backend", ["exact", "hnsw", "usearch"])
def test_documents_without_tokens_are_no_candidates(encoder: FDEEncoder, backend: Any) -> None:
    search = filled(encoder, backend)
    assert search.search.labels().tolist() == FILLED.tolist()
    for row in search.find(QUERIES, 10_000):
        assert np.sort(row).tolist() == FILLED.tolist()
    search.remove(np.array([16, 17, 33]))  # two of them have no tokens
    assert len(search.search) == len(FILLED) - 1
    allowed = np.array([5, 16, 17, 40])
    for row in search.find(QUERIES, 3, allowed):
        assert sorted(row) == [5, 40]


def test_blocks_of_fdes_leave_no_trace(encoder: FDEEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = filled(encoder).find(QUERIES, 20)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * CONFIG.vector_dimension * 7)
    for found, wanted in zip(filled(encoder).find(QUERIES, 20), expected, strict=True):
        assert found.tolist() == wanted.tolist()


def test_auto_changes_to_a_graph_when_there_are_many(
    encoder: FDEEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "graph_from", lambda _: 200)
    search = CandidateSearch(encoder, IndexSettings(hnsw=HNSWSettings(m=9)))
    search.add(np.arange(150), DOCUMENTS[:150])
    before_graph: Any = search.search
    assert isinstance(before_graph, ExactSearch) and search.measure(WINDOWS) == 1.0
    stale = [search.recall_is_stale]
    before = search.find(QUERIES, 500)
    search.remove(np.array([3]))
    search.add(np.arange(150, 300), DOCUMENTS[150:])
    assert isinstance(search.search, HNSWSearch) and search.search.settings.m == 9
    stale.append(search.recall_is_stale)
    assert stale == [False, True]  # the recall of reading all says nothing about the graph
    assert search.search.labels().tolist() == [row for row in FILLED.tolist() if row != 3]
    among = [row for row in before[0].tolist() if row != 3]
    assert sorted(search.find(QUERIES, 500, np.array(among))[0]) == sorted(among)
    monkeypatch.setattr(module, "graph_from", lambda _: 10**6)
    search.add(np.arange(300, 310), DOCUMENTS[:10])
    assert isinstance(search.search, HNSWSearch)  # a graph is not left again


def test_short_vectors_are_read_longer_than_long_ones_before_a_graph() -> None:
    limits = [module.graph_from(floats) for floats in (64, 512, 513, MAX_ROUNDED, MAX_ROUNDED + 1, 10_240)]
    assert limits == sorted(limits, reverse=True) and limits[0] == limits[1] and limits[-2] == limits[-1]
    assert len(set(limits)) == 3


def test_auto_takes_usearch_where_hnswlib_is_not_installed(
    encoder: FDEEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "graph_from", lambda _: 200)
    monkeypatch.setattr(mips, "find_spec", lambda name: None if name == "hnswlib" else object())
    search = CandidateSearch(encoder, IndexSettings())
    search.add(np.arange(300), DOCUMENTS)
    assert search.search.kind == "usearch"
    (warning,) = search.warnings()
    assert warning.startswith("hnswlib is not installed") and "muvera-toolkit[hnswlib]" in warning
    assert CandidateSearch(encoder, IndexSettings(backend="usearch")).warnings() == []  # it was asked for
    monkeypatch.setattr(mips, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="neither hnswlib nor usearch is installed"):
        CandidateSearch(encoder, IndexSettings()).add(np.arange(300), DOCUMENTS)


def test_a_missing_library_is_named(encoder: FDEEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    missing: list[tuple[Any, str, str]] = [
        ("hnsw", "hnswlib", "hnswlib"),
        ("usearch", "usearch", "usearch.index"),
    ]
    for backend, library, module_name in missing:
        monkeypatch.setitem(sys.modules, module_name, None)
        with pytest.raises(ImportError, match=rf"'{backend}' needs {library}.*pip install .*\[{library}\]"):
            CandidateSearch(encoder, IndexSettings(backend=backend))


# -- recall -------------------------------------------------------------------


def test_recall_is_measured_kept_and_warned_about(
    encoder: FDEEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MEASURED_K", 10)  # a hundred of so few are found by any graph
    good = filled(encoder, "hnsw")
    assert good.recall is None and good.recall_is_stale and good.info()["recall"] is None
    recall = good.measure(WINDOWS)
    assert recall is not None and recall > 0.99
    assert good.info()["recall_measured_at"] == len(FILLED) and good.warnings() == []
    poor = filled(encoder, "hnsw", m=3, ef_construction=1, ef=1)
    recall = poor.measure(WINDOWS)
    assert recall is not None and recall < module.LOW_RECALL
    (warning,) = poor.warnings()
    assert f"finds only {recall:.1%} of the exact best" in warning and "raise hnsw m or ef" in warning
    loaded = CandidateSearch.load(
        tmp_path, encoder, poor.settings, poor.save(tmp_path), np.empty(0, np.int64)
    )
    assert loaded.recall == recall and loaded.warnings() == [warning]


def test_recall_is_outdated_when_the_graph_has_doubled(encoder: FDEEncoder) -> None:
    search = CandidateSearch(encoder, IndexSettings(backend="hnsw"))
    search.add(np.arange(100), DOCUMENTS[:100])
    search.measure(WINDOWS)
    search.add(np.arange(100, 200), DOCUMENTS[100:200])
    assert not search.recall_is_stale
    search.add(np.arange(200, 300), DOCUMENTS[200:])
    assert search.recall_is_stale


# -- failing ------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["exact", "hnsw", "usearch"])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_an_add_that_fails_late_adds_nothing(
    backend: Any, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = FDEEncoder(CONFIG).fit(DOCUMENTS)
    search = CandidateSearch(encoder, IndexSettings(backend=backend))
    search.add(np.arange(100), DOCUMENTS[:100])
    before = search.find(QUERIES, 30)
    encode, calls = encoder.encode_documents, []

    def breaks(documents: Any, **settings: Any) -> Any:
        calls.append(len(documents))
        if len(calls) == 3:
            raise error
        return encode(documents, **settings)

    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * CONFIG.vector_dimension * 50)
    monkeypatch.setattr(encoder, "encode_documents", breaks)
    with pytest.raises(error):
        search.add(np.arange(100, 300), DOCUMENTS[100:])
    monkeypatch.undo()
    assert calls == [50, 50, 50]
    assert search.search.labels().tolist() == FILLED[FILLED < 100].tolist()
    for found, expected in zip(search.find(QUERIES, 30), before, strict=True):
        assert found.tolist() == expected.tolist()
    # A graph has seen these rows; new ones are free.
    assert search.can_add(np.arange(100, 300)) == (backend != "hnsw")
    assert search.can_add(np.arange(300, 500))


@pytest.mark.parametrize(
    ("backend", "hnsw", "message"),
    [
        ("faiss", None, "backend must be one of auto, exact, hnsw, usearch, int8, pq, got 'faiss'"),
        ("auto", {"m": 0}, "hnsw: m must be at least 2, got 0"),
        ("auto", {"links": 3}, "hnsw has no 'links'"),
    ],
)
def test_wrong_settings_are_refused_before_they_are_used(backend: Any, hnsw: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        IndexSettings.from_dict({"backend": backend, "hnsw": hnsw})
    with pytest.raises((ValueError, TypeError), match=message):
        MuveraIndex(FDEConfig(dimension=4), backend=backend, hnsw=hnsw)


def test_settings_are_plain_values_and_come_back() -> None:
    settings = IndexSettings(backend="pq", hnsw=HNSWSettings(m=9), exact_tokens=5)
    assert IndexSettings.from_dict(settings.to_dict()) == settings == IndexSettings.from_dict(vars(settings))
    assert settings.of("hnsw") == HNSWSettings(m=9) and settings.of("exact") is None
    with pytest.raises(
        ValueError, match=r"IndexSettings has no 'ef'\. It has: backend, hnsw, usearch, pq, exact_tokens"
    ):
        IndexSettings.from_dict({"ef": 3})
    with pytest.raises(ValueError, match="exact_tokens must be at least 0, got -1"):
        IndexSettings(exact_tokens=-1)


# -- keeping ------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["exact", "hnsw", "auto"])
def test_saved_and_loaded_finds_the_same(encoder: FDEEncoder, tmp_path: Path, backend: Any) -> None:
    search = filled(encoder, backend, ef=33)
    search.remove(np.array([4, 5]))
    search.measure(WINDOWS)
    loaded = CandidateSearch.load(
        tmp_path, encoder, search.settings, search.save(tmp_path), np.array([4, 5, 16])
    )
    assert loaded.info() == search.info()
    for found, expected in zip(loaded.find(QUERIES, 50), search.find(QUERIES, 50), strict=True):
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("settings", [{}, {"center": False}, {"final_projection": "count_sketch"}])
def test_a_loaded_encoder_encodes_the_same(tmp_path: Path, settings: dict[str, Any]) -> None:
    if "final_projection" in settings:
        settings = {**settings, "final_projection_dimension": 40}
    encoder = FDEEncoder(FDEConfig(dimension=DIM, num_repetitions=3, **settings)).fit(DOCUMENTS)
    encoder.save(tmp_path / "encoder")
    loaded = load_encoder(tmp_path / "encoder")
    assert loaded.config == encoder.config
    assert not loaded.needs_fit
    for side in ("encode_documents", "encode_queries"):
        found, expected = getattr(loaded, side)(DOCUMENTS), getattr(encoder, side)(DOCUMENTS)
        np.testing.assert_array_equal(found, expected)
