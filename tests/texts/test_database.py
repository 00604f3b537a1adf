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

    def interrupted(_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("muvera.texts.database.comparable_values", interrupted)
        with pytest.raises(KeyboardInterrupt):
            database.change(deleted, checked_rows(["d"], ["four"], [{"n": 1}]))
    assert list(database.documents()) == before
    assert database.select({"n": 1}) == ["a"]


def test_metadata_changes_in_place(database: DocumentDatabase) -> None:
    database.change([], checked_rows(["a"], ["one"], [{"lang": "en"}]))
    assert names(database) == ["a", "b", "c"]
    assert (database.select({"lang": "en"}), database.select({"n": 1})) == (["a", "b"], [])
    assert [document.text for document in database.get(["a"])] == ["one"]


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
