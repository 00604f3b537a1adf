"""Recall of the first stage: apart from the graph's, against what searches find, kept and warned about."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import CONFIG, documents_like_real, queries_like_real

from muvera import FDEConfig, MultiVectors, MuveraIndex, top_k
from muvera.index import quality
from muvera.index.quality import FirstStageRecall, first_stage_recall, num_measured_queries

DOCUMENTS = documents_like_real(400)
QUERIES = queries_like_real(DOCUMENTS, 25)
#: So few floats find little.
POOR = FDEConfig(
    dimension=CONFIG.dimension,
    num_repetitions=1,
    num_simhash_projections=1,
    projection_dimension=2,
    split_mean=False,
)


def rows(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def test_shares_are_those_of_a_count() -> None:
    best = [rows(3, 1, 2), rows(5, 6, 7)]
    found = [rows(1, 9, 3), rows(6, 5, 8)]
    assert first_stage_recall(best, found, None, 2, 1) == pytest.approx((0.5 + 0.5) / 2)
    assert first_stage_recall(best, found, None, 3, 3) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_sources_are_left_out_before_the_first_are_taken() -> None:
    best, found = [rows(4, 1, 2)], [rows(4, 2, 9)]
    assert first_stage_recall(best, found, rows(4), 2, 1) == 0.5
    assert first_stage_recall(best, found, rows(8), 2, 2) == 0.5  # the source is in neither


@pytest.mark.parametrize("config", [CONFIG, POOR])
@pytest.mark.parametrize("backend", ["exact", "hnsw", "int8"])
def test_it_is_what_searches_find(config: FDEConfig, backend: Any) -> None:
    index = MuveraIndex.build(DOCUMENTS, config, exact_tokens=0, backend=backend)
    measured = index.measure_recall(QUERIES, k=10, candidates=30)
    searched = index.search(QUERIES, 10, candidates=30)
    exact = top_k(QUERIES, DOCUMENTS, 10)
    hits = [np.isin(b.ids, a.ids).mean() for a, b in zip(searched, exact, strict=True)]
    assert measured is not None and measured.recall == pytest.approx(np.mean(hits))
    assert (measured.k, measured.candidates, measured.queries) == (10, 30, len(QUERIES))
    assert not measured.pseudo_queries


def test_a_built_index_knows_it_apart_from_its_graph(tmp_path: Path) -> None:
    good = MuveraIndex.build(DOCUMENTS, CONFIG, exact_tokens=0, backend="hnsw")
    poor = MuveraIndex.build(DOCUMENTS, POOR, exact_tokens=0, backend="hnsw", path=tmp_path / "poor")
    for index in (good, poor):
        info = index.info()
        assert info.vectors is not None and info.vectors["recall"] > 0.97
        assert info.first_stage is not None and info.first_stage.pseudo_queries
        assert info.first_stage.documents == int((DOCUMENTS.lengths > 0).sum())
        assert (info.first_stage.k, info.first_stage.candidates, info.first_stage.queries) == (10, 100, 64)
    found = [index.info().first_stage for index in (good, poor)]
    assert found[0] is not None and found[1] is not None
    assert found[0].recall > 0.9 > found[1].recall
    assert good.info().warnings == ()
    (warning,) = poor.info().warnings
    assert warning.startswith(f"Only {found[1].recall:.0%} of the exact 10 best documents are among 100")
    loaded = MuveraIndex.load(tmp_path / "poor").info()
    assert loaded.first_stage == found[1] and loaded.warnings == (warning,)
    assert loaded.to_dict()["first_stage"]["recall"] == found[1].recall


def test_it_does_not_depend_on_threads() -> None:
    first, second = (
        MuveraIndex.build(DOCUMENTS, CONFIG, exact_tokens=0, threads=threads).info().first_stage
        for threads in (1, 2)
    )
    assert first is not None and first == second


def test_it_is_measured_again_when_the_index_has_doubled() -> None:
    index = MuveraIndex.build(DOCUMENTS[:190], CONFIG, exact_tokens=0)
    first = index.info().first_stage
    assert first is not None
    index.add(MultiVectors(DOCUMENTS[190:210].tokens, DOCUMENTS[190:210].offsets))
    assert index.info().first_stage == first
    index.add(MultiVectors(DOCUMENTS[210:].tokens, DOCUMENTS[210:].offsets))
    second = index.info().first_stage
    assert second is not None and second.documents > 2 * first.documents


def test_where_it_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MuveraIndex.build(DOCUMENTS, CONFIG).info().first_stage is None  # all tokens are read
    assert MuveraIndex.build(DOCUMENTS, CONFIG).measure_recall(QUERIES) is None
    few = MuveraIndex.build(DOCUMENTS[:100], CONFIG, exact_tokens=0)
    assert few.info().first_stage is None  # all of them are candidates
    monkeypatch.setattr(quality, "_MAX_TOKENS", 100)
    many = MuveraIndex.build(DOCUMENTS, CONFIG, exact_tokens=0)
    assert many.info().first_stage is None
    assert many.measure_recall(QUERIES) is not None


def test_work_is_bounded() -> None:
    assert num_measured_queries(1_000, 128) == 64
    assert num_measured_queries(400_000, 128) == 30
    assert num_measured_queries(10_000_000, 128) == 16
    assert num_measured_queries(10**8, 128) == 0


def test_queries_without_tokens_are_left_out() -> None:
    index = MuveraIndex.build(DOCUMENTS, CONFIG, exact_tokens=0)
    none = np.empty((0, CONFIG.dimension), np.float32)
    some = index.measure_recall([none, *QUERIES])
    assert some == index.measure_recall(QUERIES)
    with pytest.raises(ValueError, match="queries have no tokens at all"):
        index.measure_recall([none])
    with pytest.raises(ValueError, match="candidates=3 must be at least k=10"):
        index.measure_recall(QUERIES, candidates=3)


def test_the_warning_says_what_was_measured() -> None:
    low = FirstStageRecall(0.5, 10, 100, 16, True, 5000)
    assert low.warning is not None and "(16 windows of document tokens were measured)" in low.warning
    assert dataclasses.replace(low, recall=0.95).warning is None
