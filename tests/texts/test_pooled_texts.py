"""TextIndex whose means of tokens rank the candidates."""

from pathlib import Path

import pytest
from builders.text_encoders import HashEncoder

from muvera import TextIndex
from muvera.index import token_store

WORDS = ["red", "green", "blue", "apple", "pear", "plum", "house", "tree", "river", "stone", "cloud", "road"]
TEXTS = [" ".join(WORDS[(i * step) % 12] for i in range(1, 9)) for step in range(1, 12)]


def test_pooled_texts_are_found_by_all_their_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "_MORE", 0)  # the fine level ranks 2 k texts
    index = TextIndex.build(TEXTS, HashEncoder(), pool=2, path=tmp_path / "index")
    tokens = index.index.contents.tokens
    assert tokens.means is not None and tokens.means.lengths.sum() < 0.7 * tokens.lengths.sum()
    whole = TextIndex.build(TEXTS, HashEncoder())
    for words in (0.0, 0.3):
        for text in TEXTS[:4]:
            found, expected = (each.search(text, 2, words=words)[0] for each in (index, whole))
            assert found.id == expected.id
            assert found.score == pytest.approx(expected.score, rel=1e-3)
    index.update(["stone stone"], ids=[3])
    assert [hit.id for hit in index.search("stone", 1)] == [3]
    assert TextIndex.load(tmp_path / "index", HashEncoder()).search(TEXTS[3], 1)[0].text == TEXTS[3]
