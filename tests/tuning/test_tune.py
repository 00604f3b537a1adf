"""tune on small collections: what it depends on, its limits, its target, its errors."""

import dataclasses
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import documents_like_real, queries_like_real
from builders.small_search_space import TUNE, small_encoders, use_small_encoders, without_times

from muvera import MeanConfig, MultiVectors, MuveraIndex, Tuning, plot_tuning, tune
from muvera.mips.hnsw import bytes_in_graph
from muvera.tuning.report import render
from muvera.tuning.result import TunedRow
from muvera.tuning.sample import draw_sample
from muvera.tuning.search_space import EncoderCandidate

pytestmark = pytest.mark.compiled("encodes hundreds of documents many times")

DOCUMENTS = documents_like_real(500)
QUERIES = queries_like_real(DOCUMENTS, 60)


@cache
def plain_tuning() -> Tuning:
    """Without limits; several tests look at it."""
    return tune(DOCUMENTS, QUERIES, candidates=30)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_encoders(monkeypatch)


def test_the_same_for_a_seed_whatever_the_threads() -> None:
    first = tune(DOCUMENTS, QUERIES, candidates=30, seed=3, threads=1)
    second = tune(DOCUMENTS, QUERIES, candidates=30, seed=3, threads=2)
    assert without_times(first) == without_times(second)
    assert first.text.splitlines()[:3] == second.text.splitlines()[:3]
    other = tune(DOCUMENTS, QUERIES, candidates=30, seed=4, threads=1)
    assert [row.held_out for row in first.rows] != [row.held_out for row in other.rows]


def test_held_out_queries_have_no_influence_on_the_choice() -> None:
    """Turned to noise, they change their own estimate and nothing else."""
    filled = MultiVectors(QUERIES.tokens, QUERIES.offsets)
    texts = DOCUMENTS[DOCUMENTS.lengths > 0]
    drawn = draw_sample(DOCUMENTS, np.flatnonzero(DOCUMENTS.lengths > 0), filled, 1500, 0)
    assert len(drawn.documents) == len(texts)
    held = set(drawn.held_out.queries.ids.tolist())
    assert len(held) == 20 and not held & set(drawn.selection.queries.ids.tolist())
    rng = np.random.default_rng(0)
    changed = [
        rng.normal(size=QUERIES[i].shape) if i in held else np.asarray(QUERIES[i])
        for i in range(len(QUERIES))
    ]
    first = plain_tuning()
    second = tune(DOCUMENTS, changed, candidates=30)
    assert [(r.name, r.storage, r.recall) for r in first.rows] == [
        (r.name, r.storage, r.recall) for r in second.rows
    ]
    assert first.config == second.config and first.settings == second.settings
    assert [r.held_out for r in first.rows] != [r.held_out for r in second.rows]


def test_the_most_is_chosen_and_the_front_is_one() -> None:
    found = plain_tuning()
    assert found.queries == 40 and found.held_out_queries == 20 and not found.pseudo_queries
    best = max(found.rows, key=lambda row: row.mean_recall)
    assert best.config == found.config
    assert best.recall[10] < best.mean_recall < best.recall[30]  # among 15 and among 30
    front = [(row.bytes, row.mean_recall) for row in found.pareto]
    assert front == sorted(set(front)) and [b for _, b in front] == sorted({b for _, b in front})
    low, high = found.choice.interval
    assert low <= found.choice.held_out <= high
    assert found.target_reached is found.min_candidates is found.graph_recall is None


def test_what_is_measured_is_what_an_index_finds() -> None:
    """With all documents in the sample, recall at the candidates is the index's."""
    found = tune(DOCUMENTS, QUERIES, candidates=30, max_floats=128)
    index = MuveraIndex.build(DOCUMENTS, found.config, exact_tokens=0, **found.settings)
    exact = MuveraIndex.build(DOCUMENTS, found.config, exact_tokens=10**9)
    hits = [
        len(np.intersect1d(a.ids, b.ids)) / 10
        for a, b in zip(index.search(QUERIES, k=10, candidates=30), exact.search(QUERIES, k=10), strict=True)
    ]
    # All 60 queries here, 20 there, and maps learned from the documents in another order.
    assert np.mean(hits) == pytest.approx(found.choice.held_out, abs=0.08)


def test_limits_are_kept() -> None:
    by_bytes = tune(DOCUMENTS, QUERIES, candidates=30, max_bytes=80)
    assert max(row.bytes for row in by_bytes.rows) <= 80 and by_bytes.choice.bytes <= 80
    index = MuveraIndex.build(DOCUMENTS, by_bytes.config, exact_tokens=0, **by_bytes.settings)
    vectors = index.info().vectors
    assert vectors is not None and vectors["bytes_per_vector"] == by_bytes.choice.bytes
    by_floats = tune(DOCUMENTS, QUERIES, candidates=30, max_floats=32)
    assert max(row.floats for row in by_floats.rows) <= 32
    assert by_bytes.within(max_bytes=40).bytes <= 40
    with pytest.raises(
        ValueError, match=re.escape("as small as max_floats=3. The smallest that was measured is 16.")
    ):
        by_bytes.within(max_floats=3)


