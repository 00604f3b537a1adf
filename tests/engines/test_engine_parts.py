"""Documents with several parts, in every engine that keeps them."""

from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import CONFIG, DIM, documents_like_real, queries_like_real

from muvera import FDEEncoder, MultiVectors, MuveraIndex, top_k
from muvera.engines import EngineIndex

# The client's local mode warns once that it searches without a graph.
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

ROWS = documents_like_real(320, dtype=np.float16)
ROWS = ROWS[np.flatnonzero(ROWS.lengths > 0)]
COUNT = 90
# Documents of one, two and three parts, in turns.
OWNERS = np.repeat(np.arange(COUNT), 1 + np.arange(COUNT) % 3)
QUERIES = queries_like_real(ROWS, 6)
METADATA_OF = [{"year": 1990 + i % 30} for i in range(COUNT)]


def named(integers: bool) -> MultiVectors:
    """Return the documents, whose ids are integers or strings."""
    names: Any = OWNERS if integers else [f'it\'s "{i}"' for i in OWNERS.tolist()]
    return ROWS[: len(OWNERS)].with_ids(names)


@pytest.fixture(params=[True, False], ids=["integers", "strings"])
def documents(request: pytest.FixtureRequest) -> MultiVectors:
    return named(bool(request.param))


@pytest.fixture
def index(collections: Any, documents: MultiVectors) -> EngineIndex:
    """All documents, in an engine that keeps parts."""
    engine = collections(f"parts_{documents.ids.dtype.kind}")
    if not engine.keeps_parts:
        pytest.skip("its documents have one part")
    engine.graph_from = 50
    made = EngineIndex(engine, FDEEncoder(CONFIG).fit(ROWS))
    made.drop()
    assert made.add(documents, METADATA_OF, texts=map(str, range(COUNT))).added == COUNT
    return made


def keys(ranking: Any) -> list[tuple[Any, int]]:
    return list(zip(ranking.ids.tolist(), ranking.parts.tolist(), strict=True))


def test_a_search_returns_the_best_part_of_each_document(index: EngineIndex, documents: MultiVectors) -> None:
    local = MuveraIndex.build(documents, CONFIG, exact_tokens=10**9)
    for group in ("document", "part"):
        found = index.search(QUERIES, 40, candidates=len(OWNERS), rerank="here", group=group)
        expected = local.search(QUERIES, 40, group=group)
        for a, b in zip(found, expected, strict=True):
            assert keys(a) == keys(b)
            np.testing.assert_array_equal(a.scores, b.scores)


def test_a_search_widens_until_there_are_k_documents(index: EngineIndex, documents: MultiVectors) -> None:
    crowd = documents[4]
    name: Any = 10**6 if index.engine.stored.integer_ids else "crowd"
    many = MultiVectors.from_arrays([crowd] * 60, ids=[name] * 60)
    index.add(many)
    for rerank in ("auto", "here", None):
        found = index.search([crowd], 20, rerank=rerank)[0]
        assert len(set(found.ids.tolist())) == len(found) == 20
    assert len(index.search([crowd], 20, candidates=20, rerank=None)[0]) < 20
    assert len(index) == COUNT + 1


def test_an_engine_ranks_parts_by_their_tokens(index: EngineIndex, documents: MultiVectors) -> None:
    if not index.engine.reranks:
        pytest.skip("it ranks no candidates by their tokens")
    for group in ("document", "part"):
        there, here = (
            index.search(QUERIES, 10, candidates=len(OWNERS), rerank=rerank, group=group)
            for rerank in ("auto", "here")
        )
        assert np.mean([len(set(keys(a)) & set(keys(b))) for a, b in zip(there, here, strict=True)]) > 9.5


def test_ids_and_conditions_select_all_parts(index: EngineIndex, documents: MultiVectors) -> None:
    some = list(dict.fromkeys(documents.ids.tolist()))
    found = index.search(QUERIES[:1], 200, ids=some[3:6], rerank=None, group="part")[0]
    assert sorted(keys(found)) == [(some[i], part) for i in (3, 4, 5) for part in range(1 + i % 3)]
    found = index.search(QUERIES[:1], 200, where={"year": 1995}, rerank=None, group="part")[0]
    assert sorted(keys(found)) == sorted((some[i], part) for i in (5, 35, 65) for part in range(3))
    assert len(index.search(QUERIES[:1], 200, where={"year": 1995}, rerank=None)[0]) == 3


def test_documents_are_read_by_id(index: EngineIndex, documents: MultiVectors) -> None:
    id = documents.ids.tolist()[3]  # the third document, of three parts
    assert len(index) == COUNT
    assert [(one.id, one.text, one.metadata) for one in index.documents([id])] == [(id, "2", METADATA_OF[2])]
    tokens = index.engine.tokens([documents.ids.tolist()[0], id])
    assert tokens.ids.tolist() == documents.ids[[0, 3, 4, 5]].tolist()
    np.testing.assert_array_equal(tokens.tokens, documents[[0, 3, 4, 5]].tokens)


