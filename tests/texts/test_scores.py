"""The score of a text: one formula, for every way to search."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.text_encoders import WORDS, ShortModel, WordTable, some_texts
from builders.text_scores import parts_of_scores, terms_of

from muvera import TextIndex
from muvera.texts.words import STOP_WORDS

RNG = np.random.default_rng(5)
TEXTS = [
    *some_texts(60, seed=3, longest=25),
    *(f"the {text} of zebra" for text in some_texts(20, seed=4)),
    "zebra",  # not in the table
    "",
    " ".join(["bab"] * 40),
    " ".join(WORDS[:120]),
]
QUERIES = [TEXTS[0], "bab dad the kab", "zebra bak", " ".join([*WORDS[:9], *WORDS[3:6]]), "the of in"]


def names_of(kind: type) -> list[Any]:
    numbers = np.random.default_rng(0).permutation(9 * len(TEXTS))[: len(TEXTS)].tolist()
    return [kind(number) for number in numbers]


def passages_of(encoder: Any, matrix: np.ndarray) -> list[np.ndarray]:
    """Blocks that overlap by half with a table, and parts of nearly equal lengths without."""
    if isinstance(encoder, WordTable):
        starts = range(0, len(matrix) - 4, 4) if len(matrix) > 8 else [0]
        return [matrix[start : start + 8] for start in starts]
    count = max(1, -(-len(matrix) // encoder.reader("document").passage))
    return [matrix[a:b] for a, b in pairwise(len(matrix) * i // count for i in range(count + 1))]


class Oracle:
    def __init__(self, encoder: Any, texts: dict[Any, str]) -> None:
        self._encoder, self._texts = encoder, texts
        tokens = dict(zip(texts, encoder.encode_documents(list(texts.values())), strict=True))
        self._passages = {id: passages_of(encoder, np.asarray(one)) for id, one in tokens.items()}
        self._means = {id: np.asarray(one, np.float64).sum(axis=0) for id, one in tokens.items()}

    def parts(self, query: str, words: float, mean: float) -> dict[Any, dict[str, float]]:
        [tokens] = self._encoder.encode_queries([query])
        if not len(tokens):
            return {}
        kept = [word for word in query.split() if word not in STOP_WORDS["en"]] or query.split()
        terms = [term for word in kept for term in terms_of(word)]
        parts = parts_of_scores(
            np.asarray(tokens), terms, self._texts, self._passages, self._means, words, mean
        )
        return {id: one for id, one in parts.items() if self._texts[id].strip()}


@pytest.mark.parametrize("kind", [int, str])
@pytest.mark.parametrize("encoder", [WordTable(), ShortModel()], ids=["table", "contextual"])
def test_the_score_is_its_formula(encoder: Any, kind: type) -> None:
    names = names_of(kind)
    metadata = [{"even": i % 2 == 0, "group": i % 7} for i in range(len(TEXTS))]
    tokens = {} if isinstance(encoder, WordTable) else {"tokens": "float32"}
    index = TextIndex.build(TEXTS, encoder, ids=names, metadata=metadata, **tokens)
    oracle = Oracle(encoder, dict(zip(names, TEXTS, strict=True)))
    place = {name: i for i, name in enumerate(names)}
    default = (0.35, 0.2) if isinstance(encoder, WordTable) else (0.1, 0.1)
    chosen = [name for name in names if place[name] % 3]
    margin = 2e-6 if isinstance(encoder, WordTable) else 2e-4  # means are halves
    for query in QUERIES:
        for words, mean in (default, (0.0, 0.0), (0.5, 0.0), (0.0, 0.6)):
            weights = {} if (words, mean) == default else {"words": words, "mean": mean}
            wanted = oracle.parts(query, words, mean)
            for options, allowed in (
                ({}, names),
                ({"where": {"even": True}}, [name for name in names if place[name] % 2 == 0]),
                ({"ids": [*chosen, kind(10**6)]}, chosen),
            ):
                hits = index.search(query, 200, **weights, **options)
                assert {hit.id for hit in hits} == wanted.keys() & set(allowed)
                for hit in hits:
                    own = {name: wanted[hit.id][name] for name in hit.parts}
                    assert hit.parts == pytest.approx(own, rel=margin, abs=50 * margin)
                    assert hit.score == sum(hit.parts.values())
                assert hits == sorted(hits, key=lambda hit: (-hit.score, place[hit.id]))
            scores = {hit.id: hit.score for hit in index.search(query, 200, **weights)}
            grouped = index.search(query, 200, group_by="group", **weights)
            groups = {place[hit.id] % 7: hit.score for hit in grouped}
            assert groups == {
                group: max(score for id, score in scores.items() if place[id] % 7 == group)
                for group in {place[id] % 7 for id in scores}
            }


@pytest.mark.parametrize("encoder", [WordTable(), ShortModel()], ids=["table", "contextual"])
def test_scores_do_not_depend_on_threads_or_on_other_queries(encoder: Any) -> None:
    index = TextIndex.build(TEXTS, encoder)
    together = index.search(QUERIES * 3, 20, threads=3)
    for query, hits in zip(QUERIES * 3, together, strict=True):
        assert index.search(query, 20, threads=1) == hits
        assert index.search([query, "bab"], 20, threads=2)[0] == hits


@pytest.mark.parametrize("encoder", [WordTable(), ShortModel()], ids=["table", "contextual"])
def test_the_best_are_the_same_for_every_number_of_hits(encoder: Any) -> None:
    index = TextIndex.build([*TEXTS, *some_texts(500, seed=9)], encoder)
    for query in QUERIES:
        all_hits = index.search(query, 600, candidates=600)
        for k in (1, 7, 60):
            assert index.search(query, k, candidates=600) == all_hits[:k]


@pytest.mark.parametrize("encoder", [WordTable(), ShortModel()], ids=["table", "contextual"])
def test_an_index_that_began_without_texts_is_like_one_that_was_built(encoder: Any, tmp_path: Path) -> None:
    options = {} if isinstance(encoder, WordTable) else {"tokens": "float32"}
    built = TextIndex.build(TEXTS, encoder, **options)
    empty = TextIndex.build([], encoder, path=tmp_path / "index", **options)
    for index in (empty, TextIndex.load(tmp_path / "index", encoder)):
        assert index.search("bab") == index.search("") == index.search("bab", mean=0.1, words=0.2) == []
        index.add(TEXTS)
        for query in QUERIES:
            assert index.search(query, 99) == built.search(query, 99)
