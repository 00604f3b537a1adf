"""Transforms between source and target; they do not depend on the batch size."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.convert.options import Options
from muvera.convert.report import Measure
from muvera.data.batches import collection_batches
from muvera.data.multivectors import MultiVectors


def documents(*rows: list[list[float]], ids: Any = None) -> MultiVectors:
    return MultiVectors.from_arrays([np.array(r, np.float32).reshape(-1, 2) for r in rows], ids, dimension=2)


Z = [0.0, 0.0]
DIRTY = documents([Z, [1, 2], Z, [3, 4], Z], [Z, Z], [[5, 6]], [])


def applied(batch: MultiVectors, first: int = 0, **options: Any) -> MultiVectors:
    return Options(**options).apply(batch, first)[0]


def test_each_transform() -> None:
    result = applied(DIRTY, drop_zero_rows=True)
    assert result.tokens.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert result.lengths.tolist() == [2, 0, 1, 0]
    random = np.random.default_rng(0)
    rows = MultiVectors.from_arrays([random.standard_normal((9, 4)).astype(np.float32)])
    pooled = applied(rows, normalize=True, pooling="pylate")  # which does not normalize
    np.testing.assert_allclose(np.linalg.norm(pooled.tokens, axis=1), 1, atol=1e-6)
    result = applied(documents([[3, 4]], [[0, 2]], ids=["x", "y"]), normalize=True)
    np.testing.assert_allclose(result.tokens, np.array([[0.6, 0.8], [0, 1]]), atol=1e-7)
    assert result.ids.tolist() == ["x", "y"]
    wide = MultiVectors.from_arrays([np.array([[3, 4, 12]], np.float32) / 13])
    np.testing.assert_allclose(applied(wide, truncate_dimension=2).tokens, [[0.6, 0.8]], atol=1e-7)
    half = applied(documents([[1, 2]]), dtype="float16")
    assert half.tokens.dtype == np.float16 and applied(half, dtype="float16") is half
    clean = documents([[1, 2]], [])
    assert applied(clean, drop_zero_rows=True) is clean


@pytest.mark.parametrize(
    ("options", "batch", "message"),
    [
        ({"normalize": True}, documents([[1, 1]], [], [[1, 1], Z]), r"documents\[4\] token 1"),
        ({"truncate_dimension": 3}, documents([[1, 1]]), "truncate_dimension=3 .* dimension=2"),
        ({"dtype": "float16"}, documents([[1, 2], [1e5, 0]]), r"documents\[2\] .*token 1 .* 65504"),
    ],
)
def test_documents_that_are_refused(options: dict[str, Any], batch: MultiVectors, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        applied(batch, first=2, **options)


CHANGES: list[dict[str, Any]] = [
    {"drop_zero_rows": True, "normalize": True},
    {"drop_zero_rows": True, "truncate_dimension": 2, "dtype": "float16"},
    {"drop_zero_rows": True, "pooling": "colbert"},
    {"drop_zero_rows": True, "normalize": True, "pooling": "sentence-transformers", "pool_factor": 1.5},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
@settings(max_examples=15)
@given(data=st.data())
def test_results_do_not_depend_on_the_batches(change: dict[str, Any], data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=8))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    tokens = random.standard_normal((sum(lengths), 3)).astype(np.float32)
    tokens[random.random(len(tokens)) < 0.3] = 0
    whole = MultiVectors.from_flat(tokens, lengths, ids=[f"d{i}" for i in range(len(lengths))])
    options = Options(**change)
    expected, dropped = options.apply(whole)
    parts, lost, seen = [], 0, Measure()
    for batch in collection_batches(whole, data.draw(st.integers(1, 20))):
        part, missing = options.apply(batch, seen.documents)
        seen.add(batch)
        parts.append(part)
        lost += missing
    found = MultiVectors.concatenate(parts)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    assert found.ids.tolist() == expected.ids.tolist()
    assert lost == dropped
    once = Measure()
    once.add(whole)
    assert seen.to_dict() == once.to_dict()


def test_measures() -> None:
    measure = Measure()
    measure.add(documents([[3, 4], Z], [], [[0, 1]]))
    assert measure.to_dict() == {
        "documents": 3,
        "tokens": 3,
        "dimension": 2,
        "dtype": "float32",
        "ids": "positions",
        "empty_documents": 1,
        "zero_rows": 1,
        "norms": {"min": 1.0, "mean": 3.0, "max": 5.0},
        "normalized": False,
    }
    assert Measure().normalized is None
    for norm, expected in ((1.003, True), (0.995, False)):
        measure = Measure()
        measure.add(documents([[1, 0], [0, norm]]))
        assert measure.normalized is expected
