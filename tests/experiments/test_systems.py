"""Systems against plain NumPy on small collections."""

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.system_inputs import (
    ask,
    built,
    exact_scores,
    material,
    some_documents,
    unit_texts,
)

from experiments.datasets.synthetic import synthetic_collection
from experiments.systems.base import NotApplicableError, Ranked, arguments_of, timed_search
from experiments.systems.library import fit_sample
from experiments.systems.registry import SYSTEMS
from muvera import FDEConfig, FDEEncoder, LearnedConfig, MultiVectors
from muvera.encoders.base import EncoderConfig
from muvera.encoders.registry import preset_config
from muvera.mips.exact import bytes_in_memory

pytestmark = pytest.mark.compiled("searches whole collections")

COLLECTION = synthetic_collection("quick-cone", documents=60, queries=6)
SMALL = {"num_repetitions": 4, "num_simhash_projections": 2, "projection_dimension": 4}
QUERIES = unit_texts(50, [4, 1, 9, 20])


def test_queries_are_timed_alone_after_an_untimed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked = [0.0], []

    def answer(place: int, query: MultiVectors) -> Ranked:
        asked.append(place)
        clock[0] += 100.0 if len(asked) == 1 else place + 1.0  # warming up takes long
        return np.array([7, 8, 9])[: place + 1], np.array([3, 2, 1], np.float32)[: place + 1]

    monkeypatch.setattr("experiments.systems.base.time.perf_counter", lambda: clock[0])
    answers = timed_search(QUERIES[:3], 2, answer)
    assert asked == [0, 0, 1, 2] and answers.seconds.tolist() == [1, 2, 3]
    assert answers.ids.tolist() == [[7, -1], [7, 8], [7, 8]]
    assert answers.scores.tolist() == [[3, -np.inf], [3, 2], [3, 2]]
    assert timed_search(QUERIES[:0], 4, answer).ids.shape == (0, 4)


@pytest.mark.parametrize("name", ["exhaustive", "muvera", "bm25", "pooled", "reranking", "hybrid"])
def test_systems_that_rank_everything_exactly_find_exact_chamfers_best(tmp_path: Path, name: str) -> None:
    system = built(name, COLLECTION, tmp_path)
    answers = ask(system, COLLECTION.queries, 5, **({} if name == "exhaustive" else {"candidates": 60}))
    exact = exact_scores(COLLECTION.queries, COLLECTION.documents)
    np.testing.assert_array_equal(answers.ids, np.argsort(-exact, axis=1)[:, :5])
    if name != "hybrid":  # whose scores are fused
        np.testing.assert_allclose(answers.scores, -np.sort(-exact, axis=1)[:, :5], rtol=1e-5)
    assert system.bytes_per_document() >= 0
    system.close()


@pytest.mark.parametrize("source", [("words", "bm25", {}), ("single", "pooled", {"vectors": "stored"})])
def test_a_hybrid_search_of_one_source_is_that_system(tmp_path: Path, source: Any) -> None:
    kind, name, arguments = source
    mine = ask(built("hybrid", COLLECTION, tmp_path, sources=[kind]), COLLECTION.queries, 5, candidates=5)
    theirs = ask(built(name, COLLECTION, tmp_path, **arguments), COLLECTION.queries, 5, candidates=5)
    for own, other in zip(mine.ids, theirs.ids, strict=True):
        assert set(own[own >= 0]) <= set(other)


def test_rare_tokens_count_more(tmp_path: Path) -> None:
    plain, idf = (
        ask(built("hybrid", COLLECTION, tmp_path, idf=idf), COLLECTION.queries, 5).scores
        for idf in (False, True)
    )
    assert not np.allclose(idf, plain)


