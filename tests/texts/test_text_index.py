"""TextIndex: search, filters, sentences, explanations, whole changes and folders."""

import asyncio
import pickle
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from builders.text_encoders import HashEncoder

from muvera import MuveraIndex, TextIndex
from muvera.data.multivectors import MultiVectors
from muvera.index.generations import IndexFolderError
from muvera.metadata import FilterError, TextDocument
from muvera.texts.hit import Hit, SearchOptions, sentences_of

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "A red apple fell from the tree. It was ripe.",
    "Green pears and a red cherry.",
    "Databases keep rows in pages.",
]
IDS = ["fox", "apple", "pear", "db"]
METADATA: list[dict[str, Any]] = [
    {"kind": "animal", "year": 1990},
    {"kind": "fruit", "year": 2001},
    {"kind": "fruit", "year": 2015},
    {},
]


@pytest.fixture
def index() -> TextIndex:
    return TextIndex.build(TEXTS, HashEncoder(), ids=IDS, metadata=METADATA)


def ids(hits: Sequence[Any]) -> list[Any]:
    return [hit.id for hit in hits]


def state(index: TextIndex) -> Any:
    return list(index), index.index.ids.tolist()


def test_search(index: TextIndex) -> None:
    hits = index.search("red apple")
    assert ids(hits)[:2] == ["apple", "pear"]
    plain = index.search("red apple", words=0)[0]
    similarity: Any = pytest.approx(2, abs=0.01)  # tokens are bytes
    assert plain == Hit("apple", similarity, TEXTS[1], METADATA[1], {"maxsim": similarity})
    assert [ids(own)[0] for own in index.search(["lazy dog", "rows in pages"], k=1)] == ["fox", "db"]
    assert index.search([]) == []
    assert len(index.search("red", k=100)) == 4
    assert [SearchOptions(k).num_candidates for k in (5, 300)] == [200, 300]


def test_asearch_returns_the_hits_of_search(index: TextIndex) -> None:
    async def search() -> None:
        both = asyncio.gather(index.asearch("red apple", k=2), index.asearch(["lazy dog", "red"], words=0))
        assert list(await both) == [
            index.search("red apple", k=2),
            index.search(["lazy dog", "red"], words=0),
        ]
        with pytest.raises(ValueError, match="k must be"):
            await index.asearch("red", k=0)

    asyncio.run(search())


