"""IdMap: ids of rows, through every change and the disk."""

import tracemalloc
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera import MultiVectors
from muvera.data.validation import as_ids
from muvera.index import id_map
from muvera.index.contents import IndexContents
from muvera.index.id_map import IdMap


def named(*ids: Any) -> IdMap:
    names = IdMap()
    names.append(np.array(ids))
    return names


def without_ids(count: int) -> MultiVectors:
    return MultiVectors.from_arrays([np.ones((1, 2))] * count, dimension=2)


def test_new_ids() -> None:
    assert IdMap(5).new_ids(without_ids(2)).tolist() == [5, 6]
    assert named("a").new_ids(without_ids(0)).tolist() == []
    with pytest.raises(ValueError, match="9223372036854775807"):
        named(2**63 - 2).new_ids(without_ids(1))
    with pytest.raises(TypeError, match="0, 1"):
        named("a").new_ids(without_ids(1))


IDS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 2), unique=True, max_size=8),
    st.lists(st.text().filter(lambda text: not text.endswith("\0")), unique=True, max_size=8),
)


@settings(max_examples=25)
@given(ids=IDS, data=st.data())
def test_saved_and_loaded(tmp_path_factory: pytest.TempPathFactory, ids: Any, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("names")
    names = IdMap()
    names.append(without_ids(len(ids)).with_ids(ids).ids)
    if ids:
        names.drop(np.array(sorted(data.draw(st.sets(st.sampled_from(range(len(ids)))))), np.int64))
        moved = names.of(names.live)[:1]
        names.drop(names.live[:1])
        names.append(moved.repeat(2))  # the first id moves to two new rows
    names.save(folder)
    loaded = IdMap.load(folder)
    assert loaded.live.tolist() == names.live.tolist() and loaded.next == names.next
    assert loaded.documents.tolist() == names.documents.tolist()
    assert loaded.rows(ids, "ignore").tolist() == names.rows(ids, "ignore").tolist()
    assert loaded.of(loaded.live).tolist() == names.of(names.live).tolist()


def test_files(tmp_path: Path) -> None:
    named("\ud800", "é\U0001f600").save(tmp_path)  # UTF-8 cannot encode the first
    assert IdMap.load(tmp_path).of(np.arange(2)).tolist() == ["\ud800", "é\U0001f600"]
    np.save(tmp_path / "alive.npy", np.ones(3, bool))
    with pytest.raises(ValueError, match=r"2 ids, but alive.npy is a bool array of shape \(3,\)"):
        IdMap.load(tmp_path)
    np.save(tmp_path / "alive.npy", np.ones(2, bool))
    for content, message in (
        ('["a", "b", "a"]', "twice"), ("[1, 2, 1]", "twice"), ('["a", 1]', "all"), ('["a", "\\u0000"]', "NUL")
    ):  # fmt: skip
        np.save(tmp_path / "alive.npy", np.ones(content.count(",") + 1, bool))
        (tmp_path / "ids.json").write_text(f'{{"next": 0, "ids": {content}}}')
        with pytest.raises(ValueError, match=message):
            IdMap.load(tmp_path).require_different(tmp_path)


def test_one_long_id_does_not_widen_all() -> None:
    """In an array of NumPy's strings these took 400 MB."""
    tracemalloc.start()
    names = IdMap()
    for i in range(10):
        names.append(as_ids([f"{i}-{j}" if j else str(i) * 10_000 for j in range(100)], 100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20 and names.of(np.array([5, 899])).tolist() == ["0-5", "8-99"]
    assert names.rows(["3" * 10_000]).tolist() == [300]


@pytest.mark.parametrize("merged", [4096, 3])
def test_changes_to_a_copy_are_invisible(
    merged: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(id_map, "_CHANGED", merged)
    named(*range(5)).save(tmp_path)
    for looked_up in (False, True):
        names = IdMap.load(tmp_path)
        assert not looked_up or 3 in names
        copies = copy(names), copy(names)  # neither sees the other's rows
        for changed, first in zip(copies, (7, 27), strict=True):
            changed.drop(np.array([1, 2]))
            changed.append(np.array([2, first, first + 1, first + 2]))
        for changed, first in zip(copies, (7, 27), strict=True):
            assert changed.rows([0, 1, 2, first], "ignore").tolist() == [0, 5, 6] and 1 not in changed
            assert changed.of(changed.live).tolist() == [0, 3, 4, 2, first, first + 1, first + 2]
            assert (names.next, changed.next) == (5, first + 3)
        assert names.rows([1, 2, 7, 27], "ignore").tolist() == [1, 2] and len(names.live) == 5


def test_no_property_holds_a_lock_that_a_fork_could_leave_held() -> None:
    """Before Python 3.12 a cached_property has one."""
    kinds = [type(value) for owner in (IdMap, IndexContents) for value in vars(owner).values()]
    assert property in kinds and cached_property not in kinds
