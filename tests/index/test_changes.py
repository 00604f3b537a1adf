"""MuveraIndex: additions, updates and deletions; whole changes; threads.

A change happens completely or not at all.
"""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.indexes import (
    DOCUMENTS,
    MORE,
    QUERIES,
    WAYS,
    answers,
    batches,
    built,
    every_way,
    with_nan,
)
from builders.realistic_collections import CONFIG, DIM, documents_like_real

from muvera import FDEEncoder, MultiVectors, MuveraIndex
from muvera.index import candidates
from muvera.index.token_store import TokenStore
from muvera.mips.exact import ExactSearch
from muvera.mips.hnsw import HNSWSearch


def test_what_a_model_returns_is_added_with_ids_in_one_call() -> None:
    arrays = [np.eye(8, dtype=np.float32)[i : i + 3] for i in range(6)]
    index = MuveraIndex.build(arrays[:1], "mean", ids=["a"])
    index.add([arrays[1], arrays[2]], ids=["b", "c"])
    index.add(np.stack(arrays[3:5]), ids=np.array(["d", "e"]))
    index.update([arrays[5]], ids=["a"])
    assert [ranking.ids[0] for ranking in index.search(arrays[1:], 1)] == ["b", "c", "d", "e", "a"]


@every_way
def test_batches_give_the_index_of_one_build(way: dict[str, Any]) -> None:
    encoder = FDEEncoder(CONFIG).fit(DOCUMENTS)
    index = MuveraIndex(encoder, **way)
    for batch in batches(DOCUMENTS, 70):
        index.add(batch, threads=1)
    assert answers(index) == answers(built(encoder=encoder, **way))


@every_way
def test_deleted_documents_are_not_found_and_their_ids_are_free(way: dict[str, Any]) -> None:
    index = built(**way)
    best = [row[0][0] for row in answers(index)]
    index.delete(best)
    assert not set(best) & {name for row in answers(index) for name, _ in row}
    assert best[0] not in index and len(index) == 200 - len(set(best))
    other = int(index.ids[5])
    with pytest.raises(KeyError, match=f"{best[0]} "):
        index.delete([other, best[0]])
    assert other in index
    index.add(DOCUMENTS[[best[0]]])
    assert answers(index)[0][0][0] == best[0]


@every_way
def test_updated_documents_are_found_by_their_new_tokens(way: dict[str, Any]) -> None:
    index = built(**way)
    other = int(index.ids[5])
    index.update(MultiVectors.from_arrays([QUERIES[0] * 3, QUERIES[1] * 3], ids=[other, 1000]))
    assert [row.ids.tolist() for row in index.search(QUERIES[:2], k=1)] == [[other], [1000]]
    assert index.ids.tolist()[-2:] == [other, 1000]
    index.update(MultiVectors.from_arrays([np.empty((0, DIM))], ids=[other]))
    assert other not in {name for row in answers(index, k=100, candidates=200) for name, _ in row}


@every_way
def test_an_emptied_index_is_rebuilt_and_gives_no_id_twice(way: dict[str, Any]) -> None:
    index = built(**way)
    index.delete(index.ids[5:9])
    index.update(MultiVectors.from_arrays([QUERIES[0] * 3, QUERIES[1] * 3], ids=[20, 1000]))
    index.delete(index.ids)
    assert len(index) == 0 and index.search(QUERIES[:1], k=1)[0].ids.tolist() == []
    index.rebuild()
    index.add(MultiVectors.from_flat(MORE.tokens, MORE.lengths))
    assert index.ids.tolist() == list(range(1001, 1021))
    assert len(index.search(QUERIES[0])[0]) == 10


def facts(index: MuveraIndex) -> Any:
    return index.ids.tolist(), index.info(), answers(index)


