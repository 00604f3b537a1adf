"""``muvera texts``: index, change, read and search."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from builders.command_line import answer, fails, muvera, set_terminal, some_texts
from builders.text_encoders import LIMIT, HashEncoder, ShortModel, SignTable
from typer.testing import CliRunner

from muvera import FDEConfig, TextIndex
from muvera.cli import app, printing
from muvera.cli.hits import hits_text
from muvera.cli.texts import changes
from muvera.texts.encoders import registry
from muvera.texts.hit import Hit, TextExplanation, WordMatch

CSV = """url,title,body,year
a,Fruit,"A red apple fell, and it was ripe.",2001
b,Colors,A green pear.,2015
c,,The blue whale sings.,
"""
COLUMNS = ("--text", "title,body", "--id", "url")
HASH = ("--encoder", "hash")


class Encoder(HashEncoder):
    """Counts the texts that it encodes, and is interrupted after a number of them."""

    encoded: ClassVar[list[str]] = []
    stop: ClassVar[int | None] = None

    def encode_documents(self, texts: Any) -> Any:
        Encoder.encoded += texts
        if Encoder.stop is not None and len(Encoder.encoded) > Encoder.stop:
            raise KeyboardInterrupt
        return super().encode_documents(texts)


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load the encoder "hash" by its name."""
    monkeypatch.setattr(registry, "load_text_encoder", lambda name: Encoder(name=name))
    Encoder.encoded, Encoder.stop = [], None


@pytest.fixture
def index(tmp_path: Path) -> Path:
    (tmp_path / "pages.csv").write_text(CSV)
    code, out, err = muvera("texts", "index", tmp_path / "pages.csv", tmp_path / "index", *COLUMNS, *HASH)
    assert code == 0, err
    assert "encoded by hash" in " ".join(out.split()) and not (tmp_path / "index.encoded").exists()
    return tmp_path / "index"


def documents(index: Path, *arguments: object) -> dict[Any, Any]:
    listed = answer("texts", "list", index, *arguments)["documents"]
    return {row["id"]: (row["text"], row["metadata"]) for row in listed}


def test_search_prints_metadata_and_obeys_a_condition(index: Path) -> None:
    found = answer("texts", "search", index, "apple", *HASH, "-k", 1)["hits"]
    assert [hit["id"] for hit in found] == ["a"]
    assert found[0]["metadata"] == {"title": "Fruit", "year": 2001}
    found = answer("texts", "search", index, "pear", *HASH, "--where", '{"year": {"$lt": 2010}}')["hits"]
    assert [hit["id"] for hit in found] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--where", "{"], "it must be JSON, such as"),
        (["--where", "[1]"], 'it must be a JSON object, such as {"year": {"$gte": 2000}}, got [1].'),
        (["-k", 0], "'--k' / '-k'"),
        (["-k", "x"], "'--k' / '-k'"),
        (["--words", "x"], "'--words'"),
    ],
)
def test_a_wrong_value_of_an_option_is_named(index: Path, arguments: list[Any], sentence: str) -> None:
    error = fails("texts", "search", index, "pear", *HASH, *arguments)
    assert sentence in error and "Input should" not in error  # as pydantic says


def test_search_finds_the_best_text_of_each_value(index: Path, tmp_path: Path) -> None:
    (tmp_path / "new.jsonl").write_text('{"id": "d", "text": "A sour pear.", "title": "Colors"}\n')
    answer("texts", "add", index, tmp_path / "new.jsonl", *HASH)
    search = ("texts", "search", index, "pear", *HASH, "--group-by")
    whole = answer(*search[:-1])["hits"]
    titles = [hit["metadata"].get("title", hit["id"]) for hit in whole]
    wanted = [hit for i, hit in enumerate(whole) if titles[i] not in titles[:i]]
    assert answer(*search, "title")["hits"] == wanted and len(wanted) < len(whole)
    assert "--group-by names the field 'brand'" in fails(*search, "brand")


def test_search_of_sentences(index: Path) -> None:
    sentence = ("--unit", "sentence", "-k", 1, "--words", 0.3)
    (hit,) = answer("texts", "search", index, "pear", *HASH, *sentence)["hits"]
    assert hit["id"] == "b" and set(hit["parts"]) == {"maxsim", "text"}


LONG = "/".join(["a-folder-with-a-long-name"] * 5) + "?title=All the words of a rather long path"


