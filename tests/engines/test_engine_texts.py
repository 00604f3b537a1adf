"""Texts in every engine, with the methods of TextIndex."""

from typing import Any

import pytest
from builders.text_encoders import HashEncoder, ShortModel

from muvera import TextIndex, adapt
from muvera.engines import EngineError, EngineIndex
from muvera.metadata import FilterError, TextDocument
from muvera.texts.engine_texts import EngineTexts

TEXTS = [
    "The quick brown fox.",
    "A red apple fell. It was ripe.",
    "Green pears and a red cherry.",
    "Databases keep rows.",
    "\u6771\u4eac\u3067\u5bff\u53f8\u3092\u98df\u3079\u308b\u3002",
]
IDS = ["fox", "apple", "pear", "db", "sushi"]
METADATA: list[dict[str, Any]] = [{"kind": "animal"}, {"kind": "fruit", "year": 1}, {"kind": "fruit"}, {}, {}]
ENCODER = HashEncoder()

# The client's local mode warns once that it searches without a graph.
pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact")


def found(hits: Any) -> list[Any]:
    return [hit.id for hit in hits]


def opened(collections: Any, name: str) -> Any:
    """Load the texts into the collection of this name, and open it."""
    local = TextIndex.build(TEXTS, ENCODER, ids=IDS, metadata=METADATA)
    index = EngineIndex(collections(name), "mean", text_encoder="hash")
    index.add(local.index.tokens(IDS).with_ids(IDS), METADATA, texts=TEXTS)
    engine = collections(name)
    if engine.keeps_tokens:
        return TextIndex.open(engine, ENCODER)
    return TextIndex(EngineTexts(EngineIndex(engine, tokens=local.index)), ENCODER)


@pytest.fixture(scope="module")
def texts(collections: Any) -> Any:
    """Texts in an engine; tests must not change them."""
    return opened(collections, "texts")


def test_hits_have_text_metadata_and_parts(texts: TextIndex) -> None:
    hit = texts.search("red apple", 1)[0]
    assert (hit.id, hit.text, hit.metadata) == ("apple", TEXTS[1], METADATA[1])
    assert hit.parts["words"] > 0 and hit.score == sum(hit.parts.values())
    assert found(texts.search("red", where={"kind": "fruit"}, ids=["pear", "db"])) == ["pear"]
    assert found(texts.search(["\u5bff\u53f8", " "], 1, words=0.9)[0]) == ["sushi"]
    assert found(texts.search("brown", 1, words=0)) == ["fox"]
    with pytest.raises(ValueError, match="below 1, got 1"):
        texts.search("fox", words=1)


def test_texts_are_read_by_their_ids(texts: TextIndex) -> None:
    assert len(texts) == 5 and "fox" in texts and "cat" not in texts
    assert repr(texts) == f"TextIndex({texts._texts}, encoder='hash')" and "#texts" in repr(texts)
    assert texts.get(["db", "fox"]) == [
        TextDocument("db", TEXTS[3], {}),
        TextDocument("fox", TEXTS[0], METADATA[0]),
    ]
    with pytest.raises(KeyError):
        texts.get(["cat"])


