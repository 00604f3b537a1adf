"""muvera.adapt: another model searches an index, and old token vectors stay."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.text_encoders import HashEncoder, ShortModel
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from muvera import MultiVectors, TextIndex, adapt
from muvera.texts.adapt import AdaptedIndex, _partners, aligned_tokens, orthogonal_map

WORDS = [f"word{i}" for i in range(60)]


def some_texts(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 6)) for _ in range(count)]


class Turned(HashEncoder):
    """A HashEncoder whose space is turned, and has more or as many columns."""

    def __init__(self, matrix: np.ndarray) -> None:
        super().__init__(len(matrix), "turned")
        self._turn = matrix.astype(np.float32)
        self.encoded: list[str] = []

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        self.encoded += texts
        plain = super().encode_documents(texts)
        return MultiVectors(plain.tokens @ self._turn, plain.offsets)

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        plain = super().encode_documents(texts)
        return MultiVectors(plain.tokens @ self._turn, plain.offsets)


def turned(dimension: int = 16, columns: int | None = None) -> Turned:
    full = ortho_group.rvs(columns or dimension, random_state=np.random.default_rng(3))
    return Turned(np.asarray(full)[:dimension])


@pytest.fixture
def index() -> TextIndex:
    return TextIndex.build(some_texts(40), HashEncoder(), metadata=[{"n": i} for i in range(40)])


@given(dimension=st.integers(2, 12), more=st.integers(0, 4), seed=st.integers(0, 99), smaller=st.booleans())
def test_a_rotation_between_two_models_is_recovered(
    dimension: int, more: int, seed: int, smaller: bool
) -> None:
    full = np.asarray(ortho_group.rvs(dimension + more, random_state=np.random.default_rng(seed)))
    turn = full[:dimension]
    old: HashEncoder = HashEncoder(dimension)
    new: HashEncoder = Turned(turn)
    wanted = turn.T
    if smaller:  # the new model has fewer columns
        old, new, wanted = new, HashEncoder(dimension, "new"), turn
    found = orthogonal_map(*aligned_tokens(old, new, some_texts(25, seed)))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@given(st.integers(0, 99))
def test_what_all_tokens_share_does_not_turn_the_map(seed: int) -> None:
    """Means that are longer than the tokens, and unlike in both models."""
    rng = np.random.default_rng(seed)
    new, old, shifts = (
        rng.standard_normal((60, 5)),
        rng.standard_normal((60, 5)),
        9 * rng.standard_normal((2, 5)),
    )
    moved = orthogonal_map(new + shifts[0], old + shifts[1])
    np.testing.assert_allclose(moved, orthogonal_map(new, old), atol=1e-4)


def test_mapped_queries_find_what_the_old_model_finds(index: TextIndex) -> None:
    adapted = adapt(index, turned(columns=20), candidates=5)
    found, own = (one.search("word3 word7", 5, words=0) for one in (adapted, index))
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in own], abs=0.02)
    assert found[0].metadata == {"n": found[0].id}
    assert adapted.measure_recall(["word1", "word2 word3"]) == 1.0


def test_lazy_migration_ranks_as_an_index_of_the_new_model() -> None:
    texts = some_texts(80)
    other = HashEncoder(24, "other")  # unrelated, so candidates are poor
    whole = TextIndex.build(texts, other, tokens="float32")
    adapted = adapt(TextIndex.build(texts, HashEncoder()), other, candidates=len(texts))
    for query in ("word3", "word5 word9", "word1 word2 word4"):
        found, wanted = (one.search(query, len(texts), words=0) for one in (adapted, whole))
        assert {hit.id: hit.parts for hit in found} == {hit.id: hit.parts for hit in wanted}
        assert [hit.score for hit in found] == [hit.score for hit in wanted]
    assert adapted.measure_recall(["word3"], depth=len(texts)) == 1.0


def test_recall_counts_what_deeper_candidates_find(index: TextIndex) -> None:
    other = HashEncoder(24, "other")
    queries = ["word3", "word5 word9", "word8 word1"]
    narrow, wide = adapt(index, other, candidates=4), adapt(index, other, candidates=40)
    shares = [
        len(
            {hit.id for hit in narrow.search(query, 4, words=0)}
            & {hit.id for hit in wide.search(query, 4, words=0)}
        )
        / 4
        for query in queries
    ]
    assert narrow.measure_recall(queries, 4) == pytest.approx(np.mean(shares)) and np.mean(shares) < 1
    with pytest.raises(ValueError, match="at least one"):
        narrow.measure_recall([])


def test_each_text_is_encoded_once_also_in_another_process(index: TextIndex, tmp_path: Path) -> None:
    encoder = turned()
    for _ in range(2):  # the second one reads the file
        adapted = adapt(index, encoder, cache=tmp_path / "turned.sqlite", candidates=12)
        for query in ("word3", "word3 word7", "word40"):
            adapted.search(query, 3, explain=True)
    assert len(encoder.encoded) == len(set(encoder.encoded))


def test_changes_reach_the_old_index(index: TextIndex) -> None:
    adapted = adapt(index, turned())
    adapted.add(["a rare zebra"], ids=[70])
    assert [one.search("zebra", 1)[0].id for one in (adapted, index)] == [70, 70]
    adapted.update(["an okapi"], ids=[70], metadata=[{"kind": "animal"}])
    assert adapted.search("okapi", 1, where={"kind": "animal"})[0].text == "an okapi"
    adapted.delete([70])
    assert 70 not in index and len(adapted) == 40


def test_sentences_and_explanations_use_the_new_tokens(index: TextIndex) -> None:
    adapted = adapt(index, turned())
    hit = adapted.search("word3", 1, explain=True)[0]
    assert hit.explanation is not None
    (start, stop) = hit.explanation.matches[0].document
    assert hit.text[start:stop] == "word3"
    assert adapted.search_sentences("word3", 1)[0].text == hit.text


def test_a_saved_index_keeps_its_model_and_refuses_another(index: TextIndex, tmp_path: Path) -> None:
    adapt(index, turned()).save(tmp_path / "texts")
    with pytest.raises(ValueError, match=r"'hash', got 'turned'.*muvera\.adapt"):
        TextIndex.load(tmp_path / "texts", turned())
    again = adapt(TextIndex.load(tmp_path / "texts", HashEncoder()), turned())
    assert isinstance(again, AdaptedIndex) and again.encoder.name == "turned"
    assert "hash" in repr(again)


def spans_of(draw: Any) -> list[tuple[int, int]]:
    cuts = sorted(draw(st.lists(st.integers(0, 30), max_size=12)))
    pairs = list(zip(cuts[::2], cuts[1::2], strict=False))
    special: list[tuple[int, int]] = draw(st.lists(st.just((0, 0)), max_size=2))
    return pairs + special


@given(st.data())
def test_partners_are_the_tokens_with_the_middle_character(data: Any) -> None:
    spans, others = spans_of(data.draw), spans_of(data.draw)
    wanted = []
    for i, (start, stop) in enumerate(spans):
        middle = (start + stop) // 2
        covering = [j for j, (a, b) in enumerate(others) if a <= middle < b]
        if start < stop and covering:
            wanted.append((i, covering[-1]))
    rows, partners = _partners(spans, others)
    assert list(zip(rows.tolist(), partners.tolist(), strict=True)) == wanted


def test_models_that_split_words_differently_are_aligned() -> None:
    texts = ["international apples", " ", "pears"]
    new, old = aligned_tokens(HashEncoder(), ShortModel(), texts)
    assert new.shape == old.shape == (8, 16)  # four, two and two parts, without the special token
    new, old = aligned_tokens(ShortModel(), HashEncoder(), texts)
    assert new.shape == old.shape == (3, 16)
    with pytest.raises(ValueError, match="no token of the same characters"):
        aligned_tokens(HashEncoder(), ShortModel(), [" "])


class NoSpans(HashEncoder):
    def token_spans(self, text: str, side: Any) -> None:
        return None


def test_anything_but_a_text_index_is_refused() -> None:
    with pytest.raises(TypeError, match="index must be a TextIndex, got str 'old-texts'"):
        adapt("old-texts", turned())  # type: ignore[arg-type]


def test_an_encoder_without_characters_is_refused(index: TextIndex) -> None:
    with pytest.raises(ValueError, match="does not return the characters"):
        adapt(index, NoSpans(16, "none"))


class ChangedEncoder(HashEncoder):
    """Gives the vectors of one side other columns, or a number that is not finite."""

    def __init__(self, side: str, fault: str) -> None:
        super().__init__(8, "changed")
        self._side, self._fault = side, fault

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        return self._changed(super().encode_documents(texts), "documents")

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        return self._changed(super().encode_documents(texts), "queries")

    def _changed(self, encoded: MultiVectors, side: str) -> MultiVectors:
        if side != self._side:
            return encoded
        tokens = np.array(encoded.tokens, np.float32)
        if self._fault == "nan":
            tokens[0, 0] = np.nan
        else:
            tokens = np.hstack([tokens, tokens])
        return MultiVectors(tokens, encoded.offsets)


@pytest.mark.parametrize(
    ("side", "fault", "message"),
    [
        ("documents", "columns", "changed gives queries 8 dimensions, but 16 are expected"),
        ("queries", "columns", "changed gives queries 16 dimensions, but 8 are expected"),
        ("documents", "nan", "has nan in its token 0, coordinate 0"),
        ("queries", "nan", "has nan in its token 0, coordinate 0"),
    ],
)
def test_an_encoder_that_contradicts_itself_is_named(
    index: TextIndex, side: str, fault: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        adapt(index, ChangedEncoder(side, fault), texts=["a red cat", "a dog"])


def test_an_encoder_that_no_longer_fits_its_index_is_named(index: TextIndex) -> None:
    index._encoder = HashEncoder(7)
    with pytest.raises(ValueError, match=r"The index has vectors of \d+ dimensions, .* 7\. Load the index"):
        adapt(index, HashEncoder(8), texts=["a red cat"])


def test_a_query_with_nan_finds_an_error_and_not_nothing() -> None:
    index = TextIndex.build(["a red cat"], HashEncoder(8))
    index._encoder = ChangedEncoder("queries", "nan")
    with pytest.raises(ValueError, match="has nan in its token 0"):
        index.search("a cat")
