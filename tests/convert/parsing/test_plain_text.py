"""Texts are distinguished from token vectors in every kind of file."""

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
    "greek.txt": "Μῆνιν ἄειδε θεά\n" * 3000,
}
VECTORS = {
    "rows.jsonl": '{"id": 1, "text": "hello", "embedding": [[0.1, 0.2]]}\n',
    "pgvector.jsonl": '{"id": "a", "text": "two words", "emb": "{\\"[0.1, 0.2]\\"}"}\n',
    "empty.jsonl": '{"id": "a b", "text": "no tokens", "embedding": null}\n',
    "ids.jsonl": '{"id": "a", "lang": "en"}\n',
    "list.json": "[[[0.1, 0.2], [0.3, 0.4]]]",
    "numbers.txt": "0.125 -0.25 1e-3\n0.5 0.75 2.5\n",
    "broken.json": '{"id": ',
    "long.jsonl": json.dumps(
        {"id": 1, "text": "a", "tokens": np.eye(100, 128).tolist()}
    ),  # cut while probing
    "latin": "Straße ",
}


def test_only_texts_are_refused(tmp_path: Path) -> None:
    for name, text in TEXTS.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"holds texts, not token vectors"):
            read(tmp_path / name)
    for name, text in VECTORS.items():
        (tmp_path / name).write_text(text, encoding="latin-1")
        assert not holds_texts(tmp_path / name), name
    assert not holds_texts(tmp_path / "nothing")
