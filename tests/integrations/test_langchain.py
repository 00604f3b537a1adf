"""LangChain's own suite of vector stores, and tests of our additions."""

import pytest
from builders.text_encoders import HashEncoder

pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from muvera.integrations.langchain import MuveraVectorStore


class TestVectorStore(VectorStoreIntegrationTests):
    """All of LangChain's standard tests."""

    @pytest.fixture
    def vectorstore(self) -> VectorStore:
        return MuveraVectorStore.from_texts([], HashEncoder())


def test_late_interaction_and_filters() -> None:
    store = MuveraVectorStore.from_texts(
        ["a red apple", "a green pear"], HashEncoder(), [{"kind": "a"}, {"kind": "b"}], ids=["1", "2"]
    )
    found = store.similarity_search_with_score("red apple", k=1, words=0)
    assert (found[0][0].id, found[0][0].metadata) == ("1", {"kind": "a"})
    assert found[0][1] == pytest.approx(2, abs=1e-5)
    assert [one.id for one in store.similarity_search("red apple", filter={"kind": "b"})] == ["2"]
    [best] = store.as_retriever(search_kwargs={"k": 1}).invoke("red apple")
    assert best.page_content == "a red apple"
    with pytest.raises(TypeError, match="text encoder"):
        MuveraVectorStore.from_texts([], TestVectorStore.get_embeddings())