def test_the_smallest_that_reaches_a_target() -> None:
    found = tune(DOCUMENTS, QUERIES, candidates=50, target_recall=0.6)
    assert found.target_reached and found.choice.recall[50] >= 0.6
    smaller = [row for row in found.rows if row.bytes < found.choice.bytes]
    assert all(row.recall[50] < 0.6 for row in smaller)
    assert found.min_candidates is not None and found.min_candidates <= 50
    assert (
        f"reaches 60.0% with the queries for selection; {found.min_candidates} is the smallest measured number"
        in " ".join(found.text.split())
    )


def test_a_target_that_nothing_reaches() -> None:
    found = tune(DOCUMENTS, QUERIES, candidates=10, target_recall=1.0, max_floats=64)
    assert found.target_reached is False
    text = " ".join(found.text.split())
    assert "No configuration reaches 100.0% among 10 candidates; this one has the highest recall." in text


def test_windows_are_cut_out_of_documents_that_nothing_was_learned_from() -> None:
    filled = np.flatnonzero(DOCUMENTS.lengths > 0)
    for queries in (None, MultiVectors(QUERIES.tokens, QUERIES.offsets)):
        drawn = draw_sample(DOCUMENTS, filled, queries, 1500, 0)
        cut = [drawn.selection, drawn.held_out] if queries is None else [drawn.pseudo_queries]
        for each in cut:
            assert each is not None and len(each.source_documents) >= 10
            assert not np.isin(each.source_documents, drawn.fitting).any()
    assert len(drawn.fitting) == round(0.75 * len(filled))


def test_held_out_queries_that_find_less_than_the_target_are_told() -> None:
    found = tune(DOCUMENTS, QUERIES, candidates=50, target_recall=0.6)
    for held_out, told in ((0.5, True), (0.7, False)):
        changed = dataclasses.replace(found, choice=dataclasses.replace(found.choice, held_out=held_out))
        assert ("is lower than the target" in " ".join(render(changed).split())) == told


def test_the_best_of_what_misses_a_target_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    first = tune(DOCUMENTS, QUERIES, candidates=50, target_recall=0.6)
    measured = TUNE._Rows.alone

    def worse(*arguments: Any) -> TunedRow:
        row: TunedRow = measured(*arguments)
        return dataclasses.replace(row, recall={cutoff: value - 0.2 for cutoff, value in row.recall.items()})

    monkeypatch.setattr(TUNE._Rows, "alone", worse)
    most = max(row.recall[50] for row in first.rows)
    found = tune(DOCUMENTS, QUERIES, candidates=50, target_recall=most - 0.05)
    assert found.target_reached is False
    possible = [row.mean_recall for row in first.rows if row.recall[50] >= most - 0.05]
    assert found.choice.mean_recall >= max(possible) - 0.02


def test_windows_stand_in_for_queries() -> None:
    found = tune(DOCUMENTS, candidates=30)
    assert found.pseudo_queries and found.pseudo_query_choice is None
    assert "windows of document tokens" in found.text
    with pytest.raises(ValueError, match="were selected by pseudo-queries already"):
        found.within(by_pseudo_queries=True)


def test_what_windows_would_have_chosen() -> None:
    found = plain_tuning()
    choice = found.pseudo_query_choice
    assert choice is not None
    assert choice.pseudo_query_recall == max(row.pseudo_query_recall or 0 for row in found.rows)
    assert found.within(by_pseudo_queries=True) == choice


def test_large_collections_get_a_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.tuning.search_space.graph_from", lambda _: 300)
    monkeypatch.setattr(TUNE, "STORAGES", TUNE.STORAGES[:1])
    found = tune(DOCUMENTS, QUERIES, candidates=30, max_floats=128)
    assert set(found.hnsw) == {"m", "ef"} and found.settings == {"backend": "auto", "hnsw": found.hnsw}
    assert found.choice.bytes == bytes_in_graph(found.choice.floats, found.hnsw["m"])
    assert found.graph_recall is not None and found.graph_recall > 0.9
    assert "has a graph: with m=" in found.text
    tight = tune(DOCUMENTS, QUERIES, candidates=30, max_bytes=bytes_in_graph(16, 16))
    assert tight.hnsw["m"] == 16 and tight.choice.floats == 16


def test_a_smaller_sample_and_progress() -> None:
    steps: list[int] = []
    found = tune(DOCUMENTS, QUERIES, candidates=20, sample=450, progress=steps.append)
    assert (found.sampled_documents, found.documents) == (450, 471)
    assert steps and set(steps) == {1}
    assert "Recall was measured among 450 documents: among all 471" in " ".join(found.text.split())


