"""Bad arrays raise before hnswlib, which checks nothing, can see them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from muvera.mips import ExactSearch, HNSWSearch, HNSWSettings, ScanSearch

DIM = 6

SEARCHES = [ExactSearch, ScanSearch, HNSWSearch]

every_search = pytest.mark.parametrize("make", SEARCHES)


def rows(n: int, dimension: int = DIM, **values: float) -> np.ndarray:
    vectors = np.ones((n, dimension), np.float32)
    vectors[1:2, 2] = values.get("entry", 1)
    return vectors


BAD_CALLS: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda s: s.add(np.array([1, 2]), rows(2, 5)), ValueError, r"\(2, 5\)"),
    (lambda s: s.add(np.array([1, 2, 3]), rows(3, entry=np.nan)), ValueError, r"vectors\[1\]"),
    (lambda s: s.add(np.array([1]), np.full((1, DIM), 1e39)), ValueError, r"vectors\[0\]"),
    (lambda s: s.add(np.array([1, 2]), rows(3)), ValueError, "2 labels for 3"),
    (lambda s: s.add(np.array([1, 1]), rows(2)), ValueError, "labels"),
    (lambda s: s.add(np.array([-1, 41]), rows(2)), ValueError, "ascend"),
    (lambda s: s.add(np.array([1.0, 2.0]), rows(2)), TypeError, "float64"),
    (lambda s: s.add(np.array([40, 41, 42]), rows(3)), ValueError, "label 40"),
    (lambda s: s.search(rows(1, 7), 1), ValueError, r"\(1, 7\)"),
    (lambda s: s.search(rows(3, entry=np.nan), 1), ValueError, r"queries\[1\]"),
    (lambda s: s.search(rows(1), 0), ValueError, "k must .* 0"),
    (lambda s: s.search(rows(1), True), TypeError, "k must .* bool"),
    (lambda s: s.vectors(np.array([10, 11])), KeyError, "11"),
    (lambda s: s.remove(np.array([10, 11])), KeyError, "11"),
]


@every_search
def test_bad_arrays(make: Any) -> None:
    search = make(DIM)
    search.add(np.arange(5) * 10, np.random.default_rng(0).standard_normal((5, DIM)))
    if make is HNSWSearch:
        search._graph.index = object()  # the graph must not be called
    for call, error, message in BAD_CALLS:
        with pytest.raises(error, match=message):
            call(search)
    assert len(search) == 5 and search.labels().tolist() == [0, 10, 20, 30, 40]


@every_search
def test_few_or_no_vectors(make: Any) -> None:
    search = make(DIM)
    labels, scores = search.search(rows(2), 3)
    assert labels.tolist() == [[-1] * 3] * 2 and (scores == -np.inf).all()
    assert search.vectors(np.empty(0, np.int64)).shape == (0, DIM)
    search.add(np.array([3, 7]), np.arange(2 * DIM).reshape(2, DIM) + 1)
    labels, scores = search.search(rows(1), 4)
    assert labels.tolist() == [[7, 3, -1, -1]] and (scores[0, 2:] == -np.inf).all()


@every_search
def test_number_types_and_layouts(make: Any) -> None:
    values = np.arange(4 * DIM).reshape(4, DIM)
    search, other = make(DIM), make(DIM)
    search.add(np.arange(4, dtype=np.uint8), np.asfortranarray(values, np.float64))
    other.add(np.arange(4)[::-1].copy()[::-1], values.astype(np.int16))
    rounding = 1 / 254 if make is ScanSearch else 1e-6  # half a unit of a byte
    stored = search.vectors(np.arange(4))
    np.testing.assert_allclose(stored, values, atol=rounding * np.abs(values).max(), rtol=1e-6)
    np.testing.assert_array_equal(search.vectors(np.arange(4)), other.vectors(np.arange(4)))
    assert search.search(values[1:2].astype(np.float16), 2)[0].tolist() == [[3, 2]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HNSWSettings(ef_construction=True), "ef_construction .* True"),
        (lambda: HNSWSettings(m=1), "m must be at least 2, got 1"),
        (lambda: HNSWSettings.of({"M": 32}), "'M'"),
        (lambda: ExactSearch(0), "dimension .* 0"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()
    assert HNSWSettings.of({"m": 32}) == HNSWSettings(m=32)
