"""tune on small collections: inputs of the choice, limits, targets, errors."""

import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import documents_like_real, queries_like_real
from builders.small_search_space import TUNE, small_encoders, use_small_encoders, without_times
from numpy.typing import NDArray

from muvera import MomentsConfig, MomentsEncoder, MultiVectors, MuveraIndex, tune
from muvera.encoders.registry import config_from_dict
from muvera.mips.scan import scan_bytes
from muvera.tuning.evaluate import Evaluator, draw_sample
from muvera.tuning.plot import plot_tuning
from muvera.tuning.result import TunedRow, Tuning
from muvera.tuning.search_space import EncoderCandidate

pytestmark = pytest.mark.compiled("encodes hundreds of documents many times")

DOCUMENTS = documents_like_real(450)
QUERIES = queries_like_real(DOCUMENTS, 45)
FILLED = np.flatnonzero(DOCUMENTS.lengths > 0)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_encoders(monkeypatch)


@cache
def plain_tuning() -> Tuning:
    return tune(DOCUMENTS, QUERIES, candidates=30)


@cache
def target_tuning() -> Tuning:
    return tune(DOCUMENTS, QUERIES, candidates=50, target_recall=0.6)


def test_the_choice_is_the_best_row_and_does_not_depend_on_threads() -> None:
    first = plain_tuning()
    assert without_times(tune(DOCUMENTS, QUERIES, candidates=30, threads=2)) == without_times(first)
    assert first.queries == 30 and first.held_out_queries == 15 and not first.pseudo_queries
    best = max(first.rows, key=lambda row: row.mean_recall)
    assert best.config == first.config and best.recall[10] < best.mean_recall < best.recall[30]
    front = [(row.bytes, row.mean_recall) for row in first.pareto]
    assert front == sorted(set(front)) and [b for _, b in front] == sorted({b for _, b in front})
    low, high = first.choice.interval
    assert low <= first.choice.held_out <= high
    assert first.target_reached is first.min_candidates is None
    values = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert config_from_dict(values["config"]) == first.config and len(values["rows"]) == len(first.rows)
    assert first.choice.name in first.text


def test_held_out_queries_do_not_influence_the_choice() -> None:
    """Replaced by noise, they change only their own estimate."""
    drawn = draw_sample(DOCUMENTS, FILLED, MultiVectors(QUERIES.tokens, QUERIES.offsets), 1500, 0)
    held = set(drawn.held_out.queries.ids.tolist())
    assert len(held) == 15 and not held & set(drawn.selection.queries.ids.tolist())
    rng = np.random.default_rng(0)
    changed = [rng.normal(size=query.shape) if i in held else query for i, query in enumerate(QUERIES)]
    first, second = plain_tuning(), tune(DOCUMENTS, changed, candidates=30)
    assert [(row.name, row.recall) for row in first.rows] == [(row.name, row.recall) for row in second.rows]
    assert first.config == second.config
    assert [row.held_out for row in first.rows] != [row.held_out for row in second.rows]


def test_windows_come_from_documents_that_nothing_was_fitted_to() -> None:
    for queries in (None, MultiVectors(QUERIES.tokens, QUERIES.offsets)):
        drawn = draw_sample(DOCUMENTS, FILLED, queries, 1500, 0)
        for one in [drawn.selection, drawn.held_out] if queries is None else [drawn.pseudo_queries]:
            assert one is not None and len(one.sources) >= 10
            assert not np.isin(one.sources, drawn.fitting).any()
    assert len(drawn.fitting) == round(0.75 * len(FILLED))