def test_an_event_loop_goes_on_during_a_search(index: TextIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    loop_ran = Event()
    encode = index.encoder.encode_queries

    def waiting(texts: list[str]) -> MultiVectors:
        assert loop_ran.wait(60)  # set by the loop, while this thread waits
        return encode(texts)

    async def search() -> list[Hit]:
        asyncio.get_running_loop().call_later(0.01, loop_ran.set)
        return await index.asearch("red apple", k=1)

    monkeypatch.setattr(index.encoder, "encode_queries", waiting)
    assert ids(asyncio.run(search())) == ["apple"]


def test_filters_and_ids(index: TextIndex) -> None:
    assert set(ids(index.search("red", where={"kind": "fruit"}))) == {"apple", "pear"}
    assert ids(index.search("red", where={"kind": "fruit", "year": {"$lt": 2010}})) == ["apple"]
    assert ids(index.search("red", where={"kind": "fruit"}, ids=["pear", "db", "x"])) == ["pear"]
    assert index.search("red", where={"kind": "stone"}) == index.search("red", ids=[]) == []
    many = [*(f"id {i}" for i in range(260_000)), "fox"]
    assert ids(index.search("red", k=5, ids=many)) == ["fox"]
    for condition, part in (({"year": {"$near": 2000}}, "near"), ({"kind": {"$in": many}}, "got 260001")):
        with pytest.raises(FilterError, match=part):
            index.search("red", where=condition)


def test_an_empty_index_encodes_no_document() -> None:
    """Documents may be addresses of items, which an invented text is not."""

    class Addresses(HashEncoder):
        def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
            assert all(text in TEXTS for text in texts)
            return super().encode_documents(texts)

        def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
            return super().encode_documents(texts)

    index = TextIndex.build([], Addresses())
    index.add(TEXTS, ids=IDS)
    assert ids(index.search("red apple"))[0] == "apple"


def test_vectors_and_settings_reach_the_index() -> None:
    texts = [f"text number {i} of {i % 7} kinds" for i in range(260)]
    encoder = HashEncoder(24)
    info = TextIndex.build(texts, encoder, exact_tokens=0).info()
    assert (info.encoder["partition"], info.encoder["vector_dimension"]) == ("landmarks", 512)
    built = TextIndex.build(texts[:20], encoder, vectors="simhash", exact_tokens=0, tokens="2bit")
    assert (built.info().encoder["partition"], built.index.settings.tokens) == ("simhash", "2bit")
    empty = TextIndex.build([], HashEncoder(), vectors="mean")
    empty.add(TEXTS, ids=IDS)
    assert (empty.index.config.cells, empty.index.settings.tokens) == (None, "int8")  # bytes by default
    assert ids(empty.search("red apple"))[0] == "apple"


class SpecialTokens(HashEncoder):
    """Prepends a token to every text, as models do."""

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        return super().encode_documents([f"cls {text}" for text in texts])

    def token_spans(self, text: str, side: Any) -> Any:
        return [(0, 0), *(super().token_spans(text, side) or [])]


def test_blank_texts_and_queries() -> None:
    index = TextIndex.build([*TEXTS, "  ", "..."], SpecialTokens(), ids=[*IDS, "spaces", "dots"])
    index.add(["\n"], ids=["line"])
    index.update(["\t"], ids=["db"])
    assert set(ids(index.search("red apple", k=10))) == {"fox", "apple", "pear", "dots"}
    assert len(index) == 7 and [one.text for one in index.get(["spaces", "db"])] == ["  ", "\t"]
    for query, id in (("fox", "spaces"), (" ", "fox")):
        with pytest.raises(ValueError, match="blank"):
            index.explain(query, id)
    assert index.search("") == index.search("  ", explain=True) == index.search_sentences(" ") == []
    for options in ({}, {"words": 0}, {"words": 0.9}):
        blank, other = index.search(["\n", "lazy dog"], k=1, **options)
        assert blank == [] and ids(other) == ["fox"]
    assert len(TextIndex.build([" "], SpecialTokens())) == 1


def test_the_best_sentence_and_its_place(index: TextIndex) -> None:
    best = index.search_sentences("ripe", alpha=0.0)[0]
    assert (best.id, best.text, best.span) == ("apple", "It was ripe.", (32, 44))
    assert best.score == best.parts["maxsim"] == pytest.approx(1, abs=0.01)
    assert index.search_sentences("ripe", 1, explain=True)[0].parts["maxsim"] == pytest.approx(1, abs=0.01)


def test_sentences_end_with_a_full_stop_and_not_with_an_abbreviation() -> None:
    text = "Dr. No came, e.g. by boat. Did he? Yes."
    assert [text[a:b] for a, b in sentences_of(text)] == ["Dr. No came, e.g. by boat.", "Did he?", "Yes."]
    lower = TextIndex.build(
        ["the flow is laminar . its layer is 2.5 mm thick, e.g. here. it ends"], HashEncoder()
    )
    sentences = ["the flow is laminar .", "its layer is 2.5 mm thick, e.g. here.", "it ends"]
    assert {hit.text for hit in lower.search_sentences("layer")} == set(sentences)


def test_sentences_of_several_queries_and_of_filtered_texts(index: TextIndex) -> None:
    assert [ids(own) for own in index.search_sentences(["ripe", "dog"], 1)] == [["apple"], ["fox"]]
    assert ids(index.search_sentences("red", where={"kind": "fruit"}, ids=["pear"])) == ["pear"]


def test_sentences_need_an_encoder_that_knows_the_places_of_tokens(
    index: TextIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HashEncoder, "token_spans", lambda *_: None)
    assert len(index.search("red")) == 4
    for call in (lambda: index.explain("red", "pear"), lambda: index.search_sentences("red")):
        with pytest.raises(ValueError, match="hash"):
            call()


class Deaf(HashEncoder):
    """An encoder whose query vectors differ from its document vectors."""

    def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
        return self.encode_documents([f"x{text}x" for text in texts])


def test_words_propose_candidates() -> None:
    fillers = [f"filler number {i}" for i in range(300)]
    index = TextIndex.build([*fillers, "the word zebra"], Deaf(), vectors="fde", exact_tokens=0)
    assert 300 in ids(index.search("zebra", k=4, candidates=4, words=0.9))
    assert ids(index.search("zebra", k=1, candidates=4, words=0.9, where={"none": 1})) == []
    assert ids(index.search("zebra", k=9, candidates=9, words=0.9, ids=[3])) == [3]


def test_recall_finds_the_same_texts() -> None:
    fillers = [f"filler number {i} of {i % 50} and {i % 7}" for i in range(300)]
    index = TextIndex.build(fillers, HashEncoder(), vectors="mean", exact_tokens=0)
    for words in (0.0, 0.1):
        exact = index.search("number 42", 3, words=words)
        assert ids(index.search("number 42", 3, recall=0.98, words=words)) == ids(exact)
    assert len(index.search_sentences("number 42", 3, recall=0.9)) == 3
    index.calibrate(fillers[:64])
    assert not index.index.contents.candidates.calibration.pseudo_queries  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="not both"):
        index.search("number 42", recall=0.9, candidates=100)


