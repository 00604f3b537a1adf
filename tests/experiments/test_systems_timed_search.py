"""Queries one at a time: who is asked when, what is on the clock, what fills a short answer."""

import numpy as np
import pytest
from builders.system_inputs import unit_texts

from experiments.systems.base import Ranked
from experiments.systems.timed_search import timed_search
from muvera import MultiVectors

QUERIES = unit_texts(0, [2, 3, 1])


def test_every_query_is_asked_alone_and_the_first_once_more_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    asked: list[int] = []

    def answer(place: int, query: MultiVectors) -> Ranked:
        np.testing.assert_array_equal(query.tokens, QUERIES[place])
        asked.append(place)
        clock[0] += 100.0 if len(asked) == 1 else place + 1.0  # warming up takes long
        return np.array([7, 8, 9])[: place + 1], np.array([3, 2, 1], np.float32)[: place + 1]

    monkeypatch.setattr("experiments.systems.timed_search.time.perf_counter", lambda: clock[0])
    answers = timed_search(QUERIES, 2, answer)
    assert asked == [0, 0, 1, 2]
    assert answers.seconds.tolist() == [1, 2, 3]
    assert answers.ids.tolist() == [[7, -1], [7, 8], [7, 8]]
    assert answers.scores.tolist() == [[3, -np.inf], [3, 2], [3, 2]]


def test_no_queries_ask_nothing() -> None:
    def answer(place: int, query: MultiVectors) -> Ranked:
        raise AssertionError("nothing was to be asked")

    answers = timed_search(QUERIES[:0], 4, answer)
    assert answers.ids.shape == answers.scores.shape == (0, 4)
    assert answers.seconds.shape == (0,)