BAD_CHANGES: list[tuple[str, Any, type[Exception], str]] = [
    ("add", DOCUMENTS[[199, 3]], ValueError, "id 199"),
    ("add", with_nan(9), ValueError, r"documents\[8\] \(id 1008\) has nan in its token 0, coordinate 3"),
    ("add", np.ones((2, 15)), ValueError, "15 columns, .* dimension=16"),
    ("add", documents_like_real(2, ids=["a", "b"]), TypeError, "int ids, got str 'a'"),
    ("update", documents_like_real(2), ValueError, "no ids"),
    ("delete", [3, 300], KeyError, "300"),
    ("delete", [True], TypeError, "bool"),
]


@every_way
@pytest.mark.parametrize(("method", "value", "error", "message"), BAD_CHANGES)
def test_refused_changes(
    way: dict[str, Any], method: str, value: Any, error: type[Exception], message: str
) -> None:
    index = built(**way)
    before = facts(index)
    with pytest.raises(error, match=message):
        getattr(index, method)(value)
    assert facts(index) == before


class FaultError(Exception):
    """An error that no code expects."""


@pytest.mark.parametrize(
    ("way", "owner", "step"),
    [
        ("all tokens", TokenStore, "append"),
        ("exact", ExactSearch, "add"),
        ("hnsw", FDEEncoder, "encode_documents"),
        ("hnsw", HNSWSearch, "add"),
        ("hnsw", TokenStore, "append"),
        ("scan", FDEEncoder, "encode_documents"),
    ],
)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("method", ["add", "update", "rebuild"])
def test_changes_that_fail_late(
    way: str, owner: Any, step: str, after: bool, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault happens in the second block of vectors, before or after the step."""
    index = built(**WAYS[way])
    index.delete([1, 2])
    before = index.ids.tolist(), answers(index)
    monkeypatch.setattr(candidates, "_BLOCK_BYTES", 4 * CONFIG.vector_dimension * 4)
    original, calls = getattr(owner, step), []

    def breaks(self: Any, *args: Any, **settings: Any) -> Any:
        calls.append(step)
        if len(calls) == 2 or owner is TokenStore:
            if after:
                original(self, *args, **settings)
            raise FaultError
        return original(self, *args, **settings)

    monkeypatch.setattr(owner, step, breaks)
    new = documents_like_real(20, 7, ids=np.arange(190, 210) if method == "update" else None)
    run: Any = index.rebuild if method == "rebuild" else partial(getattr(index, method), new)
    try:
        run()
    except FaultError:
        monkeypatch.undo()
        assert (index.ids.tolist(), answers(index)) == before
        run()
    monkeypatch.undo()
    assert len(index) == len(index.ids) == {"add": 218, "update": 208, "rebuild": 198}[method]
    assert set(index.ids.tolist()) >= set(range(3, 190))
    if method != "rebuild":
        assert index.search(new[0] * 9, k=1, candidates=100)[0].ids[0] == index.ids[-20]


def visible(index: MuveraIndex) -> Any:
    """Return what searches see.

    `info` is left out: a graph counts the vectors of an abandoned block there.
    """
    return index.ids.tolist(), answers(index)


@every_way
def test_the_steps_of_a_block_become_visible_together(way: dict[str, Any]) -> None:
    index, expected = built(**way), built(**way)
    before, best = visible(index), [row[0][0] for row in answers(index)]
    other = next(name for name in range(200) if name not in best)
    with index.change() as change:
        change.delete(best)
        added = change.add(MORE.with_ids(range(1000, 1020)), threads=1)
        # A graph has grown after the deletion: it must still find the deleted ones.
        assert visible(index) == before and added.tolist() == list(range(1000, 1020))
        change.update(MORE[:2].with_ids([other, 2000]), threads=1)
        assert visible(index) == before
    expected.delete(best)
    expected.add(MORE.with_ids(range(1000, 1020)), threads=1)
    expected.update(MORE[:2].with_ids([other, 2000]), threads=1)
    assert index.ids.tolist() == expected.ids.tolist() and answers(index) == answers(expected)


@every_way
def test_an_exception_abandons_a_block(way: dict[str, Any]) -> None:
    index = built(**way)
    before = visible(index)
    with pytest.raises(FaultError), index.change() as change:
        change.delete([1, 2])
        change.update(MORE[:4].with_ids([3, 4, 1000, 1001]), threads=1)
        change.add(MORE[4:].with_ids(range(2000, 2016)), threads=1)
        raise FaultError
    assert visible(index) == before
    index.add(MORE.with_ids(range(1000, 1020)), threads=1)  # also into a graph that has grown
    assert index.ids.tolist() == before[0] + list(range(1000, 1020))
    assert index.search(MORE[[1]], 1, candidates=100)[0].ids[0] == 1001


def test_a_block_after_a_step_that_fails_and_after_its_end(tmp_path: Path) -> None:
    index = built()
    with index.change() as change:
        change.delete([1])
        with pytest.raises(KeyError, match="999"):
            change.delete([2, 999])
        change.commit()
        assert 1 not in index and 2 in index
        change.delete([3])
    assert 3 not in index and len(index) == 198
    with pytest.raises(ValueError, match=r"ended.*with index\.change\(\) as change"):
        change.delete([4])


@every_way
def test_a_change_within_a_change_is_refused_and_harmless(way: dict[str, Any]) -> None:
    index = built(**way)
    with index.change() as change:
        with pytest.raises(RuntimeError, match="call the methods of the change"):
            index.add(MORE[:1], ids=[1000])
        with pytest.raises(RuntimeError, match="call the methods of the change"):
            index.delete([7])
        change.add(MORE[1:3], ids=[1001, 1002], threads=1)
    expected = built(**way)
    expected.add(MORE[1:3], ids=[1001, 1002], threads=1)
    assert visible(index) == visible(expected)


def test_an_abandoned_block_cannot_be_committed_later() -> None:
    index = built()
    with pytest.raises(FaultError), index.change() as change:
        change.delete([1])
        raise FaultError
    with pytest.raises(ValueError, match="This change has ended with its block"):
        change.commit()
    assert 1 in index


def test_a_block_that_another_thread_ends_leaves_the_index_usable() -> None:
    index = built()

    def steps() -> Generator[None, None, None]:
        with index.change() as change:
            change.delete([1])
            yield

    begun = steps()
    next(begun)
    with ThreadPoolExecutor(1) as other:
        other.submit(begun.close).result()
        other.submit(index.delete, [2]).result(timeout=10)
    index.delete([3])
    assert 1 in index and {2, 3}.isdisjoint(index.ids.tolist())


# Searches that differ in everything that one could leave behind for the next.
SEARCHES: list[dict[str, Any]] = [
    {"k": 5, "candidates": 20},
    {"k": 200, "candidates": 200},
    {"k": 5, "candidates": 20, "ids": list(range(0, 200, 2))},
    {"k": 3, "candidates": 5, "ef": 7},
    {"k": 5, "candidates": 20, "threads": 2},
]


@pytest.mark.slow
@every_way
@pytest.mark.parametrize("loaded", [False, True])
def test_eight_threads_answer_as_one(way: dict[str, Any], loaded: bool, tmp_path: Path) -> None:
    index = built(**way)
    index.delete(range(0, 200, 9))
    if loaded:
        index.save(tmp_path / "index")
        index = MuveraIndex.load(tmp_path / "index")
    index.add(documents_like_real(30, 8).with_ids(range(1000, 1030)))

    def search(number: int) -> list[tuple[Any, float]]:
        return list(index.search(QUERIES[number % 10], **SEARCHES[number % 5])[0])

    with ThreadPoolExecutor(8) as pool:  # first, before anything is cached
        together = list(pool.map(search, range(60)))
    assert together == [search(number) for number in range(60)]


def test_a_search_that_meets_a_newer_hnsw_graph_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    index = built()
    [first] = answers(index)[:1]
    gone = first[0][0]
    find, calls = candidates.CandidateSearch.find, list[int]()

    def delete_first(self: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 1:
            index.delete([gone])
        return find(self, *arguments, **options)

    monkeypatch.setattr(candidates.CandidateSearch, "find", delete_first)
    assert answers(index)[0][0][0] != gone
    assert len(calls) == 2