def test_texts_are_listed_in_the_order_of_their_ids(
    texts: TextIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muvera.texts.engine_texts._DOCUMENTS", 2)
    assert texts.select({}) == sorted(IDS)
    assert texts.select({"kind": "fruit", "$not": {"year": 1}}) == ["pear"]
    assert list(texts) == texts.get(sorted(IDS))
    with pytest.raises(FilterError, match="near"):
        texts.select({"year": {"$near": 3}})


def test_a_target_recall_after_a_calibration(collections: Any) -> None:
    texts = opened(collections, "calibrated")
    texts.calibrate([*TEXTS, "red"] * 13)
    assert found(texts.search("red apple", 1, recall=0.9)) == ["apple"]


def test_methods_of_folders_are_refused(texts: TextIndex) -> None:
    for call, message in (
        (lambda: texts.save("x"), "has no folder"),
        (texts.info, "index, info and rebuild are not available"),
        (texts.rebuild, "index, info and rebuild are not available"),
    ):
        with pytest.raises(EngineError, match=message):
            call()


@pytest.fixture
def changing(collections: Any, request: pytest.FixtureRequest) -> Any:
    texts = opened(collections, request.node.originalname)
    if not texts._texts.index.engine.keeps_tokens:
        pytest.skip("its tokens are in a local index, which does not change")
    return texts


def test_texts_are_added_and_updated(changing: Any) -> None:
    assert changing.add(["blue whale"], ids=["whale"], metadata=[{"kind": "animal"}]) == ["whale"]
    assert set(found(changing.search("x", where={"kind": "animal"}))) == {"fox", "whale"}
    changing.update(["grey whale", "tables"], ids=["whale", "db"])
    changing.update(ids=["fox"], metadata=[{"kind": "red", "year": None}])
    assert [(one.text, one.metadata) for one in changing.get(["db", "whale", "fox"])] == [
        ("tables", {}),
        ("grey whale", {"kind": "animal"}),
        (TEXTS[0], {"kind": "red"}),
    ]
    assert found(changing.search("grey", 1)) == ["whale"] and found(changing.search("fox", 1)) == ["fox"]


def test_sentences_and_explanations(texts: Any) -> None:
    if not texts._texts.index.engine.keeps_tokens:
        pytest.skip("it stores no tokens, which sentences and explanations need")
    sentence = texts.search_sentences("ripe", 1)[0]
    assert (sentence.id, sentence.text) == ("apple", "It was ripe.")
    assert texts.explain("ripe", "apple").score == pytest.approx(1, abs=0.02)


def test_texts_are_deleted(changing: Any) -> None:
    changing.delete(["fox", "pear"])
    changing.delete(["fox", "cat"], missing="ignore")
    assert len(changing) == 3 and changing.get(["fox"], missing="ignore") == []


def test_refused_changes_change_nothing(changing: Any) -> None:
    calls: Any = (
        lambda: changing.delete(["db", "whale"]),
        lambda: changing.add(["x"], ids=["db"]),
        lambda: changing.add(["x"]),
        lambda: changing.add(["x"], ids=[3]),
        lambda: changing.update(ids=[3], metadata=[{}]),
        lambda: changing.add(["x", "y"], ids=["a", "a"]),
        lambda: changing.add([" "], ids=["blank"]),
        lambda: changing.add(["x"], ids=["new"], metadata=[{"$text": "y"}]),
        lambda: changing.update(ids=["cat"], metadata=[{}]),
    )
    for call in calls:
        with pytest.raises((KeyError, ValueError, TypeError)):
            call()
    assert len(changing) == 5 and 3 not in changing and changing.get(["db"])[0].text == TEXTS[3]


def test_long_texts_are_parts(collections: Any) -> None:
    engine = collections("long_texts")
    if not engine.keeps_tokens:
        pytest.skip("its tokens are in a local index, which does not change")
    texts = [
        f"{'red pear ' * 900}a zebra sleeps at noon{' green apple' * 30}",
        "A quagga is a zebra.",
        "short",
    ]
    local = TextIndex.build(texts, ShortModel(), ids=["long", "quagga", "short"])
    EngineIndex(engine, "mean", text_encoder="short").add(local.index.tokens(["short"]), texts=["short"])
    index = TextIndex.open(engine, ShortModel())
    index.add(texts[:2], ids=["long", "quagga"], metadata=[{"kind": 1}, {}])
    index.update(ids=["long"], metadata=[{"kind": 2}])
    assert len(index) == 3 and index.get(["long"])[0] == TextDocument("long", texts[0], {"kind": 2})
    expected = local.search("zebra sleeps at noon", 3, words=0, mean=0)
    hits = index.search("zebra sleeps at noon", 3, words=0)
    assert [hit.id for hit in hits] == [hit.id for hit in expected]
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=0.02)
    for words in (0, 0.5):  # more parts of the long text are close than a search ranks by default
        assert len(index.search("red pear", 3, words=words)) == 3
    expected_score = local.explain("noon", "long").score
    assert index.explain("noon", "long").score == pytest.approx(expected_score, abs=0.02)
    assert len(engine.tokens(["long"])) == len(local.index.tokens(["long"])) > 1
    index.delete(["long"])
    assert found(index.search("noon", 3, words=0)) != ["long"] and len(index) == 2


