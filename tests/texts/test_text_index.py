"""TextIndex: texts in, answers out; changes are whole, folders too, filters are pushed down."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.text_encoders import HashEncoder

from muvera import MuveraIndex, TextIndex
from muvera.data.multivectors import MultiVectors
from muvera.index.hybrid import SparseVectors
from muvera.index.two_stage_search import MIN_FIT_DOCUMENTS
from muvera.metadata.filters import FilterError
from muvera.texts.database import TextDocument

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


def ids(hits: list[Any]) -> list[Any]:
    return [hit.id for hit in hits]


def test_texts_in_answers_out(index: TextIndex) -> None:
    hits = index.search("red apple")
    assert ids(hits)[:2] == ["apple", "pear"]
    assert hits[0].score == pytest.approx(2, abs=1e-5)
    assert (hits[0].text, hits[0].metadata) == (TEXTS[1], METADATA[1])
    assert hits[0].to_dict()["id"] == "apple"
    assert [ids(one)[0] for one in index.search(["lazy dog", "rows in pages"], k=1)] == ["fox", "db"]
    assert index.search([]) == []
    assert len(index.search("red", k=100)) == 4  # what there is


def test_vectors_are_those_for_the_number_of_texts() -> None:
    texts = [f"text number {i} of {i % 7} kinds" for i in range(MIN_FIT_DOCUMENTS)]
    encoder = HashEncoder(24)  # whose moments are longer than the 256 floats
    many = TextIndex.build(texts, encoder, exact_tokens=0).index.info().encoder
    assert (many["encoder"], many["vector_dimension"]) == ("mean", 256)
    few = TextIndex.build(texts[:-1], encoder, exact_tokens=0).index.info().encoder
    chosen = TextIndex.build(texts, encoder, exact_tokens=0, config="default").index.info().encoder
    assert few["encoder"] == chosen["encoder"] == "fde"


class SpecialTokens(HashEncoder):
    """Puts a token before every text, as models do; with it, a blank text is like any other."""

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        return super().encode_documents([f"cls {text}" for text in texts])


def test_blank_texts_are_kept_and_never_found() -> None:
    index = TextIndex.build([*TEXTS, "  ", ""], SpecialTokens(), ids=[*IDS, "spaces", "none"])
    index.add(["\n"], ids=["line"])
    index.update(["\t"], ids=["db"])
    assert set(ids(index.search("red apple", k=10))) == {"fox", "apple", "pear"}
    assert len(index) == 7 and [one.text for one in index.get(["spaces", "db"])] == ["  ", "\t"]
    for query in ("fox", " "):
        with pytest.raises(ValueError, match="is blank: it has no words to explain"):
            index.explain(query, "spaces" if query == "fox" else "fox")
    assert len(TextIndex.build([" "], SpecialTokens())) == 1


@pytest.mark.parametrize(
    "settings",
    [{}, {"unit": "sentence"}, {"words": 5}, {"words": 5, "weights": {"maxsim": 1.0, "words": 1.0}}],
)
def test_a_blank_query_finds_nothing(settings: Any) -> None:
    index = TextIndex.build(TEXTS, SpecialTokens(), ids=IDS)
    assert index.search("  ", explain=not settings, **settings) == []
    blank, other = index.search(["\n", "lazy dog"], k=1, **settings)
    assert blank == [] and ids(other) == ["fox"]


def test_filters_are_pushed_down(index: TextIndex) -> None:
    assert set(ids(index.search("red", where={"kind": "fruit"}))) == {"apple", "pear"}
    assert ids(index.search("red", where={"kind": "fruit", "year": {"$lt": 2010}})) == ["apple"]
    assert index.search("red", where={"kind": "stone"}) == []
    with pytest.raises(FilterError, match=r"no operator '\$near'"):
        index.search("red", where={"year": {"$near": 2000}})


def test_sentences_compete_with_their_texts(index: TextIndex) -> None:
    best = index.search_sentences("ripe", alpha=0.0)[0]
    assert (best.id, best.text, best.span) == ("apple", "It was ripe.", (32, 44))
    assert TEXTS[1][32:44] == "It was ripe."
    assert best.score == pytest.approx(1, abs=1e-5)
    with_text = index.search_sentences("ripe", alpha=1.0)[0]
    assert with_text.score == pytest.approx(2, abs=1e-5)


def test_texts_that_share_words_are_candidates_too() -> None:
    class Deaf(HashEncoder):
        """Knows words in queries by other vectors than in documents."""

        def encode_queries(self, texts: Sequence[str]) -> MultiVectors:
            return self.encode_documents([f"{text} x" for text in texts])

    index = TextIndex.build(
        [f"filler number {i}" for i in range(300)] + ["the word zebra"],
        Deaf(),
        config="default",
        exact_tokens=0,
    )
    hits = index.search("zebra", k=1, candidates=1, words=10)
    assert ids(hits) == [300]


def test_weights_order_by_words_and_by_other_sources() -> None:
    texts = ["a red apple", "a red red pear", "the blue sky", "a zebra"]
    index = TextIndex.build(texts, HashEncoder(), ids=["a", "b", "c", "d"])
    sparse = SparseVectors([{"x": 1.0}, {"x": 3.0}, {"y": 1.0}, {"y": 2.0}], ids=["a", "b", "c", "d"])
    rankings = {"sparse": sparse.search([{"y": 1.0}, {"x": 1.0}])}
    weights = {"maxsim": 0.0, "sparse": 1.0}
    found = index.search(["red", "sky"], 2, rankings=rankings, weights=weights, method="sum")
    assert [[hit.id for hit in hits] for hits in found] == [["d", "c"], ["b", "a"]]
    only = index.search(["red", "sky"], 1, rankings=rankings, weights=weights, method="sum", ids=["a", "c"])
    assert [[hit.id for hit in hits] for hits in only] == [["c"], ["a"]]
    by_words = index.search("zebra sky", 1, words=9, weights={"maxsim": 0.0, "words": 1.0})
    assert by_words[0].id in ("c", "d")
    with pytest.raises(ValueError, match="'words' is the name of BM25's ranking"):
        index.search("red", words=9, rankings={"words": sparse.search([{"x": 1.0}])})
    with pytest.raises(ValueError, match="weights must be of the sources maxsim, words"):
        index.search("red", words=9, weights={"bm25": 1.0})


def test_an_explanation_names_words_and_sentences(index: TextIndex) -> None:
    found = index.explain("ripe apples, red", "apple")
    by_word = {
        found.query[a:b]: TEXTS[1][slice(*match.document)]
        for match in found.matches
        for a, b in [match.query]
    }
    assert (by_word["ripe"], by_word["red"]) == ("ripe", "red")
    assert found.score == pytest.approx(sum(match.similarity for match in found.matches), abs=1e-4)
    assert [TEXTS[1][one.start : one.stop] for one in found.sentences] == TEXTS[1].replace(". ", ".\n").split(
        "\n"
    )
    shown = found._repr_html_()
    assert "<mark" in shown
    assert found.to_dict()["score"] == found.score
    with pytest.raises(KeyError, match="id 'x' is not in the index"):
        index.explain("red", "x")
    hit = index.search("ripe", k=1, explain=True)[0]
    assert "<mark" in hit._repr_html_()
    assert hit.to_dict()["explanation"]["score"] == pytest.approx(hit.score, abs=1e-5)
    assert "<mark" not in index.search("ripe", k=1)[0]._repr_html_()


def test_markup_in_texts_is_shown_as_text() -> None:
    index = TextIndex.build(['<script>alert(1)</script> & "quotes"'], HashEncoder())
    shown = index.explain("alert <b>", 0).to_html()
    assert "<script>" not in shown
    assert "&lt;" in shown
    assert "&amp;" in shown


def test_encoders_without_positions_say_so() -> None:
    class Silent(HashEncoder):
        def token_spans(self, text: str, side: Any) -> None:
            return None

    index = TextIndex.build(TEXTS, Silent())
    assert len(index.search("red")) == 4
    with pytest.raises(ValueError, match="hash does not say which characters"):
        index.explain("red", 1)
    with pytest.raises(ValueError, match="hash does not say which characters"):
        index.search_sentences("red")


def test_adding_updating_deleting(index: TextIndex) -> None:
    assert index.add(["blue whale"], ids=["whale"], metadata=[{"kind": "animal"}]) == ["whale"]
    assert set(ids(index.search("x", where={"kind": "animal"}))) == {"fox", "whale"}
    index.update(["grey whale", "tables"], ids=["whale", "db"], metadata=[{}, {"kind": "tool"}])
    assert index.get(["db", "whale"]) == [
        TextDocument("db", "tables", {"kind": "tool"}),
        TextDocument("whale", "grey whale", {}),
    ]
    assert ids(index.search("grey", k=1)) == ["whale"]
    index.delete(["whale", "fox"])
    assert (len(index), "fox" in index, ids(list(index))) == (3, False, ["apple", "pear", "db"])
    with pytest.raises(KeyError, match="'fox' is not in the index"):
        index.delete(["pear", "fox"])
    index.delete(["pear", "fox"], missing="ignore")
    assert ids(list(index)) == ["apple", "db"]


def test_integers_go_on_where_none_are_given() -> None:
    index = TextIndex.build(TEXTS[:2], HashEncoder())
    assert index.add(TEXTS[2:]) == [2, 3]
    assert index.get([3])[0].text == TEXTS[3]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda i: i.add(["x"], ids=["fox"]), ValueError, "'fox' is in the index already"),
        (lambda i: i.add(["x"], ids=["a", "b"]), ValueError, "There are 2 ids for 1 texts"),
        (lambda i: i.add(["x"], ids=["new"], metadata=[{"a.b": 1}]), ValueError, "the key 'a.b'"),
        (
            lambda i: i.add([np.ones((2, 16))], ids=["new"]),
            TypeError,
            r"texts\[0\] must be a string, got ndarray",
        ),
        (lambda i: i.update(["x"], ids=["new"], metadata=[{"a": {1}}]), TypeError, "set is no value of JSON"),
        (lambda i: i.search(3), TypeError, "queries must be a string or strings, got int"),
        (lambda i: i.search("x", k=0), ValueError, "k must be at least 1"),
    ],
)
def test_what_is_refused_changes_nothing(
    index: TextIndex, change: Any, kind: type[Exception], message: str
) -> None:
    before = (list(index), index.index.ids.tolist())
    with pytest.raises(kind, match=message):
        change(index)
    assert (list(index), index.index.ids.tolist()) == before


def test_a_saved_index_is_whole(index: TextIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    loaded = TextIndex.load(tmp_path / "index", HashEncoder())
    assert list(loaded) == list(index)
    assert ids(loaded.search("red apple")) == ids(index.search("red apple"))
    loaded.add(["one more"], ids=["more"])
    loaded.save(tmp_path / "index")
    assert len(TextIndex.load(tmp_path / "index", HashEncoder())) == 5
    # The vectors alone can be used, too.
    assert len(MuveraIndex.load(tmp_path / "index")) == 5


def test_vectors_saved_alone_lose_no_texts(index: TextIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    vectors = MuveraIndex.load(tmp_path / "index")
    vectors.save(tmp_path / "index")
    assert len(TextIndex.load(tmp_path / "index", HashEncoder())) == 4


def test_loading_checks_the_encoder_and_the_kind(index: TextIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "index")
    with pytest.raises(ValueError, match="was built with the encoder 'hash', got 'other'"):
        TextIndex.load(tmp_path / "index", HashEncoder(name="other"))
    with pytest.raises(ValueError, match="There is no text encoder 'hash'"):
        TextIndex.load(tmp_path / "index")
    MuveraIndex.build(MultiVectors.from_arrays([np.ones((2, 4))])).save(tmp_path / "vectors")
    with pytest.raises(ValueError, match="is an index of token vectors without texts"):
        TextIndex.load(tmp_path / "vectors")


def test_building_into_a_folder(tmp_path: Path) -> None:
    TextIndex.build(TEXTS, HashEncoder(), path=tmp_path / "index")
    with pytest.raises(FileExistsError, match="Give another name, or overwrite=True"):
        TextIndex.build(TEXTS, HashEncoder(), path=tmp_path / "index")
    TextIndex.build(TEXTS[:1], HashEncoder(), path=tmp_path / "index", overwrite=True)
    assert len(TextIndex.load(tmp_path / "index", HashEncoder())) == 1
    with pytest.raises(ValueError, match="ids must be all different"):
        TextIndex.build(TEXTS[:2], HashEncoder(), ids=["a", "a"])


def test_texts_without_words_are_kept_and_never_found() -> None:
    index = TextIndex.build(["...", "word"], HashEncoder())
    assert ids(index.search("word")) == [1]
    assert index.get([0])[0].text == "..."
    assert index.search("?") == []


def test_an_empty_index_can_be_filled_and_emptied(tmp_path: Path) -> None:
    index = TextIndex.build([], HashEncoder(), path=tmp_path / "index")
    assert (len(index), index.search("x")) == (0, [])
    loaded = TextIndex.load(tmp_path / "index", HashEncoder())
    loaded.add(["word"], ids=["a"])
    assert ids(loaded.search("word")) == ["a"]
    loaded.delete(["a"])
    assert loaded.search("word") == []