@pytest.fixture(scope="module")
def quinces() -> TextIndex:
    """Texts of which the model finds only the last by "red".

    Tests must not change it.
    """
    texts = [f"red apple {i}" for i in range(40)] + ["quince", "red quince jam", "xredx"]
    return TextIndex.build(texts, Deaf())


def test_the_score_is_the_sum_of_similarity_and_words(quinces: TextIndex) -> None:
    similarities = {hit.id: hit.score for hit in quinces.search("red", 50, words=0)}
    hits = quinces.search("red", 50)
    assert hits == sorted(hits, key=lambda hit: -hit.score) and len(hits) == len(quinces)
    for hit in hits:
        assert hit.score == sum(hit.parts.values()) and hit.parts["maxsim"] == similarities[hit.id]
        assert (hit.parts["words"] > 0) == ("red" in hit.text.split())
    assert hits[0].id == 42


def test_words_add_at_most_a_ninth_of_the_spread_of_similarities(quinces: TextIndex) -> None:
    similarities = [hit.score for hit in quinces.search("red", 50, words=0)]
    words = [hit.parts["words"] for hit in quinces.search("red", 50, words=0.1)]
    assert max(words) == pytest.approx((max(similarities) - min(similarities)) / 9)


@pytest.mark.parametrize("query", ["unknown", "?!"])
def test_without_shared_words_the_similarities_count_alone(quinces: TextIndex, query: str) -> None:
    assert [hit.parts["words"] for hit in quinces.search(query, 5)] == [0] * 5


def test_rare_words_of_a_long_query_count(quinces: TextIndex) -> None:
    long = quinces.search(" ".join(["quince", *(f"word{i}" for i in range(500))]), 50)
    assert max(long, key=lambda hit: hit.parts["words"]).id == 40


def test_words_of_a_single_candidate_count(quinces: TextIndex) -> None:
    assert quinces.search("quince", 1, ids=[40])[0].parts["words"] > 0


@pytest.mark.parametrize("wrong", [-0.1, 1, 100, float("nan"), "x"])
def test_wrong_weights_of_words(quinces: TextIndex, wrong: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="words must be"):
        quinces.search("red", words=wrong)


