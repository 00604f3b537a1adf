"""RAGatouille's example programs and indexes, with only the import changed."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.foreign_indexes import decode_index, random_index, write_plaid
from builders.text_encoders import HashEncoder

from muvera import TextIndex
from muvera.compat import ragatouille
from muvera.compat.ragatouille import RAGPretrainedModel, split_sentences
from muvera.compat.ragatouille.utils import get_wikipedia_page

PAGES = {
    "Hayao_Miyazaki": "Miyazaki draws films. He wrote the manga Nausicaa. Spirited Away won an Oscar. " * 20,
    "Studio_Ghibli": "Ghibli is a studio in Tokyo. Takahata and Suzuki are founders. It has a museum. " * 20,
}
NAMED: dict[str, Any] = {
    "document_ids": ["miyazaki", "ghibli"],
    "document_metadatas": [{"entity": "person"}, {"entity": "organisation"}],
}


@pytest.fixture(autouse=True)
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, with a small encoder in place of checkpoints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ragatouille, "find_spec", lambda _: object())
    monkeypatch.setattr(ragatouille, "load_text_encoder", lambda name: HashEncoder(name=name))


def test_the_programs_of_the_readme() -> None:
    """Run the blocks of RAGatouille's README in order, without training."""
    RAG = RAGPretrainedModel.from_pretrained("colbert-ir/colbertv2.0")
    collection = list(PAGES.values())
    path = RAG.index(index_name="pages", collection=collection)
    assert path == ".ragatouille/colbert/indexes/pages"
    path = RAG.index(index_name="named_pages", collection=collection, **NAMED)
    RAG = RAGPretrainedModel.from_index(path)
    assert len(RAG.search("Who draws films?")) == 4  # of 1,580 characters each, two passages a page
    results = RAG.search(["Which manga did Miyazaki write?", "Who are the founders of Ghibli?"], k=2)
    assert [ranked[0]["document_id"] for ranked in results] == ["miyazaki", "ghibli"]


def test_a_result_is_a_dictionary_of_ragatouille() -> None:
    RAG = RAGPretrainedModel.from_pretrained("colbert-ir/colbertv2.0")
    RAG.index(index_name="named_pages", collection=list(PAGES.values()), **NAMED)
    first = RAG.search("Which manga did Miyazaki write?", k=2)[0]
    assert set(first) == {"content", "score", "rank", "document_id", "passage_id", "document_metadata"}
    assert (first["rank"], first["document_metadata"]) == (1, {"entity": "person"})
    assert first["content"] in PAGES["Hayao_Miyazaki"]
    assert RAG.search(["founders"], k=1, zero_index_ranks=True)[0]["rank"] == 0


def test_arguments_of_the_splitter(monkeypatch: pytest.MonkeyPatch) -> None:
    RAG = RAGPretrainedModel.from_pretrained("colbert-ir/colbertv2.0", index_root="elsewhere")
    text = PAGES["Studio_Ghibli"]
    for length, split, count in [(32, True, 20), (10_000, True, 1), (32, False, 1)]:
        path = RAG.index([text], ["g"], max_document_length=length, split_documents=split, index_name="s")
        assert path == "elsewhere/colbert/indexes/s"
        assert len(RAG.search("museum", k=100)) == count
    seen = []

    def words(documents: list[str], ids: list[str], chunk_size: int) -> list[dict[str, str]]:
        seen.append(chunk_size)
        pairs = zip(ids, documents, strict=True)
        return [{"document_id": id, "content": word} for id, text in pairs for word in text.split()]

    def upper(passages: list[dict[str, str]], _: list[str]) -> list[dict[str, str]]:
        return [{**passage, "content": passage["content"].upper()} for passage in passages]

    RAG.index(
        ["one two"], ["n"], index_name="w", max_document_length=9, document_splitter_fn=words,
        preprocessing_fn=[upper, upper], bsize=4, use_faiss=True,
    )  # fmt: skip
    assert [row["content"] for row in RAG.search("two")] == ["TWO", "ONE"]
    monkeypatch.setattr("muvera.metadata._MAX_VALUES", 1)  # no limit of documents
    RAG.add_to_index(["three", "four"], ["m", "o"], document_splitter_fn=words)
    assert seen == [9, 9]
    with pytest.raises(FileExistsError):
        RAG.index(["four"], index_name="w", overwrite_index=False)
    assert RAG.index(["four"], index_name="s", overwrite_index="reuse") == "elsewhere/colbert/indexes/s"
    assert "museum" in RAG.search("museum")[0]["content"]
    with pytest.raises(ValueError, match="2 documents"):
        RAG.index(["one", "two"], document_ids=["same", "same"])


