"""Systems against plain NumPy on small collections."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from builders.small_runs import ask, built, exact_scores
from builders.token_collections import random_texts

from experiments.datasets.synthetic import synthetic_collection
from experiments.systems.base import NotApplicableError, Ranked, arguments_of, timed_search
from experiments.systems.insertion_order import Order, insertion_order, intrinsic_dimension
from experiments.systems.registry import SYSTEMS
from muvera import FDEEncoder, MultiVectors
from muvera.convert import pool_tokens

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


def test_the_single_vector_heuristic_takes_documents_by_the_rank_of_their_tokens(tmp_path: Path) -> None:
    documents = MultiVectors.from_arrays(
        [[[1.0, 0.0], [0.9, 0.1]], [[0.8, 0.2], [0.0, 0.5]], [[0.1, 1.0]], [[-1.0, -1.0]]]
    )
    query = MultiVectors.from_arrays([[[1.0, 0.0], [0.0, 1.0]]])
    collection = replace(COLLECTION, documents=documents, judgements=None)
    system = built("single_vector", collection, tmp_path)
    # Nearest tokens: 0 and 2 (first rank), 0 and 1 (second), 1 and 0 (third).
    assert set(system.search(query, 4, candidates=2).ids[0]) == {0, 2, -1}
    assert set(system.search(query, 4, candidates=3).ids[0]) == {0, 1, 2, -1}
    twice = system.search(query, 4, candidates=3, deduplicate=False).ids[0]
    assert set(twice) == {0, 2, -1}, "the second token of document 0 must count"


def test_xtr_imputes_the_lowest_retrieved_similarity(tmp_path: Path) -> None:
    documents = MultiVectors.from_arrays([[[1.0, 0.0], [0.9, 0.0]], [[0.5, 0.5]], [[0.0, 1.0]]])
    query = MultiVectors.from_arrays([[[1.0, 0.0], [0.0, 1.0]]])
    system = built("xtr", replace(COLLECTION, documents=documents, judgements=None), tmp_path)
    answers = system.search(query, 3, tokens=2)
    # The tokens retrieve (1.0, 0.9) of document 0, and (1.0, 0.5) of documents 2 and 1.
    assert answers.ids[0].tolist() == [2, 0, 1]
    np.testing.assert_allclose(answers.scores[0], [0.9 + 1.0, 1.0 + 0.5, 0.9 + 0.5], rtol=1e-6)


@pytest.mark.parametrize("name", ["single_vector", "xtr"])
def test_token_baselines_with_everything_retrieved_rank_exactly(tmp_path: Path, name: str) -> None:
    system = built(name, COLLECTION, tmp_path)
    every = {"tokens": 10_000, "candidates": 60} if name == "xtr" else {"candidates": 60}
    answers = ask(system, COLLECTION.queries, 5, **every)
    exact = exact_scores(COLLECTION.queries, COLLECTION.documents)
    np.testing.assert_array_equal(answers.ids, np.argsort(-exact, axis=1)[:, :5])


def test_carving_without_tau_ranks_exactly_and_with_tau_by_fewer_vectors(tmp_path: Path) -> None:
    system = built("carving", COLLECTION, tmp_path, preset="simhash")
    exact = exact_scores(COLLECTION.queries, COLLECTION.documents)
    whole = ask(system, COLLECTION.queries, 5, candidates=60)
    np.testing.assert_array_equal(whole.ids, np.argsort(-exact, axis=1)[:, :5])
    carved = ask(system, COLLECTION.queries, 5, candidates=60, tau=0.1)
    assert (carved.scores <= whole.scores + 1e-5).all()
    assert not np.allclose(carved.scores, whole.scores)


@pytest.mark.parametrize("build", [{"search": "scan"}, {"search": "hnsw"}, {"order": "random"}])
def test_other_searches_of_the_first_stage_find_what_exact_search_finds(tmp_path: Path, build: Any) -> None:
    exact = built("fde", COLLECTION, tmp_path, preset="simhash").search(COLLECTION.queries, 10)
    other = built("fde", COLLECTION, tmp_path, preset="simhash", **build)
    found = ask(other, COLLECTION.queries, 10, one_by_one=True)
    assert not np.isnan(found.seconds).any()
    shared = [len(set(a) & set(b)) for a, b in zip(found.ids, exact.ids, strict=True)]
    assert np.mean(shared) >= 9


def test_product_codes_have_a_byte_per_group_of_floats(tmp_path: Path) -> None:
    many = synthetic_collection("quick-cone", documents=300, queries=4)
    system = built("fde", many, tmp_path, preset="paper", search="pq", pq_floats=8)
    assert system.bytes_per_document() == 10_240 / 8
    exact = built("fde", many, tmp_path, preset="paper").search(many.queries, 20)
    coded = system.search(many.queries, 20)
    shared = [len(set(a) & set(b)) for a, b in zip(coded.ids, exact.ids, strict=True)]
    assert np.mean(shared) > 15
    with pytest.raises(ValueError, match="pq_floats must divide the 512 floats"):
        built("fde", many, tmp_path, search="pq", pq_floats=7)


@pytest.mark.parametrize(("search", "like"), [("graph", "exact"), ("pq_graph", "pq")])
def test_a_graph_finds_what_comparing_all_finds(search: str, like: str, tmp_path: Path) -> None:
    """Of floats or of codes; some vectors are unreachable by inner products."""
    many = synthetic_collection("quick-cone", documents=300, queries=4)
    small = {"preset": "paper", "num_repetitions": 2, "projection_dimension": 8}
    beam = built("fde", many, tmp_path, search=search, **small).search(many.queries, 20, ef=300)
    whole = built("fde", many, tmp_path, search=like, **small).search(many.queries, 20)
    shared = [len(set(a) & set(b)) for a, b in zip(beam.ids, whole.ids, strict=True)]
    assert np.mean(shared) > 16


def test_cells_of_k_means_find_documents_of_their_topics(tmp_path: Path) -> None:
    """A query's cells hold sums: twice its tokens have twice its scores."""
    many = synthetic_collection("quick-wide", documents=150, queries=8)
    system = built("k_means_cells", many, tmp_path, num_repetitions=10)
    found = ask_untimed(system, many.queries)
    exact = exact_scores(many.queries, many.documents).argsort(axis=1)[:, ::-1][:, :5]
    assert np.mean([np.isin(a, b).mean() for a, b in zip(exact, found.ids, strict=True)]) > 0.7
    twice = MultiVectors.from_arrays([np.concatenate([query, query]) for query in many.queries])
    np.testing.assert_allclose(ask_untimed(system, twice).scores, 2 * found.scores, rtol=1e-4)


