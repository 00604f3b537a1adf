"""LlamaIndex: the store below its own index and retriever, all operators of its filters, and the postprocessor."""

from collections.abc import Sequence
from typing import Any

import pytest
from builders.text_encoders import HashEncoder

pytest.importorskip("llama_index.core", reason="llama-index-core is not installed")

from llama_index.core import MockEmbedding, StorageContext, VectorStoreIndex
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from llama_index.core.vector_stores.utils import build_metadata_filter_fn

from muvera import TextIndex
from muvera.integrations.llama_index import MuveraNodePostprocessor, MuveraVectorStore

TEXTS = {"a": "a red apple", "b": "a green pear", "c": "the blue sky", "d": "a red sky"}
METADATA: dict[str, dict[str, object]] = {
    "a": {"kind": "fruit", "year": 2001, "tags": ["x", "y"]},
    "b": {"kind": "fruit", "year": 2005, "tags": ["y"], "note": ""},
    "c": {"kind": "weather", "year": 2005, "tags": []},
    "d": {"kind": "weather", "note": "Red in the evening", "tags": ["z"]},
}


def node(name: str) -> TextNode:
    source = RelatedNodeInfo(node_id=f"document-{'ab' if name in 'ab' else 'cd'}")
    return TextNode(
        id_=name, text=TEXTS[name], metadata=METADATA[name], relationships={NodeRelationship.SOURCE: source}
    )


@pytest.fixture
def store() -> MuveraVectorStore:
    made = MuveraVectorStore(encoder=HashEncoder())
    assert made.add([node(name) for name in TEXTS]) == list(TEXTS)
    return made


def found(store: MuveraVectorStore, text: str, k: int = 10, **settings: Any) -> list[str]:
    result = store.query(VectorStoreQuery(query_str=text, similarity_top_k=k, **settings))
    return list(result.ids or [])


def test_nodes_come_back_as_they_were(store: MuveraVectorStore) -> None:
    result = store.query(VectorStoreQuery(query_str="red apple", similarity_top_k=2))
    assert result.ids is not None and result.nodes is not None and result.similarities is not None
    assert result.ids[0] == "a"
    first = result.nodes[0]
    assert (first.get_content(), first.metadata) == (TEXTS["a"], METADATA["a"])
    assert first.ref_doc_id == "document-ab"
    assert result.similarities[0] == pytest.approx(2, abs=1e-5)


def test_an_empty_store_finds_nothing() -> None:
    empty = MuveraVectorStore(encoder=HashEncoder())
    assert found(empty, "red") == []
    empty.delete("document-ab")
    assert empty.get_nodes() == []


def test_below_an_index_and_its_retriever() -> None:
    store = MuveraVectorStore(encoder=HashEncoder())
    index = VectorStoreIndex(
        [node(name) for name in TEXTS],
        storage_context=StorageContext.from_defaults(vector_store=store),
        embed_model=MockEmbedding(1),
    )
    filters = MetadataFilters(filters=[MetadataFilter(key="kind", value="weather")])
    best = index.as_retriever(similarity_top_k=1, filters=filters).retrieve("red apple")
    assert [one.node.node_id for one in best] == ["d"]
    index.delete_ref_doc("document-cd")
    assert sorted(one.node.node_id for one in index.as_retriever(similarity_top_k=9).retrieve("sky")) == [
        "a",
        "b",
    ]
    again = VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(1))
    assert again.as_retriever(similarity_top_k=1).retrieve("pear")[0].node.node_id == "b"


async def test_the_asynchronous_methods(store: MuveraVectorStore) -> None:
    result = await store.aquery(VectorStoreQuery(query_str="pear", similarity_top_k=1))
    assert result.ids == ["b"]
    await store.async_add([TextNode(id_="b", text="a yellow banana")])
    await store.adelete_nodes(["c"])
    assert [one.node_id for one in await store.aget_nodes()] == ["a", "d", "b"]
    await store.aclear()
    assert len(store.client) == 0


def test_documents_and_nodes_limit_a_query(store: MuveraVectorStore) -> None:
    assert set(found(store, "red", doc_ids=["document-cd"])) == {"c", "d"}
    assert set(found(store, "red", node_ids=["a", "c", "missing"])) == {"a", "c"}
    assert found(store, "red", node_ids=["a"], doc_ids=["document-cd"]) == []