def write_ragatouille(path: Path) -> dict[str, Any]:
    """Write an index of four passages of three documents.

    The first document was deleted.
    """
    words = HashEncoder().encode_documents(["beta one two gamma delta epsilon"])[0]
    index = random_index(0, [[5, 3], [4, 6]], centroids=len(words))
    index["centroids"] = words.astype(np.float16)
    index["weights"] = np.array([-0.06, -0.02, 0.02, 0.06], np.float32)
    write_plaid(path, index)
    config = {"checkpoint": "colbert-ir/colbertv2.0", "dim": 16, "nbits": 2, "doc_maxlen": 40}
    (path / "metadata.json").write_text(json.dumps({"config": config, "num_chunks": 2}))
    (path / "collection.json").write_text('["beta one", "beta two", "gamma", "delta"]')
    (path / "pid_docid_map.json").write_text('{"1": "b", "2": "b", "3": "c", "10": "d"}')
    (path / "docid_metadata_map.json").write_text('{"b": {"year": 1}, "d": {"year": 2}}')
    return index


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return tmp_path / ".ragatouille" / "colbert" / "indexes" / "old"


def test_an_index_of_ragatouille_opens_in_place(old: Path) -> None:
    index = write_ragatouille(old)
    results = RAGPretrainedModel.from_index(old).search("gamma delta")
    tokens = np.split(decode_index(index), np.cumsum([5, 3, 4]))
    query = HashEncoder().encode_queries(["gamma delta"])[0]
    scores = [float((query @ own.T).max(axis=1).sum()) for own in tokens]
    for row in results:
        assert row["score"] == pytest.approx(scores[row["passage_id"]], rel=1e-2)
    keys = ("passage_id", "content", "document_id", "document_metadata")
    assert sorted(tuple(row.get(key) for key in keys) for row in results) == [
        (0, "beta one", "b", {"year": 1}), (1, "beta two", "b", {"year": 1}), (2, "gamma", "c", None),
        (3, "delta", "d", {"year": 2}),
    ]  # fmt: skip


def test_changes_of_an_index_leave_the_files_of_ragatouille(old: Path) -> None:
    write_ragatouille(old)
    before = {file.name: file.read_bytes() for file in old.iterdir()}
    RAG = RAGPretrainedModel.from_index(old)
    RAG.add_to_index(["epsilon", "never added"], ["e", "b"], [{"year": 3}, {}])
    RAG.delete_from_index(["c", "unknown"])
    again = RAGPretrainedModel.from_index(old)
    assert [row["document_id"] for row in again.search("epsilon", k=1)] == ["e"]
    assert {row["document_id"] for row in again.search("gamma")} == {"b", "d", "e"}
    assert {row["document_id"] for row in again.search("gamma", doc_ids=["d", "e"])} == {"d", "e"}
    assert {name: (old / name).read_bytes() for name in before} == before
    assert again.search("epsilon", index_name="old", k=1)[0]["document_metadata"] == {"year": 3}


def test_a_damaged_index_is_refused(tmp_path: Path) -> None:
    write_ragatouille(tmp_path / "old")
    (tmp_path / "old" / "collection.json").write_text('["one"]')
    with pytest.raises(ValueError, match="4 passages, got 1 texts and 4 ids"):
        RAGPretrainedModel.from_index(tmp_path / "old")
    with pytest.raises(FileNotFoundError):
        RAGPretrainedModel.from_index(tmp_path / "nowhere")


def test_a_folder_does_not_name_a_server(tmp_path: Path) -> None:
    RAG = RAGPretrainedModel.from_pretrained("http://host/pooling#model")
    path = RAG.index(["text"], index_name="remote")
    with pytest.raises(ValueError, match="encoder="):
        RAGPretrainedModel.from_index(path)
    assert len(RAGPretrainedModel.from_index(path, encoder="http://host/pooling#model").search("text")) == 1


