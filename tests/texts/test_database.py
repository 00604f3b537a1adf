"""Texts and metadata in SQLite: what goes in comes out, changes are whole, files never change."""

from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from muvera.texts.database import DocumentDatabase, TextDocument


@pytest.fixture
def database() -> DocumentDatabase:
    made = DocumentDatabase()
    made.put(["a", "b", "c"], ["one", "two", "drei"], [{"n": 1}, {"n": 2, "lang": "en"}, {}])
    return made


def test_what_goes_in_comes_out_in_the_order_asked_for(database: DocumentDatabase) -> None:
    assert len(database) == 3
    assert database.get(["c", "a"]) == [TextDocument("c", "drei", {}), TextDocument("a", "one", {"n": 1})]
    assert [document.id for document in database.documents()] == ["a", "b", "c"]
    with pytest.raises(KeyError, match="id 'x' is not in the index"):
        database.get(["a", "x"])


def test_integers_and_strings_are_different_ids() -> None:
    database = DocumentDatabase()
    database.put([1, "1"], ["int", "str"], [{}, {}])
    assert [document.text for document in database.get(["1", 1])] == ["str", "int"]


def test_a_document_put_again_is_replaced_with_its_metadata(database: DocumentDatabase) -> None:
    database.put(["a"], ["eins"], [{"lang": "de"}])
    assert (len(database), database.select({"n": 1}), database.select({"lang": "de"})) == (3, [], ["a"])
    database.delete(["a", "unknown"])
    assert (len(database), database.select({"lang": "de"})) == (2, [])


@pytest.mark.parametrize(
    ("texts", "metadata", "kind", "message"),
    [
        (["x", 7], [{}, {}], TypeError, "The text of document 'b' must be a string, got int"),
        (["x", "\ud800"], [{}, {}], ValueError, "The text of document 'b' has a lone surrogate at 0"),
        (["x", "y"], [{}, "lang"], TypeError, "The metadata of document 'b' must be a dictionary, got str"),
        (["x", "y"], [{}, {"a.b": 1}], ValueError, "'b' cannot be stored: the key 'a.b' must be"),
        (["x", "y"], [{}, {"$a": 1}], ValueError, r"the key '\$a' must be a string that"),
        (["x", "y"], [{}, {"a": float("inf")}], ValueError, "inf is no number of JSON"),
        (["x", "y"], [{}, {"a": 2**64}], ValueError, "does not fit into 64 bits"),
        (["x", "y"], [{}, {"a": {1, 2}}], TypeError, "set is no value of JSON"),
    ],
)
def test_what_cannot_be_stored_changes_nothing(
    database: DocumentDatabase, texts: list[Any], metadata: list[Any], kind: type[Exception], message: str
) -> None:
    before = list(database.documents())
    with pytest.raises(kind, match=message):
        database.put(["a", "b"], texts, metadata)
    assert list(database.documents()) == before
    assert database.select({"n": {"$exists": True}}) == ["a", "b"]


def test_nesting_is_bounded(database: DocumentDatabase) -> None:
    deep: dict[str, Any] = {}
    for _ in range(30):
        deep = {"a": deep}
    with pytest.raises(ValueError, match="nested deeper than 20 levels"):
        database.put(["d"], ["x"], [deep])


def test_a_transaction_is_whole_or_nothing(database: DocumentDatabase) -> None:
    with pytest.raises(RuntimeError), database.transaction():
        database.put(["d"], ["four"], [{}])
        database.delete(["a"])
        raise RuntimeError
    assert [document.id for document in database.documents()] == ["a", "b", "c"]


def test_a_saved_file_is_read_and_never_changed(database: DocumentDatabase, tmp_path: Path) -> None:
    path = tmp_path / "a name with % and ?.sqlite"
    database.save(path)
    content = path.read_bytes()
    opened = DocumentDatabase.open(path)
    assert list(opened.documents()) == list(database.documents())
    opened.put(["d"], ["four"], [{"n": 4}])
    opened.delete(["a"])
    assert opened.select({"n": {"$gt": 1}}) == ["b", "d"]
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    opened.save(tmp_path / "second.sqlite")
    assert len(DocumentDatabase.open(tmp_path / "second.sqlite")) == 3


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + bytes(200)])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "texts.sqlite"
    with pytest.raises(FileNotFoundError, match=r"texts\.sqlite is missing"):
        DocumentDatabase.open(path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"texts\.sqlite is no database of texts: .*Restore"):
        DocumentDatabase.open(path)


def test_threads_share_a_database(database: DocumentDatabase) -> None:
    faults: list[Exception] = []

    def work(number: int) -> None:
        try:
            for i in range(50):
                database.put([f"{number}-{i}"], ["text"], [{"thread": number}])
                assert database.get(["b"])[0].text == "two"
                assert len(database.select({"thread": number})) == i + 1
        except Exception as error:
            faults.append(error)

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert len(database) == 203


def test_words_are_matched_by_bm25_and_follow_changes(database: DocumentDatabase) -> None:
    database.delete(["c"])
    database.put(
        ["d", "e"], ["one one two", "Twos and 'quotes' \" OR NEAR("], [{"lang": "en"}, {"lang": "en"}]
    )
    database.put(range(20), ["something else altogether"] * 20, [{}] * 20)
    assert [name for name, _ in database.match_words("one", 10)] == ["a", "d"]
    assert [name for name, _ in database.match_words("TWO", 10)] == ["b", "d", "e"]
    assert [name for name, _ in database.match_words("two", 10, {"lang": "en"})] == ["b", "d", "e"]
    assert [name for name, _ in database.match_words("two", 10, {"n": 2})] == ["b"]
    assert [name for name, _ in database.match_words('quotes" OR NEAR( AND *', 10)] == ["e"]
    assert database.match_words("?!", 10) == database.match_words("unknown", 10) == []
    database.delete(["d"])
    database.put(["a"], ["eins"], [{}])
    assert database.match_words("one", 10) == []
    assert [name for name, _ in database.match_words("eins", 1)] == ["a"]
