"""Long texts of contextual encoders are several parts: rows of the index."""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from builders.text_encoders import LIMIT, ShortModel
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors, TextIndex
from muvera.cli.sources import IndexSource
from muvera.data.multivectors import cut_parts, join_parts
from muvera.texts import store, text_index

PASSAGE = ShortModel().reader("document").passage
WORDS = [f"w{first}{last}" for first in "abcdefgh" for last in "klmnop"]


def text(seed: int, count: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, count))


TEXTS = [text(i, count) for i, count in enumerate([5, 200, 3, 60, 19, 20, 500, 1])]
NAMES = list("abcdefgh")


def built(**options: Any) -> TextIndex:
    return TextIndex.build(TEXTS, ShortModel(), ids=NAMES, **options)


def pieces(content: str) -> list[np.ndarray]:
    """Return the token vectors of the parts of a text, of nearly equal lengths."""
    tokens = ShortModel().encode_documents([content])[0]
    count = -(-len(tokens) // PASSAGE)
    bounds = [len(tokens) * i // count for i in range(count + 1)]
    return [np.asarray(tokens[a:b]) for a, b in pairwise(bounds)]


def found(index: TextIndex, query: str, **options: Any) -> list[tuple[Any, float]]:
    return [(hit.id, hit.score) for hit in index.search(query, **options)]


@pytest.mark.parametrize(
    "options", [{"tokens": "float32"}, {}, {"exact_tokens": 0, "vectors": "simhash"}], ids=str
)
def test_a_long_text_has_the_score_of_its_best_part(options: dict[str, Any]) -> None:
    index = built(**options)
    scored = {name: pieces(content) for name, content in zip(NAMES, TEXTS, strict=True)}
    assert index.info().parts == sum(map(len, scored.values())) > len(index) == len(TEXTS)
    for query in ("wak wbl wcm", TEXTS[3], "wfo"):
        tokens = np.asarray(ShortModel().encode_queries([query])[0])
        exact = {name: max(oracle.chamfer(tokens, part) for part in parts) for name, parts in scored.items()}
        hits = index.search(query, 8, words=0, mean=0)
        assert [hit.score for hit in hits] == pytest.approx(sorted(exact.values(), reverse=True), abs=0.1)
        assert all(hit.score == pytest.approx(exact[str(hit.id)], abs=0.1) for hit in hits)
        mixed = index.search(query, 8)
        assert {hit.id for hit in mixed} == set(NAMES)
        assert [hit.to_dict() for hit in index.search(query, 8, threads=1)] == [
            hit.to_dict() for hit in mixed
        ]


@settings(max_examples=30)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 9))
def test_cutting_and_joining_keep_every_token(lengths: list[int], most: int) -> None:
    tokens = np.arange(sum(lengths), dtype=np.float32)[:, None]
    texts = MultiVectors.from_flat(tokens, lengths, ids=[f"t{i}" for i in range(len(lengths))])
    parts = cut_parts(texts, most)
    assert parts.lengths.max(initial=0) <= most and parts.tokens is texts.tokens
    counts = {id: parts.lengths[parts.ids == id] for id in texts.ids.tolist()}
    assert all(np.ptp(own) <= 1 and len(own) == max(1, -(-sum(own) // most)) for own in counts.values())
    joined = join_parts(parts)
    assert joined.ids.tolist() == texts.ids.tolist() and joined.lengths.tolist() == lengths
    assert np.array_equal(joined.tokens, texts.tokens)


def test_parts_of_a_long_text_do_not_crowd_out_others() -> None:
    """300 parts of one text are better than any part of the others."""
    giant = " ".join(["wak wbl wcm"] * 2000)
    index = TextIndex.build(
        [giant, *(text(i, 12) for i in range(300))], ShortModel(), vectors="simhash", exact_tokens=0
    )
    for options in ({}, {"candidates": 5}, {"words": 0, "mean": 0}, {"ids": [0, 7, 9, 11, 13]}):
        ids = [hit.id for hit in index.search("wak wbl wcm", 5, **options)]
        assert ids[0] == 0 and len(set(ids)) == 5
    together = index.search(["wak wbl wcm", TEXTS[2]], 5)
    assert [hit.id for hit in together[1]] == [hit.id for hit in index.search(TEXTS[2], 5)]


def test_words_find_every_part_of_a_text() -> None:
    rare = f"{text(1, 400)} zebra {text(2, 400)}"
    index = TextIndex.build(
        [*(text(i, 12) for i in range(400)), rare], ShortModel(), vectors="simhash", exact_tokens=0
    )
    [hit] = index.search("zebra", 1)
    assert hit.id == 400
    exact = max(
        oracle.chamfer(np.asarray(ShortModel().encode_queries(["zebra"])[0]), part) for part in pieces(rare)
    )
    assert hit.parts["maxsim"] == pytest.approx(exact, abs=0.1)


def test_changes_of_long_texts_survive_a_kill(tmp_path: Path) -> None:
    built(path=tmp_path / "index")
    with TextIndex.open(tmp_path / "index", ShortModel()) as index:
        index.add([text(90, 300), "short"], ids=["x", "y"])
        index.update([text(91, 150), "now short"], ids=["a", "b"])
        index.delete(["g"])
        index.update(ids=["x"], metadata=[{"n": 1}])
        shutil.copytree(tmp_path / "index", tmp_path / "killed")
        expected = [found(index, query, k=9) for query in ("wak wbl", "wfo")]
        assert [hit.id for hit in index.search("wak", 9, where={"n": 1})] == ["x"]
        index.rebuild()
        assert [found(index, query, k=9) for query in ("wak wbl", "wfo")] == expected
    with TextIndex.open(tmp_path / "killed", ShortModel()) as again:
        assert [found(again, query, k=9) for query in ("wak wbl", "wfo")] == expected
        assert again.info().parts == sum(len(pieces(one.text)) for one in again)


def test_ids_that_are_not_given_are_counted_by_text() -> None:
    index = TextIndex.build([TEXTS[1]], ShortModel())
    assert index.add([TEXTS[6], "a"]) == [1, 2] and index.add("b") == [3]
    with pytest.raises(ValueError, match="2 is in the index already"):
        index.add([TEXTS[6]], ids=[2])
    assert len(index) == 4 and index.select({}) == [0, 1, 2, 3]


def test_a_folder_with_long_texts_in_one_row_still_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (store, text_index):
        monkeypatch.setattr(module, "cut_parts", lambda texts, most: texts)
    old = built(path=tmp_path / "old")
    assert old.info().parts is None
    expected = found(old, "wak wbl wcm", k=8)
    monkeypatch.undo()
    index = TextIndex.load(tmp_path / "old", ShortModel())
    assert found(index, "wak wbl wcm", k=8) == expected
    index.add([TEXTS[6]], ids=["new"])
    index.rebuild()
    hits = index.search("wak wbl wcm", 9, words=0, mean=0)
    assert {hit.id for hit in hits} == {*NAMES, "new"} and index.info().parts == 8 + len(pieces(TEXTS[6]))
    before = dict(found(old, "wak", k=9, words=0, mean=0))
    after = dict(found(index, "wak", k=9, words=0, mean=0))
    assert {name: after[name] for name in NAMES} == pytest.approx(before)


def test_readers_of_whole_texts_get_all_their_tokens() -> None:
    index = built(tokens="float32")
    encoded = ShortModel().encode_documents([TEXTS[6], TEXTS[0]])
    tokens = index.texts.tokens(["g", "a"])
    assert tokens.ids.tolist() == ["g", "a"] and np.array_equal(tokens.tokens, encoded.tokens)
    source = IndexSource(index.index, index)
    batches = list(source.batches(100))
    assert [id for batch in batches for id in batch.ids.tolist()] == NAMES and source.num_documents == 8
    reason = index.explain("wak wbl", "g")
    assert {match for _, match, _ in reason.words()} <= {"wak", "wbl", *WORDS}
    assert reason.score >= index.search("wak wbl", 1, ids=["g"], words=0, mean=0)[0].score - 1e-4
    [best] = index.search_sentences("wak wbl", 1)
    assert TEXTS[NAMES.index(str(best.id))][slice(*best.span or ())] == best.text
    assert LIMIT < PASSAGE
