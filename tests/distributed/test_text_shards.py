"""Text indexes in several processes have the answers of one index of all texts.

Ray is not needed here: the shards are objects of this process.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.text_encoders import HashEncoder, SignTable
from hypothesis import given
from hypothesis import strategies as st

from muvera import TextIndex
from muvera.distributed import ShardError
from muvera.distributed.actors import Answers
from muvera.distributed.ray_texts import RayTexts, TextShard, require_alike
from muvera.index.id_map import IdMap
from muvera.texts.ranking import join
from muvera.texts.words import QueryWords, TextWords, query_terms, sum_statistics

RNG = np.random.default_rng(5)
WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmnrs"]
TEXTS = [" ".join(RNG.choice(WORDS, RNG.integers(1, 40))) for _ in range(500)]
IDS = [f"t{number}" for number in range(500)]
METADATA = [{"kind": number % 7, "even": number % 2 == 0} for number in range(500)]
QUERIES = [" ".join(RNG.choice(WORDS, 4)) for _ in range(5)]
CUTS = [slice(0, 120), slice(120, 130), slice(130, 500)]


class Here:
    """Shards in this process, with the methods of Actors."""

    def __init__(self, shards: dict[str, TextShard]) -> None:
        self.of_shards: dict[str, Any] = shards

    def ask(self, method: str, arguments: tuple[Any, ...]) -> Answers:
        return Answers({name: getattr(one, method)(*arguments) for name, one in self.of_shards.items()}, {})

    def close(self) -> None:
        self.of_shards = {}


def build(encoder: Any, rows: slice, path: Path | None = None, **settings: Any) -> TextIndex:
    return TextIndex.build(
        TEXTS[rows], encoder, ids=IDS[rows], metadata=METADATA[rows], path=path, **settings
    )  # fmt: skip


@pytest.fixture(scope="module", params=["rows", "int8", "float32"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One index of all texts, and three shards of them."""
    folder = tmp_path_factory.mktemp("shards")
    encoder: Any = SignTable() if request.param == "rows" else HashEncoder()
    settings = {} if request.param == "rows" else {"tokens": request.param}
    for number, rows in enumerate(CUTS):
        build(encoder, rows, folder / str(number), **settings)
    shards = {str(number): TextShard(str(folder / str(number)), 1, encoder) for number in range(3)}
    table = encoder.codec if request.param == "rows" else None
    texts = RayTexts(Here(shards), folder, 500, True, table)  # type: ignore[arg-type]
    yield build(encoder, slice(None), **settings), TextIndex(texts, encoder)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"words": 0.6, "mean": 0},
        {"where": {"kind": {"$in": [1, 2, 5]}}},
        {"ids": IDS[115:140]},
        {"group_by": "kind"},
        {"words": 0, "mean": 0},
        {"words": 0, "mean": 0.3},
        {"words": 0, "mean": 0.3, "where": {"even": True}},
        {"words": 0, "mean": 0, "ids": IDS[100:140]},
        {"words": 0, "mean": 0, "group_by": "kind"},
    ],
    ids=["default", "words", "default where", "default ids", "default groups", "similarity", "means", "where", "ids", "groups"],
)
def test_hits_are_those_of_one_index(options: dict[str, Any], both: Any) -> None:
    one, shards = both
    exact = one.index.info().token_codec["codec"] != "int8"  # whose scale is fitted to each shard
    for k in (3, 20):
        for own, best in zip(
            shards.search(QUERIES, k, **options), one.search(QUERIES, k, **options), strict=True
        ):
            if exact:
                assert [hit.id for hit in own] == [hit.id for hit in best]
            np.testing.assert_allclose(
                [hit.score for hit in own], [hit.score for hit in best], rtol=1e-5 if exact else 0.02
            )
            words = [{hit.id: hit.parts.get("words", 0.0) for hit in hits} for hits in (own, best)]
            common = words[0].keys() & words[1]
            assert {id: words[0][id] for id in common} == pytest.approx({id: words[1][id] for id in common})


def test_words_of_a_text_bring_it_to_the_top(both: Any) -> None:
    _, shards = both
    for number in (3, 125, 480):
        hit = shards.search(TEXTS[number], 1)[0]
        assert (hit.id, hit.text, hit.metadata) == (IDS[number], TEXTS[number], METADATA[number])
        assert hit.parts["words"] > 0