def test_pooled_vectors_and_words_alone(tmp_path: Path) -> None:
    def means(texts: Any) -> np.ndarray:
        rows = np.stack([tokens.astype(float).mean(axis=0) for tokens in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    scores = means(COLLECTION.queries) @ means(COLLECTION.documents).T
    for backend in ("exact", "hnsw"):
        answers = ask(
            built("pooled", COLLECTION, tmp_path, backend=backend), COLLECTION.queries, 5, rerank=False
        )
        np.testing.assert_array_equal(answers.ids, np.argsort(-scores, axis=1)[:, :5])
    words = built("bm25", COLLECTION, tmp_path)
    first = ask(words, COLLECTION.queries, 5, rerank=False).ids[:, 0].tolist()
    assert first == [next(iter(judged)) for judged in COLLECTION.judgements or []]
    empty = built("bm25", replace(COLLECTION, query_texts=["the of and"]), tmp_path)
    assert empty.search(COLLECTION.queries[:1], 3, rerank=False).ids[0].tolist() == [0, 1, 2]


def test_texts_are_ranked_by_similarity_and_words(tmp_path: Path) -> None:
    texts = built("texts", COLLECTION, tmp_path, settings={"tokens": "float32"})
    exact = np.argsort(-exact_scores(COLLECTION.queries, COLLECTION.documents), axis=1)[:, :5]
    np.testing.assert_array_equal(ask(texts, COLLECTION.queries, 5, words=0).ids, exact)
    first = [next(iter(judged)) for judged in COLLECTION.judgements or []]
    assert ask(texts, COLLECTION.queries, 5, words=1).ids[:, 0].tolist() == first
    assert texts.bytes_per_document() > COLLECTION.documents.tokens.nbytes / len(COLLECTION.documents)


@pytest.mark.parametrize(
    ("name", "build", "missing"),
    [
        ("bm25", {}, "document_texts"),
        ("pooled", {"vectors": "stored"}, "document_pooled"),
        ("hybrid", {}, "query_texts"),
        ("hybrid", {"sources": ["single"]}, "query_pooled"),
        ("hybrid", {"idf": True}, "query_token_ids"),
        ("tachiom", {}, "document_token_ids"),
    ],
)
def test_systems_are_left_out_if_the_collection_lacks_something(
    tmp_path: Path, name: str, build: dict[str, Any], missing: str
) -> None:
    with pytest.raises(NotApplicableError):
        built(name, replace(COLLECTION, **{missing: None}), tmp_path, **build)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["exact", "hnsw"])
def test_the_first_stage_gives_the_candidates_that_the_index_ranks(tmp_path: Path, backend: str) -> None:
    stage = built("fde", COLLECTION, tmp_path, backend=backend)
    candidates = stage.search(COLLECTION.queries, 10)
    assert np.isnan(candidates.seconds).all()
    timed = ask(stage, COLLECTION.queries, 10, one_by_one_timed=True)
    np.testing.assert_array_equal(timed.ids, candidates.ids)
    index = built("muvera", COLLECTION, tmp_path, backend=backend)
    ranked = ask(index, COLLECTION.queries, 10, candidates=10)
    np.testing.assert_array_equal(np.sort(candidates.ids, axis=1), np.sort(ranked.ids, axis=1))
    assert index.disagreement(COLLECTION.queries, 5, candidates=20) is None
    other = COLLECTION.documents[::-1]
    index.documents = MultiVectors.from_flat(other.tokens, other.lengths)
    assert index.disagreement(COLLECTION.queries, 5, candidates=20).startswith("query 0")


def test_codes_and_arguments(tmp_path: Path) -> None:
    coded = built("muvera", COLLECTION, tmp_path, preset="mean", tokens="int8", keep_exact=True)
    floats = built("muvera", COLLECTION, tmp_path, preset="mean")
    assert coded.chamfer and not SYSTEMS["muvera"](tokens="2bit").chamfer  # type: ignore[call-arg]
    assert coded.token_bytes_per_document() > floats.token_bytes_per_document()
    for name, build, message in (
        ("muvera", {"centre": True}, "Did you mean 'center'"),
        ("muvera", {"preset": "default"}, "There is no preset 'default'"),
        ("plaid", {"nbit": 4}, "Did you mean 'nbits'"),
        ("hybrid", {"sources": ["bm25"]}, "vectors, words, single"),
        ("tuned", {"in_bytes_of": "learnd"}, "Did you mean 'learned'"),
    ):
        with pytest.raises(ValueError, match=message):
            SYSTEMS[name](**build)
    names = arguments_of(SYSTEMS["muvera"], "build").keys()
    assert {"preset", "center", "compact_dimension"} <= names and "seed" not in names


def test_an_encoder_is_fitted_on_the_share_that_its_arguments_name(tmp_path: Path) -> None:
    documents = some_documents(0, 40)
    system = built("fde", documents, tmp_path, fit_on=0.5, **SMALL)
    sample = system.fitted_on()
    assert len(sample) == 20 and (np.diff(sample) > 0).all()
    config: dict[str, Any] = {"dimension": 16, "seed": 7, **SMALL}
    encoder = FDEEncoder(FDEConfig(**config)).fit(documents[sample])
    scores = encoder.encode_queries(QUERIES) @ encoder.encode_documents(documents).T
    ids = system.search(QUERIES, 5).ids
    np.testing.assert_array_equal(ids, np.argsort(-scores, axis=1, kind="stable")[:, :5])
    assert built("fde", documents, tmp_path, **SMALL).fitted_on() is None
    with pytest.raises(ValueError, match=r"above 0 and below 1, got 1\.5"):
        fit_sample(100, 1.5, 3)
    uncalibrated = built("fde", documents, tmp_path, calibrated=False, **SMALL)
    assert not np.allclose(uncalibrated.search(QUERIES, 5).scores, system.search(QUERIES, 5).scores)
    with pytest.raises(ValueError, match="calibrated=False"):
        built("fde", documents, tmp_path, preset="mean", calibrated=False)


def test_learned_vectors_report_costs(tmp_path: Path) -> None:
    build = {"preset": "learned", "vector_dimension": 16, "num_landmarks": 256, "num_features": 64}
    facts = built("fde", some_documents(0, 300), tmp_path, **build).facts()
    assert facts["vector_dimension"] == 16
    assert facts["fit_seconds"] > 0 and facts["encode_ms_per_document"] > 0


def test_every_way_of_ranking_gives_exact_chamfer_and_counts_its_products(tmp_path: Path) -> None:
    documents = some_documents(0, 80)
    system = built("reranking", documents, tmp_path, **SMALL)
    exact = exact_scores(QUERIES, documents)
    for query in ({"early_exit": False}, {"matrix": True}, {}):
        answers = system.search(QUERIES, 5, candidates=80, **query)
        np.testing.assert_array_equal(answers.ids, np.argsort(-exact, axis=1)[:, :5])
        made = answers.facts["products made"]
        assert (made == 1).all() if query else (made <= 1).all()
    hasty = system.search(QUERIES, 5, candidates=80, ball_carving_tau=0.2)
    assert (hasty.facts["products made"] <= 1).all()
    np.testing.assert_allclose(hasty.scores, np.take_along_axis(exact, hasty.ids, axis=1), rtol=1e-5)


def test_a_tuned_first_stage_fits_in_the_bytes_and_is_tuned_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def configs(dimension: int) -> dict[str, EncoderConfig]:
        learned = LearnedConfig(dimension=dimension, vector_dimension=16, num_landmarks=256, num_features=64)
        fde = FDEConfig(dimension=dimension, num_repetitions=4)
        return {"mean": preset_config("mean", dimension), "learned": learned, "FDE": fde}

    monkeypatch.setattr(importlib.import_module("muvera.tuning.tune"), "encoder_configs", configs)
    given = material(some_documents(0, 300), tmp_path)
    for preset in ("fde", "moments"):
        system: Any = SYSTEMS["tuned"](in_bytes_of=preset, sample=200, candidates=20)  # type: ignore[call-arg]
        system.build(given)
        limit = preset_config(preset, 16).vector_dimension
        assert system.bytes_per_document() <= bytes_in_memory(limit)
        assert str(system.facts()["choice"]) and (system.search(QUERIES, 5).ids >= 0).all()
    assert len(given.shared) == 1
