"""EngineIndex on every engine that is here: what it finds, filters, keeps, refuses and resumes."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from builders.filter_conditions import CONDITIONS, METADATA
from builders.realistic_collections import CONFIG, DIM, documents_like_real, queries_like_real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muvera import FDEConfig, FDEEncoder, LearnedConfig, MultiVectors, MuveraIndex, top_k
from muvera.engines import EngineError, EngineIndex, GraphSettings
from muvera.metadata.filters import FilterError, matches
from muvera.metadata.values import flatten

DOCUMENTS = documents_like_real(300, ids=[f"text {i}" for i in range(300)], dtype=np.float16)
FILLED = DOCUMENTS[np.flatnonzero(DOCUMENTS.lengths > 0)]
QUERIES = queries_like_real(DOCUMENTS, 12)
METADATA_OF = [
    {"year": 1990 + i % 30, "tags": ["a", "b"][: 1 + i % 2], "who": {"x": f"{i % 3}"}} for i in range(300)
]
OPTIONS: dict[str, Any] = {"graph": GraphSettings(from_documents=50)}


def elsewhere(engine: Any) -> dict[str, Any]:
    """Where the tokens are that an engine does not keep."""
    if engine.keeps_tokens:
        return {}
    return {"tokens": MuveraIndex.build(DOCUMENTS, CONFIG, exact_tokens=10**9)}


def filled(engine: Any, **changes: Any) -> EngineIndex:
    index = EngineIndex(engine, CONFIG, **{**OPTIONS, **elsewhere(engine), **changes})
    index.add(DOCUMENTS, METADATA_OF)
    return index


def ids(rankings: Any) -> list[list[Any]]:
    return [ranking.ids.tolist() for ranking in rankings]


def recall(found: Any, expected: Any) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, expected, strict=True)]))


def test_it_finds_what_our_own_index_finds(open_collection: Any) -> None:
    index = filled(open_collection("docs"))
    own = MuveraIndex.build(FILLED, index.encoder, backend="exact", exact_tokens=0)
    assert own._contents.candidates is not None
    vectors = own._contents.candidates.find(QUERIES, 50)
    expected = [FILLED.ids[rows].tolist() for rows in vectors]
    found = index.search(QUERIES, 50, rerank=None, ef=200)
    assert recall(ids(found), expected) > 0.98  # graphs, half precision
    ranked = index.search(QUERIES, 10, candidates=200, rerank="here")
    exact = top_k(QUERIES, FILLED, 10)
    assert ids(ranked) == ids(exact)
    for a, b in zip(ranked, exact, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)
    assert index.measure_recall(QUERIES, candidates=200).recall == 1.0
    assert len(index) == len(FILLED) and index.info().documents == len(FILLED)
    assert index.info().to_dict()["description"]["integer_ids"] is False


def test_another_process_queries_with_the_encoder_that_is_there(open_collection: Any) -> None:
    index = filled(open_collection("docs"))
    expected = index.search(QUERIES, 5)
    engine = open_collection("docs")
    again = EngineIndex(engine, **elsewhere(engine))
    for a, b in zip(again.search(QUERIES, 5), expected, strict=True):
        assert a.to_dict() == b.to_dict()
    for name, array in again.encoder.to_arrays().items():
        np.testing.assert_array_equal(array, index.encoder.to_arrays()[name])


def test_the_engine_ranks_where_it_can(open_collection: Any) -> None:
    index = filled(open_collection("docs"))
    if not index.engine.reranks:
        with pytest.raises(EngineError, match=r"does not rank by tokens\. Use rerank='here'"):
            index.search(QUERIES, 5, rerank="engine")
        return
    there, here = index.search(QUERIES, 5, rerank="engine"), index.search(QUERIES, 5, rerank="here")
    assert [one.to_dict() for one in index.search(QUERIES, 5)] == [one.to_dict() for one in there]
    assert recall(ids(there), ids(here)) > 0.98  # equal scores in half precision
    for a, b in zip(there, here, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, rtol=5e-3)


def test_tokens_may_be_in_a_local_index(open_collection: Any) -> None:
    local = MuveraIndex.build(DOCUMENTS, CONFIG, exact_tokens=10**9)
    index = filled(open_collection("docs"), tokens=local)
    assert index.info().to_dict()["description"]["tokens"] is False
    assert ids(index.search(QUERIES, 10, candidates=200)) == ids(top_k(QUERIES, FILLED, 10))
    assert index.measure_recall(QUERIES, candidates=200).recall == 1.0
    assert index.explain(QUERIES[0], "text 3").score == local.explain(QUERIES[0], "text 3").score
    expected = ids(index.search(QUERIES, 3, rerank=None))
    without = EngineIndex(open_collection("docs"))
    with pytest.raises(EngineError, match=r"keeps no tokens to rank by\. Give tokens=MuveraIndex"):
        without.search(QUERIES)
    assert ids(without.search(QUERIES, 3, rerank=None)) == expected


def test_filters_are_answered_by_the_engine(open_collection: Any) -> None:
    index = filled(open_collection("docs"))
    for where in (
        {"year": {"$gte": 2000, "$lt": 2003}},
        {"tags": "b", "who.x": {"$in": ["1", "2"]}},
        {"year": 1991},
        {"$not": {"tags": "b"}},
        {"none": {"$exists": True}},
        {"none": {"$gt": 3}},
        {},
    ):
        wanted = [i for i in range(300) if DOCUMENTS.lengths[i] and matches(where, METADATA_OF[i])]
        found = ids(index.search(QUERIES, 300, where=where, rerank=None))
        assert [sorted(row) for row in found] == [sorted(DOCUMENTS.ids[wanted].tolist())] * len(QUERIES), (
            where
        )
    with pytest.raises(FilterError, match="There is no operator"):
        index.search(QUERIES, where={"year": {"$near": 3}})


def test_any_condition_keeps_what_python_keeps(open_collection: Any) -> None:
    engine = open_collection("conditions")
    encoder = FDEEncoder(CONFIG).fit(FILLED)
    index = EngineIndex(engine, encoder=encoder)
    texts = FILLED[:40].with_ids(np.arange(40))

    @settings(max_examples=4, suppress_health_check=list(HealthCheck))
    @given(st.lists(METADATA, min_size=40, max_size=40), st.lists(CONDITIONS, min_size=8, max_size=8))
    def compare(metadata: list[dict[str, Any]], conditions: list[dict[str, Any]]) -> None:
        index.add(texts, metadata)
        for where in conditions:
            wanted = [i for i, one in enumerate(metadata) if matches(where, one)]
            try:
                found = index.search(QUERIES[:1], 40, where=where, rerank=None)
            except FilterError as error:
                assert engine.kind == "qdrant" and "Qdrant orders numbers" in str(error)
                continue
            assert sorted(found[0].ids.tolist()) == wanted, where

    compare()


@pytest.mark.parametrize("integers", [True, False])
def test_documents_are_replaced_deleted_and_come_back(open_collection: Any, integers: bool) -> None:
    names: Any = np.arange(300) if integers else [f'it\'s "{i}" \\ \u2713' for i in range(300)]
    texts = DOCUMENTS.with_ids(names)
    index = EngineIndex(open_collection("docs"), CONFIG, **OPTIONS)
    ranks: Any = "here" if index.engine.keeps_tokens else None
    report = index.add(texts, METADATA_OF)
    assert (report.added, report.without_tokens) == (len(FILLED), 300 - len(FILLED))
    again = index.add(texts, METADATA_OF)
    assert again == report and len(index) == len(FILLED)  # nothing twice
    name, other = texts.ids[[3, 4]].tolist()
    assert index.metadata([other, name]) == [METADATA_OF[4], METADATA_OF[3]]
    index.delete([name, texts.ids[250:251].tolist()[0], *([10**6] if integers else ["no such"])])
    assert len(index) == len(FILLED) - 2
    assert name not in ids(index.search([DOCUMENTS[3]], 300, candidates=300, rerank=ranks))[0]
    with pytest.raises(KeyError, match="is not in"):
        index.metadata([name])
    with pytest.raises(KeyError if ranks else EngineError, match=r"is not in|keeps no tokens"):
        index.explain(DOCUMENTS[3], name)
    report = index.add(texts, METADATA_OF, resume=True)
    assert (report.added, report.skipped) == (2, len(FILLED) - 2)
    assert ids(index.search([DOCUMENTS[3]], 1, rerank=ranks)) == [[name]]
    replaced = texts[[5]].with_ids(texts.ids[[3]])
    index.add(replaced, [{"year": 1}])
    assert index.metadata([name]) == [{"year": 1}]
    if ranks:
        expected = pytest.approx(float(len(DOCUMENTS[5])), rel=1e-2)
        assert index.explain(DOCUMENTS[5], name).score == expected


def test_batches_are_whole_and_progress_is_told(
    open_collection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muvera.engines.engine_index._BATCH_BYTES", 64_000)
    index = EngineIndex(open_collection("docs"), encoder=FDEEncoder(CONFIG).fit(FILLED))
    seen: list[int] = []
    index.add(
        (DOCUMENTS[start : start + 100] for start in range(0, 300, 100)),
        iter(METADATA_OF),
        progress=seen.append,
    )
    assert sum(seen) == 300 and max(seen) < 100 and len(index) == len(FILLED)
    assert index.metadata(["text 299"]) == [METADATA_OF[299]]


def test_what_does_not_fit_is_refused(open_collection: Any) -> None:
    index = filled(open_collection("docs"))
    size = len(index)
    with pytest.raises(ValueError, match=r"dimension 16|16 columns|dimension=16"):
        index.add(MultiVectors.from_arrays([np.ones((3, 8), np.float32)], ids=["x"]))
    with pytest.raises(TypeError, match="has strings as ids, and the documents have integers"):
        index.add(DOCUMENTS.with_ids(np.arange(300)))
    with pytest.raises(ValueError, match="have no ids, and the collection has documents"):
        index.add([np.ones((3, DIM), np.float32)])
    with pytest.raises(ValueError, match="metadata for 2 documents, and there are at least 3"):
        index.add(DOCUMENTS[:3], METADATA_OF[:2])
    with pytest.raises(ValueError, match="more metadata than the 3 documents"):
        index.add(DOCUMENTS[:3], METADATA_OF[:4])
    with pytest.raises(ValueError, match="cannot be stored"):
        index.add(DOCUMENTS[:3], [{"a": float("nan")}] * 3)
    with pytest.raises(ValueError, match="65504") if index.engine.keeps_tokens else nullcontext():
        index.add(MultiVectors.from_arrays([np.full((1, DIM), 1e5, np.float32)], ids=["big"]))
    for wrong, message in (
        ({"k": 0}, "k must be at least 1"),
        ({"k": 5, "candidates": 4}, "candidates=4 must be at least k=5"),
        ({"rerank": "there"}, "rerank must be one of"),
        ({"ef": 0}, "ef must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            index.search(QUERIES, **wrong)
    with pytest.raises(ValueError, match="17"):
        index.search([np.ones((3, 17), np.float32)])
    index.delete(["big"])
    assert len(index) == size


def test_another_encoder_or_configuration_is_refused(open_collection: Any) -> None:
    index = filled(open_collection("docs"))
    other = FDEEncoder(CONFIG).fit(FILLED[:100])
    with pytest.raises(EngineError, match=r"was filled by the encoder [0-9a-f]{16}, but the given one is"):
        EngineIndex(open_collection("docs"), encoder=other)
    with pytest.raises(
        EngineError, match=r"was filled by configuration [0-9a-f]{16}, but [0-9a-f]{16} is given"
    ):
        EngineIndex(open_collection("docs"), FDEConfig(dimension=DIM))
    EngineIndex(open_collection("docs"), index.encoder)
    with pytest.raises(ValueError, match="needs to be fitted"):
        EngineIndex(open_collection("none"), encoder=FDEEncoder(CONFIG))


def test_nothing_is_there_before_the_first_documents(open_collection: Any) -> None:
    index = EngineIndex(open_collection("docs"), "learned")
    assert len(index) == 0 and index.info().description is None
    with pytest.raises(EngineError, match=r"There is nothing in .* yet\. Add documents first"):
        index.search(QUERIES)
    with pytest.raises(ValueError, match="learned from 256 documents at least, and the first batch has 95"):
        index.add(DOCUMENTS[:100])
    assert EngineIndex(open_collection("docs")).info().description is None  # nothing was made
    index.drop()
    index.delete(["x"])


def test_learned_vectors_and_drop(open_collection: Any) -> None:
    config = LearnedConfig(dimension=DIM, vector_dimension=64, num_landmarks=64, num_features=64)
    engine = open_collection("docs")
    index = EngineIndex(engine, config, **elsewhere(engine))
    index.add(DOCUMENTS, METADATA_OF)
    assert ids(index.search(QUERIES, 10, candidates=250, rerank="here")) == ids(top_k(QUERIES, FILLED, 10))
    index.drop()
    assert len(index) == 0
    index.add(DOCUMENTS[:280])  # a new one under the same name
    assert len(index) == len(np.flatnonzero(DOCUMENTS.lengths[:280]))


def test_queries_without_tokens_find_nothing(open_collection: Any) -> None:
    index = filled(open_collection("docs"))
    mixed = MultiVectors.from_arrays([QUERIES[0], np.empty((0, DIM), np.float32)], dimension=DIM)
    assert [len(ranking) for ranking in index.search(mixed, 3)] == [3, 0]


def test_equal_numbers_have_one_term() -> None:
    assert flatten({"a": [1, 1.0, True]}).terms == ['["a"]', '["a",1]']
    assert flatten({"a": {"b": [2.5, "x", None]}}).high == {"number_x_612e62": 2.5, "text_x_612e62": "x"}
