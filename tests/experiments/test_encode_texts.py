"""Where embeddings go, what is not done twice, and names of ir_datasets, with stand-ins for both."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import experiments.datasets.encode_texts as module
from experiments.__main__ import app
from experiments.datasets.discovery import encoded_collections, find_collections
from experiments.datasets.encode_texts import encode_texts
from experiments.datasets.loading import load_collection
from experiments.datasets.public_texts import fetch_texts

runner = CliRunner()


class WordEncoder:
    """One vector a word."""

    calls = 0

    def encode_documents(self, texts: Sequence[str]) -> list[np.ndarray]:
        type(self).calls += 1
        return [np.eye(6, dtype=np.float32)[[len(word) % 6 for word in text.split()]] for text in texts]

    encode_queries = encode_documents


@pytest.fixture(autouse=True)
def _encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    WordEncoder.calls = 0
    monkeypatch.setattr(module, "_encoder", lambda _: WordEncoder())


def write_texts(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "a", "text": "some words"}\n{"_id": "b", "text": "more"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "words"}\n')
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    return folder


def test_what_is_encoded_is_found_by_a_run_and_not_encoded_again(tmp_path: Path) -> None:
    texts, cache = write_texts(tmp_path / "news"), tmp_path / "cache"
    found = runner.invoke(app, ["encode", str(texts), "--cache", str(cache), "--dimension", "0"])
    assert found.exit_code == 0, found.output
    (folder,) = (cache / "embeddings").glob("*/*")
    assert folder.name == "news-minilm"
    assert WordEncoder.calls == 2
    assert encode_texts(str(texts), None, "minilm", None, "test", cache) == folder
    assert WordEncoder.calls == 2
    assert encoded_collections(cache) == {"news-minilm": folder}
    loaded = load_collection(find_collections([texts], cache)["news-minilm"])
    assert (loaded.document_ids, loaded.query_ids, loaded.judgements) == (["a", "b"], ["q"], [{0: 1}])
    assert loaded.document_texts == ["some words", "more"]


def test_other_texts_models_and_widths_go_elsewhere(tmp_path: Path) -> None:
    texts, cache = write_texts(tmp_path / "news"), tmp_path / "cache"
    folders = {
        encode_texts(str(texts), None, model, dimension, "test", cache)
        for model, dimension in (("minilm", None), ("other/model", None), ("minilm", 2))
    }
    with (texts / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "c", "text": "new"}\n')
    last = encode_texts(str(texts), None, "minilm", None, "test", cache)
    folders.add(last)
    assert len(folders) == 4
    assert encoded_collections(cache)["news-minilm"] == last  # the texts as they are now


def test_vectors_are_reduced_only_where_that_is_asked_for(tmp_path: Path) -> None:
    texts = str(write_texts(tmp_path / "news"))
    for dimension, width in ((None, 6), (2, 2), (10, 6)):
        folder = encode_texts(texts, tmp_path / str(dimension), "minilm", dimension, "test", tmp_path)
        assert np.load(folder / "docs_tokens.npy").shape[1] == width


def test_missing_files_are_named(tmp_path: Path) -> None:
    texts = write_texts(tmp_path / "news")
    found = runner.invoke(app, ["encode", str(texts), "--split", "dev", "--cache", str(tmp_path)])
    # However the terminal's width breaks it.
    assert found.exit_code == 2 and "qrels/dev.tsv" in "".join(found.output.replace("│", "").split())


class FakeDataset:
    def __init__(self, broken: bool = False, judged: bool = True) -> None:
        self.broken, self.judged = broken, judged

    def has_docs(self) -> bool:
        return True

    has_queries = has_docs

    def has_qrels(self) -> bool:
        return self.judged

    def docs_iter(self) -> list[Any]:
        if self.broken:
            raise RuntimeError("no route to host")
        return [SimpleNamespace(doc_id="a", default_text=lambda: "some words")]

    def queries_iter(self) -> list[Any]:
        return [SimpleNamespace(query_id="q", default_text=lambda: "words")]

    def qrels_iter(self) -> list[Any]:
        return [SimpleNamespace(query_id="q", doc_id="a", relevance=1)]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeDataset]:
    known = {
        "beir/news": FakeDataset(),
        "beir/far": FakeDataset(broken=True),
        "beir/bare": FakeDataset(judged=False),
    }
    monkeypatch.setitem(
        sys.modules, "ir_datasets", SimpleNamespace(load=known.__getitem__, __version__="0.6")
    )
    return known


def test_names_of_ir_datasets_are_written_in_beirs_layout(
    tmp_path: Path, library: dict[str, FakeDataset]
) -> None:
    folder = encode_texts("beir/news", None, "minilm", None, "test", tmp_path)
    places = find_collections([folder], tmp_path)
    loaded = load_collection(places[folder.name])
    assert (loaded.document_texts, loaded.judgements) == (["some words"], [{0: 1}])
    library.clear()
    assert fetch_texts("beir/news", tmp_path) == tmp_path / "texts" / "beir-news"


def test_names_that_cannot_be_had_say_why(tmp_path: Path, library: dict[str, FakeDataset]) -> None:
    with pytest.raises(ValueError, match="beir/new is neither a folder nor a name that ir_datasets"):
        fetch_texts("beir/new", tmp_path)
    with pytest.raises(ValueError, match="beir/bare of ir_datasets has no qrels"):
        fetch_texts("beir/bare", tmp_path)
    with pytest.raises(OSError, match=r"could not be downloaded \(RuntimeError: no route to host\)"):
        fetch_texts("beir/far", tmp_path)
    assert not any((tmp_path / "texts").iterdir())