def ask_untimed(system: Any, queries: MultiVectors) -> Any:
    answers = system.search(queries, 20)
    assert np.isnan(answers.seconds).all() and answers.ids.shape == (len(queries), 20)
    return answers


def test_a_line_is_of_dimension_one_and_a_plane_of_two() -> None:
    stream = np.random.default_rng(0)
    # Directions on an arc, and on a patch of a sphere in space.
    arc = np.stack([np.ones(2000), stream.uniform(-0.3, 0.3, 2000), np.zeros(2000)], axis=1)
    patch = np.stack([np.ones(2000), *stream.uniform(-0.3, 0.3, (2, 2000))], axis=1)
    for vectors, dimension in ((arc, 1), (patch, 2)):
        found = np.median(intrinsic_dimension(vectors.astype(np.float32)))
        # The estimate from 50 neighbors has a standard error of 1/7 of the dimension.
        assert found == pytest.approx(dimension, rel=0.1)


def test_orders_are_permutations_and_follow_the_dimension() -> None:
    vectors = np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32)
    dimension = intrinsic_dimension(vectors)
    for order in get_args(Order):
        assert sorted(insertion_order(order, vectors, 0)) == list(range(200))
    rising = insertion_order("rising_dimension", vectors, 0)
    assert (np.diff(dimension[rising]) >= 0).all()


