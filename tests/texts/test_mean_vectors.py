"""The parts of a score: similarity, shared words and mean token vectors."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import ROOT
from builders.text_encoders import HashEncoder

from muvera import MultiVectors, TextIndex
from muvera.texts.database import DocumentDatabase
from muvera.texts.encoders.base import CachedEncoder, ScoreWeights, score_weights
from muvera.texts.hit import mean_vectors
from muvera.texts.ranking import add_parts

GOLDEN = ROOT / "tests" / "golden" / "texts"

TEXTS = ["a red apple", "two green pears", "red and green leaves", "the blue whale sings", "a book of pages"]


def oracle_means(encoded: MultiVectors) -> np.ndarray:
    means = [np.asarray(tokens, np.float64).sum(axis=0) for tokens in encoded]
    return np.array([mean / (np.linalg.norm(mean) or 1) for mean in means])


def scores(index: TextIndex, query: str = "red whale", **options: Any) -> dict[Any, Any]:
    return {hit.id: hit.parts for hit in index.search(query, 20, **options)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    TextIndex.build(TEXTS, HashEncoder(8), path=tmp_path / "index")
    return tmp_path / "index"


def test_means_of_texts_with_and_without_tokens() -> None:
    rng = np.random.default_rng(0)
    for lengths in ([3, 0, 2, 0], [0, 0], [1], []):
        tokens = rng.normal(size=(sum(lengths), 5)).astype(np.float16)
        encoded = MultiVectors.from_flat(tokens, np.array(lengths, np.int64))
        np.testing.assert_allclose(mean_vectors(encoded), oracle_means(encoded).reshape(-1, 5), atol=1e-6)


def test_each_part_reaches_its_share_of_the_range_of_similarities() -> None:
    maxsim, words, means = {1: 2.0, 2: 4.0, 3: 6.0}, {2: 3.0, 3: 1.5}, {1: 0.5, 2: 0.1, 3: 0.3}
    parts = add_parts(maxsim, words, means, ScoreWeights(0.2, 0.3), 2)
    # the range is 4, and .5 remains for similarity
    assert parts[2] == pytest.approx({"maxsim": 4, "words": 0.2 / 0.5 * 4, "mean": 0})
    assert parts[3] == pytest.approx({"maxsim": 6, "words": 0.2 / 0.5 * 4 / 2, "mean": 0.3 / 0.5 * 4 / 2})
    assert list(parts) == [3, 2]
    one = add_parts({1: 2.0}, words, means, ScoreWeights(0.2, 0.3), 2)
    assert one == {1: {"maxsim": 2.0, "words": 0.0, "mean": 0.0}}
    assert add_parts(maxsim, {}, {}, ScoreWeights(0.0, 0.0), 1) == {3: {"maxsim": 6.0}}


def test_scores_by_codes_choose_what_is_decoded() -> None:
    words = [f"w{number}" for number in range(60)]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, 12)) for _ in range(300)]
    index = TextIndex.build(texts, HashEncoder(16))
    assert index.index.codec is not None
    for query in ("w1 w7 w30", "w59 w2", " ".join(words[:20])):
        whole = scores(index, query, candidates=300)  # 20 hits
        few = {hit.id: hit.parts for hit in index.search(query, 5, candidates=300)}
        assert list(few) == list(whole)[:5]
        assert few == {id: pytest.approx(whole[id], rel=1e-6) for id in few}
        best = index.index.rerank(index.encoder.encode_queries([query]), [list(few)])[0]
        assert dict(best) == {id: parts["maxsim"] for id, parts in few.items()}


def test_an_index_scores_by_the_means_of_its_tokens(folder: Path) -> None:
    encoder = HashEncoder(8)
    query = oracle_means(encoder.encode_queries(["red whale"]))[0]
    cosines = oracle_means(encoder.encode_documents(TEXTS)) @ query
    for index in (TextIndex.build(TEXTS, encoder), TextIndex.load(folder, encoder)):
        parts = scores(index)
        similarities = [part["maxsim"] for part in parts.values()]
        unit = 0.2 / 0.6 * (max(similarities) - min(similarities))
        scaled = (cosines - cosines.min()) / np.ptp(cosines)
        found = [parts[i]["mean"] for i in range(len(TEXTS))]
        np.testing.assert_allclose(found, unit * scaled, atol=2e-3)


def test_means_follow_changes_saves_and_the_journal(folder: Path, tmp_path: Path) -> None:
    final = {0: "a red apple", 2: "whales sing", 3: "the blue whale sings", 4: "a book", 5: "new red"}
    expected = scores(TextIndex.build(final.values(), HashEncoder(8), ids=list(final)), candidates=20)
    with TextIndex.open(folder, HashEncoder(8)) as index:
        index.add(["new red"])
        index.update(["whales sing", "a book"], ids=[2, 4])
        index.update(ids=[0], metadata=[{"n": 1}])
        index.delete([1])
        killed = Path(shutil.copytree(folder, tmp_path / "killed"))
        found = [scores(index)]
    found += [scores(TextIndex.load(path, HashEncoder(8))) for path in (killed, folder)]
    for parts in found:
        assert set(parts) == set(expected)
        for name, part in parts.items():
            assert part == pytest.approx(expected[name], abs=0.01)  # tokens are bytes
    assert found[0] == found[1] == found[2]


def test_deleted_and_replaced_texts_leave_no_means() -> None:
    index = TextIndex.build([*TEXTS, " "], HashEncoder(8))
    index.update(["other", " "], ids=[0, 1])
    index.delete([2])
    database: DocumentDatabase = index._texts.database  # type: ignore[attr-defined]
    means = dict(zip(*database.means(range(6), 8), strict=True))
    assert set(means) == {0, 3, 4}
    assert database._read("SELECT count(*) FROM means") == [(3,)]
    expected = oracle_means(HashEncoder(8).encode_documents(["other"]))[0]
    np.testing.assert_allclose(means[0], expected, atol=1e-3)


def test_a_folder_of_an_older_version_answers_and_changes_as_before(tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / "without_means.json").read_text(encoding="utf-8"))
    folder = Path(shutil.copytree(GOLDEN / "without_means", tmp_path / "index"))
    with TextIndex.open(folder, HashEncoder(8)) as index:
        for query, answers in zip(golden["queries"], golden["answers"], strict=True):
            hits = index.search(query, 5)
            assert [hit.id for hit in hits] == [id for id, _, _ in answers]
            assert [hit.parts for hit in hits] == [pytest.approx(parts) for _, _, parts in answers]
        with pytest.raises(ValueError, match=r"mean must be 0 .* got 0\.2"):
            index.search("red", mean=0.2)
        index.add(["a fresh text"])
        index.update(["a yellow apple"], ids=[1])
        index.delete([2])
    loaded = TextIndex.load(folder, HashEncoder(8))
    assert len(loaded) == 6 and [hit.id for hit in loaded.search("yellow apple", 1)] == [1]


@pytest.mark.parametrize("content", ["x'00'", "'text'", f"x'{'007e' * 8}'"], ids=["short", "text", "nan"])
def test_damaged_means_are_refused(tmp_path: Path, content: str) -> None:
    database = DocumentDatabase("hash")
    database.put([1], ["red"], [{}])
    database.put_means([(1, bytes(16))])
    database.save(tmp_path / "texts.sqlite")
    with closing(sqlite3.connect(tmp_path / "texts.sqlite")) as connection:
        connection.executescript(f"UPDATE means SET vector = {content}")
    with pytest.raises(ValueError, match="mean vector of document 1 is damaged"):
        DocumentDatabase.open(tmp_path / "texts.sqlite").means([1], 8)


def test_default_weights_are_those_of_the_encoder(tmp_path: Path) -> None:
    class Weighted(HashEncoder):
        score_weights = ScoreWeights(0.1, 0.6)

    cached = CachedEncoder(Weighted(8), tmp_path / "vectors")
    assert score_weights(cached) == ScoreWeights(0.1, 0.6)
    assert score_weights(HashEncoder(8)) == ScoreWeights(0.2, 0.2)
    index = TextIndex.build(TEXTS, Weighted(8))
    assert scores(index) == scores(index, words=0.1, mean=0.6)
    cached.close()


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({}, {"maxsim", "words", "mean"}),
        ({"words": 0}, {"maxsim"}),
        ({"words": 0.1}, {"maxsim", "words"}),
        ({"mean": 0.1}, {"maxsim", "mean"}),
        ({"words": 0.1, "mean": 0.1}, {"maxsim", "words", "mean"}),
    ],
)
def test_a_given_weight_sets_the_other_one_to_zero(given: dict[str, Any], parts: set[str]) -> None:
    index = TextIndex.build(TEXTS, HashEncoder(8))
    assert [set(part) for part in scores(index, **given).values()] == [parts] * len(TEXTS)
    assert {tuple(hit.parts) for hit in index.rerank("red", TEXTS, **given)} == {
        tuple(name for name in ("maxsim", "words", "mean") if name in parts)
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mean": 1}, "mean must be a weight from 0 to below 1, got 1"),
        ({"mean": -0.1}, "mean must be"),
        ({"mean": "x"}, "mean must be"),
        ({"words": 0.5, "mean": 0.5}, r"below 1 together, got 0\.5 and 0\.5"),
    ],
)
def test_wrong_weights_of_means(given: dict[str, Any], message: str) -> None:
    index = TextIndex.build(TEXTS, HashEncoder(8))
    for call in (lambda: index.search("red", **given), lambda: index.rerank("red", TEXTS, **given)):
        with pytest.raises((ValueError, TypeError), match=message):
            call()


# -- texts that are not in an index ---------------------------------------------


def test_reranking_gives_the_order_and_the_parts_of_a_search() -> None:
    index = TextIndex.build(["something else"], HashEncoder(8))
    other = TextIndex.build(TEXTS, HashEncoder(8), tokens="float32")
    found = index.rerank("red whale", TEXTS)
    expected = other.search("red whale", 20)
    assert [hit.id for hit in found] == [hit.id for hit in expected]
    assert [hit.text for hit in found] == [hit.text for hit in expected]
    for one, two in zip(found, expected, strict=True):
        assert one.parts == pytest.approx(two.parts, abs=2e-3)  # means are halves
        assert one.score == sum(one.parts.values())


def test_reranking_many_texts_and_blank_ones() -> None:
    index = TextIndex.build([], HashEncoder(8))
    texts = [f"word{i}" for i in range(150)]
    texts[7] = " "
    found = index.rerank("word149", texts)
    assert found[0].id == 149 and {hit.id for hit in found} == set(range(150)) - {7}
    assert [hit.id for hit in index.rerank("word149", texts, 2)] == [hit.id for hit in found[:2]]
    assert index.rerank(" ", texts) == index.rerank("a", []) == index.rerank("a", [""]) == []


@pytest.mark.parametrize(
    ("query", "texts", "options", "message"),
    [
        (["red"], TEXTS, {}, "query must be a string"),
        ("red", [1], {}, r"texts\[0\] must be a string"),
        ("red", TEXTS, {"k": 0}, "k must be"),
    ],
)
def test_what_cannot_be_reranked(query: Any, texts: Any, options: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        TextIndex.build([], HashEncoder(8)).rerank(query, texts, **options)


def test_words_decide_between_equal_similarities() -> None:
    assert list(add_parts({1: 2.0, 2: 2.0}, {2: 1.0}, {}, ScoreWeights(0.2, 0.0), 2)) == [2, 1]