def test_texts_are_read_from_all_shards(both: Any) -> None:
    one, shards = both
    some = ["t400", "t3", "t125"]
    assert shards.get(some) == one.get(some)
    assert shards.select({"kind": 2}) == one.select({"kind": 2})
    assert list(shards) == list(one)
    assert ("t3" in shards, "x" in shards, 3 in shards, len(shards)) == (True, False, False, 500)
    tokens = [index.texts.tokens(some) for index in (shards, one)]
    np.testing.assert_allclose(tokens[0].tokens, tokens[1].tokens, atol=0.02)  # int8 has a scale per shard
    with pytest.raises(KeyError, match="'x' is not in the index"):
        shards.get(["t3", "x"])


def test_what_shards_cannot_do_is_refused(both: Any) -> None:
    _, shards = both
    with pytest.raises(ShardError, match="only read"):
        shards.add(["a text"], ids=["new"])
    with pytest.raises(ShardError, match="only read"):
        shards.delete(["t3"])
    with pytest.raises(ShardError, match="info are not available"):
        shards.info()
    with pytest.raises(ValueError, match="no document has a value"):
        shards.search("bal", group_by="unknown")


def test_shards_of_different_encoders_or_ids_are_refused(tmp_path: Path) -> None:
    made: dict[str, tuple[HashEncoder, Any]] = {
        "a": (HashEncoder(), IDS),
        "b": (HashEncoder(name="other"), IDS),
        "c": (HashEncoder(), range(500)),
    }
    about = {}
    for name, (encoder, ids) in made.items():
        TextIndex.build(TEXTS[:5], encoder, ids=list(ids[:5]), path=tmp_path / name)
        about[name] = TextShard(str(tmp_path / name), 1, encoder).about()
    with pytest.raises(ValueError, match=r"'a' and 'b' .* different text encoders: 'hash' and 'other'"):
        require_alike({name: about[name] for name in "ab"}, tmp_path)
    with pytest.raises(ValueError, match="integers as ids, and others strings"):
        require_alike({name: about[name] for name in "ac"}, tmp_path)
    require_alike({"a": about["a"]}, tmp_path)


def test_an_id_in_two_shards_is_named(tmp_path: Path) -> None:
    encoder = HashEncoder()
    for name in "ab":
        TextIndex.build(TEXTS[:5], encoder, path=tmp_path / name)
    shards = {name: TextShard(str(tmp_path / name), 1, encoder) for name in "ab"}
    texts = RayTexts(Here(shards), tmp_path, 10, True, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"The id \d is in two shards.*ids= that differ"):
        TextIndex(texts, encoder).search("bal")


#: Ids and scores of texts that shards found, best first; equal scores are frequent.
found = st.lists(st.integers(0, 9), max_size=6).map(lambda some: sorted(some, reverse=True))


@given(st.lists(found, max_size=5), st.integers(1, 8))
def test_joined_shards_have_the_best_texts_in_order(every: list[list[int]], k: int) -> None:
    """Equal texts keep the order of the shards, and of each shard."""
    parts = [
        {(shard, rank): {"maxsim": score / 4, "mean": score / 4} for rank, score in enumerate(some)}
        for shard, some in enumerate(every)
    ]
    ranked = sorted((-score, shard, rank) for shard, some in enumerate(every) for rank, score in enumerate(some))
    best = [(shard, rank) for _, shard, rank in ranked[:k]]
    assert list(join(parts, k).items()) == [(id, parts[id[0]][id]) for id in best]


@given(st.lists(st.integers(0, len(TEXTS)), max_size=4), st.sampled_from(QUERIES))
def test_words_of_shards_are_counted_as_in_one_index(cuts: list[int], query: str) -> None:
    """However the texts are divided, each has the same score of words."""

    def indexed(start: int, stop: int) -> tuple[TextWords, IdMap]:
        words, ids = TextWords(), IdMap()
        words.append(TEXTS[start:stop], np.arange(stop - start), stop - start)
        ids.append(np.arange(stop - start))
        return words, ids

    whole, ids = indexed(0, len(TEXTS))
    shards = [indexed(*bounds) for bounds in pairwise(sorted({0, *cuts, len(TEXTS)}))]
    terms = query_terms(query)
    asked = QueryWords(terms, sum_statistics([words.statistics(terms, own) for words, own in shards]))
    assert asked.statistics == whole.statistics(terms, ids)
    scores = [words.scores(asked, own)[0] for words, own in shards]
    expected, most = whole.scores(asked, ids)
    assert np.concatenate(scores).tolist() == expected.tolist()
    assert max(float(own.max()) for own in scores) == most
