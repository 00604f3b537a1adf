"""MuveraIndex: answers, wrong arguments, reading documents, info."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.indexes import (
    DOCUMENTS,
    EMPTY,
    MORE,
    QUERIES,
    WAYS,
    answers,
    batches,
    built,
    every_way,
    recall,
    with_nan,
)
from builders.realistic_collections import CONFIG, DIM, documents_like_real

from muvera import FDEConfig, FDEEncoder, IndexSettings, MultiVectors, MuveraIndex, explain, rerank, top_k
from muvera.index import candidates
from muvera.index.token_store import DocumentTokens
from muvera.utils import parallel


def pairs(rankings: Any) -> list[list[tuple[Any, float]]]:
    return [list(ranking) for ranking in rankings]


@every_way
def test_answers_are_exact_scores_of_most_of_the_best(way: dict[str, Any]) -> None:
    index = built(**way)
    rankings = answers(index)
    # With all tokens all are found; with 40 candidates the lowest of twenty such
    # collections was .942.
    assert recall(rankings, pairs(top_k(QUERIES, DOCUMENTS, 8))) >= (1.0 if way["exact_tokens"] else 0.93)
    exact = [dict(row) for row in top_k(QUERIES, DOCUMENTS, 200 - len(EMPTY))]
    for scores, row in zip(exact, rankings, strict=True):
        assert row == [(name, scores[name]) for name, _ in row]
        assert row == sorted(row, key=lambda pair: (-pair[1], pair[0]))
    assert answers(index, candidates=200) == pairs(top_k(QUERIES, DOCUMENTS, 8))
    assert answers(index, threads=2) == rankings
    for q, expected in enumerate(rankings):
        assert list(index.search(QUERIES[q], k=8, candidates=40)[0]) == expected


def test_asearch_returns_the_rankings_of_search() -> None:
    index = built()
    found = asyncio.run(index.asearch(QUERIES, 3, ids=range(20), threads=1))
    assert pairs(found) == pairs(index.search(QUERIES, 3, ids=range(20)))
    with pytest.raises(TypeError, match="candidate"):
        asyncio.run(index.asearch(QUERIES, candidate=3))


def test_one_query_beside_busy_cores_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    index = built(exact_tokens=0)
    used: list[int | None] = []
    rank = DocumentTokens.rank

    def spied(self: DocumentTokens, query: Any, rows: Any, options: Any, threads: Any, **more: Any) -> Any:
        used.append(threads)
        return rank(self, query, rows, options, threads, **more)

    monkeypatch.setattr(DocumentTokens, "rank", spied)
    rankings = []
    for until in (0.0, np.inf):
        monkeypatch.setattr(parallel, "_alone_until", until)
        rankings += [list(index.search(QUERIES[0], 8, threads=threads)[0]) for threads in (None, 2)]
    assert used == [None, 2, 1, 2]
    assert all(row == rankings[0] for row in rankings)


@every_way
def test_few_documents_and_empty_queries(way: dict[str, Any]) -> None:
    index, filled = built(**way), 200 - len(EMPTY)
    everything = index.search(QUERIES[0], filled)[0]
    assert sorted(everything.ids.tolist()) == sorted(set(range(200)) - set(EMPTY.tolist()))
    assert list(index.search(QUERIES[0], 10**6)[0]) == list(everything)
    assert len(index.search(QUERIES[0], 400, recall=0.5)[0]) <= filled
    assert [len(row) for row in MuveraIndex(CONFIG, **way).search(QUERIES[:2], 5)] == [0, 0]
    rankings = pairs(index.search([QUERIES[0], np.empty((0, DIM)), QUERIES[1]], 5, candidates=40))
    expected = pairs(index.search(QUERIES[:2], 5, candidates=40))
    assert rankings == [expected[0], [], expected[1]]
    assert index.search([]) == [] == index.search(MultiVectors.from_arrays([], dimension=DIM))


@every_way
@pytest.mark.parametrize("size", [1, 199])
def test_batches_give_the_same_index(way: dict[str, Any], size: int, tmp_path: Path) -> None:
    encoder = FDEEncoder(CONFIG).fit(DOCUMENTS)  # otherwise it is fitted on the first batches
    whole, parts = built(encoder=encoder, **way), built(batches(DOCUMENTS, size), encoder, **way)
    counts: list[int] = []
    mapped = built(batches(DOCUMENTS, size), encoder, path=tmp_path / "index", progress=counts.append, **way)
    assert answers(parts) == answers(whole) == answers(mapped)
    assert parts.ids.tolist() == list(range(200)) and sum(counts) == 200 and counts[0] == size


def test_float16_and_mapped_documents(tmp_path: Path) -> None:
    halves = documents_like_real(200, dtype=np.float16)
    halves.save(tmp_path / "documents")
    mapped = MultiVectors.load(tmp_path / "documents")
    same = MultiVectors.from_flat(halves.tokens.astype(np.float32), halves.lengths)
    for way in WAYS.values():
        assert answers(built(mapped, **way)) == answers(built(halves, **way)) == answers(built(same, **way))
    assert built(halves).info().bytes_per_document < built(same).info().bytes_per_document


def test_hnswlib_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    with pytest.raises(ImportError, match=r"pip install .*\[hnsw\]"):
        built()


@every_way
def test_ids_restrict_a_search(way: dict[str, Any]) -> None:
    index = built(**way)
    everything = [dict(row) for row in answers(index, k=200, candidates=200)]
    odd = list(range(1, 200, 2))
    for ids in (odd, np.array(odd), set(odd), range(1, 200, 2), (i for i in odd), [*odd, 10**9, -4]):
        rankings = answers(index, ids=ids)
        assert all(len(row) == 8 and all(name % 2 == 1 for name, _ in row) for row in rankings)
        for row, scores in zip(rankings, everything, strict=True):
            assert all(scores.get(name, score) == score for name, score in row)
    expected = pairs(top_k(QUERIES, DOCUMENTS[[i for i in odd if i not in EMPTY]], 8))
    assert recall(rankings, expected) > 0.93
    few = [3, 14, 15, 92, 65, 35, 89, 79]  # few are scored exactly
    assert answers(index, k=5, candidates=8, ids=few) == pairs(top_k(QUERIES, DOCUMENTS[sorted(few)], 5))
    assert len(answers(index, k=20, candidates=20, ids=few)[0]) == 8
    nothing: tuple[Any, ...] = ([], (), set(), np.empty(0, np.int64), [9999], EMPTY)
    for none in nothing:
        assert answers(index, ids=none) == [[]] * len(QUERIES)


def test_ids_within_exact_tokens_are_searched_exactly() -> None:
    index = built(exact_tokens=1000)
    assert index.info().search == "hnsw"
    expected = pairs(top_k(QUERIES, DOCUMENTS[100:180][DOCUMENTS[100:180].lengths > 0], 3))
    assert answers(index, k=3, candidates=3, ids=range(100, 180)) == expected


BAD_CALLS: list[tuple[Callable[[MuveraIndex], Any], type[Exception], str]] = [
    (lambda i: i.search(QUERIES, 0), ValueError, "k must .* 0"),
    (lambda i: i.search(QUERIES, 8, candidates=7), ValueError, "candidates=7 .* k=8"),
    (lambda i: i.search(np.ones((2, 15))), ValueError, "15 columns, .* dimension=16"),
    (lambda i: i.search(QUERIES, 1, ef=0), ValueError, "ef .* 0"),
    (lambda i: i.search(with_nan(2)), ValueError, "nan in its token 0, coordinate 3"),
    (lambda i: i.search(QUERIES, 1, threads=0), ValueError, "threads .* 0"),
    (lambda i: i.search(QUERIES, 1, recall=0), ValueError, "recall must be above 0 and below 1, got 0"),
    (lambda i: i.search(QUERIES, 1, recall=0.9, candidates=9), ValueError, "recall=0.9 or candidates=9"),
    (lambda i: i.calibrate(QUERIES[:3]), ValueError, "at least 64 queries with tokens, got 3"),
    (lambda i: i.search(QUERIES, 5, rescore=20), ValueError, "rescore=20"),
    (lambda i: i.search([QUERIES[0], "b"]), TypeError, r"queries\[1\] .* 'b'"),
    (lambda i: i.rerank(QUERIES[:2], [[2]]), ValueError, "one collection of ids per query, got 1 for 2"),
    (lambda i: i.rerank(QUERIES[:1], [[999]]), KeyError, "999"),
    (lambda i: i.explain(None, 5), TypeError, "query must be an array .* got NoneType"),  # type: ignore[arg-type]
    (lambda i: i.explain(QUERIES[0], int(EMPTY[0])), ValueError, "at least one token"),
    (lambda i: i.measure_recall(np.empty((0, DIM))), ValueError, "no tokens"),
    (lambda i: i.add(DOCUMENTS[:0], threads=0), ValueError, "threads .* 0"),
    (lambda i: i.search(QUERIES, ids="12"), TypeError, r"got the string '12'\. Give \['12'\]"),
    (lambda i: i.rerank(QUERIES[:1], ["12"]), TypeError, "'12'"),
    (lambda i: i.delete("12"), TypeError, "'12'"),
    (lambda i: i.search(QUERIES, ids=np.ones(200, bool)), TypeError, "bool"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS)
def test_bad_calls(call: Callable[[MuveraIndex], Any], error: type[Exception], message: str) -> None:
    for way in ("all tokens", "hnsw"):
        with pytest.raises(error, match=message):
            call(built(**WAYS[way]))


BAD_BUILDS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: MuveraIndex(CONFIG, exact_tokens=-1), ValueError, "exact_tokens .* -1"),
    (lambda: MuveraIndex(CONFIG, backend="faiss"), ValueError, "backend .* 'faiss'"),
    (lambda: MuveraIndex(CONFIG, hnsw={"m": 1}), ValueError, "hnsw: m .* 1"),
    (lambda: MuveraIndex(CONFIG, tokens="3bit"), ValueError, "tokens .* '3bit'"),
    (lambda: MuveraIndex(CONFIG, keep_exact=True), ValueError, "keep_exact=True .* tokens=None"),
    (lambda: MuveraIndex(CONFIG, keep_exact=1, tokens="2bit"), TypeError, "keep_exact .* int 1"),
    (lambda: MuveraIndex(CONFIG, color="red"), TypeError, "'color'"),
    (lambda: MuveraIndex(CONFIG, settings={"backend": "hnsw"}), TypeError, "dict"),  # type: ignore[arg-type]
    (lambda: MuveraIndex("moments"), TypeError, "dimension="),
    (lambda: MuveraIndex("unknown", dimension=8), ValueError, "'unknown'"),
    (lambda: MuveraIndex(CONFIG, dimension=8), ValueError, "dimension=16.* 8"),
    (lambda: MuveraIndex.build(DOCUMENTS, FDEConfig(8)), ValueError, "dimension=8.* 16"),
    (lambda: MuveraIndex.build(iter([])), ValueError, "no documents"),
    (lambda: MuveraIndex.build(None), TypeError, "token vectors, got NoneType"),  # type: ignore[arg-type]
    (lambda: MuveraIndex.build([None, np.ones((2, DIM))]), TypeError, r"documents\[0\]"),  # type: ignore[arg-type]
    (lambda: MuveraIndex.load(None), TypeError, "path must be a string or a Path"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("make", "error", "message"), BAD_BUILDS)
def test_bad_builds(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_settings_and_encoders_in_every_form() -> None:
    settings = IndexSettings(backend="hnsw", tokens="2bit", keep_exact=True)
    index = MuveraIndex("mean", dimension=DIM, settings=settings, exact_tokens=7)
    assert index.settings == IndexSettings.of(settings, exact_tokens=7)
    assert IndexSettings.of(**index.settings.to_dict()) == index.settings
    fitted = FDEEncoder(CONFIG).fit(MORE)
    index = MuveraIndex.build(DOCUMENTS, fitted, exact_tokens=0)
    assert isinstance(index.encoder, FDEEncoder) and index.config == CONFIG
    np.testing.assert_array_equal(index.encoder.center, fitted.center)
    assert MuveraIndex.build(DOCUMENTS).config == FDEConfig(DIM)


def test_growing_past_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "SCAN_FROM", 130 * CONFIG.vector_dimension)
    index = MuveraIndex(CONFIG, exact_tokens=500)
    kinds = []
    for batch in batches(DOCUMENTS, 20):
        index.add(batch)
        kinds.append(index.info().search)
    assert list(dict.fromkeys(kinds)) == ["all tokens", "exact", "scan"]
    assert recall(answers(index), pairs(top_k(QUERIES, DOCUMENTS, 8))) > 0.93
    # The encoder was fitted when the limit was exceeded.
    first = -(-(int(np.argmax(np.cumsum(DOCUMENTS.lengths) > 500)) + 1) // 20) * 20
    assert isinstance(index.encoder, FDEEncoder)
    expected = DOCUMENTS[:first].tokens.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(index.encoder.center, expected, atol=1e-6)


@every_way
def test_documents_by_id(way: dict[str, Any], tmp_path: Path) -> None:
    names = [f"d{i}" for i in range(200)]
    index = built(DOCUMENTS.with_ids(names), path=tmp_path / "index", **way)
    index.update(DOCUMENTS[[5]].with_ids(["d7"]))
    index.delete(["d0"])
    assert list(index) == index.ids.tolist() == [name for name in names if name not in ("d0", "d7")] + ["d7"]
    texts = index.tokens(["d9", "d7", "d16", "d1", "d9"])
    assert texts.ids.tolist() == ["d9", "d7", "d16", "d1"]
    for tokens, row in zip(texts, (9, 5, 16, 1), strict=True):
        np.testing.assert_array_equal(tokens, DOCUMENTS[row])
    assert len(index.tokens([])) == 0 and index.tokens([]).dimension == DIM
    for call in (index.tokens, index.delete):
        with pytest.raises(KeyError, match="'x'"):
            call(["d1", "x"])
    index.delete(["d3", "x"], missing="ignore")
    assert len(index) == 198 and "d3" not in index


@every_way
def test_rerank_and_explain(way: dict[str, Any]) -> None:
    names = [f"d{i}" for i in range(200)]
    documents = DOCUMENTS.with_ids(names)
    index = built(documents, **way)
    proposals = [names[q : q + 20] for q in range(len(QUERIES))]
    expected = pairs(rerank(QUERIES, documents, proposals))
    assert pairs(index.rerank(QUERIES, proposals)) == expected
    assert pairs(index.rerank(QUERIES, proposals, 3)) == [row[:3] for row in expected]
    one = index.rerank(QUERIES[0], [["d2", "x"]], missing="ignore")[0]
    assert list(one) == list(index.rerank(QUERIES[0], [["d2"]])[0])
    assert [len(row) for row in index.rerank(QUERIES[:2], [[], ["d16"]])] == [0, 0]
    explanation = index.explain(QUERIES[0], "d5")
    assert explanation.tokens.tolist() == explain(QUERIES[0], DOCUMENTS[5]).tokens.tolist()
    assert explanation.score == dict(index.search(QUERIES[0], k=200)[0])["d5"]


@pytest.fixture(scope="module")
def changed() -> MuveraIndex:
    """A graph with deleted and updated documents; tests must not change it."""
    # pytest repeats a fixture's ImportError for later tests without its hook.
    pytest.importorskip("hnswlib")
    index = built(hnsw={"m": 8})
    index.delete(range(20))
    index.update(DOCUMENTS[20:30])
    return index


def test_info_counts_documents_tokens_and_deleted_rows(changed: MuveraIndex) -> None:
    info, live = changed.info(), DOCUMENTS[20:]
    assert info.documents == 180 == len(changed) and info.deleted_documents == 30
    assert info.tokens == live.num_tokens and info.empty_documents == (live.lengths == 0).sum()


def test_info_describes_the_encoder_and_the_search(changed: MuveraIndex) -> None:
    info = changed.info()
    assert (info.dimension, info.search, info.warnings) == (DIM, "hnsw", ())
    assert info.vectors is not None and info.vectors["m"] == 8
    assert info.encoder["vector_dimension"] == CONFIG.vector_dimension == 512 + 17


def test_info_counts_tokens_vectors_offsets_and_links_as_bytes(changed: MuveraIndex) -> None:
    expected = DOCUMENTS[20:].num_tokens * DIM * 4 / 180 + 4 * (529 + 16) + 8 + 4 * 17
    assert changed.info().bytes_per_document == pytest.approx(expected, abs=1)


def test_info_warns_of_many_deleted_documents() -> None:
    index = built(hnsw={"m": 8})
    index.delete(range(20))
    index.update(DOCUMENTS[20:30])
    index.delete(index.ids[:110])
    assert len(index.info().warnings) == 1 and "140 deleted" in index.info().to_dict()["warnings"][0]


@pytest.mark.parametrize(("tokens", "preset"), [(1, "mean"), (2, "fde")])
def test_documents_of_one_token_get_the_vectors_that_are_exact(tokens: int, preset: str) -> None:
    rng = np.random.default_rng(0)
    lengths = [1] * 399 + [tokens]
    documents = MultiVectors.from_arrays([rng.normal(size=(length, 16)) for length in lengths])
    queries = [rng.normal(size=(5, 16)) for _ in range(20)]
    index = MuveraIndex.build(documents, exact_tokens=0)
    assert index.contents.config == FDEConfig.preset(preset, 16)
    if preset == "mean":
        best = top_k(queries, documents, 10)
        found = index.search(queries, 10, candidates=10)
        assert [ranking.ids.tolist() for ranking in found] == [ranking.ids.tolist() for ranking in best]
        chosen = MuveraIndex.build(documents, "fde", exact_tokens=0)
        assert chosen.contents.config == FDEConfig.preset("fde", 16)