def test_measured_recall_is_that_of_an_index() -> None:
    """With all documents in the sample; the maps are fitted to other documents."""
    tuning = plain_tuning()
    index = MuveraIndex.build(DOCUMENTS, tuning.config, exact_tokens=0)
    exact = MuveraIndex.build(DOCUMENTS, tuning.config, exact_tokens=10**9).search(QUERIES, k=10)
    approximate = index.search(QUERIES, k=10, candidates=30)
    shares = [len(np.intersect1d(a.ids, b.ids)) / 10 for a, b in zip(approximate, exact, strict=True)]
    assert np.mean(shares) == pytest.approx(tuning.choice.held_out, abs=0.1)
    vectors = index.info().vectors
    assert vectors is not None and vectors["bytes_per_vector"] == tuning.choice.bytes


def test_limits() -> None:
    limit = plain_tuning().rows[2].bytes
    tuning = tune(DOCUMENTS, QUERIES, candidates=30, max_bytes=limit)
    assert max(row.bytes for row in tuning.rows) <= limit and tuning.choice.bytes <= limit
    assert max(row.floats for row in tune(DOCUMENTS, QUERIES, candidates=30, max_floats=32).rows) <= 32
    assert plain_tuning().within(limit).bytes <= limit
    with pytest.raises(ValueError, match=f"max_bytes=3.* {plain_tuning().rows[0].bytes} "):
        plain_tuning().within(3)


def test_the_smallest_that_reaches_a_target() -> None:
    tuning = target_tuning()
    assert tuning.target_reached and tuning.choice.recall[50] >= 0.6
    assert all(row.recall[50] < 0.6 for row in tuning.rows if row.bytes < tuning.choice.bytes)
    assert tuning.min_candidates is not None and tuning.min_candidates <= 50
    none = tune(DOCUMENTS, QUERIES, candidates=10, target_recall=1.0, max_floats=64)
    assert none.target_reached is False and "100.0%" in none.text