def test_an_update_replaces_all_parts(index: EngineIndex, documents: MultiVectors) -> None:
    id = documents.ids.tolist()[3]
    for rows in ([0], [0, 1, 2, 6], [7, 8]):
        index.update(documents[rows].with_ids(documents.ids[[3] * len(rows)]))
        tokens = index.engine.tokens([id])
        np.testing.assert_array_equal(tokens.tokens, documents[rows].tokens)
    found = index.search(QUERIES[:1], 9, ids=[id], rerank=None, group="part")[0]
    assert sorted(keys(found)) == [(id, 0), (id, 1)]
    assert len(index) == COUNT and index.documents([id])[0].metadata == {}


def test_a_deletion_removes_all_parts(index: EngineIndex, documents: MultiVectors) -> None:
    gone = documents.ids.tolist()[3]
    index.delete([gone])
    found = index.search(QUERIES, 200, rerank=None, group="part")
    assert all(len(one) == len(OWNERS) - 3 and gone not in one.ids for one in found)
    assert len(index) == COUNT - 1
    with pytest.raises(ValueError, match="already"):
        index.add(documents[6:7])
    report = index.add(documents, METADATA_OF, resume=True)
    assert (report.added, report.skipped) == (1, COUNT - 1)
    assert len(index.search(QUERIES[:1], 200, rerank=None, group="part")[0]) == len(OWNERS)


def test_parts_in_several_batches_stay_together(
    index: EngineIndex, documents: MultiVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muvera.engines.engine_index._BATCH_BYTES", 20_000)
    encoder = index.encoder
    index.drop()
    again = EngineIndex(index.engine, encoder)
    seen: list[int] = []
    again.add(
        (documents[start : start + 2] for start in range(0, 30, 2)), METADATA_OF[:15], progress=seen.append
    )
    assert sum(seen) == 30 and len(again) == 15
    assert again.engine.tokens(documents.ids[28:29].tolist()).ids.tolist() == documents.ids[27:30].tolist()


def test_another_process_knows_the_parts(
    collections: Any, index: EngineIndex, documents: MultiVectors
) -> None:
    expected = index.search(QUERIES, 10, rerank="here")
    again = EngineIndex(collections(index.engine.name))
    found = again.search(QUERIES, 10, rerank="here")
    assert [keys(one) for one in found] == [keys(one) for one in expected]


def test_recall_and_calibration_count_parts(index: EngineIndex) -> None:
    assert index.measure_recall(QUERIES, candidates=len(OWNERS)).recall == 1.0
    index.calibrate(queries_like_real(ROWS, 64, seed=7))
    assert 10 <= index.num_candidates(10, recall=0.9) <= len(OWNERS)


def test_what_has_no_parts_is_refused(collections: Any, documents: MultiVectors) -> None:
    engine = collections("refused_parts")
    index = EngineIndex(engine, "mean")
    if not engine.keeps_parts:
        with pytest.raises(ValueError, match=r"takes documents with one part, but id .* has several"):
            index.add(documents)
        assert engine.describe() is None
        return
    index.drop()
    tokens = np.ones((3, DIM), np.float32)
    name = documents.ids.tolist()[0]
    blank = MultiVectors.from_arrays([tokens, tokens[:0]], ids=[name, name])
    with pytest.raises(ValueError, match="has no tokens, and a database cannot find it"):
        index.add(blank)
    index.add(documents)
    with pytest.raises(ValueError, match="Omit one of group_by and group"):
        index.search(QUERIES, group="part", group_by="year")
    index.drop()


def test_an_engine_whose_local_index_has_the_tokens(index: EngineIndex, documents: MultiVectors) -> None:
    local = MuveraIndex.build(documents, CONFIG, exact_tokens=10**9)
    with_local = EngineIndex(index.engine, tokens=local)
    found = with_local.search(QUERIES, 30, candidates=len(OWNERS))
    expected = top_k(QUERIES, documents, 30)
    assert [one.ids.tolist() for one in found] == [one.ids.tolist() for one in expected]
    with pytest.raises(ValueError, match="ranks documents, not parts"):
        with_local.search(QUERIES, group="part")
    assert with_local.measure_recall(QUERIES, candidates=len(OWNERS)).recall == 1.0


def test_a_collection_of_an_older_version_works_without_parts(collections: Any) -> None:
    engine = collections("older")
    engine.keeps_parts = False  # its rows have no part numbers
    engine.graph_from = 50
    whole = ROWS[:60].with_ids(np.arange(60))
    tokens: Any = "engine" if engine.keeps_tokens else MuveraIndex.build(whole, CONFIG)
    index = EngineIndex(engine, FDEEncoder(CONFIG).fit(ROWS), tokens=tokens)
    index.add(whole, METADATA_OF[:60])
    index.update(whole[[3]], [{"year": 1}])
    index.delete([5])
    found = index.search([whole[3]], 3, where={"year": {"$lt": 1995}}, ids=[1, 3, 4, 5], rerank="here")[0]
    assert found.ids.tolist()[0] == 3 and set(found.ids.tolist()) == {1, 3, 4} and found.parts is None
    assert len(index) == 59 and index.documents([3])[0].metadata == {"year": 1}
    with pytest.raises(ValueError, match="one part"):
        index.add(whole[[0, 1]].with_ids([99, 99]))
