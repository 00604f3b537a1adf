"""Texts and metadata in SQLite: whole changes, files that never change, and filters."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from builders.conditions import matches
from hypothesis import given
from hypothesis import strategies as st
from strategies import CONDITIONS, METADATA

import muvera.texts.database as database_module
from muvera.metadata import FilterError
from muvera.texts.database import DocumentDatabase, checked_rows, to_sql
from muvera.texts.words import STOP_WORDS, _stop_words_of, mostly_latin


@pytest.fixture
def database() -> DocumentDatabase:
    made = DocumentDatabase()
    made.put(["a", "b", "c"], ["one", "two", "drei"], [{"n": 1}, {"n": 2, "lang": "en"}, {}])
    return made


def names(database: DocumentDatabase) -> list[Any]:
    return [document.id for document in database.documents()]


def nested(key: str, depth: int, inmost: dict[str, Any]) -> dict[str, Any]:
    return {key: nested(key, depth - 1, inmost)} if depth else inmost


@pytest.mark.parametrize(
    ("text", "metadata", "part"),
    [
        ("\ud800", {}, "surrogate"),
        ("x", {"a": ["\ud800"]}, "surrogate"),
        ("x", {"\ud800": 1}, "ud800"),
        ("y", {"a.b": 1}, "'a.b'"),
        ("y", {"a": float("inf")}, "inf"),
        ("y", {"a": {1, 2}}, "set"),
        ("y", nested("a", 30, {}), "20 levels"),
    ],
)
def test_what_cannot_be_stored_changes_nothing(
    database: DocumentDatabase, text: str, metadata: Any, part: str
) -> None:
    before = list(database.documents())
    with pytest.raises((TypeError, ValueError), match=f"'b'.*{part}"):
        database.put(["a", "b"], ["x", text], [{}, metadata])
    assert list(database.documents()) == before
    assert database.select({"n": {"$exists": True}}) == ["a", "b"]


def test_a_change_elsewhere_follows_each_commit_once(database: DocumentDatabase) -> None:
    calls = list[int]()

    def interrupted() -> None:
        calls.append(len(database._connection.execute("SELECT id FROM documents").fetchall()))
        if len(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.change([], checked_rows(["d"], ["four"], [{}]), interrupted)
    assert len(database) == 4 and len(database) == 4 and calls == [4, 4]
    database.change(["d"], also=interrupted)
    assert len(database) == 3 and calls == [4, 4, 3]


@pytest.mark.parametrize("deleted", [["a"], []], ids=["of a deletion", "of an addition"])
def test_an_interrupt_is_no_error_of_the_disk(
    database: DocumentDatabase, deleted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list(database.documents())

    def interrupted(_: str) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("muvera.texts.database.spaced", interrupted)
        with pytest.raises(KeyboardInterrupt):
            database.change(deleted, checked_rows(["d"], ["four"], [{}]))
    assert list(database.documents()) == before
    assert [name for name, _ in database.match_words("one", 3)] == ["a"]


def test_metadata_changes_in_place(database: DocumentDatabase) -> None:
    database.change([], checked_rows(["a"], ["one"], [{"lang": "en"}]))
    assert names(database) == ["a", "b", "c"]
    assert (database.select({"lang": "en"}), database.select({"n": 1})) == (["a", "b"], [])
    assert [name for name, _ in database.match_words("one", 3)] == ["a"]


def test_a_saved_file_is_never_changed(database: DocumentDatabase, tmp_path: Path) -> None:
    path = tmp_path / "a name with % and ?.sqlite"
    database.save(path)
    content = path.read_bytes()
    opened = DocumentDatabase.open(path)
    assert list(opened.documents()) == list(database.documents())
    opened.put(["d"], ["four"], [{"n": 4}])
    opened.change(["a"])
    assert opened.select({"n": {"$gt": 1}}) == ["b", "d"]
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    opened.save(tmp_path / "second.sqlite")
    assert len(DocumentDatabase.open(tmp_path / "second.sqlite")) == 3


@pytest.mark.parametrize("content", [None, b"", b"no database", b"SQLite format 3\0" + bytes(200)])
def test_a_missing_or_other_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "texts.sqlite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises((FileNotFoundError, ValueError), match=r"texts\.sqlite"):
        DocumentDatabase.open(path)


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("CREATE VIEW extra AS SELECT 1", "other tables"),
        ("CREATE TRIGGER extra AFTER INSERT ON documents BEGIN SELECT 1; END", "other tables"),
        ("CREATE TABLE extra (a)", "other tables"),
        ("DROP INDEX values_of_a_row", "other tables"),
        (
            "ALTER TABLE documents RENAME TO hidden; CREATE VIEW documents AS WITH RECURSIVE n(i) AS "
            "(SELECT 1 UNION ALL SELECT i FROM n) SELECT i AS row, i AS id, 'x' AS text, "
            "'{}' AS metadata FROM n",
            "other tables",
        ),
        *(
            (f"UPDATE documents SET {change} WHERE row = 2", "row 2 is not")
            for change in ("metadata = '{'", "metadata = '[1]'", "text = x'00'", "id = 1.5")
        ),
        (None, ""),  # a damaged page
    ],
)
def test_a_changed_file_is_refused(
    database: DocumentDatabase, tmp_path: Path, statement: str | None, fault: str
) -> None:
    path = tmp_path / "texts.sqlite"
    if statement is None:
        database.put(range(2000), ["some words"] * 2000, [{"n": i} for i in range(2000)])
    database.save(path)
    if statement is None:
        content = bytearray(path.read_bytes())
        content[40 * 4096 : 40 * 4096 + 200] = bytes(200)
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(statement)
    with pytest.raises(ValueError, match=rf"texts\.sqlite.*{fault}"):
        DocumentDatabase.open(path)


def test_words_are_matched_by_bm25_and_follow_changes(
    database: DocumentDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def match(text: str, k: int = 10, where: Any = None) -> list[Any]:
        return [name for name, _ in database.match_words(text, k, where)]

    database.change(["c"])
    english = {"lang": "en"}
    database.put(["d", "e"], ["one one two", "Twos and 'quotes' \" OR NEAR("], [english, english])
    database.put(range(20), ["something else altogether"] * 20, [{}] * 20)
    assert (match("one"), match("TWO")) == (["a", "d"], ["b", "d", "e"])
    assert (match("two", where=english), match("two", where={"n": 2})) == (["b", "d", "e"], ["b"])
    assert match('quotes" OR NEAR( AND *') == ["e"]
    assert match("?!") == match("unknown") == []
    monkeypatch.setattr("muvera.texts.words._MATCHES", 4)
    assert match("something else one") == ["a", "d"]  # the rarest words alone
    database.change(["d"])
    database.put(["a"], ["eins"], [{}])
    assert (match("one"), match("eins", 1)) == ([], ["a"])


def test_frequent_words_count_up_to_a_share_of_a_large_collection(
    database: DocumentDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["frequent rare", *["frequent"] * 9, *["other"] * 90]
    database.put(range(100), texts, [{}] * 100)
    monkeypatch.setattr("muvera.texts.words._MATCHES", 2)
    assert len(database.match_words("frequent rare", 100)) == 10  # 11 of at most 12
    monkeypatch.setattr("muvera.texts.words._SHARE", 10)
    assert [name for name, _ in database.match_words("frequent rare", 100)] == [0]


@pytest.mark.parametrize(
    "text, latin",
    [("", True), ("12 + 34", True), ("größer ñ, Đặng", True), ("東京都 is", False), ("привет a", False)],
)
def test_the_script_of_most_letters(text: str, latin: bool) -> None:
    assert mostly_latin([text] * 3000) is latin


VOCABULARY = st.sampled_from(["one", "two", "two-three", "Ones", "d'une", "\u6771\u4eac\u90fd", "x_y", "x"])
CHANGES = st.lists(
    st.dictionaries(
        st.integers(0, 9), st.lists(VOCABULARY, max_size=6).map(" ".join) | st.none(), max_size=4
    ),
    min_size=1,
    max_size=4,
)


# Occurrences of two words in a text, and its number of words.
LENGTHS = [(1, 2), (3, 127), (2, 128), (50, 16_383), (7, 16_384), (1, 3)]


@given(CHANGES, st.lists(VOCABULARY, min_size=1, max_size=4).map(" ".join))
def test_kept_scores_of_words_are_those_of_one_statement(
    changes: list[dict[int, str | None]], query: str
) -> None:
    database = DocumentDatabase()
    for change in changes:
        stored = {id: text for id, text in change.items() if text is not None}
        database.change(list(change), checked_rows(list(stored), list(stored.values()), [{}] * len(stored)))
        for k in (3, 20):
            # With ids, SQLite adds the scores of all words.
            assert database.match_words(query, k) == database.match_words(query, k, ids=range(10))
    database.close()


def test_scores_of_words_have_the_bits_of_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.texts.words._STEP", 2)
    database = DocumentDatabase()
    # The lengths have one, two and three bytes in SQLite.
    texts = [" ".join(["one", "two"] * n + ["x"] * (length - 2 * n)) for n, length in LENGTHS]
    database.put(range(len(texts)), texts, [{}] * len(texts))
    for query in ("one", "x", "two x", "one zero two"):
        assert database.match_words(query, 9) == database.match_words(query, 9, ids=range(9))
    # A new text gets the row of the last one.
    database.put([len(texts) - 1], ["one two two"], [{}])
    assert database.match_words("two", 9) == database.match_words("two", 9, ids=range(9))


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM words_docsize",
        "DELETE FROM words_docsize WHERE id = 3",
        "UPDATE words_docsize SET sz = x'81'",
        "UPDATE words_data SET block = x'00' WHERE id = 1",
        "UPDATE words_data SET block = x'0100' WHERE id = 1",
        "DELETE FROM words_data WHERE id = 1",
    ],
)
def test_damaged_numbers_of_words(database: DocumentDatabase, tmp_path: Path, statement: str) -> None:
    path = tmp_path / "texts.sqlite"
    database.change([], checked_rows(["d"], ["drei"], [{}]))
    database.save(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(statement)
    with (
        closing(DocumentDatabase.open(path)) as opened,
        pytest.raises(ValueError, match=r"damaged|malformed"),
    ):
        opened.match_words("drei", 3)


def test_scores_of_words_are_kept_up_to_a_limit(
    database: DocumentDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muvera.texts.words._KEPT", 2)
    expected = [database.match_words(text, 3, ids=["a", "b", "c"]) for text in ("one", "two drei", "one two")]
    for _ in range(2):
        assert [database.match_words(text, 3) for text in ("one", "two drei", "one two")] == expected
        assert database._words._kept <= 2


def test_counts_of_words_are_kept_up_to_a_limit(
    database: DocumentDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muvera.texts.words._KEPT_WORDS", 3)
    for text in ("one two drei", "zero four", "one five", "two six drei"):
        expected = database.match_words(text, 3, ids=["a", "b", "c"])
        assert database.match_words(text, 3) == expected
        assert len(database._words._counts) <= 3


@given(st.lists(METADATA, max_size=5), CONDITIONS)
def test_sql_selects_what_python_selects(metadata: list[dict[str, Any]], where: dict[str, Any]) -> None:
    database = DocumentDatabase()
    database.put(range(len(metadata)), ["text"] * len(metadata), metadata)
    assert database.select(where) == [i for i, values in enumerate(metadata) if matches(where, values)]
    database.close()


DOCUMENTS: dict[str, dict[str, Any]] = {
    "a": {"lang": "en", "year": 2001, "tags": ["x"]},
    "b": {"lang": "de", "year": 2015.5, "tags": ["x", "y"]},
    "c": {"lang": "fr", "author": {"name": "Ada"}},
    "d": {"lang": None, "draft": True, "tags": []},
}


@pytest.mark.parametrize(
    ("where", "selected"),
    [
        ({}, "abcd"),
        ({"lang": {"$ne": "en"}}, "bcd"),
        ({"year": {"$gte": 2001, "$lt": 2010}}, "a"),
        ({"tags": {"$in": ["y", "z"]}}, "b"),
        ({"tags": {"$in": []}}, ""),
        ({"author.name": "Ada"}, "c"),
        ({"lang": {"$exists": False}}, "d"),
        ({"$not": {"$or": [{"lang": "de"}, {"year": 2001}]}}, "cd"),
        ({"year": "2001"}, ""),
        ({"draft": True}, "d"),
        ({"year": {"$in": list(range(9_999))}}, "a"),
    ],
)
def test_operators(where: dict[str, Any], selected: str) -> None:
    database = DocumentDatabase()
    database.put(list(DOCUMENTS), list("ABCD"), list(DOCUMENTS.values()))
    assert "".join(map(str, database.select(where))) == selected
    assert "".join(name for name, values in DOCUMENTS.items() if matches(where, values)) == selected


@pytest.mark.parametrize(
    ("where", "part"),
    [
        ("year > 3", "str"),
        ({"year": {"$near": 3}}, r"'year'.*'\$near'"),
        ({"$xor": []}, r"'\$xor'"),
        ({"year": {"$in": 3}}, "int 3"),
        ({"year": None}, r"'\$exists': false"),
        ({"year": {"$gt": True}}, "True"),
        ({"year": {"$exists": 1}}, "got 1"),
        ({"year": {"$in": [0] * 10_001}}, "10000 values, got 10001"),
        ({"$or": [{"a": {"$in": [0] * 6_000}}] * 2}, "10000 values, got 1200"),
        ({"$and": [{"a": 1}] * 300}, "200 conditions"),
        (nested("$not", 60, {"a": 1}), "50 levels"),
    ],
)
def test_invalid_conditions_are_refused(where: Any, part: str) -> None:
    with pytest.raises(FilterError, match=part):
        to_sql(where)


def test_a_file_that_a_writer_removes_while_it_is_opened_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers of a folder try again after FileNotFoundError alone."""
    path, connect = tmp_path / "texts.sqlite", database_module._connect
    path.touch()

    def overtaken(name: str) -> Any:
        if name:
            path.unlink()
        return connect(name)

    monkeypatch.setattr(database_module, "_connect", overtaken)
    with pytest.raises(FileNotFoundError, match="removed while it was opened"):
        DocumentDatabase.open(path)


def test_words_of_two_languages_are_english() -> None:
    """Another language needs more stop words than English."""
    assert _stop_words_of(["in", "was"]) is STOP_WORDS["en"]
    assert _stop_words_of(["in", "was", "die"]) is STOP_WORDS["de"]