@pytest.mark.parametrize("width", [20, 80, 300])
def test_without_a_terminal_no_line_is_wrapped_or_cut(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any width in the environment, also of code and of long texts."""
    monkeypatch.setenv("COLUMNS", str(width))
    text = "def f():\n    return {}  # two  spaces\n\n" + "many words " * 100 + "end"
    row = {"id": "p", "title": LONG, "text": text, "place": LONG}
    source, folder = tmp_path / "p.json", tmp_path / LONG.replace("/", "-")
    source.write_text(json.dumps([row]))
    assert muvera("texts", "index", source, folder, "--text", "text", *HASH)[1].count("\n") == 1
    found, got, listed = (
        muvera("texts", *arguments)[1]
        for arguments in (("search", folder, "many", *HASH), ("get", folder, "p"), ("list", folder))
    )
    whole = "\n".join(line and f"    {line}" for line in text.splitlines())
    assert whole in found and found.startswith(f" 1  {LONG}  ")
    assert f"\n    place: {LONG}\n{whole}\n" in got
    assert listed == f"p  {LONG}\n"


@pytest.mark.parametrize("width", [40, 80])
def test_on_a_terminal_every_line_fits(index: Path, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    set_terminal(monkeypatch, width)
    for arguments in (
        ("search", index, "red apple", *HASH, "--explain"),
        ("get", index, "a"),
        ("list", index),
    ):
        lines = muvera("texts", *arguments)[1].splitlines()
        assert lines and max(len(line) for line in lines) <= width


def test_search_explains_within_80_columns(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_terminal(monkeypatch, 80)
    code, out, _ = muvera("texts", "search", index, "red apple", *HASH, "--explain")
    assert code == 0 and "red=red 1.00, apple=apple 1.00" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80


def test_search_reads_typed_queries(index: Path) -> None:
    code, out, _ = muvera("texts", "search", index, *HASH, typed="green pear\nwhale\n\n")
    assert code == 0 and out.index("green") < out.index("whale")


def test_wrong_queries_and_weights(index: Path) -> None:
    assert "The question is blank" in fails("texts", "search", index, " ", *HASH)
    assert "--words must be finite, got nan" in fails("texts", "search", index, "a", *HASH, "--words", "nan")


def test_list(index: Path) -> None:
    assert documents(index, "--where", '{"title": "Colors"}') == {
        "b": ("Colors\nA green pear.", {"title": "Colors", "year": 2015})
    }
    assert list(documents(index, "-k", 1, "--offset", 1)) == ["b"]
    assert muvera("texts", "list", index, "--offset", 9)[2] == "0 of 3 texts\n"


def test_get(index: Path) -> None:
    code, out, _ = muvera("texts", "get", index, "c", "a")
    assert code == 0 and out.index("whale") < out.index("year: 2001") < out.index("apple")
    assert "'x'" in fails("texts", "get", index, "x")


def test_a_condition_that_cannot_match_is_explained(index: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="the lancedb extra is not installed")
    url = f"lancedb:{tmp_path / 'lance'}#pages"
    assert muvera("load", index, "--to", url)[0] == 0
    some_texts(4).save(tmp_path / "queries")
    for where, warning in (
        ({"yaer": 2001, "$not": {"title": "Fruit"}}, "names the field 'yaer', which no document has"),
        ({"year": "2001"}, "compares 'year' with a string, but every document has a number there"),
        ({"title": {"$in": [3, 4]}}, "compares 'title' with a number, but no document has a number there"),
        ({"$or": [{"year": 1999}, {"title": "Plum"}], "year": {"$exists": True}}, ""),
    ):
        for command in (
            ("texts", "search", index, "pear", *HASH),
            ("texts", "search", url, "pear", *HASH),
            ("texts", "list", index),
            ("texts", "delete", index),
            ("search", url, tmp_path / "queries", "--rerank", "none"),
        ):
            code, _, err = muvera(*command, "--where", json.dumps(where))
            assert code == 0 and warning in err and err.count("warning") == bool(warning), command
        assert "4 queries among 3 documents, of which none satisfies --where, in" in err
    assert (
        "warning" not in muvera("texts", "list", index, "--where", '{"title": "Fruit", "$not": {"x": 1}}')[2]
    )


def test_wide_characters_fill_two_columns(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_terminal(monkeypatch, 80)
    title, text = "\u679c\u7269" * 60, "\u308a\u3093\u3054" * 50
    (tmp_path / "wide.json").write_text(json.dumps([{"id": "w", "title": title, "text": text}]), "utf-8")
    assert muvera("texts", "add", index, tmp_path / "wide.json", *HASH)[0] == 0
    for arguments in (("search", index, text, *HASH, "--explain"), ("list", index)):
        lines = muvera("texts", *arguments)[1].splitlines()
        assert any("\u679c" in line for line in lines)
        assert max(len(line) + len(re.findall(r"[^\x00-\xff]", line)) for line in lines) <= 80


def test_add(index: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.jsonl"
    new.write_text('{"id": "d", "text": "Green tea", "year": 2020}\n')
    assert answer("texts", "add", index, new, *HASH) == {"index": str(index), "texts": 4, "added": 1}
    assert documents(index)["d"] == ("Green tea", {"year": 2020})
    assert "update" in fails("texts", "add", index, new, *HASH)
    assert answer("texts", "delete", index, "a", "d")["deleted"] == 2
    assert list(documents(index)) == ["b", "c"]


def test_delete(index: Path) -> None:
    assert answer("texts", "delete", index, "a")["deleted"] == 1
    assert answer("texts", "delete", index, "--where", '{"year": 2015}')["texts"] == 1
    assert list(documents(index)) == ["c"]
    assert "'a'" in fails("texts", "delete", index, "a", "c")
    assert "--where" in fails("texts", "delete", index)
    assert "would delete all documents" in fails("texts", "delete", index, "--where", "{}")


@pytest.fixture
def updated(index: Path, tmp_path: Path) -> Callable[..., Any]:
    """Update the index from a file with this content."""
    Encoder.encoded = []

    def update(name: str, content: str, *options: object) -> Any:
        (tmp_path / name).write_text(content)
        return answer("texts", "update", index, tmp_path / name, *options)

    return update


def test_update_of_columns_changes_metadata_without_an_encoder(
    index: Path, updated: Callable[..., Any]
) -> None:
    facts = updated("new.csv", "url,year,price\na,2002,3\nc,1999,2\n", "--id", "url")
    assert (facts["metadata_changed"], facts["replaced"], facts["added"]) == (2, 0, 0)
    assert documents(index) == {
        "a": ("Fruit\nA red apple fell, and it was ripe.", {"title": "Fruit", "year": 2002, "price": 3}),
        "c": ("The blue whale sings.", {"year": 1999, "price": 2}),
        "b": ("Colors\nA green pear.", {"title": "Colors", "year": 2015}),
    }
    assert updated("new.jsonl", '{"id": "a", "year": null, "price": 4}\n')["metadata_changed"] == 1
    assert documents(index)["a"] == (
        "Fruit\nA red apple fell, and it was ripe.",
        {"title": "Fruit", "price": 4},
    )
    assert Encoder.encoded == []


def test_update_encodes_only_texts_that_changed(index: Path, updated: Callable[..., Any]) -> None:
    assert updated("new.csv", "url,text\nb,A yellow pear.\n", "--id", "url", *HASH)["replaced"] == 1
    assert documents(index)["b"] == ("A yellow pear.", {"title": "Colors", "year": 2015})
    table = "url,text,year\nb,A yellow pear.,\nc,The blue whale sings.,2000\n"
    assert updated("new.csv", table, "--id", "url", *HASH)["metadata_changed"] == 2
    assert documents(index)["c"] == ("The blue whale sings.", {"year": 2000})
    assert Encoder.encoded == ["A yellow pear."]


def test_update_replaces_and_adds_and_is_idempotent(index: Path, updated: Callable[..., Any]) -> None:
    rows = [{"url": "a", "year": 2003, "text": "A plum."}, {"url": "z", "text": "New."}]
    lines = "\n".join(map(json.dumps, rows))
    facts = updated("new.jsonl", lines, "--id", "url", *HASH)
    assert (facts["replaced"], facts["added"], facts["unchanged"]) == (1, 1, 0)
    assert updated("new.jsonl", lines, "--id", "url", *HASH)["unchanged"] == 2
    assert documents(index)["a"] == ("A plum.", {"year": 2003})
    assert Encoder.encoded == ["A plum.", "New."]


@pytest.mark.parametrize(
    ("line", "message"), [('{"id": "nowhere", "year": 3}\n', "nowhere"), ('{"text": "no id"}\n', "--id")]
)
def test_update_needs_known_ids(index: Path, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "new.jsonl").write_text(line)
    assert message in fails("texts", "update", index, tmp_path / "new.jsonl", *HASH)


def test_integers_are_ids_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    muvera("texts", "index", tmp_path / "a.txt", tmp_path / "index", *HASH)
    (tmp_path / "b.csv").write_text("id,text\n1,three\n")
    assert answer("texts", "update", tmp_path / "index", tmp_path / "b.csv", *HASH)["replaced"] == 1
    assert answer("texts", "get", tmp_path / "index", 1)["documents"][0]["text"] == "three"
    assert answer("texts", "delete", tmp_path / "index", 0)["texts"] == 1
    assert "not in the index" in fails("texts", "delete", tmp_path / "index", "99")


def test_long_jobs_are_announced(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(printing, "_LONG_JOB", 0.0)
    monkeypatch.setattr(changes, "_FEW_TEXTS", 1)
    (tmp_path / "new.csv").write_text("id,text\n" + "".join(f"{i},A new text {i}.\n" for i in range(40)))
    expected = re.compile(r"^40 texts: this will take about \d+\.\d kB on disk, and about \d+ s\.$", re.M)
    for command in ("add", "update"):
        code, _, err = muvera("texts", command, index, tmp_path / "new.csv", *HASH)
        assert code == 0, err
        assert bool(expected.search(err)) == (command == "add"), err  # all texts are unchanged
    assert expected.search(muvera("texts", "index", tmp_path / "new.csv", tmp_path / "other", *HASH)[2])


def test_an_interrupted_index_continues(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"text number {i}" for i in range(200)))
    Encoder.stop = 150
    code, _, err = muvera("texts", "index", tmp_path / "a.txt", tmp_path / "index", *HASH)
    assert code == 130 and "interrupted" in err and "continue" in err and not (tmp_path / "index").exists()
    before, Encoder.stop, Encoder.encoded = len(set(Encoder.encoded)), None, []
    muvera("texts", "index", tmp_path / "a.txt", tmp_path / "index", *HASH)
    assert before > 150 and len(Encoder.encoded) == 200 - 128
    whole = TextIndex.build([f"text number {i}" for i in range(200)], HashEncoder())
    continued = TextIndex.load(tmp_path / "index", HashEncoder())
    assert continued.search("number 17") == whole.search("number 17")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "index"]


def test_an_interrupted_addition_keeps_whole_batches(index: Path, tmp_path: Path) -> None:
    rows = [{"id": f"n{i}", "text": f"text number {i}"} for i in range(200)]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Encoder.encoded, Encoder.stop = [], 150
    code, _, err = muvera("texts", "add", index, tmp_path / "new.jsonl", *HASH)
    assert code == 130 and "The first 128 of 200 texts to encode are stored. muvera texts update" in err
    Encoder.stop = None
    facts = answer("texts", "update", index, tmp_path / "new.jsonl", *HASH)
    assert (facts["added"], facts["unchanged"], facts["texts"]) == (72, 128, 203)


def test_index_with_wrong_columns_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("body\na b\nc d\n")
    given = ["texts", "index", tmp_path / "a.csv", tmp_path / "index", *HASH]
    assert "--text" in fails(*given)
    assert "muvera load" in fails("texts", "index", tmp_path / "a.csv", "lancedb:x#y", *HASH)
    assert "no column 'x'" in fails(*given, "--text", "x")
    assert not (tmp_path / "index").exists() and not (tmp_path / "index.encoded").exists()


def test_settings_are_stored_with_the_index(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("body\na b\nc d\n")
    given = ["texts", "index", tmp_path / "a.csv", tmp_path / "index", *HASH]
    answer(*given, "--text", "body", "--tokens", "2bit", "--vectors", "mean", "--backend", "exact")
    loaded = TextIndex.load(tmp_path / "index", HashEncoder())
    assert (loaded.index.settings.tokens, loaded.index.settings.backend) == ("2bit", "exact")
    assert loaded.index.config == FDEConfig.preset("mean", 16)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "index"]
    assert "--overwrite" in fails(*given, "--text", "body")


@pytest.fixture
def url(index: Path, tmp_path: Path) -> str:
    """The URL of a database with the texts of `index`."""
    pytest.importorskip("lancedb", reason="the lancedb extra is not installed")
    url = f"lancedb:{tmp_path / 'lance'}#pages"
    assert muvera("load", index, "--to", url)[0] == 0
    return url


def test_texts_in_a_database_are_searched_and_changed(url: str, tmp_path: Path) -> None:
    found = answer("texts", "search", url, "apple", *HASH, "-k", 1)["hits"]
    assert [(hit["id"], hit["metadata"]["year"]) for hit in found] == [("a", 2001)]
    code, out, err = muvera("texts", "search", url, "green pear", *HASH, "--explain")
    assert code == 0 and "green=green" in out and "3 texts" in err
    (tmp_path / "new.csv").write_text("url,text\nd,Green tea\n")
    assert answer("texts", "add", url, tmp_path / "new.csv", "--id", "url", *HASH)["texts"] == 4
    assert answer("texts", "delete", url, "a")["texts"] == 3
    assert answer("texts", "get", url, "d")["documents"][0]["text"] == "Green tea"


def test_tokens_that_are_rows_of_a_table_are_loaded(tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="the lancedb extra is not installed")
    pytest.importorskip("wordllama", reason="the static extra is not installed")
    texts = [f"{word} number {n}" for n, word in enumerate(["apple", "whale", "pear"] * 4)]
    TextIndex.build(texts, "static").save(tmp_path / "index")
    url = f"lancedb:{tmp_path / 'lance'}#static"
    assert answer("load", tmp_path / "index", "--to", url, "--encoder", "mean")["documents"] == 12
    best = answer("texts", "search", url, "whale number 4", "-k", 1)["hits"][0]
    assert best["text"] == "whale number 4"


def test_a_table_of_an_unknown_encoder_is_not_loaded(tmp_path: Path) -> None:
    TextIndex.build(["a b", "c d"], SignTable()).save(tmp_path / "index")
    assert "exact up to" not in muvera("info", tmp_path / "index")[1]  # it has no vectors at any size
    assert "commands load only the tables of" in fails("load", tmp_path / "index", "--to", "lancedb:x#y")


def test_a_collection_of_texts_is_created_by_add(tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="the lancedb extra is not installed")
    rows = [json.dumps({"id": f"n{i}", "text": f"text number {i}"}) for i in range(300)]
    file, url = tmp_path / "a.jsonl", f"lancedb:{tmp_path / 'lance'}#new"
    file.write_text("\n".join(rows[:20]))
    assert "load a text index with muvera load" in fails("texts", "add", url, file, *HASH)
    file.write_text("\n".join(rows))
    assert answer("texts", "add", url, file, *HASH)["texts"] == 300
    assert answer("texts", "search", url, "number 17", *HASH, "-k", 1)["hits"][0]["id"] == "n17"


def test_texts_in_a_database_are_listed_and_described(url: str, tmp_path: Path) -> None:
    assert "collection of texts" in muvera("info", url)[1]
    assert "Omit it" in fails("serve", url, *HASH, "--root", tmp_path)
    assert "does not exist" in fails("info", f"{url}_of_nobody")
    some = ("--where", '{"year": {"$gte": 1}}')
    assert (
        answer("texts", "list", url, *some)["found"] == answer("texts", "delete", url, *some)["deleted"] > 0
    )
    assert "names the field 'brand'" in muvera("texts", "list", url, "--where", '{"brand": 1}')[2]


def test_empty_rows_of_csv_are_counted(index: Path, tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("url,body\nd,A ripe plum.\n,\n,\ne,A fig.\n")
    given = [index, tmp_path / "more.csv", "--text", "body", "--id", "url", *HASH]
    code, out, err = muvera("texts", "add", *given)
    assert code == 0 and "2 added" in out
    assert f"warning: 2 empty rows of {tmp_path / 'more.csv'} were skipped." in err
    (tmp_path / "more.csv").write_text("url,body\nf,A date.\n")
    assert "has no column 'text'. Choose a column with --text COLUMN" in fails(
        "texts", "add", *given[:2], *HASH
    )


def test_a_column_of_many_numbers_that_stays_text_is_named(tmp_path: Path) -> None:
    """Otherwise conditions such as $gte find nothing, without a reason."""
    rows = ["1999,one,001", "n/a,two,20", "2001,three,30", "2015,four,40"]
    (tmp_path / "a.csv").write_text("\n".join(["year,text,code", *rows]))
    code, _, err = muvera("texts", "index", tmp_path / "a.csv", tmp_path / "index", *HASH)
    assert code == 0 and err.count("warning") == 1
    assert "column 'year' is stored as text, because 1 of its 4 values are not numbers" in err
    assert f"such as 'n/a' ({tmp_path / 'a.csv'}, line 3)" in err


@pytest.mark.parametrize(
    ("choice", "kept"), [("skip", ["one", "two", "four"]), ("last", ["two", "four", "five"])]
)
def test_repeated_ids_are_counted_and_can_be_left_out(choice: str, kept: list[str], tmp_path: Path) -> None:
    rows = ["a,one", "b,two", "a,three", "c,four", "a,five"]
    (tmp_path / "a.csv").write_text("\n".join(["id,text", *rows]))
    given = ("texts", "index", tmp_path / "a.csv", tmp_path / "index", *HASH)
    error = fails(*given)
    assert "line 4 has the id 'a' of" in error and "1 other row also repeats an id" in error
    assert "--duplicates skip or last" in error
    assert "2 rows of" in muvera(*given, "--duplicates", choice)[2]
    assert [text for text, _ in documents(tmp_path / "index").values()] == kept


def test_hits_show_a_title_column_or_a_name_or_the_first_line(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "text": "First line.\nAnd a pear.", "heading": ""},
        {"id": 2, "text": "A pear in a garden.", "name": "Garden"},
        {"id": 3, "text": "A pear on a table.", "name": "Other", "heading": "Table"},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    given = ("texts", "index", tmp_path / "a.json", tmp_path / "index", *HASH, "--title", "heading")
    assert muvera(*given)[0] == 0
    out = muvera("texts", "search", tmp_path / "index", "pear", *HASH)[1]
    shown = dict(re.findall(r"^ \d  (.*?)  \d.*\n    (\d)$", out, re.MULTILINE))
    assert shown == {"First line.": "1", "Garden": "2", "Table": "3"}
    assert documents(tmp_path / "index")[3][1] == {"name": "Other", "title": "Table"}


def test_a_question_must_be_utf8(index: Path) -> None:
    """Models refuse lone surrogates, which stand for the other bytes of an argument."""
    message = fails("texts", "search", index, "caf\udce9", *HASH)
    assert "The question must be UTF-8, got 'caf\\udce9'. Set the terminal to UTF-8" in message


def test_a_typed_question_must_be_utf8(index: Path) -> None:
    result = CliRunner().invoke(app, ["texts", "search", str(index), *HASH], input=b"red\ncaf\xe9\n")
    assert result.exit_code == 2
    assert "The question must be UTF-8, got " in result.stderr and "codec" not in result.stderr


def test_neighboring_characters_of_japanese_are_marked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = "\u6771\u4eac\u306e\u5929\u6c17 SQLite\u306e\u7d22\u5f15"
    matches = [
        WordMatch((0, 1), (3, 4), 0.9, 0.8),
        WordMatch((1, 2), (4, 5), 0.9, 0.7),
        WordMatch((2, 3), (2, 3), 0.9, 0.1),
        WordMatch((3, 9), (6, 12), 0.9, 0.6),
    ]
    reason = TextExplanation("\u5929\u6c17\u306eSQLite", text, 3.6, matches, [])
    shown = hits_text([Hit("a", 3.6, text, explanation=reason)], explain=False)
    marked = re.findall(r"\x1b\[33m\x1b\[1m(.*?)\x1b\[0m", shown)
    assert marked == ["\u5929\u6c17", "SQLite"]


def test_texts_that_are_longer_than_the_model_reads_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "load_text_encoder", lambda _: ShortModel())
    lines = [" ".join(["word"] * count) for count in (LIMIT, LIMIT + 1, LIMIT + 1)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    out = muvera("texts", "index", tmp_path / "a.txt", tmp_path / "index", *HASH)[1]
    assert "2 texts are longer than the model reads and encoded in windows" in " ".join(out.split())
    facts = answer("texts", "add", tmp_path / "index", tmp_path / "a.txt", "--encoder", "short")
    assert (facts["added"], facts["in_windows"]) == (3, 2)
    (tmp_path / "b.txt").write_text(" ".join(["word"] * (2 * LIMIT)))
    muvera("texts", "add", tmp_path / "index", tmp_path / "b.txt", "--encoder", "short")
    assert answer("info", tmp_path / "index")["long_texts"] == 1
    assert re.search(r"long texts +1\n", muvera("info", tmp_path / "index")[1])