# Japanese, Thai and Hindi, a word beside Japanese, and an accent in two spellings: the
# first text has the words.
SCRIPTS = [
    ("\u5929\u6c17\u306f", "\u5927\u962a\u306e\u5929\u6c17", "\u6771\u4eac\u3067\u5bff\u53f8\u3092"),
    ("\u0e02\u0e49\u0e32\u0e27\u0e2d\u0e30", "\u0e01\u0e34\u0e19\u0e02\u0e49\u0e32\u0e27", "\u0e1d\u0e19"),
    ("\u092a\u093e\u0928\u0940 \u0915\u0939", "\u092a\u093e\u0928\u0940", "\u092d\u093e\u0937\u093e"),
    ("sqlite", "SQLite\u306e\u7d22\u5f15", "MySQL\u306e\u7d22\u5f15"),
    ("cafe\u0301s", "a caf\u00e9", "a car"),
]


@pytest.mark.parametrize("texts", SCRIPTS)
def test_words_of_scripts_with_and_without_spaces(texts: tuple[str, ...]) -> None:
    index = TextIndex.build([*texts[1:], "other"], HashEncoder())
    assert ids([hit for hit in index.search(texts[0]) if hit.parts["words"] > 0]) == [0]


def test_explanations_match_words_and_sum_to_the_score(index: TextIndex) -> None:
    reason = index.explain("ripe apples, red", "apple")
    words = {reason.query[slice(*one.query)]: TEXTS[1][slice(*one.document)] for one in reason.matches}
    assert (words["ripe"], words["red"]) == ("ripe", "red")
    assert reason.score == pytest.approx(sum(match.similarity for match in reason.matches), abs=1e-4)
    sentences = [TEXTS[1][one.start : one.stop] for one in reason.sentences]
    assert sentences == ["A red apple fell from the tree.", "It was ripe."]


def test_special_tokens_match_but_are_no_words() -> None:
    special = TextIndex.build(TEXTS[1:2], SpecialTokens()).explain("red apple", 0)
    assert [pair[:2] for pair in special.words()] == [("red", "red"), ("apple", "apple")]
    assert len(special.matches) == 3  # with the special token's match


class Similar(HashEncoder):
    """Every token is similar to "of", and "flow" to "flows"."""

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        known = {"of": [0.6, 0.8, 0.0, 0.0], "flow": [0.6, 0.0, 0.8, 0.0], "flows": [0.6, 0.0, 0.7, 0.39]}
        other = [0.6, 0.1, 0.0, -0.79]
        rows = [[known.get(word, other) for word in text.split()] for text in texts]
        return MultiVectors.from_arrays([np.array(own, np.float32) for own in rows], dimension=4)


def test_a_word_that_many_tokens_choose_is_not_the_most_shaded() -> None:
    index = TextIndex.build(["of flows", "other words"], Similar(), tokens="float32")
    weights = index.explain("what is flow a b c", 0).weights()
    assert weights[3, 8] == max(weights.values()) > weights[0, 2] >= 0


def test_single_characters_of_scripts_without_spaces_are_marked() -> None:
    class Characters(HashEncoder):
        def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
            return super().encode_documents([" ".join(text) for text in texts])

        def token_spans(self, text: str, side: Any) -> Any:
            return [(i, i + 1) for i, letter in enumerate(text) if letter.strip()]

    text = "\u6771\u4eac\u306e\u5929\u6c17 SQLite\u306e\u7d22\u5f15"
    reason = TextIndex.build([text], Characters()).explain("\u5929\u6c17 S", 0)
    assert {text[slice(*match.document)] for match in reason.matches} == {"\u5929", "\u6c17", "SQLite"}


def test_an_encoder_with_characters_of_other_tokens_is_named(index: TextIndex) -> None:
    index.encoder.token_spans = lambda text, side: [(0, 1)] * 3  # type: ignore[method-assign]
    for call in (lambda: index.explain("red apple pie", "fox"), lambda: index.search_sentences("red")):
        with pytest.raises(ValueError, match=r"encoder hash must return one pair .* got 3 for"):
            call()


