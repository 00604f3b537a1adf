"""Adapters against plain NumPy on a small collection."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.system_inputs import collection_material

from experiments.datasets.synthetic import synthetic_collection
from experiments.systems.base import Answers, Material, NotApplicableError, System, arguments_of
from experiments.systems.insertion_order import insertion_order, intrinsic_dimension
from experiments.systems.registry import SYSTEMS
from muvera import MultiVectors

pytestmark = pytest.mark.compiled("searches whole collections")

COLLECTION = synthetic_collection("quick-cone", documents=60, queries=6)
QUERIES = COLLECTION.queries


def material(folder: Path) -> Material:
    return collection_material(COLLECTION, folder)


def built(folder: Path, name: str, **build: Any) -> System:
    system = SYSTEMS[name](**build)
    system.build(material(folder))
    return system


def chamfer_matrix() -> np.ndarray:
    return np.array(
        [
            [(q.astype(np.float64) @ d.T.astype(np.float64)).max(axis=1).sum() for d in COLLECTION.documents]
            for q in QUERIES
        ]
    )


def ask(system: System, k: int = 5, **query: Any) -> Answers:
    return system.search(QUERIES, k, **query)


@pytest.mark.parametrize("name", ["exhaustive", "muvera", "bm25", "pooled"])
def test_who_ranks_everything_exactly_finds_exact_chamfers_best(tmp_path: Path, name: str) -> None:
    system = built(tmp_path, name)
    answers = ask(system, **({} if name == "exhaustive" else {"candidates": 60}))
    exact = chamfer_matrix()
    np.testing.assert_array_equal(answers.ids, np.argsort(-exact, axis=1)[:, :5])
    np.testing.assert_allclose(answers.scores, -np.sort(-exact, axis=1)[:, :5], rtol=1e-5)
    assert (answers.seconds > 0).all()
    assert system.bytes_per_document() >= 0
    system.close()


def test_pooled_vectors_are_means_or_the_stored_ones(tmp_path: Path) -> None:
    def means(texts: Any) -> np.ndarray:
        rows = np.stack([tokens.astype(np.float64).mean(axis=0) for tokens in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    scores = means(QUERIES) @ means(COLLECTION.documents).T
    for backend in ("exact", "hnsw"):
        answers = ask(built(tmp_path, "pooled", backend=backend), rerank=False)
        np.testing.assert_array_equal(answers.ids, np.argsort(-scores, axis=1)[:, :5])
    stored = ask(built(tmp_path, "pooled", vectors="stored"), rerank=False)
    assert COLLECTION.query_pooled is not None and COLLECTION.document_pooled is not None
    scores = COLLECTION.query_pooled @ COLLECTION.document_pooled.T
    np.testing.assert_array_equal(stored.ids, np.argsort(-scores, axis=1)[:, :5])


def test_a_query_without_words_finds_something(tmp_path: Path) -> None:
    system = SYSTEMS["bm25"]()
    held = material(tmp_path)
    system.build(replace(held, query_texts=["the of and", *(held.query_texts or [])[1:]]))
    answers = system.search(held.documents[:1], 3, rerank=False)
    assert answers.ids[0].tolist() == [0, 1, 2] and not answers.scores.any()


def test_bm25_without_reranking_puts_the_text_with_all_words_first(tmp_path: Path) -> None:
    answers = ask(built(tmp_path, "bm25"), rerank=False)
    assert COLLECTION.judgements is not None
    assert answers.ids[:, 0].tolist() == [next(iter(judged)) for judged in COLLECTION.judgements]


def test_systems_that_need_texts_or_vectors_say_so(tmp_path: Path) -> None:
    bare = material(tmp_path)
    object.__setattr__(bare, "document_texts", None)
    object.__setattr__(bare, "document_pooled", None)
    with pytest.raises(NotApplicableError, match="bm25 needs texts"):
        SYSTEMS["bm25"]().build(bare)
    with pytest.raises(NotApplicableError, match="has no stored single vectors"):
        SYSTEMS["pooled"](vectors="stored").build(bare)  # type: ignore[call-arg]


@pytest.mark.parametrize("backend", ["exact", "hnsw"])
def test_fdes_alone_give_the_candidates_that_the_index_ranks(tmp_path: Path, backend: str) -> None:
    candidates = ask(built(tmp_path, "fde", backend=backend), k=10)
    assert np.isnan(candidates.seconds).all()
    ranked = ask(built(tmp_path, "muvera", backend=backend), k=10, candidates=10)
    np.testing.assert_array_equal(np.sort(candidates.ids, axis=1), np.sort(ranked.ids, axis=1))
    timed = ask(built(tmp_path, "fde", backend=backend), k=10, one_by_one_timed=True)
    np.testing.assert_array_equal(timed.ids, candidates.ids)
    assert (timed.seconds > 0).all()


@pytest.mark.parametrize("backend", ["exact", "hnsw"])
def test_two_ways_to_the_index_answers_agree_and_a_wrong_one_is_noticed(tmp_path: Path, backend: str) -> None:
    system: Any = built(tmp_path, "muvera", backend=backend)
    assert system.disagreement(QUERIES, 5, candidates=20) is None
    other = COLLECTION.documents[::-1]
    system.documents = MultiVectors.from_flat(other.tokens, other.lengths)
    message = system.disagreement(QUERIES, 5, candidates=20)
    assert message is not None and message.startswith("query 0: through the index")


def test_wrong_arguments_of_fdes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no argument of the encoder fde 'centre'\. Did you mean 'center'"):
        SYSTEMS["muvera"](centre=True)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="backend must be"):
        SYSTEMS["pooled"](backend="flat")  # type: ignore[call-arg]
    assert {"preset", "center", "compact_dimension"} <= arguments_of(SYSTEMS["muvera"], "build").keys()
    assert "seed" not in arguments_of(SYSTEMS["muvera"], "build")
    assert "candidates" in arguments_of(SYSTEMS["bm25"], "query")


def test_ef_of_a_search_does_not_stay(tmp_path: Path) -> None:
    system: Any = built(tmp_path, "muvera", backend="hnsw", hnsw={"ef": 77})
    for given, expected in ((5, 5), (None, 77)):
        ask(system, candidates=20, ef=given)
        assert system._index._contents.candidates.search._index.ef == expected


def test_intrinsic_dimension_is_that_of_the_space_that_is_filled() -> None:
    """A cap of a d-sphere in 40 columns; 30% is the estimate's bias at its edge and its noise."""
    stream = np.random.default_rng(0)
    for dimension in (2, 5):
        points = np.zeros((2000, 40))
        points[:, :dimension] = 0.3 * stream.uniform(-1, 1, size=(2000, dimension))
        points[:, dimension] = 1
        found = intrinsic_dimension(points.astype(np.float32))
        assert np.median(found) == pytest.approx(dimension, rel=0.3)


def test_orders_are_permutations_and_what_they_say() -> None:
    stream = np.random.default_rng(0)
    vectors = stream.normal(size=(50, 8)).astype(np.float32)
    dimension = intrinsic_dimension(vectors)
    orders = {
        name: insertion_order(name, vectors, dimension, 1)
        for name in (
            "given",
            "random",
            "rising_dimension",
            "falling_dimension",
            "rising_norm",
            "falling_norm",
        )
    }
    for order in orders.values():
        assert sorted(order.tolist()) == list(range(50))
    assert (np.diff(dimension[orders["rising_dimension"]]) >= 0).all()
    assert (np.diff(np.linalg.norm(vectors[orders["falling_norm"]], axis=1)) <= 0).all()
    assert orders["given"].tolist() == list(range(50))
    with pytest.raises(ValueError, match=r"no order 'falling'\. Did you mean 'falling_norm'"):
        insertion_order("falling", vectors, dimension, 1)  # type: ignore[arg-type]
