"""Laws of IdMap against a dictionary, and of filters against sets."""

from copy import copy
from typing import Any

import numpy as np
import pytest
from builders.conditions import matches
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import CONDITIONS, METADATA

from muvera.index import id_map
from muvera.index.id_map import IdMap
from muvera.metadata import FilterError, comparable_values, encode_metadata, flatten, term
from muvera.texts.database import DocumentDatabase

#: Additions of documents with one to three rows (which move if they exist), deletions
#: of some documents, and further rows of the last one.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "drop", "continue"]),
        st.dictionaries(st.integers(0, 12), st.integers(1, 3), max_size=4),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(STEPS, st.sampled_from([4096, 2]), st.booleans())
def test_an_id_map_is_a_dictionary_of_rows(steps: Any, merged: int, looked_up: bool) -> None:
    """Model: an id has its last rows until they are deleted.

    A copy taken before keeps its rows.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_map, "_CHANGED", merged)
        names, model, rows = IdMap(), dict[int, list[int]](), 0
        for kind, documents in steps:
            before, kept = copy(names), sorted(row for each in model.values() for row in each)
            added = documents if kind == "add" else {}
            if kind == "continue":
                added = {id: 2 for id, each in model.items() if each[-1] == rows - 1}
            gone = [row for id in documents if kind != "continue" for row in model.pop(id, ())]
            names.drop(np.array(gone, np.int64))
            names.append(np.repeat(np.array([*added], np.int64), [*added.values()]))
            for id, count in added.items():
                model[id] = [*model.get(id, ()), *range(rows, rows + count)]
                rows += count
            if looked_up:
                assert [id in names for id in range(13)] == [id in model for id in range(13)]
            assert before.live.tolist() == kept
        every = [row for id in range(13) for row in model.get(id, ())]
        assert names.rows(list(range(13)), "ignore").tolist() == every
        assert names.live.tolist() == sorted(every) and names.num_rows == rows
        firsts = {id: each[0] for id, each in model.items()}
        assert names.documents.tolist() == sorted(firsts.values()) and len(names) == len(model)
        assert names.of(names.documents).tolist() == sorted(model, key=lambda id: firsts[id])
        assert names.has_parts == (len(every) > len(model))


@given(st.lists(st.integers(-5, 50), unique=True, max_size=8), st.integers(0, 20), st.integers(1, 5))
def test_new_integers_follow_every_earlier_id(ids: list[int], first: int, count: int) -> None:
    """Numbers are never used twice: the next one is above all, deleted or not."""
    from muvera import MultiVectors

    names = IdMap(first)
    names.append(np.array(ids, np.int64))
    names.drop(np.arange(len(ids)))
    documents = MultiVectors.from_arrays([np.ones((1, 2))] * count)
    start = max([first, *(id + 1 for id in ids)])
    assert names.new_ids(documents).tolist() == list(range(start, start + count))


# -- filters ------------------------------------------------------------------


def selected(metadata: list[dict[str, Any]], *conditions: dict[str, Any]) -> list[set[int]]:
    database = DocumentDatabase()
    database.put(range(len(metadata)), ["text"] * len(metadata), metadata)
    try:
        return [set(database.select(where)) for where in conditions]  # type: ignore[arg-type]
    finally:
        database.close()


COLLECTIONS = st.lists(METADATA, max_size=5)


@settings(max_examples=25)
@given(COLLECTIONS, CONDITIONS, CONDITIONS)
def test_filters_are_sets(metadata: list[dict[str, Any]], a: dict[str, Any], b: dict[str, Any]) -> None:
    """Boolean algebra: $and, $or, $not are intersection, union, complement.

    De Morgan's laws hold.
    """
    left, right, both, either, none, morgan = selected(
        metadata, a, b, {"$and": [a, b]}, {"$or": [a, b]}, {"$not": a},
        {"$not": {"$or": [{"$not": a}, {"$not": b}]}},
    )  # fmt: skip
    every = set(range(len(metadata)))
    assert both == left & right == morgan
    assert either == left | right
    assert none == every - left


@settings(max_examples=25)
@given(COLLECTIONS, st.sampled_from(["x", "y", "x.u"]), st.lists(st.integers(-3, 3), max_size=3))
def test_membership_is_a_union_of_equalities(
    metadata: list[dict[str, Any]], field: str, values: list[int]
) -> None:
    """$in is an $or of equalities, and $nin is its complement.

    $exists holds if a value can match.
    """
    inside, outside, exists, absent, *equal = selected(
        metadata, {field: {"$in": values}}, {field: {"$nin": values}},
        {field: {"$exists": True}}, {field: {"$exists": False}}, *({field: value} for value in values),
    )  # fmt: skip
    every = set(range(len(metadata)))
    assert inside == set().union(*equal) and outside == every - inside
    assert inside <= exists == every - absent


@settings(max_examples=25)
@given(COLLECTIONS, st.sampled_from(["x", "y"]), st.integers(-3, 3), st.integers(0, 3))
def test_ranges_grow_with_their_limits(
    metadata: list[dict[str, Any]], field: str, limit: int, more: int
) -> None:
    """Order: $lt grows with its limit, and $lte adds the equal ones.

    $gte and $gt mirror them.
    """
    below, least, wider, above, most, equal = selected(
        metadata, {field: {"$lt": limit}}, {field: {"$lte": limit}}, {field: {"$lt": limit + more}},
        {field: {"$gt": limit}}, {field: {"$gte": limit}}, {field: limit},
    )  # fmt: skip
    assert below <= wider and least == below | equal and most == above | equal
    scalars = {i for i, own in enumerate(metadata) if not isinstance(own.get(field), list)}
    assert not below & most & scalars and not above & least & scalars


def plain_values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@given(METADATA)
def test_flat_metadata_has_a_term_for_each_value_and_its_bounds(metadata: dict[str, Any]) -> None:
    """Equality by terms: a document has a value's term if they are equal.

    Equality is that of the filter.
    """
    flat = flatten(metadata)
    assert len(set(flat.terms)) == len(flat.terms)
    for field in ("x", "y", "x.u", "z"):
        for value in (-1, 0, 1, 0.5, 2.0, True, "a", "1", ""):
            assert (term(field, value) in flat.terms) == matches({field: value}, metadata)
        assert (term(field) in flat.terms) == matches({field: {"$exists": True}}, metadata)
    numbers = [value for name, kind, value in comparable_values(metadata) if (name, kind) == ("x", "number")]
    assert flat.bounds.get("low_number_x") == min(numbers, default=None)
    assert flat.bounds.get("high_number_x") == max(numbers, default=None)


@given(st.lists(st.integers(-9, 9) | st.sampled_from([0.5, True]), max_size=5), st.lists(st.text(max_size=2)))
def test_bounds_are_the_least_and_the_greatest_of_each_kind(numbers: list[Any], texts: list[str]) -> None:
    """A list of numbers and strings has bounds of both, and true is 1."""
    bounds = flatten({"x": [*numbers, None, *texts]}).bounds
    expected: dict[str, Any] = {}
    for kind, values in (("number", numbers), ("text", texts)):
        if values:
            expected |= {f"low_{kind}_x": min(values), f"high_{kind}_x": max(values)}
    assert bounds == expected


@given(METADATA, st.sampled_from(["a.b", "$x", "", "\ud800"]))
def test_metadata_survive_their_text_or_name_the_bad_key(metadata: dict[str, Any], key: str) -> None:
    """Round trip through JSON.

    A key that a filter cannot name is refused at every depth.
    """
    import json

    assert json.loads(encode_metadata(metadata, 1)) == metadata
    for bad in ({**metadata, key: 1}, {**metadata, "inner": {key: 1}}, {**metadata, "list": [{key: 1}]}):
        with pytest.raises(ValueError, match="document 1"):
            encode_metadata(bad, 1)
    with pytest.raises(FilterError):
        selected([], {"x": {"$lt": True}})