def test_small_collections_are_said_to_need_nothing() -> None:
    assert plain_tuning().exact_search
    assert "reads all tokens and is exact" in " ".join(plain_tuning().text.split())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_bytes": 9, "max_floats": 5}, "max_bytes=9 and max_floats=5 both limit the size"),
        ({"target_recall": 0.0}, "target_recall must be above 0 and at most 1, got 0.0."),
        ({"target_recall": 1.5}, "target_recall must be above 0 and at most 1, got 1.5."),
        ({"max_bytes": 27}, "as small as max_bytes=27: the smallest has 28 bytes."),
        ({"max_floats": 15}, "as small as max_floats=15: the smallest has 16 floats."),
        ({"candidates": 5}, "candidates must be between 10 and half of the 471 sampled documents, got 5"),
        ({"candidates": 300}, "half of the 471 sampled documents, got 300"),
        ({"sample": 49}, "sample must be at least 50, got 49."),
        ({"seed": -1}, "seed must be at least 0, got -1."),
    ],
)
def test_wrong_values(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        tune(DOCUMENTS, QUERIES, **settings)  # type: ignore[arg-type]


def test_too_few_or_others() -> None:
    with pytest.raises(ValueError, match="at least 50 documents with tokens, got 38"):
        tune(DOCUMENTS[:40])
    with pytest.raises(ValueError, match="at least 30 queries with tokens, got 29"):
        tune(DOCUMENTS, QUERIES[:29])
    with pytest.raises(TypeError, match="max_bytes must be an int, got float"):
        tune(DOCUMENTS, max_bytes=1e3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="8"):
        tune(DOCUMENTS, np.ones((20, 2, 8), np.float32))


@pytest.mark.parametrize(("ending", "start"), [("svg", b"<svg"), ("png", b"\x89PNG")])
def test_plot(tmp_path: Path, ending: str, start: bytes) -> None:
    found = plain_tuning()
    plot_tuning(found, tmp_path / f"tuned.{ending}")
    assert (tmp_path / f"tuned.{ending}").read_bytes().startswith(start)
    with pytest.raises(ValueError, match=re.escape("written as .svg or .png, got tuned.pdf")):
        plot_tuning(found, tmp_path / "tuned.pdf")


def test_a_choice_that_misses_the_target_by_itself_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leading columns of a larger map may find a little more than a map of their size."""
    first = tune(DOCUMENTS, QUERIES, candidates=50, target_recall=0.6)
    measured = TUNE._Rows.alone

    def worse(rows: object, encoder: EncoderCandidate, row: TunedRow) -> TunedRow:
        alone: TunedRow = measured(rows, encoder, row)
        if encoder.config != first.config:
            return alone
        return dataclasses.replace(alone, recall=dict.fromkeys(alone.recall, 0.59))

    monkeypatch.setattr(TUNE._Rows, "alone", worse)
    second = tune(DOCUMENTS, QUERIES, candidates=50, target_recall=0.6)
    assert second.target_reached and second.config != first.config
    assert second.choice.bytes >= first.choice.bytes


def test_the_text_has_the_table_and_the_choice() -> None:
    found = plain_tuning()
    lines = found.text.splitlines()
    assert lines[0] == "documents   471, of which 471 were measured"
    assert lines[1] == "queries     60, given: 40 for selection, 20 held out"
    marked = [line for line in lines if line.startswith("* ")]
    assert len(marked) == 1 and found.choice.name in marked[0] and found.choice.storage.name in marked[0]
    text = " ".join(found.text.split())
    low, high = found.choice.interval
    said = f"among 30 candidates as {found.choice.held_out:.1%} ({low:.1%} to {high:.1%})"
    assert f"Use {found.choice.name} stored as {found.choice.storage.name}" in text and said in text


def test_the_choice_never_loses_to_the_mean_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the maps of a size of its own find less than the columns that stood for them."""
    mean = MeanConfig(dimension=DOCUMENTS.dimension)
    encoders = [EncoderCandidate("mean 17", mean, mean), *small_encoders(DOCUMENTS.dimension)]
    monkeypatch.setattr(TUNE, "encoder_candidates", lambda _: encoders)
    measured = TUNE._Rows.alone

    def worse(rows: object, encoder: EncoderCandidate, row: TunedRow) -> TunedRow:
        alone: TunedRow = measured(rows, encoder, row)
        if encoder.kind in ("mean", "FDE"):
            return alone
        return dataclasses.replace(alone, mean_recall=0.1, recall=dict.fromkeys(alone.recall, 0.1))

    for change, target in ((measured, None), (measured, 0.99), (worse, None), (worse, 0.8), (worse, 0.99)):
        monkeypatch.setattr(TUNE._Rows, "alone", change)
        found = tune(DOCUMENTS, QUERIES, candidates=30, target_recall=target)
        losers = [row for row in found.rows if row.name.startswith("mean")]
        best = max(row.mean_recall for row in losers)
        assert losers and (found.choice.mean_recall >= best or found.target_reached)
        if change is worse:
            assert found.choice.name.split()[0] in ("mean", "FDE")
