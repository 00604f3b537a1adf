"""Documents with several parts: rows of an index that have the same id."""

from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from builders.fdes import changed
from builders.indexes import QUERIES, every_way
from builders.realistic_collections import CONFIG, documents_like_real
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import ragged_arrays

from muvera import MultiVectors, MuveraIndex, Ranking, hybrid_search, rerank, top_k
from muvera.index.calibration import CANDIDATES
from muvera.index.measuring import calibrate_on_windows, document_windows, nearest, shares_found

PARTS = documents_like_real(300)

#: Names of documents with 1 to 12 parts.
NAMES = [f"d{i}" for i, n in enumerate(np.random.default_rng(1).integers(1, 13, 60)) for _ in range(n)][:300]
DOCUMENTS = PARTS.with_ids(NAMES)


def built(documents: Any = DOCUMENTS, **options: Any) -> MuveraIndex:
    return MuveraIndex.build(documents, CONFIG, threads=1, **options)


def pairs(rankings: list[Ranking]) -> list[list[tuple[Any, float]]]:
    return [list(ranking) for ranking in rankings]


def documents_of(rankings: list[Ranking], k: int) -> list[list[tuple[Any, float]]]:
    """Return the first `k` documents of rankings of parts with numbers as ids."""
    found = []
    for ranking in rankings:
        best: dict[Any, float] = {}
        for row, score in ranking:
            best.setdefault(NAMES[int(row)], score)
        found.append(list(best.items())[:k])
    return found


@st.composite
def with_parts(draw: st.DrawFn) -> MultiVectors:
    arrays = draw(ragged_arrays(5, most=12))
    ids = sorted(draw(st.lists(st.integers(0, 4), min_size=len(arrays), max_size=len(arrays))))
    return MultiVectors.from_arrays(arrays, ids=ids, dimension=5)


@settings(max_examples=50)
@given(with_parts(), st.integers(1, 6), st.integers(0, 99))
def test_a_document_has_the_score_of_its_best_part(documents: MultiVectors, k: int, seed: int) -> None:
    """Oracle: Chamfer similarity of each part, and the maximum of each document."""
    query = np.random.default_rng(seed).standard_normal((3, 5)).astype(np.float32)
    expected: dict[Any, float] = {}
    for id, tokens in zip(documents.ids.tolist(), documents, strict=True):
        if len(tokens):
            expected[id] = max(oracle.chamfer(query, tokens), expected.get(id, -np.inf))
    best = sorted(expected.values(), reverse=True)[:k]
    index = MuveraIndex("mean", dimension=5)
    index.add(documents)
    every = [sorted(set(documents.ids.tolist()))]
    found = [index.search(query, k), index.rerank([query], every, k), top_k([query], documents, k)]
    for ranking in (each[0] for each in [*found, rerank([query], documents, every, k)]):
        assert np.allclose(ranking.scores, best, atol=1e-4)
        assert all(abs(expected[id] - score) < 1e-4 for id, score in ranking)
        assert len(set(ranking.ids.tolist())) == len(ranking)


@every_way
@pytest.mark.parametrize("stored", [{}, {"tokens": "2bit", "keep_exact": True}, {"tokens": "int8"}], ids=str)
def test_a_search_is_that_of_numbered_parts(way: dict[str, Any], stored: dict[str, Any]) -> None:
    index, numbered = built(**way, **stored), built(PARTS, **way, **stored)
    deep: dict[str, Any] = {"candidates": 300, **({"rescore": 300} if "keep_exact" in stored else {})}
    expected = documents_of(numbered.search(QUERIES, 300, **deep), 8)
    rankings = index.search(QUERIES, 8, **deep)
    assert pairs(rankings) == expected
    assert pairs(index.search(QUERIES, 8, threads=2, **deep)) == expected
    assert [list(index.search(query, 8, **deep)[0]) for query in QUERIES] == expected
    first = {name: NAMES.index(name) for name in NAMES}
    parts = index.search(QUERIES, 20, group="part")
    for ranking, one in zip(parts, numbered.search(QUERIES, 20), strict=True):
        assert ranking.parts is not None
        rows = [first[name] + part for name, part in zip(ranking.ids.tolist(), ranking.parts, strict=True)]
        assert list(zip(rows, ranking.scores, strict=True)) == list(zip(one.ids, one.scores, strict=True))


