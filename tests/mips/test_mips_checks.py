"""Every bad input of the searches is named before hnswlib or usearch, which check nothing, could see it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from muvera.mips import ExactSearch, HNSWSearch, HNSWSettings, PQSettings, USearchSearch, USearchSettings
from muvera.mips.settings import settings_from

DIM = 6


@pytest.fixture(params=[ExactSearch, HNSWSearch, USearchSearch])
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Five vectors under the labels 0, 10, ..., 40, and a graph that must not be reached any more."""
    made = request.param(DIM)
    made.add(np.arange(5) * 10, np.random.default_rng(0).standard_normal((5, DIM)))
    if isinstance(made, (HNSWSearch, USearchSearch)):
        graph = made._index

        class Unreachable:
            def __getattr__(self, name: str) -> Any:
                raise AssertionError(f"the graph's {name} was reached")

        made._index = Unreachable()
        request.addfinalizer(lambda: setattr(made, "_index", graph))
    return made


def rows(n: int, dimension: int = DIM) -> np.ndarray:
    return np.ones((n, dimension), np.float32)


def with_value(value: float) -> np.ndarray:
    vectors = rows(3)
    vectors[1, 2] = value
    return vectors


ADD: list[tuple[Any, Any, type[Exception], str]] = [
    ([1, 2], rows(2, 5), ValueError, r"vectors must have shape \(n, 6\), got \(2, 5\)"),
    ([1, 2], rows(2).ravel(), ValueError, r"vectors must have shape \(n, 6\), got \(12,\)"),
    ([1, 2, 3], with_value(np.nan), ValueError, r"vectors\[1\] has a NaN or an infinity"),
    ([1, 2, 3], with_value(-np.inf), ValueError, r"vectors\[1\] has a NaN or an infinity"),
    ([1], np.full((1, DIM), 1e39), ValueError, r"vectors\[0\] has a NaN or an infinity"),
    ([1], [["a"] * DIM], TypeError, "vectors must be numbers, got dtype <U1"),
    ([1], np.full((1, DIM), 1j), TypeError, "vectors must be numbers, got dtype complex128"),
    ([1, 2], rows(3), ValueError, "There are 2 labels for 3 vectors"),
    ([1, 1], rows(2), ValueError, "labels must be all different"),
    ([-1, 1], rows(2), ValueError, "labels must not be negative, got -1"),
    ([1.0, 2.0], rows(2), TypeError, "labels must be integers"),
    ([[1, 2]], rows(2), TypeError, r"labels must be integers .* \(1, 2\)"),
    ([True, False], rows(2), TypeError, "labels must be integers"),
    ([9, 40, 10], rows(3), ValueError, "label 10 (is in use|was used already)"),
]


@pytest.mark.parametrize(("labels", "vectors", "kind", "message"), ADD)
def test_what_add_refuses(
    search: Any, labels: Any, vectors: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        search.add(np.array(labels), vectors)
    assert len(search) == 5 and search.labels().tolist() == [0, 10, 20, 30, 40]


SEARCH: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda s: s.search(rows(1, 7), 1), ValueError, r"queries must have shape \(n, 6\), got \(1, 7\)"),
    (lambda s: s.search(rows(1)[0], 1), ValueError, r"queries must have shape \(n, 6\), got \(6,\)"),
    (lambda s: s.search(with_value(np.nan), 1), ValueError, r"queries\[1\] has a NaN"),
    (lambda s: s.search(rows(1), 0), ValueError, "k must be at least 1, got 0"),
    (lambda s: s.search(rows(1), 2.0), TypeError, "k must be an int, got float"),
    (lambda s: s.search(rows(1), True), TypeError, "k must be an int, got bool"),
    (lambda s: s.search(rows(1), 1, np.array([0.5])), TypeError, "allowed must be integer labels .*float64"),
    (lambda s: s.search(rows(1), 1, np.array([[0]])), TypeError, r"allowed must be integer .*\(1, 1\)"),
    (lambda s: s.vectors(np.array([10, 11])), KeyError, "label 11 is not here"),
    (lambda s: s.remove(np.array([10, 11])), KeyError, "label 11 is not here"),
    (lambda s: s.remove(np.array([10, 10])), ValueError, "labels must be all different"),
    (lambda s: s.remove(np.array(["10"])), TypeError, "labels must be integers"),
]


