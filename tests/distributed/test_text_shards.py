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
from muvera.texts.encoders.base import ScoreWeights
from muvera.texts.ranking import Candidates, Unranked, join

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
        {"words": 0, "mean": 0},
        {"words": 0, "mean": 0.3},
        {"words": 0, "mean": 0.3, "where": {"even": True}},
        {"words": 0, "mean": 0, "ids": IDS[100:140]},
        {"words": 0, "mean": 0, "group_by": "kind"},
    ],
    ids=["similarity", "means", "where", "ids", "groups"],
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


#: Similarities, scores of words and means of some texts.  No two have the same words,
#: because the order of equal ones is not defined.
scores = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 99), st.floats(-1, 1)),
    min_size=1,
    max_size=40,
    unique_by=lambda text: text[1],
)


@given(scores, st.lists(st.integers(0, 40), max_size=3), st.integers(1, 8), st.integers(1, 8))
def test_joined_candidates_are_those_of_one_collection(
    every: list[tuple[int, int, float]], cuts: list[int], vectors: int, words: int
) -> None:
    """However the texts are divided, the ranking is the same."""

    def unranked(start: int, stop: int) -> Unranked:
        maxsim, shared, means = np.array(every[start:stop], np.float64).reshape(-1, 3).T
        best = np.argsort(-maxsim, kind="stable")[:vectors]
        matches = np.argsort(-shared, kind="stable")[: 2 * words]
        matches = matches[shared[matches] > 0]
        kept = np.concatenate([best, matches[~np.isin(matches, best)][:words]]).astype(np.int64)
        counted = np.where(np.isin(kept, matches), shared[kept], 0)
        return Unranked(
            (start + kept).tolist(), Candidates(kept, maxsim[kept], counted, means[kept]), vectors, words, 0
        )

    bounds = sorted({0, len(every), *(cut for cut in cuts if cut < len(every))})
    parts = [unranked(start, stop) for start, stop in pairwise(bounds)]
    whole, joined = unranked(0, len(every)), join(parts, 2 * words)
    for weights in (ScoreWeights(0, 0), ScoreWeights(0.3, 0.2)):
        expected = whole.candidates.parts(whole.ids, weights, 10)
        assert list(joined.candidates.parts(joined.ids, weights, 10).items()) == list(expected.items())