FILTERS: list[tuple[str, Any, FilterOperator]] = [
    ("kind", "fruit", FilterOperator.EQ),
    ("kind", "fruit", FilterOperator.NE),
    ("year", 2001, FilterOperator.GT),
    ("year", 2005, FilterOperator.GTE),
    ("year", 2005, FilterOperator.LT),
    ("year", 2001, FilterOperator.LTE),
    ("kind", ["fruit", "other"], FilterOperator.IN),
    ("kind", ["fruit", "other"], FilterOperator.NIN),
    ("tags", ["x", "z"], FilterOperator.ANY),
    ("tags", ["x", "y"], FilterOperator.ALL),
    ("tags", "y", FilterOperator.CONTAINS),
    ("note", "Red", FilterOperator.TEXT_MATCH),
    ("note", "red", FilterOperator.TEXT_MATCH_INSENSITIVE),
    ("tags", None, FilterOperator.IS_EMPTY),
    ("note", None, FilterOperator.IS_EMPTY),
]


@pytest.mark.parametrize("condition", list(FilterCondition))
@pytest.mark.parametrize(("key", "value", "operator"), FILTERS)
def test_filters_mean_what_they_mean_in_llama_index(
    store: MuveraVectorStore, key: str, value: Any, operator: FilterOperator, condition: FilterCondition
) -> None:
    filters = MetadataFilters(
        filters=[
            MetadataFilter(key=key, value=value, operator=operator),
            MetadataFilter(key="kind", value="weather"),
        ],
        condition=condition,
    )
    theirs = build_metadata_filter_fn(lambda name: METADATA[name], filters)
    expected = [name for name in TEXTS if theirs(name)]
    assert [one.node_id for one in store.get_nodes(filters=filters)] == expected
    assert sorted(found(store, "red", filters=filters)) == expected


def test_filters_may_be_nested(store: MuveraVectorStore) -> None:
    def one_of(*values: str) -> MetadataFilters:
        return MetadataFilters(
            filters=[MetadataFilter(key="kind", value=value) for value in values],
            condition=FilterCondition.OR,
        )

    late = MetadataFilter(key="year", value=2005, operator=FilterOperator.GTE)
    both = MetadataFilters(filters=[one_of("fruit", "weather"), late])
    assert sorted(found(store, "red", filters=both)) == ["b", "c"]


def test_nodes_are_deleted_by_filters(store: MuveraVectorStore) -> None:
    store.delete_nodes()
    assert len(store.client) == 4
    store.delete_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="kind", value="fruit")]))
    assert [one.id for one in store.client] == ["c", "d"]


def test_the_hybrid_mode_finds_words(store: MuveraVectorStore) -> None:
    assert found(store, "pear", k=1, mode=VectorStoreQueryMode.HYBRID) == ["b"]


def test_what_is_refused(store: MuveraVectorStore, tmp_path: object) -> None:
    with pytest.raises(ValueError, match="query_str"):
        store.query(VectorStoreQuery(query_embedding=[0.0]))
    with pytest.raises(ValueError, match="mmr"):
        found(store, "red", mode=VectorStoreQueryMode.MMR)
    with pytest.raises(ValueError, match="fs"):
        store.persist(str(tmp_path), fs=object())


def test_a_store_is_kept_in_a_folder(store: MuveraVectorStore, tmp_path: object) -> None:
    store.persist(f"{tmp_path}/index")
    again = MuveraVectorStore(TextIndex.load(f"{tmp_path}/index", HashEncoder()))
    assert found(again, "red apple", k=1) == ["a"]


def order(nodes: Sequence[NodeWithScore]) -> list[str]:
    return [one.node.node_id for one in nodes]


def test_the_postprocessor_orders_by_chamfer() -> None:
    given = [NodeWithScore(node=node(name), score=0.5) for name in "cba"]
    ranker = MuveraNodePostprocessor(HashEncoder(), top_n=2)
    best = ranker.postprocess_nodes(given, query_str="green pear")
    assert order(best)[0] == "b"
    assert len(best) == 2
    assert best[0].score == pytest.approx(2, abs=1e-5)
    assert ranker.postprocess_nodes([], query_str="green") == []
    with pytest.raises(ValueError, match="query_str"):
        ranker.postprocess_nodes(given)