def test_pooling_keeps_a_share_of_the_bytes_and_scores_by_pooled_tokens(tmp_path: Path) -> None:
    whole = built("exhaustive", COLLECTION, tmp_path)
    pooled = built("exhaustive", COLLECTION, tmp_path, pool="colpali", factor=2)
    assert pooled.token_bytes_per_document() < 0.6 * whole.token_bytes_per_document()
    expected = exact_scores(COLLECTION.queries, pool_tokens(COLLECTION.documents, 2, "colpali"))
    found = ask(pooled, COLLECTION.queries, 5)
    np.testing.assert_array_equal(found.ids, np.argsort(-expected, axis=1)[:, :5])
    assert whole.chamfer and not pooled.chamfer


def test_a_text_scores_by_its_best_view(tmp_path: Path) -> None:
    tokens = [[1.0, 0.0], [0.0, 1.0]]
    documents = MultiVectors.from_arrays([tokens, [[0.8, 0.6]], [[-1.0, 0.0]]])
    collection = replace(COLLECTION, documents=documents, judgements=None)
    query = MultiVectors.from_arrays([[[0.1, 1.0]]])
    several = built("views", collection, tmp_path, vectors=2).search(query, 2, rerank=False)
    assert several.ids[0].tolist() == [0, 1]
    one = built("views", collection, tmp_path, vectors=1).search(query, 2, rerank=False)
    np.testing.assert_allclose(one.scores[0], np.sort([1.1 / 2**0.5, 0.68])[::-1] / 1.01**0.5, rtol=1e-5)
    exact = built("views", COLLECTION, tmp_path).search(COLLECTION.queries, 5, candidates=60)
    expected = np.argsort(-exact_scores(COLLECTION.queries, COLLECTION.documents), axis=1)[:, :5]
    np.testing.assert_array_equal(exact.ids, expected)


def test_first_floats_are_compared_alone(tmp_path: Path) -> None:
    short = built("fde", COLLECTION, tmp_path, preset="mean", floats=8)
    encoder = FDEEncoder.preset("mean", COLLECTION.documents.dimension).fit(COLLECTION.documents)
    queries, documents = (
        encode(texts)[:, :8]
        for encode, texts in (
            (encoder.encode_queries, COLLECTION.queries), (encoder.encode_documents, COLLECTION.documents)
        )
    )  # fmt: skip
    expected = np.argsort(-(queries @ documents.T), axis=1)[:, :3]
    np.testing.assert_array_equal(short.search(COLLECTION.queries, 3).ids, expected)
    whole = built("fde", COLLECTION, tmp_path, preset="mean")
    assert short.bytes_per_document() < whole.bytes_per_document()


def test_distractors_join_the_relevant_documents(tmp_path: Path) -> None:
    judged = [{3: 1, 5: 0}, {7: 2}] + [{} for _ in range(len(COLLECTION.queries) - 2)]
    collection = replace(COLLECTION, judgements=judged)
    few = built("distractors", collection, tmp_path, system="exhaustive", distractors=4)
    more = built("distractors", collection, tmp_path, system="exhaustive", distractors=9)
    found = few.search(COLLECTION.queries, 10).ids
    assert {3, 7} <= set(found[0]) and len(set(found[0])) == 6 + 1  # and -1
    assert set(found[0]) <= set(more.search(COLLECTION.queries, 11).ids[0]) | {-1}
    with pytest.raises(NotApplicableError, match="more than"):
        built("distractors", collection, tmp_path, system="exhaustive", distractors=10**6)


def test_coil_compares_tokens_of_the_same_vocabulary_id_without_special_ones(tmp_path: Path) -> None:
    documents = MultiVectors.from_arrays(
        [[[9.0], [1.0], [2.0], [9.0]], [[9.0], [5.0], [9.0]], [[9.0], [9.0]]]
    )
    query = MultiVectors.from_arrays([[[9.0], [2.0], [9.0]]])
    terms = [[101, 7, 8, 102], [101, 7, 102], [101, 102]]
    collection = replace(
        COLLECTION,
        documents=documents,
        judgements=None,
        document_token_ids=[np.array(own) for own in terms],
        query_token_ids=[np.array([101, 7, 102])],
    )
    system = built("coil", collection, tmp_path)
    found = system.search(query, 3, rerank=False)
    assert found.ids[0].tolist() == [1, 0, -1] and found.scores[0][:2].tolist() == [10, 2]
    assert system.bytes_per_document() == 12 * 3 / 3
