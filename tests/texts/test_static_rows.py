"""Texts of an encoder with a table: stored as rows, ranked, changed, rebuilt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.paths import GOLDEN
from builders.text_encoders import HashEncoder, SignTable
from numpy.typing import NDArray

from muvera import MuveraIndex, TextIndex, load_text_encoder
from muvera.texts.encoders.base import TableEncoder
from muvera.texts.words import counted_words

WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdklmnrst"]


class WordTable(TableEncoder):
    """Each known word is a row; other words are left out."""

    passage = 8

    def __init__(self, name: str = "words", seed: int = 0) -> None:
        self.name = name
        rows = np.random.default_rng(seed).normal(size=(len(WORDS), 16)).astype(np.float32)
        super().__init__(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        self._rows = {word: i for i, word in enumerate(WORDS)}

    def document_rows(self, texts: Sequence[str]) -> list[list[int]]:
        return [[self._rows[word] for word in text.split() if word in self._rows] for text in texts]

    def query_matrices(self, texts: Sequence[str]) -> list[NDArray[np.float32]]:
        return [self.table[np.array(rows, np.int64)] for rows in self.document_rows(texts)]


def some_texts(count: int, seed: int = 0, longest: int = 30) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest))) for _ in range(count)]


TEXTS = some_texts(600)


@pytest.fixture
def built() -> TextIndex:
    return TextIndex.build(TEXTS, WordTable())


def test_texts_are_rows_and_every_text_is_ranked(built: TextIndex) -> None:
    info = built.info()
    assert (info.token_codec["codec"], info.token_codec["bytes_per_token"]) == ("table", 2)
    assert info.vectors is None
    query = " ".join(WORDS[5:60:7])
    hits = built.search(query, 600, words=0, mean=0, candidates=600)
    assert len(hits) == 600
    again = built.search(query, 20, words=0, mean=0, recall=0.9)
    assert [hit.id for hit in again] == [hit.id for hit in hits[:20]]
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_a_long_text_has_the_similarity_of_its_best_passage() -> None:
    encoder = WordTable()
    query, filler = WORDS[:4], WORDS[100:130]
    short, long = " ".join(query), " ".join([*filler, *query, *filler])
    index = TextIndex.build([*TEXTS, short, long], encoder)
    parts = {hit.id: hit.parts["maxsim"] for hit in index.search(short, 602, candidates=602)}
    [matrix] = encoder.query_matrices([short])
    # Blocks of 4 from the beginning, two of them in a passage.
    rows = np.array(encoder.document_rows([long])[0])
    passages = [rows[start : start + 8] for start in range(0, len(rows) - 4, 4)]
    wanted = max((matrix @ encoder.table[own].T).max(axis=1).sum(dtype=np.float64) for own in passages)
    assert parts[600] == pytest.approx(4)
    assert parts[601] == pytest.approx(wanted)


def test_answers_are_the_same_for_one_query_and_many_and_any_threads(built: TextIndex) -> None:
    queries = some_texts(40, 1, 9)
    together = built.search(queries, 5, threads=3)
    for query, hits in zip(queries, together, strict=True):
        alone = built.search(query, 5, threads=1)
        assert [(hit.id, hit.score) for hit in alone] == [(hit.id, hit.score) for hit in hits]


def test_ids_and_conditions_restrict_the_search() -> None:
    metadata = [{"even": i % 2 == 0} for i in range(len(TEXTS))]
    index = TextIndex.build(TEXTS, WordTable(), metadata=metadata)
    query = TEXTS[3]
    assert index.search(query, 1)[0].id == 3
    assert {hit.id % 2 for hit in index.search(query, 50, where={"even": True})} == {0}
    assert next(hit.id for hit in index.search(query, 50, ids=[9, 3, 7777])) == 3
    assert index.search(query, ids=[]) == []


def test_changes_are_seen_at_once_and_survive_a_crash(tmp_path: Path) -> None:
    TextIndex.build(TEXTS, WordTable(), path=tmp_path / "index")
    with TextIndex.open(tmp_path / "index", WordTable()) as index:
        index.delete([3])
        index.add(["bab dad kab"], ids=[9000])
        index.update(["tot tot tak"], ids=[5])
        loaded = TextIndex.load(tmp_path / "index", WordTable())  # from the journal
        for state in (index, loaded):
            assert 3 not in [hit.id for hit in state.search(TEXTS[3], 600)]
            assert state.search("bab dad kab", 1)[0].id == 9000
            assert state.search("tot tak", 1)[0].id == 5
        index.rebuild()
    assert TextIndex.load(tmp_path / "index", WordTable()).search("tot tak", 1)[0].id == 5


def test_another_table_or_an_encoder_without_one_is_refused(tmp_path: Path) -> None:
    TextIndex.build(TEXTS, WordTable(), path=tmp_path / "index")
    with pytest.raises(ValueError, match=r"checksum .* build the index again"):
        TextIndex.load(tmp_path / "index", WordTable(seed=1))
    with pytest.raises(
        ValueError, match="stores tokens as rows of a table, but the encoder 'words' has none"
    ):
        TextIndex.load(tmp_path / "index", HashEncoder(16, "words"))
    vectors = MuveraIndex.load(tmp_path / "index")
    with pytest.raises(ValueError, match=r"Load the index with TextIndex\.load"):
        vectors.tokens([0])


def test_rebuild_turns_the_int8_codes_of_an_older_version_into_rows(tmp_path: Path) -> None:
    old = TextIndex.build(TEXTS, WordTable(), tokens="int8", path=tmp_path / "index")
    assert old.info().token_codec["codec"] == "int8"
    old.delete([0])
    new = TextIndex.build(TEXTS[1:], WordTable(), ids=list(range(1, 600)))
    old.rebuild()
    old.save(tmp_path / "new")
    for index in (old, TextIndex.load(tmp_path / "new", WordTable())):
        assert index.info().token_codec["codec"] == "table"
        found, wanted = (one.search(TEXTS[7], 9) for one in (index, new))
        assert [(hit.id, hit.score) for hit in found] == [(hit.id, hit.score) for hit in wanted]
    texts: Any = old.texts
    assert not texts.database.has_means


@pytest.mark.parametrize("query", ["", "  ", "unknown words only"])
def test_a_query_without_known_tokens_has_no_hits(built: TextIndex, query: str) -> None:
    built.add(["unknown words", ""], ids=[1000, 1001])
    assert built.search(query) == []


def test_a_lone_surrogate_and_a_row_beyond_the_table_change_nothing(built: TextIndex) -> None:
    with pytest.raises(ValueError, match="lone surrogate"):
        built.add(["bab \ud800"])
    encoder: Any = built.encoder
    encoder._rows["wrong"] = 10**6
    with pytest.raises(ValueError, match="row 1000000 of a table with only 540 rows"):
        built.add(["bab wrong"])
    assert len(built) == len(TEXTS)
    assert built.search("bab")


def test_explanations_and_sentences_use_rows() -> None:
    pytest.importorskip("wordllama")
    index = TextIndex.build(["An apple is red. The sky was blue.", "A pear is green.", ""])
    [hit, *_] = index.search("red apple", explain=True)
    assert hit.explanation is not None
    assert ("apple", "apple") in [words[:2] for words in hit.explanation.words()]
    assert index.search_sentences("blue sky", 1)[0].text == "The sky was blue."


def test_static_reads_words_as_its_tokenizer_reads_whole_texts() -> None:
    pytest.importorskip("wordllama")
    encoder: Any = load_text_encoder("static")
    texts = [
        "a  b",
        " a",
        "a ",
        "a   ",
        "a\n\n b\t c",
        "x <s> y",
        "</s>",
        "日本語 テスト",
        "▁a b▁c",
        "a" * 1_000_000,
    ]
    texts += [
        "é" * 50,
        "a\u00a0b",
        "<unk>",
        "  a",
        "<s>  a b ",
        "\x00 a",
        "The cat's toy, 3.5% off (e.g. here)!",
    ]
    whole = encoder._tokenizer.encode_batch(texts, add_special_tokens=False)
    assert encoder.document_rows(texts) == [encoding.ids for encoding in whole]


def test_a_model2vec_folder_is_read_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    tokenizers = pytest.importorskip("tokenizers")
    rows = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float16)
    vocabulary = {"[UNK]": 0, "red": 1, "apple": 2, "green": 3, "pear": 4}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        load_text_encoder(f"model2vec:{tmp_path}")
    safetensors.save_file({"vectors": rows}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match='no matrix "embeddings", only vectors'):
        load_text_encoder(f"model2vec:{tmp_path}")
    safetensors.save_file({"embeddings": rows[:3]}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="vectors of 3 tokens, but its tokenizer has 5"):
        load_text_encoder(f"model2vec:{tmp_path}")
    safetensors.save_file({"embeddings": rows}, tmp_path / "model.safetensors")
    encoder: Any = load_text_encoder(f"model2vec:{tmp_path}")
    assert encoder.document_rows(["a red apple"]) == [[1, 2]]
    assert encoder.token_spans("a red apple", "document") == [(2, 5), (6, 11)]
    index = TextIndex.build(["a red apple", "a green pear"], encoder)
    assert index.search("pear", 1)[0].id == 1


def test_stop_words_of_a_query_count_only_if_there_are_no_others() -> None:
    assert counted_words("the red red apple of the tree") == {"red": 2, "apple": 1, "tree": 1}
    assert counted_words("the who") == {"the": 1, "who": 1}  # nothing else is left
    assert counted_words("wie wird der Baum") == {"baum": 1}
    assert counted_words("die hard") == {"die": 1, "hard": 1}
    assert json.dumps(counted_words("x " * 100)) == '{"x": 100}'


def test_words_of_a_query_count_as_often_as_they_occur() -> None:
    texts: Any = TextIndex.build(["red apple", "blue apple blue sky"], WordTable()).texts
    database = texts.database
    once, twice = (dict(database.match_words(text, 9))[0] for text in ("red", "red red"))
    assert twice == pytest.approx(2 * once)
    restricted = dict(database.match_words("red red", 9, ids=[0]))[0]
    assert restricted == pytest.approx(twice)


def test_reranking_long_texts_gives_the_parts_of_a_search(built: TextIndex) -> None:
    texts = some_texts(40, seed=1, longest=60)  # a passage has 8 tokens
    query = " ".join(WORDS[5:60:7])
    found = built.rerank(query, texts, 10)
    expected = TextIndex.build(texts, WordTable()).search(query, 10)
    assert [hit.id for hit in found] == [hit.id for hit in expected]
    for one, two in zip(found, expected, strict=True):
        assert one.parts == pytest.approx(two.parts, abs=0.02)  # means of rounded products


def test_a_stored_index_of_rows_is_read() -> None:
    index = TextIndex.load(GOLDEN / "texts" / "rows", SignTable())
    expected = json.loads((GOLDEN / "texts" / "rows.json").read_text())
    found = [[hit.id, hit.parts] for hit in index.search("red pears with green leaves", 5)]
    assert [id for id, _ in found] == [id for id, _ in expected]
    for (_, one), (_, two) in zip(found, expected, strict=True):
        assert one == pytest.approx(two, rel=1e-5)
    assert index.info().token_codec["codec"] == "table"