def test_hits_are_shaded_if_they_are_explained(index: TextIndex) -> None:
    hit = index.search("ripe", k=1, explain=True)[0]
    assert "<mark" in hit._repr_html_()
    assert hit.to_dict()["explanation"]["score"] == pytest.approx(hit.parts["maxsim"], abs=1e-5)
    assert "<mark" not in index.search("ripe", k=1)[0]._repr_html_()


def test_explanations_escape_markup() -> None:
    hostile = TextIndex.build(['<script>alert(1)</script> & "quotes"'], HashEncoder())
    shown = hostile.explain("alert <b>", 0).to_html()
    assert "<script>" not in shown and "&lt;" in shown and "&amp;" in shown


@pytest.mark.parametrize("change", ["delete", "update"])
def test_explanations_of_texts_that_change_meanwhile(change: str) -> None:
    class Changing(HashEncoder):
        def token_spans(self, text: str, side: Any) -> Any:
            if "apple" in own:  # another thread's change: the search has ranked the texts already
                if change == "update":
                    own.update(["A pear."], ids=["apple"])
                own.delete(["apple"] if change == "delete" else ["fox"], missing="ignore")
            return super().token_spans(text, side)

    for search in ("search", "search_sentences"):
        own = TextIndex.build(TEXTS, Changing(), ids=IDS, metadata=METADATA)
        hits = getattr(own, search)("red apple", k=4, explain=True)
        found = {hit.id: hit for hit in hits}
        assert "apple" not in found if change == "delete" else found["apple"].text == "A pear."
        assert all(hit.explanation is not None for hit in hits)


