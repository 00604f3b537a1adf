"""IdMap: which id stands for which row, through every change and the disk."""

import tracemalloc
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera import MultiVectors
from muvera.data.validation import as_ids
from muvera.index.id_map import IdMap
from muvera.utils.growable_array import GrowingArray


def named(*ids: Any) -> IdMap:
    names = IdMap()
    names.append(np.array(ids))
    return names


def without_ids(count: int) -> MultiVectors:
    return MultiVectors.from_arrays([np.ones((1, 2))] * count, dimension=2)


@given(
    st.lists(st.lists(st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=9), max_size=4))
)
def test_a_growing_array_is_a_concatenation(parts: list[list[str]]) -> None:
    grown = GrowingArray(np.empty(0, np.str_))
    for part in parts:
        before = grown.values.tolist()
        view = grown.values
        grown.extend(np.array(part, np.str_))
        assert view.tolist() == before
    assert grown.values.tolist() == [text for part in parts for text in part]


def test_growing_one_by_one_seldom_copies() -> None:
    grown, buffers = GrowingArray(np.empty(0, np.int64)), set()
    for i in range(3000):
        grown.extend(np.array([i]))
        buffers.add(grown._buffer.ctypes.data)
    assert grown.values.tolist() == list(range(3000)) and len(buffers) < 40


def test_rows_of_ids() -> None:
    names = named("b", "a", "c")
    assert len(names) == 3 and "a" in names and "x" not in names and 0 not in names
    assert names.rows(["c", "b", "c"]) == [2, 0, 2] and names.rows(["x", "c"], "ignore") == [2]
    assert names.existing_rows(np.array(["x", "a"])).tolist() == [1]
    assert names.existing_rows([]).tolist() == [] and names.rows([]) == []
    with pytest.raises(KeyError, match=r"id 'x' is not in the index .1 of the 2"):
        names.rows(["a", "x"])
    with pytest.raises(KeyError, match=r"id 'x' is not in the index .2 of the 3 given ids are not."):
        names.rows(["a", "x", "y"])
    with pytest.raises(ValueError, match="missing must be one of raise, ignore, got 'skip'"):
        names.rows(["a"], "skip")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.0], "ids must be int or str, got float"),
        ([True], "ids must be int or str, got bool"),
        ([None, 1], "ids must be int or str, got NoneType"),
        (np.array([1.5]), "ids must be int or str, got float"),
        (["1"], "This index has int ids, got '1', which is str"),
        ([2, "1"], "This index has int ids, got '1', which is str"),
    ],
)
def test_what_can_never_be_an_id_is_named(ids: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        named(1, 2).existing_rows(ids)
    for missing in ("raise", "ignore"):
        with pytest.raises(TypeError, match=message):
            named(1, 2).rows(list(ids), missing)


def test_numpy_integers_are_ids_too() -> None:
    assert named(1, 2).existing_rows([np.int32(2), np.uint8(9)]).tolist() == [1]
    assert named(1, 2).rows([np.int64(1)]) == [0]
    assert np.int64(1) in named(1) and True not in named(1) and 1.0 not in named(1)


def test_implicit_ids_go_on_after_the_largest() -> None:
    names = named(7, 3)
    assert names.new_ids(without_ids(2)).tolist() == [8, 9]
    names.drop(np.array(names.rows([7])))
    assert names.new_ids(without_ids(1)).tolist() == [8]  # an id is not given twice
    assert IdMap(5).new_ids(without_ids(2)).tolist() == [5, 6]
    with pytest.raises(ValueError, match="The next id would be 9223372036854775807, beyond 64 bits"):
        named(2**63 - 2).new_ids(without_ids(1))


def test_kinds_are_not_mixed_and_ids_not_repeated() -> None:
    with pytest.raises(
        TypeError, match=r"has str ids, but no ids were given, so that they would be 0, 1, \.\.\. Give"
    ):
        named("a").new_ids(without_ids(1))
    with pytest.raises(TypeError, match="This index has str ids, got int ids"):
        named("a").new_ids(without_ids(1).with_ids([7]))
    with pytest.raises(TypeError, match="This index has int ids, got str ids"):
        named(0).new_ids(without_ids(1).with_ids(["a"]))
    with pytest.raises(ValueError, match=r"id 'b' is in the index already\. Use update to replace it"):
        named("a", "b").new_ids(without_ids(2).with_ids(["c", "b"]))
    assert named("a").new_ids(without_ids(0)).tolist() == []


def test_dropped_ids_are_free_and_replaced_ids_name_the_new_row() -> None:
    names = named("a", "b", "c")
    names.append(np.array(["b", "long name"]))
    names.drop(np.array([1, 2]))
    assert names.live.tolist() == [0, 3, 4] and names.deleted_rows.tolist() == [1, 2]
    assert names.rows(["b"]) == [3] and "c" not in names
    assert names.of(names.live).tolist() == ["a", "b", "long name"]
    names.append(np.array(["c"]))
    assert names.rows(["c"]) == [5] and len(names) == 4


def test_skipped_rows_are_nobodys() -> None:
    names = named("a")
    names.reserve(2)
    names.append(np.array(["b"]))
    assert names.live.tolist() == [0, 3] and names.rows(["b"]) == [3] and len(names) == 2
    assert "" not in names


IDS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 2), unique=True, max_size=8),
    st.lists(st.text().filter(lambda text: not text.endswith("\0")), unique=True, max_size=8),
)


