"""Token pooling: the libraries' vectors for Ward clusters, a loop's for whole words."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from muvera.convert.pooling import (
    RULES,
    PoolingRule,
    Vocabulary,
    pool_tokens,
    pool_words,
    pooling_rule,
    token_clusters,
)
from muvera.data.multivectors import MultiVectors

BARE = PoolingRule(protected=0)
WORDPIECE = ["[CLS]", "[SEP]", "token", "##izer", "##s", "the", "."]

# Multiples of 1/4, whose products are exact: there are many ties.
exact_tokens = st.integers(1, 24).flatmap(
    lambda n: arrays(np.int8, (n, 4), elements=st.integers(-3, 3)).map(lambda a: a.astype(np.float32) / 4)
)


@pytest.mark.parametrize("name", RULES)
def test_golden_vectors_of_each_library(name: str) -> None:
    golden = np.load(GOLDEN / "pooling.npz")
    documents = MultiVectors.from_flat(golden["tokens"], golden["lengths"])
    cases = [key for key in golden.files if key.startswith(f"{name}/") and key.endswith("/tokens")]
    assert cases
    for case in cases:
        factor, protected = map(int, case.split("/")[1:3])
        pooled = pool_tokens(documents, factor, name, protected=protected)
        np.testing.assert_array_equal(pooled.lengths, golden[case.replace("tokens", "lengths")])
        # Means of unit vectors summed in another order: a few units of float32's last place.
        np.testing.assert_allclose(pooled.tokens, golden[case], rtol=0, atol=3e-7)


@settings(max_examples=30)
@given(
    texts=st.lists(exact_tokens | st.just(np.zeros((0, 4), np.float32)), min_size=1, max_size=5),
    name=st.sampled_from(list(RULES)),
    half=st.booleans(),
)
def test_a_document_is_pooled_the_same_alone(texts: list[np.ndarray], name: str, half: bool) -> None:
    dtype = np.float16 if half else np.float32
    documents = MultiVectors.from_arrays(
        [text.astype(dtype) for text in texts], ids=list(range(5, 5 + len(texts))), dimension=4
    )
    together = pool_tokens(documents, 2, name)
    assert together.ids.tolist() == documents.ids.tolist()
    assert together.tokens.dtype == documents.tokens.dtype
    for i, text in enumerate(documents):
        alone = pool_tokens(MultiVectors.from_arrays([text], dimension=4), 2, name)
        np.testing.assert_array_equal(alone.tokens, together[i])


@settings(max_examples=30)
@given(tokens=exact_tokens)
def test_weighted_means_add_up_to_all_tokens(tokens: np.ndarray) -> None:
    documents = MultiVectors.from_arrays([tokens])
    labels, counts = token_clusters(documents, 2, BARE)
    assert counts[0] <= max(len(tokens) // 2, 1) and len(np.unique(labels)) == counts[0]
    pooled = pool_tokens(documents, 2, BARE)
    sizes = np.bincount(labels, minlength=counts[0])
    np.testing.assert_allclose(sizes @ pooled.tokens, tokens.sum(axis=0), atol=1e-5)


def test_renormalized_means_have_unit_length_and_protected_tokens_stay_first() -> None:
    tokens = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    pooled = pool_tokens(MultiVectors.from_arrays([tokens]), 3)
    assert len(pooled[0]) == 1 + 8 // 3
    np.testing.assert_allclose(np.linalg.norm(pooled.tokens, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(pooled[0][0], tokens[0], atol=1e-6)
    assert pooling_rule("pylate", renormalize=True) == RULES["sentence-transformers"]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"rule": "cluster"}, ValueError, "'cluster'"),
        ({"factor": 0.5}, ValueError, r"at least 1, got 0\.5"),
        ({"protected": -2}, ValueError, "at least 0, got -2"),
        ({"protected": 1.0}, TypeError, "int, got float"),
    ],
)
def test_bad_settings(change: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        pool_tokens(MultiVectors.from_arrays([np.ones((2, 2), np.float32)]), **change)
    with pytest.raises(ValueError, match=r"documents\[0\].*finite"):
        pool_tokens(MultiVectors.from_arrays([np.full((3, 2), np.nan, np.float32)]))


def words_by_hand(pieces: list[str]) -> list[tuple[int, ...]]:
    """Return the positions of each word of one document."""
    words: list[list[int]] = []
    for i, piece in enumerate(pieces):
        if piece.startswith("##") and words and not pieces[i - 1].startswith("["):
            words[-1].append(i)
        else:
            words.append([i])
    return [tuple(word) for word in words]


@settings(max_examples=40)
@given(
    texts=st.lists(st.lists(st.integers(0, len(WORDPIECE) - 1), max_size=9), min_size=1, max_size=5),
    unique=st.booleans(),
)
def test_words_are_those_of_a_loop(texts: list[list[int]], unique: bool) -> None:
    random = np.random.default_rng(1)
    documents = MultiVectors.from_arrays(
        [random.standard_normal((len(text), 3)).astype(np.float32) for text in texts], dimension=3
    )
    ids = list(chain.from_iterable(texts))
    pooled = pool_words(documents, ids, WORDPIECE, unique=unique, renormalize=False)
    for text, tokens, means in zip(texts, documents, pooled, strict=True):
        grouped: dict[object, list[int]] = {}
        for word in words_by_hand([WORDPIECE[i] for i in text]):
            key = tuple(text[i] for i in word) if unique else word
            grouped.setdefault(key, []).extend(word)
        expected = [tokens[positions].mean(axis=0) for positions in grouped.values()]
        np.testing.assert_allclose(means, np.reshape(expected, (-1, 3)), atol=1e-6)


@pytest.mark.parametrize("mark", "▁Ġ")
def test_words_marked_at_their_beginning(mark: str) -> None:
    vocabulary = Vocabulary(["<s>", f"{mark}Hello", "He", "llo", f"{mark}wor", "ld", "!", "</s>"])
    # <s> He llo |_wor ld| ! </s>: the first word of byte-level BPE has no mark.
    begins = vocabulary.words([0, 2, 3, 4, 5, 6, 7], np.array([0, 7]))
    assert begins.tolist() == [True, True, False, True, False, True, True]


def test_vocabulary_files(tmp_path: Path) -> None:
    text = tmp_path / "vocab.txt"
    text.write_text("\n".join(WORDPIECE) + "\n", encoding="utf-8")
    assert Vocabulary(text).pieces == WORDPIECE
    tokenizer = tmp_path / "tokenizer.json"
    content = {"model": {"vocab": {piece: i for i, piece in enumerate(WORDPIECE)}}}
    for number, pieces in ((7, [*WORDPIECE, "[Q]"]), (1, [WORDPIECE[0], "[Q]", *WORDPIECE[2:]])):
        added = {"added_tokens": [{"content": "[Q]", "id": number}]}
        tokenizer.write_text(json.dumps({**content, **added}), encoding="utf-8")
        assert Vocabulary(tokenizer).pieces == pieces
    tokenizer.write_text(json.dumps({"model": {"vocab": [["▁a", -1.0], ["b", -2.0]]}}), encoding="utf-8")
    assert Vocabulary(str(tokenizer)).continues.tolist() == [False, True]
    tokenizer.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        Vocabulary(tokenizer)


@pytest.mark.parametrize(
    ("pieces", "kind", "message"),
    [
        ({"##a": 10**12}, ValueError, "between 0 and 16777215, got 1000000"),
        ({"##a": -1}, ValueError, "between 0 and 16777215, got -1"),
        ({"##a": 1.0}, TypeError, r"got float 1\.0"),
        ({"##a": 1, "b": 1}, ValueError, "id 1 to both '##a' and 'b'"),
        (["a", "b"], ValueError, "'##'"),
    ],
)
def test_bad_vocabularies(pieces: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Vocabulary(pieces)


@pytest.mark.parametrize(
    ("ids", "kind", "message"),
    [
        ([0], ValueError, "1 entries for 2 tokens"),
        ([0, 9], ValueError, "token_ids has 9, but the vocabulary has 7"),
        ([0.5, 1], TypeError, "float64"),
    ],
)
def test_bad_token_ids(ids: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        pool_words(MultiVectors.from_arrays([np.ones((2, 3), np.float32)]), ids, WORDPIECE)
