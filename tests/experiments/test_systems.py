"""Systems against plain NumPy on small collections."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.small_runs import ask, built, exact_scores
from builders.token_collections import random_texts

from experiments.datasets.synthetic import synthetic_collection
from experiments.systems.base import NotApplicableError, Ranked, arguments_of, timed_search
from experiments.systems.registry import SYSTEMS
from muvera import MultiVectors

COLLECTION = synthetic_collection("quick-cone", documents=60, queries=6)
RELEVANT = [next(iter(judged)) for judged in COLLECTION.judgements or []]
QUERIES = random_texts(3, dimension=16)


def test_queries_are_timed_alone_after_an_untimed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked = [0.0], []

    def answer(place: int, query: MultiVectors) -> Ranked:
        asked.append(place)
        clock[0] += 100.0 if len(asked) == 1 else place + 1.0  # warming up takes long
        return np.array([7, 8, 9])[: place + 1], np.array([3, 2, 1], np.float32)[: place + 1]

    monkeypatch.setattr("experiments.systems.base.time.perf_counter", lambda: clock[0])
    answers = timed_search(QUERIES, 2, answer)
    assert asked == [0, 0, 1, 2] and answers.seconds.tolist() == [1, 2, 3]
    assert answers.ids.tolist() == [[7, -1], [7, 8], [7, 8]]
    assert answers.scores.tolist() == [[3, -np.inf], [3, 2], [3, 2]]
    assert timed_search(QUERIES[:0], 4, answer).ids.shape == (0, 4)


@pytest.mark.parametrize("name", ["exhaustive", "muvera", "bm25", "pooled", "hybrid"])
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
    systems = (
        built("hybrid", COLLECTION, tmp_path, sources=[kind]),
        built(name, COLLECTION, tmp_path, **arguments),
    )
    mine, theirs = (ask(system, COLLECTION.queries, 5, candidates=5).ids for system in systems)
    assert all(set(own[own >= 0]) <= set(other) for own, other in zip(mine, theirs, strict=True))


def test_pooled_vectors_and_words_alone(tmp_path: Path) -> None:
    def means(texts: Any) -> np.ndarray:
        rows = np.stack([tokens.astype(float).mean(axis=0) for tokens in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    scores = means(COLLECTION.queries) @ means(COLLECTION.documents).T
    answers = ask(built("pooled", COLLECTION, tmp_path), COLLECTION.queries, 5, rerank=False)
    np.testing.assert_array_equal(answers.ids, np.argsort(-scores, axis=1)[:, :5])
    words = ask(built("bm25", COLLECTION, tmp_path), COLLECTION.queries, 5, rerank=False)
    assert words.ids[:, 0].tolist() == RELEVANT
    empty = built("bm25", replace(COLLECTION, query_texts=["the of and"]), tmp_path)
    assert empty.search(COLLECTION.queries[:1], 3, rerank=False).ids[0].tolist() == [0, 1, 2]


def test_texts_are_ranked_by_similarity_and_words(tmp_path: Path) -> None:
    texts = built("texts", COLLECTION, tmp_path, settings={"tokens": "float32"})
    exact = np.argsort(-exact_scores(COLLECTION.queries, COLLECTION.documents), axis=1)[:, :5]
    np.testing.assert_array_equal(ask(texts, COLLECTION.queries, 5, words=0).ids, exact)
    assert ask(texts, COLLECTION.queries, 5, words=1).ids[:, 0].tolist() == RELEVANT
    assert texts.bytes_per_document() > COLLECTION.documents.tokens.nbytes / len(COLLECTION.documents)


@pytest.mark.parametrize(
    ("name", "build", "missing"),
    [
        ("bm25", {}, "document_texts"),
        ("pooled", {"vectors": "stored"}, "document_pooled"),
        ("hybrid", {}, "query_texts"),
        ("hybrid", {"sources": ["single"]}, "query_pooled"),
        ("tachiom", {}, "document_token_ids"),
    ],
)
def test_systems_are_left_out_if_the_collection_lacks_something(
    tmp_path: Path, name: str, build: dict[str, Any], missing: str
) -> None:
    lacking: Any = {missing: None}
    with pytest.raises(NotApplicableError):
        built(name, replace(COLLECTION, **lacking), tmp_path, **build)


def test_the_first_stage_gives_the_candidates_that_the_index_ranks(tmp_path: Path) -> None:
    candidates = built("fde", COLLECTION, tmp_path, preset="simhash").search(COLLECTION.queries, 10)
    assert np.isnan(candidates.seconds).all()
    index = built("muvera", COLLECTION, tmp_path, preset="simhash", backend="exact")
    ranked = ask(index, COLLECTION.queries, 10, candidates=10)
    np.testing.assert_array_equal(np.sort(candidates.ids, axis=1), np.sort(ranked.ids, axis=1))
    unfitted = built("fde", COLLECTION, tmp_path, preset="simhash", fit_coefficients=False)
    plain = unfitted.search(COLLECTION.queries, 10)
    assert not np.allclose(plain.scores, candidates.scores)
    for preset in ("fde", "paper"):
        with pytest.raises(ValueError, match="fit_coefficients=False"):
            built("fde", COLLECTION, tmp_path, preset=preset, fit_coefficients=False)


def test_systems_with_codes_read_exact_tokens(tmp_path: Path) -> None:
    coded = built("muvera", COLLECTION, tmp_path, preset="mean", tokens="int8", keep_exact=True)
    floats = built("muvera", COLLECTION, tmp_path, preset="mean")
    assert coded.chamfer and not SYSTEMS["muvera"](tokens="2bit").chamfer  # type: ignore[call-arg]
    assert coded.token_bytes_per_document() > floats.token_bytes_per_document()


@pytest.mark.parametrize(
    ("name", "build", "message"),
    [
        ("muvera", {"centre": True}, "Did you mean 'center'"),
        ("muvera", {"preset": "default"}, "There is no preset 'default'"),
        ("hybrid", {"sources": ["bm25"]}, "vectors, words, single"),
    ],
)
def test_wrong_arguments_of_systems(name: str, build: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SYSTEMS[name](**build)


def test_arguments_of_a_system_are_read_from_its_signatures() -> None:
    names = arguments_of(SYSTEMS["muvera"], "build").keys()
    assert {"preset", "center", "final_projection_dimension"} <= names and "seed" not in names