@given(ids=IDS, data=st.data())
def test_saved_and_loaded_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, ids: list[Any], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("names")
    names = IdMap()
    names.append(without_ids(len(ids)).with_ids(ids).ids)
    if ids:
        names.drop(np.array(sorted(data.draw(st.sets(st.sampled_from(range(len(ids)))))), np.int64))
        names.append(names.of(names.live)[:1])  # replaced: it stands twice
        names.drop(names.live[:1][len(names.live) < 2 :])
        names.reserve(1)
    names.save(folder)
    loaded = IdMap.load(folder)
    assert loaded.live.tolist() == names.live.tolist() and loaded.next == names.next
    assert loaded._row_of == names._row_of
    assert loaded.of(loaded.live).tolist() == names.of(names.live).tolist()


def test_strings_that_utf8_cannot_hold_are_kept(tmp_path: Path) -> None:
    names = named("\ud800", "é\U0001f600")
    names.save(tmp_path)
    assert IdMap.load(tmp_path).of(np.arange(2)).tolist() == ["\ud800", "é\U0001f600"]


def test_ids_must_fit_their_rows(tmp_path: Path) -> None:
    named(1, 2, 3).save(tmp_path)
    np.save(tmp_path / "alive.npy", np.ones(2, bool))
    with pytest.raises(ValueError, match=r"has 3 ids for bool \(2,\) rows"):
        IdMap.load(tmp_path)


def test_one_long_id_does_not_widen_all() -> None:
    """In an array of NumPy's strings these took 400 MB."""
    tracemalloc.start()
    names = IdMap()
    for i in range(10):
        names.append(as_ids([f"{i}-{j}" if j else str(i) * 10_000 for j in range(100)], 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert names.of(np.array([5, 899])).tolist() == ["0-5", "8-99"]
    assert names.of(np.array([100])).tolist() == ["1" * 10_000]
    names.reserve(1)
    assert names.rows(["3" * 10_000]) == [300]


def test_rows_that_come_while_ids_are_looked_up_are_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = IdMap()
    names.append(np.arange(3))
    names.save(tmp_path)
    loaded = IdMap.load(tmp_path)  # which makes nothing yet that a look-up needs
    begun, added, find = Event(), Event(), np.flatnonzero

    def slow(values: np.ndarray) -> np.ndarray:
        found = find(values)
        begun.set()
        added.wait(0.2)
        return found

    monkeypatch.setattr(np, "flatnonzero", slow)
    reader = Thread(target=loaded.__contains__, args=(0,))
    reader.start()
    assert begun.wait(10)
    loaded.append(np.array([3]))
    added.set()
    reader.join()
    assert 3 in loaded and len(loaded) == 4
