"""Reading a collection, writing its embeddings, and going on after a stop; with a stand-in for the model."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from experiments.datasets.embed_collection import embed, read_texts
from muvera import MultiVectors
from muvera.texts.encoders.base import Side
from muvera.texts.encoders.minilm import unit_rows

DOCUMENTS = [(f"d{n}", "word " * (n % 4 + 1)) for n in range(10)]
QUERIES = [("q1", "one word"), ("q2", "word")]


class LetterEncoder:
    """One vector of width 6 a word, from its letters and its place."""

    name = "letters"

    def __init__(self, fail_after: int = 1000) -> None:
        self.calls, self.fail_after = 0, fail_after

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        self.calls += 1
        if self.calls > self.fail_after:
            raise KeyboardInterrupt
        return MultiVectors.from_arrays(
            [unit_rows(np.array(self._rows(text.split()), np.float32)) for text in texts]
        )

    def _rows(self, words: list[str]) -> list[list[int]]:
        return [[len(word), at, 1, ord(word[0]) % 7, at**2, 2] for at, word in enumerate(words)]

    encode_queries = encode_documents

    def token_spans(self, text: str, side: Side) -> None:
        return None


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_layout(tmp_path: Path) -> None:
    embed(LetterEncoder(), "letters", DOCUMENTS, QUERIES, tmp_path, dimension=3, shard_size=4)
    lens = np.load(tmp_path / "docs_lens.npy")
    tokens = np.load(tmp_path / "docs_tokens.npy")
    assert (lens.dtype, tokens.dtype) == (np.int32, np.float16)
    assert lens.tolist() == [len(text.split()) for _, text in DOCUMENTS]
    assert tokens.shape == (lens.sum(), 3)
    np.testing.assert_allclose(np.linalg.norm(tokens.astype(float), axis=1), 1.0, atol=2e-3)
    assert json.loads((tmp_path / "queries_ids.json").read_text()) == ["q1", "q2"]
    assert np.load(tmp_path / "queries_lens.npy").tolist() == [2, 1]
    assert not (tmp_path / "shards").exists()


def test_narrow_vectors_are_kept_as_they_are(tmp_path: Path) -> None:
    embed(LetterEncoder(), "letters", DOCUMENTS, QUERIES, tmp_path, dimension=6)
    expected = LetterEncoder().encode_documents([text for _, text in DOCUMENTS]).tokens
    np.testing.assert_array_equal(np.load(tmp_path / "docs_tokens.npy"), expected.astype(np.float16))
    assert not (tmp_path / "reduction.npy").exists()


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    embed(LetterEncoder(), "letters", DOCUMENTS, QUERIES, tmp_path / "straight", dimension=3, shard_size=4)
    with pytest.raises(KeyboardInterrupt):
        embed(
            LetterEncoder(2), "letters", DOCUMENTS, QUERIES, tmp_path / "stopped", dimension=3, shard_size=4
        )
    second = LetterEncoder()
    embed(second, "letters", DOCUMENTS, QUERIES, tmp_path / "stopped", dimension=3, shard_size=4)
    assert second.calls == 2  # The third shard of documents and the only one of queries.
    assert files(tmp_path / "stopped") == files(tmp_path / "straight")


def test_shards_of_other_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(LetterEncoder(0), "letters", DOCUMENTS, QUERIES, tmp_path)
    with pytest.raises(ValueError, match="another model"):
        embed(LetterEncoder(), "other letters", DOCUMENTS, QUERIES, tmp_path)


def test_read_texts_keeps_judged_queries_in_file_order(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "a", "title": "A title", "text": "and text"}\n'
        '{"_id": "b", "title": "", "text": "only text"}\n'
    )
    (tmp_path / "queries.jsonl").write_text(
        "".join(f'{{"_id": "{n}", "text": "query {n}"}}\n' for n in "321")
    )
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t1\n3\tb\t1\n")
    documents, queries = read_texts(tmp_path, "test")
    assert documents == [("a", "A title and text"), ("b", "only text")]
    assert queries == [("3", "query 3"), ("1", "query 1")]