@every_way
def test_k_documents_are_found_although_parts_crowd_them_out(way: dict[str, Any]) -> None:
    """All 40 best parts belong to one document."""
    copies = MultiVectors.concatenate([PARTS[[5]].with_ids(["x"])] * 160).with_ids(["x"] * 160)
    index = built(
        MultiVectors.concatenate([copies, PARTS[100:].with_ids([f"y{i}" for i in range(200)])]), **way
    )
    query = PARTS[5]
    ids = index.search(query, 5)[0].ids.tolist()
    assert ids[0] == "x" and len(set(ids)) == 5
    assert index.search(query, 5, candidates=100)[0].ids.tolist()[0] == "x"
    assert index.search(query, 3, ids=["x", "y3", "y7"])[0].ids.tolist()[0] == "x"
    assert len(index.search(query, 9, ids=["x", "y3", "y7"])[0]) == 3
    beside = index.search([query, PARTS[150]], 5)
    assert pairs(beside) == [list(index.search(each, 5)[0]) for each in (query, PARTS[150])]


def test_a_recall_is_reached_by_documents() -> None:
    documents = documents_like_real(3000)
    names = np.sort(np.random.default_rng(2).integers(0, 600, 3000))
    index = MuveraIndex.build(documents.with_ids(names), exact_tokens=0, threads=1)
    found = index.search(QUERIES, 10, recall=0.98)
    exact = top_k(QUERIES, documents.with_ids(names), 10)
    shares = [np.isin(a.ids, b.ids).mean() for a, b in zip(exact, found, strict=True)]
    assert np.mean(shares) >= 0.95 and all(len(ranking) == 10 for ranking in found)
    assert all(ranking.expected_recall is not None for ranking in found)
    assert pairs(found) == [list(index.search(query, 10, recall=0.98)[0]) for query in QUERIES]


def near_copies(documents: MultiVectors, count: int) -> MultiVectors:
    """Return documents of `count` nearly identical parts each."""
    stream = np.random.default_rng(4)
    parts = [tokens + stream.normal(0, 1e-4, tokens.shape) for tokens in documents for _ in range(count)]
    ids = np.repeat(np.arange(len(documents)), count)
    return MultiVectors.from_arrays([part.astype(np.float32) for part in parts], ids=ids)


