"""The contract of EngineIndex, which every engine passes."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from builders.conditions import matches
from builders.realistic_collections import CONFIG, DIM, documents_like_real, queries_like_real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import CONDITIONS, METADATA

from muvera import FDEConfig, FDEEncoder, MultiVectors, MuveraIndex, top_k
from muvera.engines import EngineError, EngineIndex
from muvera.metadata import FilterError

# The client's local mode warns once that it searches without a graph.
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")

COUNT = 280
DOCUMENTS = documents_like_real(COUNT, ids=[f"text {i}" for i in range(COUNT)], dtype=np.float16)
FILLED = DOCUMENTS[np.flatnonzero(DOCUMENTS.lengths > 0)]
SOME = FILLED[:40]
ENCODER = FDEEncoder(CONFIG).fit(FILLED)
QUERIES = queries_like_real(DOCUMENTS, 8)
METADATA_OF = [
    {"year": 1990 + i % 30, "tags": ["a", "b"][: 1 + i % 2], "who": {"x": f"{i % 3}"}} for i in range(COUNT)
]
LOCAL = MuveraIndex.build(DOCUMENTS, CONFIG, exact_tokens=10**9)


def opened(engine: Any, encoder: Any = ENCODER, **options: Any) -> EngineIndex:
    """Open an index whose tokens are in the engine.

    They are in LOCAL if the engine stores none.
    """
    engine.graph_from = 50
    tokens = {} if engine.keeps_tokens else {"tokens": LOCAL}
    return EngineIndex(engine, encoder, **{**tokens, **options})


@pytest.fixture(scope="module")
def filled(collections: Any) -> EngineIndex:
    """All documents; tests must not change it."""
    index = opened(collections("docs"), CONFIG)
    index.add(DOCUMENTS, METADATA_OF)
    return index


def ids(rankings: Any) -> list[list[Any]]:
    return [ranking.ids.tolist() for ranking in rankings]


def recall(rankings: Any, expected: Any) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(rankings, expected, strict=True)]))


def test_search_returns_the_nearest_vectors(filled: EngineIndex) -> None:
    products = filled.encoder.encode_queries(QUERIES) @ filled.encoder.encode_documents(FILLED).T
    expected = [FILLED.ids[row].tolist() for row in np.argsort(-products, kind="stable")[:, :50]]
    assert recall(ids(filled.search(QUERIES, 50, rerank=None)), expected) > 0.98  # graph, float16


def test_search_returns_exact_scores(filled: EngineIndex) -> None:
    ranked, exact = filled.search(QUERIES, 10, candidates=200, rerank="here"), top_k(QUERIES, FILLED, 10)
    assert ids(ranked) == ids(exact)
    for a, b in zip(ranked, exact, strict=True):
        np.testing.assert_array_equal(a.scores, b.scores)
    assert filled.measure_recall(QUERIES, candidates=200).recall == 1.0


def test_an_engine_ranks_by_tokens_in_half_precision(filled: EngineIndex) -> None:
    if not filled.engine.reranks:
        pytest.skip("it ranks no candidates by their tokens")
    there, exact = filled.search(QUERIES, 10, candidates=200), top_k(QUERIES, FILLED, 10)
    assert recall(ids(there), ids(exact)) > 0.98
    for a, b in zip(there, exact, strict=True):
        np.testing.assert_allclose(a.scores, b.scores, rtol=5e-3)


def test_info_counts_documents_and_names_the_location(filled: EngineIndex) -> None:
    info = filled.info()
    assert len(filled) == info.documents == len(FILLED) and info.location in repr(filled)
    assert info.description is not None and not info.description.integer_ids


def test_a_query_without_tokens_finds_nothing(filled: EngineIndex) -> None:
    empty = MultiVectors.from_arrays([QUERIES[0], np.empty((0, DIM), np.float32)], dimension=DIM)
    assert [len(ranking) for ranking in filled.search(empty, 3)] == [3, 0]


@pytest.mark.parametrize(
    "where",
    [
        {"year": {"$gte": 2000, "$lt": 2003}},
        {"tags": "b", "who.x": {"$in": ["1", "2"]}},
        {"$not": {"tags": "b"}},
        {},
    ],
)
def test_where_and_ids_select_documents(filled: EngineIndex, where: dict[str, Any]) -> None:
    wanted = [i for i in range(COUNT) if DOCUMENTS.lengths[i] and matches(where, METADATA_OF[i])]
    some = [*DOCUMENTS.ids[:100].tolist(), "unknown"]
    for within, expected in ((None, wanted), (some, [i for i in wanted if i < 100])):
        hits = ids(filled.search(QUERIES[:2], COUNT, where=where, ids=within, rerank=None))
        assert [sorted(row) for row in hits] == [sorted(DOCUMENTS.ids[expected].tolist())] * 2
    assert filled.engine.ids(where) == DOCUMENTS.ids[wanted].tolist()  # "text 2" before "text 10"
    assert ids(filled.search(QUERIES[:1], 3, where=where, ids=[])) == [[]]


def test_any_condition_selects_what_python_selects(collections: Any) -> None:
    index = opened(collections("conditions"))

    @settings(max_examples=4, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.lists(METADATA, min_size=40, max_size=40), st.lists(CONDITIONS, min_size=8, max_size=8))
    def compare(metadata: list[dict[str, Any]], conditions: list[dict[str, Any]]) -> None:
        index.update(SOME.with_ids(np.arange(40)), metadata)
        for where in conditions:
            wanted = [i for i, values in enumerate(metadata) if matches(where, values)]
            try:
                hits = index.search(QUERIES[:1], 40, where=where, rerank=None)
            except FilterError:
                assert collections.kind.startswith("qdrant")  # which orders numbers only
                with pytest.raises(FilterError):
                    index.engine.ids(where)
                continue
            assert sorted(hits[0].ids.tolist()) == wanted, where
            assert index.engine.ids(where) == wanted, where

    compare()


def test_conditions_that_an_engine_cannot_answer_are_refused(filled: EngineIndex) -> None:
    for where, kinds in (
        ({"year": {"$lt": 2**53 + 1}}, ("lancedb", "qdrant")),
        ({"who.x": {"$lt": "\u00e9"}}, ("milvus", "qdrant")),
        ({"who.x": {"$lt": "a\0"}}, ("pgvector", "qdrant", "milvus")),
    ):
        with pytest.raises(FilterError) if filled.engine.kind in kinds else nullcontext():
            assert len(filled.search(QUERIES[:1], 1, where=where, rerank=None)[0]) == 1


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "\u00e9", "'\"\\", "x" * 70_000])
def test_odd_strings_raise_a_sentence_or_find_nothing(filled: EngineIndex, text: str) -> None:
    def found(**settings: Any) -> list[Any]:
        return ids(filled.search(QUERIES[:1], 3, rerank=None, **settings))[0]

    for work in (
        lambda: found(where={"who.x": text}),
        lambda: found(where={"who.x": {"$in": [text]}}),
        lambda: found(where={text: 1}),
        lambda: found(ids=[text]),
        lambda: filled.engine.ids({"who.x": text}),
        lambda: filled.delete([text], missing="ignore"),
    ):
        try:
            assert not work()
        except ValueError as error:
            assert type(error) in (ValueError, FilterError, EngineError), repr(error)
            assert str(error).endswith("."), repr(error)


def test_another_process_searches_with_the_stored_encoder(collections: Any) -> None:
    index = opened(collections("again"))
    index.add(SOME)
    expected = index.search(QUERIES, 5)
    again = opened(collections("again"), None)
    for a, b in zip(again.search(QUERIES, 5), expected, strict=True):
        assert a.to_dict() == b.to_dict()
    np.testing.assert_array_equal(again.encoder.encode_documents(SOME), ENCODER.encode_documents(SOME))
    for wrong in (FDEEncoder(CONFIG).fit(FILLED[:100]), FDEConfig(DIM), "mean"):
        with pytest.raises(EngineError):
            EngineIndex(collections("again"), wrong)
    opened(collections("again"), CONFIG)


def test_recall_takes_the_calibrated_number_of_candidates(filled: EngineIndex) -> None:
    with pytest.raises(ValueError, match=r"recall=0.9 needs a calibration"):
        filled.search(QUERIES, 10, recall=0.9)
    with pytest.raises(ValueError, match="at least 64 queries with tokens, got 8"):
        filled.calibrate(QUERIES)
    filled.calibrate(queries_like_real(DOCUMENTS, 64, seed=7))
    numbers = [filled.num_candidates(10, recall=target) for target in (0.5, 0.9, 0.98)]
    assert 10 <= numbers[0] <= numbers[1] <= numbers[2] <= COUNT
    assert recall(ids(filled.search(QUERIES, 10, recall=0.98)), ids(top_k(QUERIES, FILLED, 10))) > 0.9
    assert filled.num_candidates(10) == max(100, filled.num_candidates(10, recall=0.95))
    filled.engine.describe()  # reads the stored calibration
    assert filled.num_candidates(10, recall=0.98) == numbers[2]
    with pytest.raises(ValueError, match="not both"):
        filled.search(QUERIES, 10, recall=0.9, candidates=20)


def test_a_calibration_without_queries_asks_for_windows_of_documents(filled: EngineIndex) -> None:
    filled.calibrate()
    number = filled.num_candidates(10, recall=0.8)
    windows = [document[:16] for document in FILLED[:20] if len(document)]
    found = ids(filled.search(windows, 10, candidates=number))
    assert 10 <= number < COUNT and recall(found, ids(top_k(windows, FILLED, 10))) > 0.7


def test_a_number_of_candidates_for_a_recall_above_one_is_refused(filled: EngineIndex) -> None:
    with pytest.raises(ValueError, match=r"recall must be above 0 and below 1, got 1.5"):
        filled.num_candidates(10, recall=1.5)


@dataclass(frozen=True)
class Lifecycle:
    """An index of 60 documents, some without tokens, and what was added to it."""

    index: EngineIndex
    texts: MultiVectors
    integers: bool

    @property
    def count(self) -> int:
        """Number of documents that have tokens."""
        return int((self.texts.lengths > 0).sum())

    @property
    def name(self) -> Any:
        """Id of the fourth document."""
        return self.texts.ids.tolist()[3]

    @property
    def ranks(self) -> Any:
        return "here" if self.index.engine.keeps_tokens else None


VALUES = METADATA_OF[:60]


@pytest.fixture(params=[True, False], ids=["integers", "strings"])
def lifecycle(request: pytest.FixtureRequest, collections: Any) -> Lifecycle:
    integers = bool(request.param)
    names: Any = np.arange(60) if integers else [f'it\'s "{i}" \\ \u2713' for i in range(60)]
    index = EngineIndex(collections(f"lifecycle_{integers}"), ENCODER)
    made = Lifecycle(index, DOCUMENTS[:60].with_ids(names), integers)
    index.drop()
    report = index.add(made.texts, VALUES)
    assert (report.added, report.without_tokens) == (made.count, 60 - made.count)
    return made


def test_an_id_in_use_is_refused_and_nothing_is_written(lifecycle: Lifecycle) -> None:
    index, texts = lifecycle.index, lifecycle.texts
    new = 60 if lifecycle.integers else "new"
    mixed = texts[[5, 3]].with_ids([new, lifecycle.name])
    with pytest.raises(ValueError, match=r"already\. Use update to replace it\. .*resume=True") as caught:
        index.add(mixed, [{"year": 1}, {"year": 2}])
    assert repr(lifecycle.name) in str(caught.value)
    assert index.documents([new], missing="ignore") == []
    assert index.documents([lifecycle.name])[0].metadata == VALUES[3]
    assert index.add(mixed, resume=True)[:2] == (1, 1)


def test_an_update_replaces_documents(lifecycle: Lifecycle) -> None:
    index, texts = lifecycle.index, lifecycle.texts
    report = index.update(texts, VALUES)
    assert (report.added, report.without_tokens) == (lifecycle.count, 60 - lifecycle.count)
    assert len(index) == lifecycle.count
    with pytest.raises(ValueError, match="no ids, and the collection is not empty"):
        index.update([texts[0]])
    index.update(texts[[5]].with_ids(texts.ids[[3]]), [{"year": 1}])
    assert index.documents([lifecycle.name])[0].metadata == {"year": 1}
    assert len(index) == lifecycle.count


def test_documents_are_read_in_the_order_of_the_ids(lifecycle: Lifecycle) -> None:
    name, other = lifecycle.texts.ids[[3, 4]].tolist()
    found = [one.metadata for one in lifecycle.index.documents([other, name, other])]
    assert found == [VALUES[4], VALUES[3], VALUES[4]]


def test_ids_of_the_wrong_type_are_unknown(lifecycle: Lifecycle) -> None:
    index = lifecycle.index
    for single in (str(lifecycle.name), 3):
        with pytest.raises(TypeError):
            index.delete(single)  # type: ignore[arg-type]
    wrong = [str(number) if lifecycle.integers else number for number in (3, 5)]
    message = "which has integers as ids" if lifecycle.integers else "which has strings as ids"
    with pytest.raises(KeyError, match=message):
        index.delete(wrong)
    assert index.documents([wrong[0], lifecycle.name], missing="ignore") == index.documents([lifecycle.name])
    assert ids(index.search(QUERIES[:1], ids=wrong, rerank=None)) == [[]]


def test_deleted_documents_are_gone_until_an_addition_resumes(lifecycle: Lifecycle) -> None:
    index, texts = lifecycle.index, lifecycle.texts
    name, count = lifecycle.name, lifecycle.count
    gone = [name, texts.ids[20:21].tolist()[0], 10**6 if lifecycle.integers else "unknown"]
    with pytest.raises(KeyError, match=r"1000000|unknown"):
        index.delete(gone)
    assert len(index) == count
    index.delete(gone, missing="ignore")
    assert len(index) == count - 2
    assert name not in ids(index.search([DOCUMENTS[3]], 60, candidates=60, rerank=lifecycle.ranks))[0]
    with pytest.raises(KeyError):
        index.documents([name])
    report = index.add(texts, VALUES, resume=True)
    assert (report.added, report.skipped) == (2, count - 2)
    assert ids(index.search([DOCUMENTS[3]], 1, rerank=lifecycle.ranks)) == [[name]]


def test_a_dropped_collection_can_be_filled_again(lifecycle: Lifecycle) -> None:
    index, texts = lifecycle.index, lifecycle.texts
    index.drop()
    assert len(index) == 0
    index.add(texts[:20])  # a new collection of the same name
    assert len(index) == int((texts.lengths[:20] > 0).sum())


def test_batches_and_progress(collections: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.engines.engine_index._BATCH_BYTES", 64_000)
    index = opened(collections("batches"))
    seen: list[int] = []
    batches = (DOCUMENTS[start : start + 50] for start in range(0, 100, 50))
    index.add(batches, iter(METADATA_OF[:100]), progress=seen.append)
    assert sum(seen) == 100 and max(seen) < 50 and len(index) == int((DOCUMENTS.lengths[:100] > 0).sum())
    assert index.documents(["text 99"])[0].metadata == METADATA_OF[99]


def test_what_does_not_fit_is_refused(collections: Any) -> None:
    with pytest.raises(EngineError, match="refused does not exist"):
        EngineIndex(collections("refused")).search(QUERIES)
    index = opened(collections("refused"))
    index.add(SOME)
    without = EngineIndex(index.engine, tokens=None)
    with pytest.raises(EngineError, match="rerank=None"):
        without.search(QUERIES)
    assert ids(without.search(QUERIES, 3, rerank=None)) == ids(index.search(QUERIES, 3, rerank=None))
    big = MultiVectors.from_arrays([np.full((1, DIM), 1e5, np.float32)], ids=["big"])
    for documents, metadata, kind in (
        (MultiVectors.from_arrays([np.ones((3, 8), np.float32)], ids=["x"]), None, ValueError),
        (SOME.with_ids(np.arange(40)), None, TypeError),
        ([np.ones((3, DIM), np.float32)], None, ValueError),
        (SOME[:3], METADATA_OF[:2], ValueError),
        (SOME[:3], METADATA_OF[:4], ValueError),
        (SOME[:3], [{"a": float("nan")}] * 3, ValueError),
        *([(big, None, ValueError)] if index.engine.keeps_tokens else []),
    ):
        with pytest.raises(kind):
            index.add(documents, metadata)  # type: ignore[arg-type]
    wrong: Any
    for wrong, error, message in (
        ({"k": 0}, ValueError, "k must be"),
        ({"k": 5, "candidates": 4}, ValueError, "at least k=5"),
        ({"rerank": "there"}, ValueError, "rerank must be one of auto, here"),
        ({"ids": "text 1"}, TypeError, "ids must be a collection"),
        ({"queries": [np.ones((3, 17), np.float32)]}, ValueError, "17"),
        ({"where": {"year": {"$near": 3}}}, FilterError, "near"),
    ):
        with pytest.raises(error, match=message):
            index.search(**{"queries": QUERIES, **wrong})
    assert len(index) == len(SOME)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index.engine, "_close", lambda: None)  # other tests use its connection
        index.close()
    for call in (
        lambda: index.search(QUERIES),
        lambda: index.add(SOME),
        lambda: index.delete(["text 1"]),
        lambda: index.documents(["text 1"]),
        lambda: len(index),
        index.info,
        index.drop,
        index.engine.describe,
        lambda: index.engine.ids({}),
    ):
        with pytest.raises(EngineError, match=r"refused is closed\. Open it again with TextIndex\.open"):
            call()
    assert repr(index).endswith("#refused')")


def test_the_default_encoder_is_fitted_on_the_first_batch(collections: Any) -> None:
    index = opened(collections("default"), "fde")
    assert len(index) == 0 and index.info().description is None
    with pytest.raises(ValueError, match="256"):
        index.add(DOCUMENTS[:100])
    index.delete(["x"], missing="ignore")
    assert collections("default").describe() is None  # nothing was created
    index = opened(collections("default"), None)
    index.add(DOCUMENTS)
    assert index.encoder.config == FDEConfig(DIM)
    assert ids(index.search(QUERIES, 10, candidates=COUNT, rerank="here")) == ids(top_k(QUERIES, FILLED, 10))


@pytest.mark.parametrize(("entries", "texts"), [(39, 40), (40, 39), (41, 40), (40, 41)])
def test_each_document_has_one_entry_of_metadata_and_one_text(
    collections: Any, entries: int, texts: int
) -> None:
    index = opened(collections("unequal"))
    with pytest.raises(ValueError, match=r"one entry per document, got (only 39|more than 40)"):
        index.update(SOME, METADATA_OF[:entries], texts=["text"] * texts)
