"""LlamaIndex: the store under its own index and retriever.

Also all filter operators, and the postprocessor.
"""

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
    made = MuveraVectorStore(TextIndex.build([], HashEncoder()))
    assert made.add([node(name) for name in TEXTS]) == list(TEXTS)
    return made


def found(store: MuveraVectorStore, text: str, k: int = 10, **settings: Any) -> list[str]:
    return list(store.query(VectorStoreQuery(query_str=text, similarity_top_k=k, **settings)).ids or [])


def only(key: str, *values: str) -> MetadataFilters:
    filters = [MetadataFilter(key=key, value=value) for value in values]
    return MetadataFilters(filters=filters, condition=FilterCondition.OR)


def test_nodes_come_back_unchanged_also_from_a_folder(store: MuveraVectorStore, tmp_path: object) -> None:
    store.persist(f"{tmp_path}/index")
    loaded = MuveraVectorStore(TextIndex.load(f"{tmp_path}/index", HashEncoder()))
    for each in (store, loaded):
        result = each.query(VectorStoreQuery(query_str="red apple", similarity_top_k=2), words=0)
        assert result.ids is not None and result.nodes is not None and result.similarities is not None
        first = result.nodes[0]
        assert (result.ids[0], first.get_content(), first.metadata) == ("a", TEXTS["a"], METADATA["a"])
        assert first.ref_doc_id == "document-ab"
        assert result.similarities[0] == pytest.approx(2, abs=1e-5)
    with pytest.raises(ValueError, match="fs"):
        store.persist(str(tmp_path), fs=object())


@pytest.mark.parametrize("ids", [None, list("abcd")], ids=["integers", "strings"])
def test_a_store_has_the_texts_of_an_index(ids: list[str] | None) -> None:
    kinds = [{"kind": METADATA[name]["kind"]} for name in TEXTS]
    texts = TextIndex.build(list(TEXTS.values()), HashEncoder(), ids=ids, metadata=kinds)
    store = MuveraVectorStore(texts)
    index = VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(1))
    best = index.as_retriever(similarity_top_k=1, filters=only("kind", "fruit")).retrieve("red apple")[0]
    names = ids or ["0", "1", "2", "3"]
    assert (best.node.node_id, best.node.get_content()) == (names[0], "a red apple")
    assert (best.node.metadata, best.node.ref_doc_id) == ({"kind": "fruit"}, names[0])
    assert found(store, "red", doc_ids=[names[3], "unknown"]) == [names[3]]
    index.delete_ref_doc(names[0])
    store.delete_nodes([names[1]])
    assert [one.node_id for one in store.get_nodes()] == names[2:]


def test_an_index_and_its_retriever() -> None:
    store = MuveraVectorStore(TextIndex.build([], HashEncoder()))
    context = StorageContext.from_defaults(vector_store=store)
    nodes = [node(name) for name in TEXTS]
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=MockEmbedding(1))

    def retrieve(text: str, k: int = 9, **options: Any) -> list[str]:
        retriever = index.as_retriever(similarity_top_k=k, **options)
        return [one.node.node_id for one in retriever.retrieve(text)]

    assert retrieve("red apple", 1, filters=only("kind", "weather")) == ["d"]
    index.delete_ref_doc("document-cd")
    assert sorted(retrieve("sky")) == ["a", "b"]
    index = VectorStoreIndex.from_vector_store(store, embed_model=MockEmbedding(1))
    assert retrieve("pear", 1) == ["b"]


def test_queries_are_limited_and_hybrid(store: MuveraVectorStore) -> None:
    assert set(found(store, "red", doc_ids=["document-cd"])) == {"c", "d"}
    assert set(found(store, "red", node_ids=["a", "c", "missing"])) == {"a", "c"}
    assert found(store, "red", node_ids=["a"], doc_ids=["document-cd"]) == []
    assert found(store, "pear", k=1, mode=VectorStoreQueryMode.HYBRID, alpha=0.5) == ["b"]
    with pytest.raises(ValueError, match="query_str"):
        store.query(VectorStoreQuery(query_embedding=[0.0]))
    with pytest.raises(ValueError, match="mmr"):
        found(store, "red", mode=VectorStoreQueryMode.MMR)


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
def test_filters_select_what_llama_index_selects(
    store: MuveraVectorStore, key: str, value: Any, operator: Any, condition: FilterCondition
) -> None:
    first = MetadataFilter(key=key, value=value, operator=operator)
    second = MetadataFilter(key="kind", value="weather")
    filters = MetadataFilters(filters=[first, second], condition=condition)
    theirs = build_metadata_filter_fn(lambda name: METADATA[name], filters)
    expected = [name for name in TEXTS if theirs(name)]
    assert [one.node_id for one in store.get_nodes(filters=filters)] == expected
    assert sorted(found(store, "red", filters=filters)) == expected


def test_nodes_are_replaced_and_deleted(store: MuveraVectorStore) -> None:
    late = MetadataFilter(key="year", value=2005, operator=FilterOperator.GTE)
    both = MetadataFilters(filters=[only("kind", "fruit", "weather"), late])
    assert sorted(found(store, "red", filters=both)) == ["b", "c"]
    store.add([TextNode(id_="b", text="a yellow banana")])
    store.delete_nodes()
    store.delete_nodes(["c"])
    assert [one.node_id for one in store.get_nodes()] == ["a", "d", "b"]
    store.delete_nodes(filters=only("kind", "fruit"))
    assert [one.node_id for one in store.get_nodes()] == ["d", "b"]
    store.clear()
    store.delete("document-ab")
    assert found(store, "red") == store.get_nodes() == []


def test_the_postprocessor_ranks_by_chamfer() -> None:
    nodes = [NodeWithScore(node=node(name), score=0.5) for name in "cba"]
    ranker = MuveraNodePostprocessor(HashEncoder(), top_n=2)
    best = ranker.postprocess_nodes(nodes, query_str="green pear")
    assert (len(best), best[0].node.node_id, best[0].score) == (2, "b", pytest.approx(2, abs=1e-5))
    assert ranker.postprocess_nodes([], query_str="green") == []
    with pytest.raises(ValueError, match="query_str"):
        ranker.postprocess_nodes(nodes)
