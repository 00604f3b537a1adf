"""tune on small collections: inputs of the choice, limits, targets, errors."""

import json
from functools import cache
from typing import Any

import numpy as np
import pytest
from builders.fdes import changed
from builders.realistic_collections import documents_like_real, queries_like_real

from muvera import FDEConfig, MuveraIndex, tune
from muvera.diagnostics.diagnose import draw_sample
from muvera.mips import make_search
from muvera.tuning.tune import Tuning, encoder_configs

DOCUMENTS = documents_like_real(450)
QUERIES = queries_like_real(DOCUMENTS, 45)
FILLED = int((DOCUMENTS.lengths > 0).sum())


def small_configs(dimension: int) -> dict[str, FDEConfig]:
    """SimHash cells of 64 and 256 floats; moments and landmark cells of 16."""
    simhash = FDEConfig.preset(
        "simhash", dimension, num_repetitions=4, num_simhash_projections=2, projection_dimension=4
    )
    short: dict[str, Any] = {"final_projection_dimension": 16}
    return {
        "simhash 64": simhash,
        "simhash 256": changed(simhash, num_repetitions=16),
        "moments 16": FDEConfig.preset("moments", dimension, **short),
        "fde 16": FDEConfig.preset("fde", dimension, num_landmarks=64, **short),
    }


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.tuning.tune.encoder_configs", small_configs)


@cache
def plain_tuning() -> Tuning:
    return tune(DOCUMENTS, QUERIES, candidates=30)


@pytest.mark.parametrize("dimension", [1, 4, 16, 128, 768])
def test_encoders_differ_and_are_valid_for_every_dimension(dimension: int) -> None:
    configs = encoder_configs(dimension)
    assert len(set(configs.values())) == len(configs) >= 6
    assert FDEConfig(dimension) in configs.values()
    assert min(config.vector_dimension for config in configs.values()) <= 128 or dimension > 128


def test_the_choice_does_not_depend_on_threads() -> None:
    assert tune(DOCUMENTS, QUERIES, candidates=30, threads=2) == plain_tuning()


def test_the_choice_is_the_best_row() -> None:
    first = plain_tuning()
    assert first.queries == 30 and first.held_out_queries == 15 and not first.pseudo_queries
    best = max(first.rows, key=lambda row: row.mean_recall)
    assert best == first.choice and best.mean_recall < best.recall
    assert best.interval[0] <= best.held_out <= best.interval[1]


def test_a_tuning_is_written_as_json_and_as_a_table() -> None:
    first = plain_tuning()
    values = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert FDEConfig.from_dict(values["choice"]["config"]) == first.config
    assert len(values["rows"]) == len(first.rows)
    assert f"* {first.choice.name}" in first.text


def test_held_out_queries_do_not_influence_the_choice() -> None:
    """Replaced by noise, they change only their own estimate."""
    order = np.random.default_rng([0, 1]).permutation(45)
    held = set(order[:15].tolist())
    rng = np.random.default_rng(0)
    changed = [rng.normal(size=query.shape) if i in held else query for i, query in enumerate(QUERIES)]
    first, second = plain_tuning(), tune(DOCUMENTS, changed, candidates=30)
    assert [(row.name, row.recall) for row in first.rows] == [(row.name, row.recall) for row in second.rows]
    assert first.config == second.config
    assert [row.held_out for row in first.rows] != [row.held_out for row in second.rows]


def test_windows_come_from_documents_that_nothing_was_fitted_to() -> None:
    drawn = draw_sample(
        DOCUMENTS, None, size=1500, least=(50, 30), most_queries=300, min_fitting=0, seed=0, threads=None
    )
    assert len(drawn.sources) > 50 and not np.isin(drawn.sources, drawn.fitting).any()
    assert len(drawn.fitting) == round(0.75 * FILLED)
    assert "windows of documents" in tune(DOCUMENTS, candidates=30).text


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


def test_limits_of_bytes() -> None:
    limit = plain_tuning().rows[2].bytes
    tuning = tune(DOCUMENTS, QUERIES, candidates=30, max_bytes=limit)
    assert max(row.bytes for row in tuning.rows) <= limit
    assert plain_tuning().within(limit).config == tuning.config
    with pytest.raises(ValueError, match=r"max_bytes must be at least \d+, got 3"):
        plain_tuning().within(3)


def test_the_smallest_that_reaches_a_target() -> None:
    tuning = tune(DOCUMENTS, QUERIES, candidates=50, target_recall=0.6)
    assert tuning.choice.recall >= 0.6
    assert all(row.recall < 0.6 for row in tuning.rows if row.bytes < tuning.choice.bytes)
    none = tune(DOCUMENTS, QUERIES, candidates=10, target_recall=1.0, max_bytes=200)
    assert "No encoder reaches 100.0%" in none.text


def test_the_sample_and_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.index.candidates.SCAN_FROM", 300 * 16)
    steps: list[int] = []
    limit = make_search("scan", 16).info()["bytes_per_vector"]
    tuning = tune(DOCUMENTS, QUERIES, candidates=20, sample=400, max_bytes=limit, progress=steps.append)
    assert (tuning.config.vector_dimension, tuning.choice.bytes) == (16, limit)
    assert (tuning.sampled_documents, tuning.documents) == (400, FILLED) and steps == [1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"target_recall": 1.5}, "target_recall .*1.5"),
        ({"max_bytes": 15}, "max_bytes=15"),
        ({"candidates": 300}, "424 .*300"),
        ({"sample": 49}, "sample .*50.* 49"),
        ({"documents": DOCUMENTS[:40]}, "50 documents.* 38"),
        ({"queries": QUERIES[:29]}, "30 queries.* 29"),
    ],
    ids=["target_recall", "max_bytes", "candidates", "sample", "documents", "queries"],
)
def test_bad_input(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tune(**{"documents": DOCUMENTS, "queries": QUERIES, **arguments})
