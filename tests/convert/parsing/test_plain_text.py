"""Texts are told from token vectors, whatever file they are in."""

import json
from pathlib import Path

import numpy as np
import pytest

from muvera.convert import read
from muvera.convert.parsing.files import holds_texts

TEXTS = {
    "lines.txt": "A first text.\nAnother text, a longer one.\n",
    "table.csv": "id,text\n1,hello world\n2,a second text\n",
    "rows.jsonl": '{"id": 1, "text": "hello"}\n{"id": 2, "text": "world"}\n',
    "list.json": '["a text", "another"]',
    "objects.json": '[{"title": "a", "text": "b"}]',
    "greek.txt": "Μῆνιν ἄειδε θεά\n" * 300,
}

VECTORS = {
    "rows.jsonl": '{"id": 1, "text": "hello", "embedding": [[0.1, 0.2]]}\n',
    "pgvector.jsonl": '{"id": "a", "text": "two words", "emb": "{\\"[0.1, 0.2]\\"}"}\n',
    "empty.jsonl": '{"id": "a b", "text": "no tokens", "embedding": null}\n',
    "ids.jsonl": '{"id": "a", "lang": "en"}\n',
    "list.json": "[[[0.1, 0.2], [0.3, 0.4]]]",
    "nested.json": '{"data": [{"embedding": [[1.0, 2.0]]}]}',
    "numbers.txt": "0.125 -0.25 1e-3\n0.5 0.75 2.5\n",
    "broken.json": '{"id": ',
    "empty.txt": "",
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(TEXTS[name], encoding="utf-8")
    assert holds_texts(tmp_path / name)
    with pytest.raises(ValueError, match=r"holds texts, not token vectors\. Encode it with your model first"):
        read(tmp_path / name)


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_and_damaged_files_are_not(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(VECTORS[name], encoding="utf-8")
    assert not holds_texts(tmp_path / name)


def test_binary_files_are_not(tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.ones((4, 8), np.float32))
    (tmp_path / "latin").write_bytes("Straße ".encode("latin-1") * 20)
    (tmp_path / "long").write_text("ä" * 50_000, encoding="utf-8")
    assert not holds_texts(tmp_path / "tokens.npy") and not holds_texts(tmp_path / "latin")
    assert holds_texts(tmp_path / "long")
    assert not holds_texts(tmp_path / "nothing")


def test_long_rows_are_cut(tmp_path: Path) -> None:
    """The first row is longer than what is looked at: no JSON, so nothing is said of it."""
    row = {"id": 1, "embedding": np.random.default_rng(0).normal(size=(40, 128)).tolist()}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert not holds_texts(tmp_path / "rows.jsonl")
    assert read(tmp_path / "rows.jsonl").num_tokens == 40
