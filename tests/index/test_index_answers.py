"""MuveraIndex: what it answers, and what it says of itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import CONFIG, DIM, documents_like_real, queries_like_real
from builders.searched_indexes import (
    DOCUMENTS,
    EMPTY,
    QUERIES,
    WAYS,
    answers,
    batches,
    built,
    every_way,
    recall,
    vectors_of,
)

import muvera.index.candidates as candidates_module
from muvera import FDEEncoder, MultiVectors, MuveraIndex, chamfer_matrix, explain, rerank, top_k

# -- building and searching ---------------------------------------------------


@every_way
def test_answers_are_exact_chamfer_of_most_of_the_best(way: dict[str, Any]) -> None:
    index = built(**way)
    expected = [list(ranking) for ranking in top_k(QUERIES, DOCUMENTS, 8)]
    found = answers(index)
    # All with all tokens; with 40 candidates the lowest of twenty such collections was .942.
    assert recall(found, expected) >= (1.0 if way["exact_tokens"] else 0.93)
    exact = {q: dict(row) for q, row in enumerate(map(list, top_k(QUERIES, DOCUMENTS, 300 - len(EMPTY))))}
    for q, row in enumerate(found):
        assert row == [(name, exact[q][name]) for name, _ in row]
        assert row == sorted(row, key=lambda pair: (-pair[1], pair[0]))


@every_way
def test_enough_candidates_make_it_exact(way: dict[str, Any]) -> None:
    assert answers(built(**way), candidates=300) == [list(row) for row in top_k(QUERIES, DOCUMENTS, 8)]


@every_way
@pytest.mark.parametrize("size", [1, 50, 299])
def test_batches_give_the_index_of_the_whole(way: dict[str, Any], size: int, tmp_path: Path) -> None:
    encoder = FDEEncoder(CONFIG).fit(DOCUMENTS)  # else the center is that of the first batches
    whole, parts = built(encoder=encoder, **way), built(batches(DOCUMENTS, size), encoder=encoder, **way)
    mapped = built(batches(DOCUMENTS, size), encoder=encoder, path=tmp_path / "index", **way)
    assert answers(parts) == answers(whole) == answers(mapped)
    assert parts.ids.tolist() == list(range(300)) and len(parts) == 300


def test_the_centre_is_learned_when_fdes_are_first_made() -> None:
    index = built(batches(DOCUMENTS, 60), exact_tokens=1000)
    used = np.cumsum(DOCUMENTS.lengths)
    first = -(-(int(np.argmax(used > 1000)) + 1) // 60) * 60
    assert isinstance(index.encoder, FDEEncoder)
    expected = DOCUMENTS[:first].tokens.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(index.encoder.center, expected, atol=1e-6)


def test_growing_past_the_budget_makes_fdes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates_module, "graph_from", lambda _: 200)
    index = MuveraIndex(CONFIG, exact_tokens=500)
    seen = []
    for batch in batches(DOCUMENTS, 30):
        index.add(batch)
        seen.append(index.info().search)
    assert [name for i, name in enumerate(seen) if i == 0 or name != seen[i - 1]] == [
        "all tokens",
        "exact",
        "hnsw",
    ]
    assert vectors_of(index)["recall"] > 0.97  # measured when the graph was made
    assert recall(answers(index), [list(row) for row in top_k(QUERIES, DOCUMENTS, 8)]) > 0.93


def test_float16_and_mapped_documents(tmp_path: Path) -> None:
    halves = documents_like_real(300, dtype=np.float16)
    halves.save(tmp_path / "documents")
    mapped = MultiVectors.load(tmp_path / "documents")
    same = MultiVectors.from_flat(halves.tokens.astype(np.float32), halves.lengths)
    for way in WAYS:
        assert answers(built(mapped, **way)) == answers(built(halves, **way)) == answers(built(same, **way))
    assert built(halves).info().bytes_per_document < built(same).info().bytes_per_document


def test_mean_scores_keep_the_order() -> None:
    index = built(exact_tokens=0)
    for q, (sums, means) in enumerate(zip(answers(index), answers(index, mean=True), strict=True)):
        assert [name for name, _ in sums] == [name for name, _ in means]
        length = int(QUERIES.lengths[q])
        np.testing.assert_allclose([s for _, s in means], [s / length for _, s in sums], rtol=3e-7)


@pytest.mark.compiled("interpreted products are NumPy's, whose bits depend on the shape")
def test_cheaper_reranking_keeps_most_of_the_best_and_true_scores() -> None:
    documents = documents_like_real(400)
    index = MuveraIndex.build(documents[:150], CONFIG, exact_tokens=0, backend="exact")
    index.add(documents[150:])  # a store of two segments
    short = list(queries_like_real(documents, 80))
    queries = MultiVectors.from_arrays([np.concatenate(short[i : i + 4]) for i in range(0, 80, 4)])
    full = index.search(queries, 5)
    exact = chamfer_matrix(queries, documents)
    for knobs in ({"ball_carving_tau": 0.6}, {"patience": 10}, {"ball_carving_tau": 0.6, "patience": 10}):
        found = index.search(queries, 5, **knobs)
        kept = [len(np.intersect1d(a.ids, b.ids)) / 5 for a, b in zip(found, full, strict=True)]
        assert 0.6 < np.mean(kept) < 1  # measured: 0.8 and more; and something is given up
        for row, ranking in zip(exact, found, strict=True):
            assert ranking.scores.tolist() == row[ranking.ids].tolist()
            assert (np.diff(ranking.scores) <= 0).all()
        alone = [index.search([query], 5, threads=2, **knobs)[0] for query in queries]
        assert [list(ranking) for ranking in alone] == [list(ranking) for ranking in found]
    for knobs in ({"ball_carving_tau": 1.0}, {"patience": 100}):
        same = index.search(queries, 5, **knobs)
        assert [list(ranking) for ranking in same] == [list(ranking) for ranking in full]


def test_nothing_is_cut_where_all_documents_are_read() -> None:
    documents = documents_like_real(60)
    index = MuveraIndex.build(documents, CONFIG)
    queries = queries_like_real(documents, 5)
    found = index.search(queries, 3, ball_carving_tau=0.1, patience=1)
    assert [list(ranking) for ranking in found] == [list(ranking) for ranking in index.search(queries, 3)]


@every_way
def test_a_query_alone_is_answered_as_in_a_batch(way: dict[str, Any]) -> None:
    index = built(**way)
    together = answers(index, threads=2)
    assert together == answers(index, threads=1)
    for q, expected in enumerate(together):
        assert list(index.search(QUERIES[q], k=8, candidates=40)[0]) == expected


@every_way
def test_more_than_there_are_gives_what_there_is(way: dict[str, Any]) -> None:
    index, filled = built(**way), 300 - len(EMPTY)
    for k in (filled + 1, 10**6):
        ranking = index.search(QUERIES[0], k)[0]
        assert list(ranking) == list(index.search(QUERIES[0], filled)[0]) and len(ranking) == filled
    assert len(index.search(QUERIES[0], 400, patience=3)[0]) <= filled
    assert [len(row) for row in MuveraIndex(CONFIG, **way).search(QUERIES[:2], 5)] == [0, 0]


@every_way
def test_a_query_without_tokens_finds_nothing_at_its_place(way: dict[str, Any]) -> None:
    index = built(**way)
    asked = [QUERIES[0], np.empty((0, DIM)), QUERIES[1]]
    found = [list(row) for row in index.search(asked, 5, candidates=40)]
    assert found[1] == [] and [found[0], found[2]] == [
        list(row) for row in index.search(QUERIES[:2], 5, candidates=40)
    ]
    assert [len(row) for row in index.search(np.empty((0, DIM)))] == [0] and index.search([]) == []


def test_a_wider_walk_finds_more_and_leaves_no_trace() -> None:
    index = built(exact_tokens=0, backend="hnsw", hnsw={"m": 2, "ef_construction": 2, "ef": 5})
    exact = [list(row) for row in top_k(QUERIES, DOCUMENTS, 5)]
    narrow = answers(index, k=5, candidates=5)
    wide = answers(index, k=5, candidates=5, ef=300)
    assert recall(wide, exact) > recall(narrow, exact)
    assert answers(index, k=5, candidates=5) == narrow == answers(index, k=5, candidates=5, ef=5)


@every_way
def test_no_queries_are_answered_by_nothing(way: dict[str, Any]) -> None:
    assert built(**way).search(MultiVectors.from_arrays([], dimension=DIM)) == []


@every_way
def test_documents_without_tokens_keep_their_place_and_are_never_returned(way: dict[str, Any]) -> None:
    index = built(**way)
    assert all(name in index for name in EMPTY.tolist()) and len(index) == 300
    ranking = index.search(QUERIES[0], k=300 - len(EMPTY), candidates=300)[0]
    assert sorted(ranking.ids.tolist()) == sorted(set(range(300)) - set(EMPTY.tolist()))
    assert len(index.search(QUERIES[0], filter=EMPTY)[0]) == 0
    assert index.info().empty_documents == len(EMPTY)
    index.delete(EMPTY)
    assert index.info().empty_documents == 0 and answers(index) == answers(built(**way))


def test_explain_names_the_tokens() -> None:
    index = built(documents_like_real(300, ids=[f"d{i}" for i in range(300)]))
    explanation = index.explain(QUERIES[0], "d5")
    assert explanation.tokens.tolist() == explain(QUERIES[0], DOCUMENTS[5]).tokens.tolist()
    ranking = index.search(QUERIES[0], k=283, candidates=283)[0]
    assert explanation.score == dict(ranking)["d5"]
    with pytest.raises(KeyError, match="id 'x' is not in the index"):
        index.explain(QUERIES[0], "x")
    with pytest.raises(ValueError, match=r"document must have shape .* at least one token"):
        index.explain(QUERIES[0], "d16")


def test_explain_takes_one_query() -> None:
    index = built()
    with pytest.raises(TypeError, match=r"query must be token vectors, got the text str 'abc'. Encode it"):
        index.explain("abc", 5)
    for several in (QUERIES, [QUERIES[i] for i in range(len(QUERIES))]):
        with pytest.raises(
            ValueError, match=rf"query must be one array .* got {len(QUERIES)} of them in a list"
        ):
            index.explain(several, 5)


# -- documents by id ----------------------------------------------------------


@every_way
def test_documents_come_back_by_id(way: dict[str, Any], tmp_path: Path) -> None:
    names = [f"d{i}" for i in range(300)]
    index = built(DOCUMENTS.with_ids(names), path=tmp_path / "index", **way)
    index.update(DOCUMENTS[[5]].with_ids(["d7"]))
    index.delete(["d0"])
    assert list(index) == index.ids.tolist() == [name for name in names if name not in ("d0", "d7")] + ["d7"]
    texts = index.tokens(["d9", "d7", "d16", "d1", "d9"])
    assert texts.ids.tolist() == ["d9", "d7", "d16", "d1"]
    for tokens, row in zip(texts, (9, 5, 16, 1), strict=True):
        np.testing.assert_array_equal(tokens, DOCUMENTS[row])
    found = index.get(["d9", "x", "d7", "d9"], missing="ignore")
    assert [one.id for one in found] == ["d9", "d7", "d9"]
    np.testing.assert_array_equal(found[1].tokens, DOCUMENTS[5])
    assert index.get([]) == [] and len(index.tokens([])) == 0 and index.tokens([]).dimension == DIM
    for call in (index.get, index.tokens):
        with pytest.raises(KeyError, match="id 'x' is not in the index"):
            call(["d1", "x"])


@every_way
def test_rerank_orders_what_another_search_proposed(way: dict[str, Any]) -> None:
    names = [f"d{i}" for i in range(300)]
    documents = DOCUMENTS.with_ids(names)
    index = built(documents, **way)
    proposed = [names[q : q + 20] for q in range(len(QUERIES))]
    expected = [list(row) for row in rerank(QUERIES, documents, proposed)]
    assert [list(row) for row in index.rerank(QUERIES, proposed)] == expected
    assert [list(row) for row in index.rerank(QUERIES, proposed, 3)] == [row[:3] for row in expected]
    assert list(index.rerank(QUERIES[0], [["d2", "x"]], missing="ignore")[0]) == list(
        index.rerank(QUERIES[0], [["d2"]])[0]
    )
    assert [len(row) for row in index.rerank(QUERIES[:2], [[], ["d16"]])] == [0, 0]
    with pytest.raises(KeyError, match="id 'x' is not in the index"):
        index.rerank(QUERIES[0], [["x"]])
    with pytest.raises(ValueError, match="There are 1 collections of ids for 2 queries"):
        index.rerank(QUERIES[:2], [["d2"]])
    with pytest.raises(TypeError, match=r"ids\[0\] must be a collection of ids, got str 'd2'"):
        index.rerank(QUERIES[0], ["d2"])


def test_unknown_ids_may_be_ignored() -> None:
    index = built()
    index.delete([3, 999], missing="ignore")
    assert len(index) == 299 and 3 not in index
    with pytest.raises(ValueError, match="missing must be one of raise, ignore, got 'drop'"):
        index.delete([4], missing="drop")  # type: ignore[arg-type]
    assert 4 in index


# -- looking ------------------------------------------------------------------


def test_info_counts(tmp_path: Path) -> None:
    index = built(exact_tokens=0, backend="hnsw", hnsw={"m": 8})
    index.delete(range(20))
    index.update(DOCUMENTS[20:30])
    info = index.info()
    live = DOCUMENTS[20:]
    assert info.documents == 280 == len(index) and info.deleted_documents == 30
    assert info.tokens == live.num_tokens and info.empty_documents == (live.lengths == 0).sum()
    assert info.dimension == DIM and info.search == "hnsw" and info.warnings == ()
    assert info.vectors is not None and info.vectors["m"] == 8 and info.vectors["recall"] > 0.97
    assert info.encoder["vector_dimension"] == CONFIG.vector_dimension == 512 + 17
    expected = live.num_tokens * DIM * 4 / 280 + 4 * (529 + 16) + 8 + 4 * 17
    assert info.bytes_per_document == pytest.approx(expected, abs=1)
    assert repr(index) == "MuveraIndex(280 documents, dimension=16, hnsw)"
    index.delete(index.ids[:150])
    assert index.info().warnings == ("180 deleted documents still take memory: call rebuild().",)
    assert index.info().to_dict()["warnings"] == list(index.info().warnings)


def test_low_recall_is_warned_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates_module, "_MEASURED_K", 10)
    index = built(exact_tokens=0, backend="hnsw", hnsw={"m": 3, "ef_construction": 1, "ef": 1})
    assert vectors_of(index)["recall"] < 0.95
    assert "of the exact best FDEs: raise hnsw m or ef" in index.info().warnings[0]


def test_progress_is_told_batch_by_batch() -> None:
    told: list[int] = []
    built(batches(DOCUMENTS, 80), progress=told.append)
    assert told == [80, 80, 80, 60]


def test_a_search_reads_no_list_of_all_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes time in proportion to the collection is counted once after each change."""
    index = built(exact_tokens=0, backend="hnsw")
    answers(index)
    counted: list[Any] = []
    for owner, name in ((np, "flatnonzero"), (np, "isin"), (np, "cumsum")):
        original = getattr(owner, name)

        def counting(values: Any, *args: Any, original: Any = original, **settings: Any) -> Any:
            counted.append(np.size(values))
            return original(values, *args, **settings)

        monkeypatch.setattr(owner, name, counting)
    monkeypatch.setattr(MultiVectors, "lengths", property(lambda self: np.diff(self.offsets[:50])))
    index.search(QUERIES[0], k=3, candidates=5)
    index.search(QUERIES[0], k=3, candidates=5, filter=[1, 2, 3])
    assert max(counted, default=0) < 60
