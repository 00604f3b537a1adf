"""LangChain: a retriever over a text index (needs the extra "langchain")."""

from muvera.integrations.langchain import MuveraVectorStore

store = MuveraVectorStore.from_texts(
    ["Sort the list in place.", "Return a capitalized copy of the string."],
    "static",
    [{"type": "list"}, {"type": "str"}],
)
retriever = store.as_retriever(search_kwargs={"k": 1, "filter": {"type": "list"}})
print(retriever.invoke("put a list in order")[0].page_content)