def test_the_encoder_and_the_texts_are_checked(collections: Any) -> None:
    local = TextIndex.build(TEXTS, ENCODER, ids=IDS)
    EngineIndex(collections("no_texts"), "mean").add(local.index.tokens(IDS).with_ids(IDS))
    with pytest.raises(EngineError, match="no texts"):
        TextIndex.open(collections("no_texts"), ENCODER)
    with pytest.raises(EngineError, match=r"does not exist.*encoder"):
        TextIndex.open(collections("empty_texts"))
    new = TextIndex.open(collections("new_texts"), ENCODER)
    assert (len(new), new.search("x"), new.get(["a"], missing="ignore")) == (0, [], [])
    texts = [f"number {i} of {i % 7}" for i in range(256)]
    new.add(texts, ids=list(range(256)))
    assert new.get([7])[0].text == texts[7]
    with pytest.raises(ValueError, match="'hash'"):
        TextIndex.open(collections("new_texts"), HashEncoder(name="other"))
    with pytest.raises(ValueError, match="'hash'"):
        TextIndex.open(collections("new_texts"))


def test_another_model_searches_texts_in_a_database(texts: TextIndex) -> None:
    adapted = adapt(texts, HashEncoder(16, "same vectors"), texts=TEXTS, candidates=2)
    hit = adapted.search("red apple", 1, where={"kind": "fruit"})[0]
    assert (hit.id, hit.metadata) == ("apple", METADATA[1])
    assert set(hit.parts) == {"maxsim", "words", "mean"}
    sampled = adapt(texts, HashEncoder(16, "same vectors"), candidates=2)
    assert found(sampled.search("red apple", 1, where={"kind": "fruit"})) == ["apple"]


@pytest.mark.parametrize("words", [0, 0.5])
def test_a_group_has_its_best_text(texts: TextIndex, words: float) -> None:
    whole = texts.search("a red cherry", 5, words=words)
    kinds = [hit.metadata.get("kind", hit.id) for hit in whole]
    wanted = [hit for i, hit in enumerate(whole) if kinds[i] not in kinds[:i]]
    assert len(wanted) == len(whole) - 1
    assert texts.search("a red cherry", 5, words=words, group_by="kind") == wanted
    assert texts.search(["a red cherry", " "], 2, words=words, group_by="kind") == [wanted[:2], []]


def test_rankings_of_an_engine_are_grouped_in_their_order(texts: TextIndex) -> None:
    index, query = texts.texts.index, ENCODER.encode_queries(["a red cherry"])  # type: ignore[attr-defined]
    for rerank in ("auto", "here", None):
        [whole] = index.search(query, 5, rerank=rerank)
        [best] = index.search(query, 5, rerank=rerank, group_by="kind")
        wanted = [(id, score) for id, score in whole if id != "apple"]
        assert list(best) == wanted and best.exact == whole.exact


def test_a_field_that_no_text_of_an_engine_has_is_named(texts: TextIndex) -> None:
    for field in ("brand", "$text", "$or"):
        for query in ("fox", " "):
            with pytest.raises(ValueError, match=r"in which no document has a value\. .*: kind, year\.$"):
                texts.search(query, group_by=field)
    alone = texts.search("sushi", group_by="year", ids=["sushi", "fox"])
    assert sorted(found(alone)) == ["fox", "sushi"]
