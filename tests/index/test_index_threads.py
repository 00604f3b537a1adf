"""Searching from several threads at once gives what one thread gives."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from builders.realistic_collections import CONFIG, documents_like_real, queries_like_real
from builders.searched_indexes import every_way

from muvera import MuveraIndex

DOCUMENTS = documents_like_real(400)
QUERIES = queries_like_real(DOCUMENTS, 48)

# Calls that differ in everything that a search could leave behind for the next.
CALLS: list[dict[str, Any]] = [
    {"k": 5, "candidates": 20},
    {"k": 300, "candidates": 300},
    {"k": 5, "candidates": 20, "filter": list(range(0, 400, 2))},
    {"k": 3, "candidates": 5, "filter": lambda name: name % 3 == 0},
    {"k": 5, "candidates": 20, "mean": True, "threads": 2},
]


def ask(index: MuveraIndex, number: int) -> list[tuple[Any, float]]:
    return list(index.search(QUERIES[number], **CALLS[number % len(CALLS)])[0])


@every_way
@pytest.mark.parametrize("loaded", [False, True])
def test_eight_threads_answer_as_one(way: dict[str, Any], loaded: bool, tmp_path: Path) -> None:
    index = MuveraIndex.build(DOCUMENTS, CONFIG, threads=1, **way)
    index.delete(range(0, 400, 9))
    if loaded:
        index.save(tmp_path / "index")
        index = MuveraIndex.load(tmp_path / "index")
    index.add(documents_like_real(30, 8).with_ids(range(1000, 1030)))
    with ThreadPoolExecutor(8) as pool:  # first: nothing is counted or kept yet
        together = list(pool.map(lambda number: ask(index, number), list(range(48)) * 3))
    alone = [ask(index, number) for number in range(48)]
    assert together == alone * 3


@every_way
def test_searches_go_on_while_another_thread_saves_and_rebuilds(way: dict[str, Any], tmp_path: Path) -> None:
    index = MuveraIndex.build(DOCUMENTS, CONFIG, threads=1, **way)
    # All candidates: a rebuilt graph is another one.
    everything: dict[str, Any] = {"k": 8, "candidates": 400}
    expected = [list(row) for row in index.search(QUERIES, **everything)]
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(lambda q=q: list(index.search(QUERIES[q], **everything)[0]))  # type: ignore[misc]
            for q in list(range(48)) * 4
        ]
        for number in range(3):
            index.save(tmp_path / f"index {number}")
            index.rebuild(threads=1)
        index.save(tmp_path / "index 2")
    assert [future.result() for future in asked] == expected * 4


def test_changes_wait_for_each_other() -> None:
    index = MuveraIndex.build(DOCUMENTS, CONFIG, threads=1, exact_tokens=0, backend="hnsw")
    parts = [
        documents_like_real(10, seed).with_ids(range(1000 * seed, 1000 * seed + 10)) for seed in range(1, 9)
    ]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(index.add, parts))
        list(pool.map(lambda seed: index.delete([1000 * seed]), range(1, 9)))
    assert len(index) == 400 + 8 * 9
    best = index.search(parts[3][5], k=1)[0]
    assert best.ids.tolist() == [4005] and index.search(DOCUMENTS[7], k=1)[0].ids.tolist() == [7]


def test_a_filter_that_changes_the_index_is_refused() -> None:
    """It would wait for its own search for ever."""
    index = MuveraIndex.build(DOCUMENTS, CONFIG, threads=1)

    def meddles(name: int) -> bool:
        index.delete([name])
        return True

    with pytest.raises(RuntimeError, match="such as a filter, must neither change the index"):
        index.search(QUERIES[0], filter=meddles)
    assert len(index) == 400
    assert len(index.search(QUERIES[0], 3, filter=lambda name: len(index.search(QUERIES[1], 1)) == 1)[0]) == 3
