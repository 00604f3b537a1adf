"""Conditions of engines: what all or no documents satisfy is not asked of an engine."""

from typing import Any

import pytest

from muvera.engines.lancedb import LanceDBConditions
from muvera.engines.milvus import MilvusConditions
from muvera.engines.pgvector import PgVectorConditions
from muvera.metadata import build_condition

NO_DOCUMENT: dict[str, Any] = {"$or": []}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, True),
        ({"$and": []}, True),
        (NO_DOCUMENT, False),
        ({"$not": NO_DOCUMENT}, True),
        ({"a": {"$in": []}}, False),
        ({"a": {"$nin": []}}, True),
        ({"$and": [{"a": 1}, NO_DOCUMENT]}, False),
        ({"$or": [{"a": 1}, {}]}, True),
    ],
)
def test_neutral_parts_decide_or_disappear(where: dict[str, Any], expected: bool) -> None:
    assert build_condition(where, PgVectorConditions()) is expected


@pytest.mark.parametrize("where", [{"$and": [{"a": 1}, {}]}, {"$or": [{"a": 1}, NO_DOCUMENT]}])
def test_a_neutral_part_changes_nothing(where: dict[str, Any]) -> None:
    alone = build_condition({"a": 1}, MilvusConditions())
    assert isinstance(alone, str)
    assert str(build_condition(where, MilvusConditions())).strip("()") == alone.strip("()")


def test_no_document_satisfies_a_comparison_with_a_column_that_does_not_exist() -> None:
    conditions = LanceDBConditions(["id", "low_number_year"])
    assert "low_number_year < 5.0" in str(build_condition({"year": {"$lt": 5}}, conditions))
    assert build_condition({"year": {"$gt": 5}}, conditions) is False
    assert build_condition({"$not": {"year": {"$gt": 5}}}, conditions) is True