def changed_rows(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Change the rows of encoders that are measured with a fit of their own."""
    measured = Evaluator.alone
    monkeypatch.setattr(
        Evaluator, "alone", lambda self, encoder, row: change(encoder, measured(self, encoder, row))
    )


def test_a_choice_whose_own_fit_misses_the_target_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    first = target_tuning()

    def worse(encoder: EncoderCandidate, row: TunedRow) -> TunedRow:
        missed = dataclasses.replace(row, recall=dict.fromkeys(row.recall, 0.59))
        return missed if encoder.config == first.config else row

    changed_rows(monkeypatch, worse)
    second = tune(DOCUMENTS, QUERIES, candidates=50, target_recall=0.6)
    assert second.target_reached and second.config != first.config
    assert second.choice.bytes >= first.choice.bytes


@pytest.mark.parametrize("target", [None, 0.8, 0.99])
def test_the_choice_never_loses_to_the_mean(monkeypatch: pytest.MonkeyPatch, target: float | None) -> None:
    """Even if fits of other encoders at their own size find less than leading columns of larger ones."""
    mean = MomentsConfig(dimension=DOCUMENTS.dimension, covariance=False, compact_dimension=None)
    encoders = [EncoderCandidate("mean 17", mean, mean), *small_encoders(DOCUMENTS.dimension)]
    monkeypatch.setattr(TUNE, "encoder_candidates", lambda _: encoders)

    def worse(encoder: EncoderCandidate, row: TunedRow) -> TunedRow:
        if encoder.kind in ("mean", "FDE"):
            return row
        return dataclasses.replace(row, mean_recall=0.1, recall=dict.fromkeys(row.recall, 0.1))

    changed_rows(monkeypatch, worse)
    tuning = tune(DOCUMENTS, QUERIES, candidates=30, target_recall=target)
    best = max(row.mean_recall for row in tuning.rows if row.name == "mean 17")
    assert tuning.choice.mean_recall >= best or tuning.target_reached
    assert tuning.choice.name.split()[0] in ("mean", "FDE")


def test_pseudo_queries() -> None:
    tuning = tune(DOCUMENTS, candidates=30)
    assert tuning.pseudo_queries and tuning.pseudo_query_choice is None
    with pytest.raises(ValueError, match="by_pseudo_queries=True"):
        tuning.within(by_pseudo_queries=True)
    both = plain_tuning()
    choice = both.pseudo_query_choice
    assert choice is not None and choice == both.within(by_pseudo_queries=True)
    assert choice.pseudo_query_recall == max(row.pseudo_query_recall or 0 for row in both.rows)


def test_sizes_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.tuning.evaluate.SCAN_FROM", 300)
    steps: list[int] = []
    tuning = tune(DOCUMENTS, QUERIES, candidates=20, sample=400, max_floats=64, progress=steps.append)
    assert tuning.choice.bytes == scan_bytes(tuning.choice.floats)
    assert (tuning.sampled_documents, tuning.documents) == (400, len(FILLED)) and set(steps) == {1}
    tight = tune(DOCUMENTS, QUERIES, candidates=30, max_bytes=scan_bytes(16))
    assert tight.choice.floats == 16


class Recorder(MomentsEncoder):
    """Records how many texts each call had."""

    calls: list[tuple[str, int]]

    def _encode(self, texts: Any, side: Any, out: Any, threads: int | None) -> NDArray[np.float32]:
        self.calls.append((side, len(texts)))
        vectors: NDArray[np.float32] = super()._encode(texts, side, out, threads)
        return vectors


def test_encoding_is_compiled_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    sample = draw_sample(DOCUMENTS, FILLED, QUERIES, 120, 0)
    evaluator = Evaluator(sample, [20], 20, 450, 0, 1, lambda _: None)
    config = MomentsConfig(dimension=DOCUMENTS.dimension, covariance=False, compact_dimension=None)
    recorder = Recorder(config)
    recorder.calls = []
    recorder.fit(sample.documents[sample.fitting], threads=1)
    monkeypatch.setattr(evaluator, "encoder", lambda _: recorder)
    (row,) = evaluator.rows([EncoderCandidate("mean", config, config)])
    assert recorder.calls[:3] == [("documents", 1), ("queries", 1), ("documents", len(sample.documents))]
    assert row.encode_seconds > 0 and row.query_seconds > 0


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"max_bytes": 9, "max_floats": 5}, ValueError, "max_bytes=9 .*max_floats=5"),
        ({"target_recall": 0.0}, ValueError, "target_recall .*0.0"),
        ({"target_recall": 1.5}, ValueError, "target_recall .*1.5"),
        ({"max_bytes": 15}, ValueError, "max_bytes=15"),
        ({"max_floats": 15}, ValueError, "max_floats=15.* 16 floats"),
        ({"max_bytes": 1e3}, TypeError, "max_bytes .*float"),
        ({"candidates": 5}, ValueError, "10 .*424 .*5"),
        ({"candidates": 300}, ValueError, "424 .*300"),
        ({"sample": 49}, ValueError, "sample .*50.* 49"),
        ({"seed": -1}, ValueError, "seed .*-1"),
        ({"documents": DOCUMENTS[:40]}, ValueError, "50 documents.* 38"),
        ({"queries": QUERIES[:29]}, ValueError, "30 queries.* 29"),
        ({"queries": np.ones((40, 2, 8), np.float32)}, ValueError, "8 columns"),
    ],
)
def test_bad_input(arguments: dict[str, Any], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        tune(**{"documents": DOCUMENTS, "queries": QUERIES, **arguments})


@pytest.mark.parametrize(("suffix", "start"), [("svg", b"<svg"), ("png", b"\x89PNG")])
def test_plot(tmp_path: Path, suffix: str, start: bytes) -> None:
    plot_tuning(plain_tuning(), tmp_path / f"tuned.{suffix}")
    assert (tmp_path / f"tuned.{suffix}").read_bytes().startswith(start)
    with pytest.raises(ValueError, match=r"tuned\.pdf"):
        plot_tuning(plain_tuning(), tmp_path / "tuned.pdf")
