"""Whole-word pooling against a loop over words."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera.convert.transforms.word_pooling import Vocabulary, pool_words
from muvera.data.multivectors import MultiVectors

WORDPIECE = ["[CLS]", "[SEP]", "token", "##izer", "##s", "the", "."]


def words_by_hand(pieces: list[str]) -> list[tuple[int, ...]]:
    """Return the positions of each word of one document."""
    words: list[list[int]] = []
    for i, piece in enumerate(pieces):
        if piece.startswith("##") and words and not pieces[i - 1].startswith("["):
            words[-1].append(i)
        else:
            words.append([i])
    return [tuple(word) for word in words]


@given(
    texts=st.lists(st.lists(st.integers(0, len(WORDPIECE) - 1), max_size=9), min_size=1, max_size=5),
    unique=st.booleans(),
)
def test_words_are_those_of_a_loop(texts: list[list[int]], unique: bool) -> None:
    random = np.random.default_rng(1)
    documents = MultiVectors.from_arrays(
        [random.standard_normal((len(text), 3)).astype(np.float32) for text in texts], dimension=3
    )
    pooled = pool_words(
        documents, list(chain.from_iterable(texts)), WORDPIECE, unique=unique, renormalize=False
    )
    for text, tokens, found in zip(texts, documents, pooled, strict=True):
        grouped: dict[object, list[int]] = {}
        for word in words_by_hand([WORDPIECE[i] for i in text]):
            key = tuple(text[i] for i in word) if unique else word
            grouped.setdefault(key, []).extend(word)
        expected = [tokens[positions].mean(axis=0) for positions in grouped.values()]
        np.testing.assert_allclose(found, np.reshape(expected, (-1, 3)), atol=1e-6)


def test_words_marked_at_their_beginning() -> None:
    for mark in "▁Ġ":
        vocabulary = Vocabulary(["<s>", f"{mark}Hello", "He", "llo", f"{mark}wor", "ld", "!", "</s>"])
        # <s> He llo |_wor ld| ! </s>: the first word of byte-level BPE bears no mark.
        begins = vocabulary.words([0, 2, 3, 4, 5, 6, 7], np.array([0, 7]))
        assert begins.tolist() == [True, True, False, True, False, True, True]


def test_vocabulary_files(tmp_path: Path) -> None:
    text = tmp_path / "vocab.txt"
    text.write_text("\n".join(WORDPIECE) + "\n", encoding="utf-8")
    assert Vocabulary(text).pieces == WORDPIECE
    tokenizer = tmp_path / "tokenizer.json"
    content = {"model": {"vocab": {piece: i for i, piece in enumerate(WORDPIECE)}}}
    tokenizer.write_text(
        json.dumps({**content, "added_tokens": [{"content": "[Q]", "id": 7}]}), encoding="utf-8"
    )
    assert Vocabulary(tokenizer).pieces == [*WORDPIECE, "[Q]"]
    tokenizer.write_text(json.dumps({"model": {"vocab": [["▁a", -1.0], ["b", -2.0]]}}), encoding="utf-8")
    assert Vocabulary(str(tokenizer)).continues.tolist() == [False, True]
    tokenizer.write_text(
        json.dumps({**content, "added_tokens": [{"content": "[Q]", "id": 1}]}), encoding="utf-8"
    )
    assert Vocabulary(tokenizer).pieces == [WORDPIECE[0], "[Q]", *WORDPIECE[2:]]
    tokenizer.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer.json has no model.vocab"):
        Vocabulary(tokenizer)


@pytest.mark.parametrize(
    ("pieces", "kind", "message"),
    [
        (
            {"##a": 10**12},
            ValueError,
            "id of the vocabulary's piece '##a' must be between 0 and 16777215, got 1000000",
        ),
        ({"##a": -1}, ValueError, "piece '##a' must be between 0 and 16777215, got -1"),
        ({"##a": 1.0}, TypeError, "piece '##a' must be an int, got float 1.0"),
        ({"##a": 1, "b": 1}, ValueError, "gives the id 1 to both '##a' and 'b'"),
    ],
)
def test_ids_of_pieces_that_are_none(pieces: dict[str, Any], kind: type[Exception], message: str) -> None:
    """The first asked for 8 TB, the second went to the end in silence."""
    with pytest.raises(kind, match=message):
        Vocabulary(pieces)


def test_bad_ids_are_refused() -> None:
    documents = MultiVectors.from_arrays([np.ones((2, 3), np.float32)])
    with pytest.raises(ValueError, match="token_ids has 1 entries for 2 tokens"):
        pool_words(documents, [0], WORDPIECE)
    with pytest.raises(ValueError, match="token_ids has 9, but the vocabulary has 7 pieces"):
        pool_words(documents, [0, 9], WORDPIECE)
    with pytest.raises(TypeError, match="must be integers with one axis, got float64"):
        pool_words(documents, [0.5, 1], WORDPIECE)
    with pytest.raises(ValueError, match="marks no word"):
        pool_words(documents, [0, 1], ["a", "b"])
