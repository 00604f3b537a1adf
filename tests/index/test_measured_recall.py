"""First-stage recall: what is measured, and when; blocks of vectors."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.indexes import DOCUMENTS, QUERIES, WAYS, built
from builders.realistic_collections import CONFIG, documents_like_real

import muvera.index.candidates as module
from muvera import MuveraIndex, top_k
from muvera.index import two_stage_search

#: An encoder with few floats and low recall.
POOR = dataclasses.replace(
    CONFIG, num_repetitions=1, num_simhash_projections=1, projection_dimension=2, split_mean=False
)


def test_hnswlib_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    with pytest.raises(ImportError, match=r"pip install .*\[hnsw\]"):
        built()


def test_blocks_of_vectors_change_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [list(ranking) for ranking in built(**WAYS["exact"]).search(QUERIES, 20, candidates=20)]
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4 * CONFIG.vector_dimension * 7)
    index = built(**WAYS["exact"])
    assert [list(ranking) for ranking in index.search(QUERIES, 20, candidates=20)] == whole


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
    assert built(**WAYS["all tokens"]).info().first_stage is None
    assert built(**WAYS["all tokens"]).measure_recall(QUERIES) is None
    assert built(DOCUMENTS[:100]).info().first_stage is None  # all of them are candidates
    monkeypatch.setattr(two_stage_search, "_PRODUCTS", 1)
    fewest = built().info().first_stage
    assert fewest is not None and fewest.queries == 16