def test_an_interrupted_index_keeps_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    RAG = RAGPretrainedModel.from_pretrained("colbert-ir/colbertv2.0")
    path = RAG.index(["old"], index_name="i")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name in ("i", "j"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(TextIndex, "build", interrupted)
            RAG.index(["new"], index_name=name)
        assert (Path(path).with_name(name) / "muvera").exists() == (name == "i")
    assert RAGPretrainedModel.from_index(path).search("old")[0]["content"] == "old"
    with pytest.raises(FileNotFoundError):
        RAGPretrainedModel.from_index(Path(path).with_name("j"))


def test_an_error_of_the_encoder_keeps_the_old_index(tmp_path: Path) -> None:
    class Failing(HashEncoder):
        def encode_documents(self, *_: Any, **__: Any) -> Any:
            raise ValueError("no such model")

    root = str(tmp_path)
    path = RAGPretrainedModel.from_pretrained(HashEncoder(name="good"), index_root=root).index(
        ["old"], index_name="i"
    )
    with pytest.raises(ValueError, match="no such model"):
        RAGPretrainedModel.from_pretrained(Failing(name="bad"), index_root=root).index(
            ["new"], index_name="i"
        )
    facts = json.loads((Path(path) / "muvera.json").read_text())
    assert facts["checkpoint"] == "good"


def test_documents_without_an_index() -> None:
    RAG = RAGPretrainedModel.from_pretrained(HashEncoder())
    documents = ["a red apple", "a green pear", "a red brick"]
    best = RAG.rerank("red apple", documents, k=2)
    assert [(row["content"], row["rank"], row["result_index"]) for row in best] == [
        ("a red apple", 1, 0), ("a red brick", 2, 2),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="encode"):
        RAG.search_encoded_docs("red")
    RAG.encode(documents[:2], document_metadatas=[{"n": 0}, {"n": 1}], verbose=False)
    RAG.encode(documents[2:])
    rows = RAG.search_encoded_docs(["pear", "brick"], k=1)
    assert [(own[0]["content"], own[0].get("document_metadata")) for own in rows] == [
        ("a green pear", {"n": 1}), ("a red brick", None),
    ]  # fmt: skip
    RAG.clear_encoded_docs(force=True)
    with pytest.raises(ValueError, match="encode"):
        RAG.search_encoded_docs("red")
    with pytest.raises(ValueError, match="No index"):
        RAG.search("red")


def test_langchain_retrieves() -> None:
    pytest.importorskip("langchain_core", reason="langchain-core is not installed")
    RAG = RAGPretrainedModel.from_pretrained(HashEncoder())
    RAG.index(["a red apple", "a green pear"], document_metadatas=[{"n": 0}, {"n": 1}], index_name="fruit")
    documents = RAG.as_langchain_retriever(k=1).invoke("pear")
    assert [(one.page_content, one.metadata) for one in documents] == [("a green pear", {"n": 1})]


@pytest.mark.parametrize("size", [4, 16, 64])
def test_passages_are_short_and_lose_nothing(size: int) -> None:
    texts = [
        "".join(f"Sentence {i} is short. " for i in range(40)),
        " ".join(f"word{i}" for i in range(300)),
        "".join(f"{i:04d}" for i in range(300)),
        "".join(f"\u6771\u4eac{i}\u3042\u308b\u3002" for i in range(40)),
        "",
    ]
    for text in texts:
        position = 0
        for passage in (row["content"] for row in split_sentences([text], ["a"], size)):
            start = text.index(passage, max(0, position - len(passage)))
            assert text[position:start].strip() == ""
            position = start + len(passage)
            assert len(passage.encode("ascii", "ignore")) / 4 <= size
        assert text[position:].strip() == ""
    tokens = [row["content"] for row in split_sentences(["\u6771 \u4eac \u00e9 b"], ["a"], 1)]
    assert "".join(tokens).replace(" ", "") == "\u6771\u4eac\u00e9b"


def test_langchain_reranks() -> None:
    documents = pytest.importorskip("langchain_core.documents", reason="langchain-core is not installed")
    RAG = RAGPretrainedModel.from_pretrained("colbert-ir/colbertv2.0")
    given = [documents.Document(page_content=text, metadata={"n": 1}) for text in ("an apple", "a pear")]
    (best,) = RAG.as_langchain_document_compressor(k=1).compress_documents(given, "pear")
    assert best.page_content == "a pear" and best.metadata["relevance_score"] > 0
    assert given[1].metadata == {"n": 1}
    assert RAG.as_langchain_document_compressor().compress_documents([], "pear") == []


@pytest.mark.parametrize(("page", "text"), [({"extract": "Films."}, "Films."), ({"missing": ""}, None)])
def test_wikipedia_pages(page: dict[str, str], text: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = list[Any]()

    def urlopen(request: Any, timeout: float) -> io.BytesIO:
        requests.append(request)
        return io.BytesIO(json.dumps({"query": {"pages": {"7": page}}}).encode())

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    assert get_wikipedia_page("Hayao Miyazaki") == text
    assert "titles=Hayao+Miyazaki" in requests[0].full_url
    assert requests[0].get_header("User-agent").startswith("muvera")
