"""LangChain's own suites of vector stores and retrievers, and tests of our additions."""

import pytest
from builders.text_encoders import HashEncoder

pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from muvera.integrations.langchain import MuveraVectorStore


class TestVectorStore(VectorStoreIntegrationTests):
    """All of LangChain's standard tests."""

    @pytest.fixture
    def vectorstore(self) -> VectorStore:
        return MuveraVectorStore.from_texts([], HashEncoder())


class TestRetriever(RetrieversIntegrationTests):
    """All of LangChain's standard tests, on a store of token vectors."""

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        store = MuveraVectorStore.from_texts([f"text number {i}" for i in range(10)], HashEncoder())

        return lambda k=4: store.as_retriever(search_kwargs={"k": k})  # type: ignore[return-value]

    @property
    def retriever_constructor_params(self) -> dict[str, object]:
        return {"k": 3}

    @property
    def retriever_query_example(self) -> str:
        return "number 7"


def test_late_interaction_and_filters() -> None:
    store = MuveraVectorStore.from_texts(
        ["a red apple", "a green pear"], HashEncoder(), [{"kind": "a"}, {"kind": "b"}], ids=["1", "2"]
    )
    found = store.similarity_search_with_score("red apple", k=1, words=0)
    assert (found[0][0].id, found[0][0].metadata) == ("1", {"kind": "a"})
    assert found[0][1] == pytest.approx(2, abs=1e-5)
    assert [one.id for one in store.similarity_search("red apple", filter={"kind": "b"})] == ["2"]
    assert isinstance(store.as_retriever(), BaseRetriever)
    with pytest.raises(TypeError, match="text encoder"):
        MuveraVectorStore.from_texts([], TestVectorStore.get_embeddings())
