"""Filters: SQL against the Python evaluation, and what is refused."""

from typing import Any

import pytest
from builders.filter_conditions import CONDITIONS, METADATA
from hypothesis import given
from hypothesis import strategies as st

from muvera.metadata.filters import FilterError, matches
from muvera.texts.database import DocumentDatabase, to_sql


@given(st.lists(METADATA, max_size=5), CONDITIONS)
def test_sql_keeps_what_python_keeps(metadata: list[dict[str, Any]], condition: dict[str, Any]) -> None:
    database = DocumentDatabase()
    database.put(range(len(metadata)), ["text"] * len(metadata), metadata)
    assert database.select(condition) == [i for i, one in enumerate(metadata) if matches(condition, one)]
    database.close()


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ({}, "abcd"),
        ({"lang": "en"}, "a"),
        ({"lang": {"$ne": "en"}}, "bcd"),
        ({"year": {"$gte": 2000}}, "ab"),
        ({"year": {"$gte": 2000, "$lt": 2010}}, "a"),
        ({"tags": "x"}, "ab"),
        ({"tags": {"$in": ["y", "z"]}}, "b"),
        ({"author.name": "Ada"}, "c"),
        ({"author": {"$exists": True}}, "c"),
        ({"lang": {"$exists": False}}, "d"),
        ({"$or": [{"lang": "de"}, {"year": 2001}]}, "ab"),
        ({"$not": {"$or": [{"lang": "de"}, {"year": 2001}]}}, "cd"),
        ({"year": "2001"}, ""),
        ({"draft": True}, "d"),
    ],
)
def test_what_the_operators_keep(condition: dict[str, Any], kept: str) -> None:
    database = DocumentDatabase()
    documents: list[dict[str, Any]] = [
        {"lang": "en", "year": 2001, "tags": ["x"]},
        {"lang": "de", "year": 2015.5, "tags": ["x", "y"]},
        {"lang": "fr", "author": {"name": "Ada"}},
        {"lang": None, "draft": True, "tags": []},
    ]
    database.put(list("abcd"), list("ABCD"), documents)
    assert "".join(map(str, database.select(condition))) == kept


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("year > 3", "A filter must be a dictionary .*, got str 'year > 3'"),
        ({"year": {"$near": 3}}, r"There is no operator '\$near' of a field \(here 'year'\)"),
        ({"$xor": []}, r"There is no operator '\$xor' of conditions"),
        ({"$and": {"a": 1}}, r"\$and must be a list, got dict"),
        ({"year": {"$in": 3}}, r"\$in of 'year' must be a list, got int 3"),
        ({"year": {}}, "The field 'year' has no operator"),
        ({"year": None}, r"\$eq of 'year' is null. Use {'\$exists': false}"),
        ({"year": {"$gt": True}}, r"\$gt of 'year' must be a number or a string, got True"),
        ({"year": {"$gt": float("nan")}}, r"\$gt of 'year' must be .* finite number.*, got float nan"),
        ({"year": {"$eq": 2**70}}, r"\$eq of 'year' must be"),
        ({"year": {"$exists": 1}}, r"\$exists of 'year' must be true or false, got 1"),
        ({3: 1}, "A field's name must be a string, got int 3"),
        ({"year": {"$in": [0] * 10_001}}, "may have 10000 values, got 10001"),
        ({"$and": [{"a": 1}] * 300}, "may have 200 conditions"),
    ],
)
def test_what_cannot_be_understood_is_refused(condition: Any, message: str) -> None:
    with pytest.raises(FilterError, match=message):
        to_sql(condition)
    with pytest.raises(FilterError, match=message):
        matches(condition, {})


def test_deep_conditions_are_refused() -> None:
    condition: dict[str, Any] = {"a": 1}
    for _ in range(60):
        condition = {"$not": condition}
    with pytest.raises(FilterError, match="may be nested 50 levels deep"):
        to_sql(condition)
