"""Which of many uncertain numbers can be among the best: a bound from below, and all that reach it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from muvera.kernels.products import group_floors, places_above


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 9), st.data())
def test_none_of_the_best_is_left_out(seed: int, count: int, size: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    exact = rng.normal(size=count).astype(np.float32)
    errors = rng.uniform(0, 1, count).astype(np.float32)
    length, least = np.float32(0.5), np.float32(0.01)
    products = (exact + rng.uniform(-1, 1, count) * errors * 0.5).astype(np.float32)
    groups = -(-count // size)
    k = data.draw(st.integers(1, groups))
    floors = np.empty(groups, np.float32)
    group_floors(products, errors, length, least, size, floors)
    edge = np.sort(floors)[-k]
    assert edge <= np.sort(exact)[-k]
    places = np.empty(count, np.int64)
    found = places[: places_above(products, errors, length, least, edge, places)]
    assert set(np.argsort(-exact, kind="stable")[:k]) <= set(found.tolist())
    assert (np.diff(found) > 0).all()
    can = products + (errors * length + least) >= edge
    np.testing.assert_array_equal(found, np.flatnonzero(can))


def test_it_ends_where_there_is_no_room() -> None:
    ones = np.ones(9, np.float32)
    places = np.full(4, -1, np.int64)
    assert places_above(ones, ones, np.float32(0), np.float32(0), np.float32(1), places) == 5
    assert places.tolist() == [0, 1, 2, 3]