@pytest.mark.parametrize(("call", "kind", "message"), SEARCH)
def test_what_a_search_refuses(
    search: Any, call: Callable[[Any], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        call(search)
    assert search.labels().tolist() == [0, 10, 20, 30, 40]


@pytest.mark.parametrize("make", [ExactSearch, HNSWSearch, USearchSearch])
def test_an_empty_search_finds_nothing(make: Any) -> None:
    labels, scores = make(DIM).search(rows(2), 3)
    assert labels.tolist() == [[-1] * 3] * 2 and (scores == -np.inf).all()
    assert make(DIM).labels().tolist() == [] and len(make(DIM)) == 0
    assert make(DIM).vectors(np.empty(0, np.int64)).shape == (0, DIM)


@pytest.mark.parametrize("make", [ExactSearch, HNSWSearch, USearchSearch])
@pytest.mark.parametrize("dimension", [0, -1, 1.5, True, None])
def test_dimension_is_checked(make: Any, dimension: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"dimension must be .*, got .*{dimension}"):
        make(dimension)


@pytest.mark.parametrize("make", [ExactSearch, HNSWSearch, USearchSearch])
def test_more_than_there_are_gives_what_there_is(make: Any) -> None:
    search = make(DIM)
    search.add(np.array([7, 3]), np.arange(2 * DIM).reshape(2, DIM) + 1)
    labels, scores = search.search(rows(1), 4)
    assert labels.tolist() == [[3, 7, -1, -1]] and (scores[0, 2:] == -np.inf).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"m": 1}, "m must be at least 2, got 1"),
        ({"m": 2.5}, "m must be an int, got float 2.5"),
        ({"ef": 0}, "ef must be at least 1, got 0"),
        ({"ef_construction": True}, "ef_construction must be an int, got bool True"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_settings_of_the_graph_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        HNSWSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"m": 1}, "m must be at least 2, got 1"),
        ({"ef_construction": 2.5}, "ef_construction must be an int, got float 2.5"),
        ({"precision": "f16"}, "precision must be one of bfloat16, int8, float32, got 'f16'"),
    ],
)
def test_settings_of_the_graph_of_usearch_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        USearchSettings(**settings)


def test_settings_from_what_users_write() -> None:
    wide = HNSWSettings(m=32)
    assert settings_from(HNSWSettings, {"m": 32}, "hnsw") == settings_from(HNSWSettings, wide, "hnsw") == wide
    assert settings_from(PQSettings, None, "pq") == PQSettings()
    with pytest.raises(ValueError, match=r"hnsw has no 'M'\. It has: m, ef_construction, ef, seed"):
        settings_from(HNSWSettings, {"M": 32}, "hnsw")
    with pytest.raises(ValueError, match="hnsw: m must be at least 2, got 1"):
        settings_from(HNSWSettings, {"m": 1}, "hnsw")
    with pytest.raises(TypeError, match="hnsw must be HNSWSettings or a dict of its values, got list"):
        settings_from(HNSWSettings, [32], "hnsw")


@pytest.mark.parametrize("make", [ExactSearch, HNSWSearch, USearchSearch])
def test_any_numbers_in_any_layout_are_taken(make: Any) -> None:
    values = np.arange(4 * DIM).reshape(4, DIM)
    search, other = make(DIM), make(DIM)
    search.add(np.arange(4, dtype=np.uint8), np.asfortranarray(values, np.float64))
    other.add(np.arange(4)[::-1].copy()[::-1], values.astype(np.int16))
    rounding = 2**-8 if make is USearchSearch else 1e-6  # bfloat16 has a significand of 8 bits
    np.testing.assert_allclose(search.vectors(np.arange(4)), values, rtol=rounding)
    np.testing.assert_array_equal(search.vectors(np.arange(4)), other.vectors(np.arange(4)))
    assert search.search(values[1:2].astype(np.float16), 2)[0].tolist() == [[3, 2]]
    assert search.search(np.empty((0, DIM)), 2)[0].shape == (0, 2)