@pytest.mark.parametrize("backend", ["exact", "hnsw"])
def test_parts_of_a_windows_document_are_not_its_answers(backend: Any) -> None:
    """A poor first stage finds a window's document, and finds nothing else."""
    poor = changed(CONFIG, num_repetitions=1, num_simhash_projections=1, projection_dimension=2, moments=None)
    index = MuveraIndex.build(near_copies(PARTS, 12), poor, backend=backend, exact_tokens=0, threads=1)
    contents = index.contents
    windows, sources = document_windows(contents, 64)
    proposed = nearest(contents, windows, CANDIDATES, sources)
    assert all(len(rows) == CANDIDATES for rows, _ in proposed)
    assert not any(
        (rows // 12 == source // 12).any() for (rows, _), source in zip(proposed, sources, strict=True)
    )
    found = []  # whether the candidates have the nearest of the other documents
    for window, source, (rows, _) in zip(windows, sources, proposed, strict=True):
        others = np.setdiff1d(np.arange(len(PARTS)), [source // 12])
        nearest_other = others[top_k(window, PARTS[others], 1, threads=1)[0].ids]
        found.append(nearest_other in rows // 12)
    shares = shares_found(contents, windows, proposed, 10, sources)
    assert shares.mean() == pytest.approx(np.mean(found), abs=0.1) and shares.mean() < 0.8
    stage = index.info().first_stage
    assert stage is not None and stage.recall < 0.8


@pytest.mark.parametrize("others", [0, 40])
def test_a_document_of_nearly_all_parts_measures_nothing(others: int) -> None:
    """Its windows have too few other documents to find."""
    names = np.minimum(np.arange(300), others)[::-1].copy()
    index = MuveraIndex.build(PARTS.with_ids(names), CONFIG, exact_tokens=0, threads=1)
    contents = index.contents
    rows = contents.searchable[0]
    assert index.info().first_stage is None
    assert calibrate_on_windows(contents, rows[names[rows] == others], 1) is None
    assert len(index.search(QUERIES[0], 50)[0]) == len(set(names[rows].tolist()))
    among = rows[names[rows] == others]
    windows, sources = document_windows(contents, 4, among)
    proposed = nearest(contents, windows, CANDIDATES, sources, among)
    assert shares_found(contents, windows, proposed, 10, sources, among).tolist() == [1.0] * 4


def test_a_document_changes_as_a_whole(tmp_path: Path) -> None:
    index = built()
    assert len(index) == len(set(NAMES)) and index.ids.tolist() == list(dict.fromkeys(NAMES))
    index.delete(["d3"])
    assert "d3" not in index and index.info().deleted_documents == NAMES.count("d3")
    index.update(PARTS[:2].with_ids(["d4", "d4"]))
    assert index.tokens(["d4"]).ids.tolist() == ["d4", "d4"] and index.ids.tolist()[-1] == "d4"
    index.save(tmp_path / "index")
    for other in (index, MuveraIndex.load(tmp_path / "index")):
        other.rebuild()
        again = MuveraIndex.load(tmp_path / "index")
        assert pairs(other.search(QUERIES, 6)) == pairs(again.search(QUERIES, 6))
        assert len(other.search(PARTS[0], 400, group="part", ids=["d4"])[0]) == 2
        assert other.info().parts == 300 - sum(map(NAMES.count, ("d3", "d4"))) + 2


def test_batches_may_divide_a_document(tmp_path: Path) -> None:
    cut = [DOCUMENTS[start : start + 7] for start in range(0, 300, 7)]
    index, whole = built(iter(cut), path=tmp_path / "index", exact_tokens=0), built()
    assert index.ids.tolist() == whole.ids.tolist()
    loaded = MuveraIndex.load(tmp_path / "index")
    loaded.rebuild()
    for other in (index, loaded):
        assert pairs(other.search(QUERIES, 6, candidates=300)) == pairs(whole.search(QUERIES, 6))
    with pytest.raises(ValueError, match="'d0' is in the index already"):
        built(iter([*cut, cut[0]]))


def test_reading_a_document_returns_its_parts() -> None:
    index = built(tokens="2bit", keep_exact=True, exact_tokens=0)
    rows = [row for name in ("d7", "d2") for row in range(300) if NAMES[row] == name]
    tokens = index.tokens(["d7", "d2", "d7"])
    assert tokens.ids.tolist() == [NAMES[row] for row in rows]
    assert all(np.array_equal(kept, PARTS[row]) for kept, row in zip(tokens, rows, strict=True))
    assert index.codes(["d7", "d2"]).lengths.tolist() == tokens.lengths.tolist()
    best = index.rerank(QUERIES, [["d7"]] * len(QUERIES))
    for query, ranking in zip(QUERIES, best, strict=True):
        explanation = index.explain(query, "d7")
        assert ranking.parts is not None and explanation.part == ranking.parts[0]
        assert explanation.score == pytest.approx(float(ranking.scores[0]), rel=1e-5)


def test_a_hybrid_search_ranks_documents() -> None:
    index = built()
    words = [Ranking(np.array(["d9", "d1"]), np.array([2.0, 1.0], np.float32))] * len(QUERIES)
    exact = index.search(QUERIES, 6)
    assert pairs(hybrid_search(index, QUERIES, {"words": words}, 6)) == pairs(exact)
    mixed = hybrid_search(index, QUERIES, {"words": words}, 6, weights={"maxsim": 0, "words": 1})
    assert all(ranking.ids.tolist()[0] == "d9" for ranking in mixed)


def test_wrong_parts_are_refused() -> None:
    index = built()
    with pytest.raises(ValueError, match=r"'a' is at positions 0 and 2.*stable sort"):
        index.add(PARTS[:3], ids=["a", "b", "a"])
    with pytest.raises(ValueError, match=r"'d0' is at positions 0 and"):
        DOCUMENTS[[0, 299, 1]]
    with pytest.raises(TypeError, match="NoneType"):
        index.add(PARTS[:2], ids=["a", None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="'d1' is in the index already"):
        index.add(PARTS[:2], ids=["d1", "d1"])
    with pytest.raises(ValueError, match="group must be one of document, part, got 'page'"):
        index.search(QUERIES, group="page")  # type: ignore[arg-type]
    assert pairs(index.search(QUERIES, 6)) == pairs(built().search(QUERIES, 6))


def test_a_consumer_of_whole_documents_refuses_parts() -> None:
    from muvera import audit
    from muvera.integrations.pylate import MuveraPyLateIndex

    with pytest.raises(ValueError, match="one part, but id 'd0' has several"):
        audit([["d0"]] * len(QUERIES), QUERIES, DOCUMENTS)
    with pytest.raises(ValueError, match="one part, but id 'd0' has several"):
        MuveraPyLateIndex().add_documents(NAMES[:2], list(PARTS[:2]))