def test_metadata_changes_without_encoding(index: TextIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(HashEncoder, "encode_documents")
    index.update(ids=["db", "fox"], metadata=[{"kind": "system"}, {"year": None, "name": "Reynard"}])
    assert index.select({"kind": "system"}) == ["db"]
    assert [document.metadata for document in index.get(["fox", "apple"])] == [
        {"kind": "animal", "name": "Reynard"},
        METADATA[1],
    ]
    assert index.select({}) == ids(list(index)) == IDS  # each text keeps its place


def test_added_and_updated_texts_are_found(index: TextIndex) -> None:
    assert index.add(["blue whale"], ids=["whale"], metadata=[{"kind": "animal"}]) == ["whale"]
    assert set(ids(index.search("x", where={"kind": "animal"}))) == {"fox", "whale"}
    index.update(["grey whale", "tables"], ids=["whale", "db"])  # keeps metadata
    assert index.get(["db", "whale"]) == [
        TextDocument("db", "tables", {}),
        TextDocument("whale", "grey whale", {"kind": "animal"}),
    ]
    index.update(["grey whale"], ids=["whale"], metadata=[{}])
    assert index.get(["whale"])[0].metadata == {}
    assert ids(index.search("grey", k=1)) == ["whale"]


def test_deleted_texts_are_gone(index: TextIndex) -> None:
    index.add(["grey whale"], ids=["whale"])
    index.delete(["whale", "fox"])
    assert (len(index), "fox" in index, ids(list(index))) == (3, False, ["apple", "pear", "db"])
    index.delete(["pear", "fox"], missing="ignore")
    assert ids(list(index)) == index.select({}) == ["apple", "db"]


def test_empty_changes_change_nothing(index: TextIndex) -> None:
    before = state(index)
    index.update([], ids=[])
    assert index.add([]) == [] and state(index) == before


def test_ids_are_numbers_if_none_are_given() -> None:
    numbered = TextIndex.build(TEXTS[:2], HashEncoder())
    assert numbered.add(TEXTS[2:]) == [2, 3]
    assert numbered.get(np.array([3]))[0].text == TEXTS[3]


@pytest.mark.parametrize(
    ("call", "kind", "part"),
    [
        (lambda i: i.add(["x"], ids=["fox"]), ValueError, "'fox'"),
        (lambda i: i.add(["x", "y"], ids=["a", "a"]), ValueError, "'a'"),
        (lambda i: i.update(["x", "y"], ids=[1, "a"]), TypeError, "all int or all str"),
        (lambda i: i.add(["x"], ids=["new"], metadata=[{"a.b": 1}]), ValueError, "'a.b'"),
        (lambda i: i.update(["x"], ids=["new"], metadata=[{"a": {1}}]), TypeError, "set"),
        (lambda i: i.update(["x"], ids=["\ud800"]), ValueError, "surrogate"),
        (lambda i: i.update(ids=["db", "cat"], metadata=[{}, {}]), KeyError, "'cat'"),
        (lambda i: i.update(ids=["db"]), ValueError, "neither"),
        (lambda i: i.update(ids=["db"], metadata=[3]), TypeError, "'db' must be a dictionary, got int"),
        (lambda i: i.delete(["pear", "cat"]), KeyError, "'cat'"),
        (lambda i: i.explain("red", "cat"), KeyError, "'cat'"),
        (lambda i: i.explain(None, "pear"), TypeError, "query must be a string"),
        (lambda i: i.add(["x"]), TypeError, "have no ids"),
        (lambda i: i.search("a \ud800"), ValueError, "surrogate"),
        # A single id is not a collection of its characters, and ids are integers of 64
        # bits or strings.
        (lambda i: i.delete("12"), TypeError, r"the string '12'\. Give \['12'\]"),
        (lambda i: i.search("x", ids="12"), TypeError, "'12'"),
        (lambda i: i.explain_all("x", "12"), TypeError, "'12'"),
        (lambda i: i.get([2**70]), ValueError, "64 bits"),
        (lambda i: i.add(["x"], ids=["a"], metadata={"a": 1}), TypeError, "list of dictionaries, got dict"),
        (lambda i: i.search("x", candidates=0), ValueError, "candidates must be at least 1, got 0"),
        (lambda i: i.search_sentences("x", candidates=9), ValueError, "candidates=9 must be at least k=10"),
    ],
)
def test_what_is_refused_changes_nothing(call: Any, kind: type[Exception], part: str) -> None:
    index = TextIndex.build(TEXTS, HashEncoder(), ids=IDS)
    before = state(index)
    with pytest.raises(kind, match=part):
        call(index)
    assert state(index) == before


def test_a_saved_index_is_whole(index: TextIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    loaded = TextIndex.load(tmp_path / "index", HashEncoder())
    assert list(loaded) == list(index)
    assert ids(loaded.search("red apple")) == ids(index.search("red apple"))
    loaded.add(["one more"], ids=["more"])
    loaded.save(tmp_path / "index")
    loaded.update(["other words"], ids=["more"])
    loaded.index.save(tmp_path / "copy")  # with the new texts
    copied = TextIndex.load(tmp_path / "copy", HashEncoder())
    assert state(copied) == state(loaded) and ids(copied.search("other words", k=1)) == ["more"]
    loaded.index.delete(["more"])
    for save in (loaded.save, loaded.index.save):
        with pytest.raises(ValueError, match="5 texts and 4 sets"):
            save(tmp_path / "index")
    vectors = MuveraIndex.load(tmp_path / "index")
    with pytest.raises(IndexFolderError, match="contains texts"):
        vectors.save(tmp_path / "index")
    vectors.save(tmp_path / "vectors")
    with pytest.raises(ValueError, match="without texts"):
        TextIndex.load(tmp_path / "vectors")
    assert len(TextIndex.load(tmp_path / "index", HashEncoder())) == 5


@pytest.mark.parametrize("name", ["http://127.0.0.1:1/x#m", "pylate:/tmp/model", "fastembed:x", "minilm"])
def test_a_folder_loads_only_built_in_encoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    loaded: list[str] = []

    def load(name: str) -> HashEncoder:
        loaded.append(name)
        return HashEncoder(name=name)

    monkeypatch.setattr("muvera.texts.encoders.registry.load_text_encoder", load)
    TextIndex.build(TEXTS, HashEncoder(name=name), path=tmp_path / "index")
    if name == "minilm":
        TextIndex.load(tmp_path / "index")
    else:
        with pytest.raises(ValueError, match=f"{name}.*encoder="):
            TextIndex.load(tmp_path / "index")
        assert loaded == []
        TextIndex.load(tmp_path / "index", name)
    assert loaded == [name]
    with pytest.raises(ValueError, match=f"{name}.*got 'hash'"):
        TextIndex.load(tmp_path / "index", HashEncoder())


@pytest.mark.parametrize("copy", [pickle.dumps, deepcopy], ids=["pickle", "deepcopy"])
def test_an_index_is_not_pickled_or_copied(index: TextIndex, copy: Callable[[Any], object]) -> None:
    with pytest.raises(TypeError, match=r"TextIndex cannot be pickled or copied, .* load the folder"):
        copy(index)
    with pytest.raises(TypeError, match=r"MuveraIndex cannot be pickled or copied, .* load the folder"):
        copy([index.index])


def test_building_into_a_folder(tmp_path: Path) -> None:
    index = TextIndex.build([], HashEncoder(), path=tmp_path / "index")
    assert (len(index), index.search("x")) == (0, [])
    with pytest.raises(FileExistsError):
        TextIndex.build(TEXTS, HashEncoder(), path=tmp_path / "index")
    for save in (index.save, index.index.save, lambda path: TextIndex.build([], HashEncoder(), path=path)):
        with pytest.raises(ValueError, match="muvera load"):
            save("postgresql://u:p@h/d")
    loaded = TextIndex.load(tmp_path / "index", HashEncoder())
    loaded.add(["word"])
    assert ids(loaded.search("word")) == [0]
    TextIndex.build(TEXTS[:1], HashEncoder(), path=tmp_path / "index", overwrite=True)
    assert len(TextIndex.load(tmp_path / "index", HashEncoder())) == 1


@pytest.mark.parametrize("tokens", ["float16", "int8"])
def test_a_build_into_a_folder_moves_token_vectors_to_files(
    tokens: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muvera.index.token_store._STAGING_BYTES", 1 << 12)
    texts = [f"text {number} of {number % 7} about {number % 11}" for number in range(300)]
    index = TextIndex.build(texts, HashEncoder(8), path=tmp_path / "index", tokens=tokens)
    [store] = index.index.contents.tokens.stores
    assert all(tmp_path / "index" in segment.path.parents for segment in store.segments if segment.path)
    assert all(segment.path for segment in store.segments)
    in_memory = TextIndex.build(texts, HashEncoder(8), tokens=tokens)
    loaded = TextIndex.load(tmp_path / "index", HashEncoder(8))
    for query in ("text 5", "about 3"):
        assert index.search(query) == in_memory.search(query) == loaded.search(query)
    assert list(tmp_path.iterdir()) == [tmp_path / "index"]


def test_one_string_is_no_collection_to_rank() -> None:
    index = TextIndex.build(["a cat"], HashEncoder())
    with pytest.raises(TypeError, match="texts must be several strings, got one: 'abc'"):
        index.rerank("cat", "abc")


def test_an_unknown_argument_of_sentences_names_the_method() -> None:
    index = TextIndex.build(["a cat"], HashEncoder())
    with pytest.raises(TypeError, match=r"search_sentences\(\) has no argument 'bar'"):
        index.search_sentences("cat", bar=1)  # type: ignore[call-overload]


def test_ids_that_no_database_stores_are_unknown() -> None:
    database = TextIndex.build(["a cat"], HashEncoder()).texts.database  # type: ignore[attr-defined]
    for id in (2**63, -(2**63) - 1, "\ud800"):
        assert database.get([id], missing="ignore") == []
        with pytest.raises(KeyError, match="is not in the index"):
            database.get([id])
