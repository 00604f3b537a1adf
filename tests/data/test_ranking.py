"""Rankings: the one rule that orders them, and how they read."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera.data.ranking import Ranking, best_first

# Few different values, so that most rankings have ties.
scores = st.lists(st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 3.0]), max_size=30).map(
    lambda values: np.array(values, np.float32)
)


@given(scores, st.integers(1, 40))
def test_best_first_is_a_sort_by_score_then_position(values: np.ndarray, k: int) -> None:
    expected = sorted((i for i in range(len(values)) if values[i] > -np.inf), key=lambda i: (-values[i], i))
    assert best_first(values, k).tolist() == expected[:k]


def test_a_ranking_is_read_like_a_list_of_pairs() -> None:
    ranking = Ranking(np.array([7, 3, 5, 1]), np.array([4.0, 2.0, 1.0, -0.5], np.float32))
    assert len(ranking) == 4
    assert list(ranking) == [(7, 4.0), (3, 2.0), (5, 1.0), (1, -0.5)]
    assert all(type(name) is int and type(score) is float for name, score in ranking)
    assert repr(ranking) == "Ranking({7: 4, 3: 2, 5: 1, ...})"
    assert repr(Ranking(np.array(["a"]), np.ones(1, np.float32))) == "Ranking({'a': 1})"


def test_ids_and_scores_go_together() -> None:
    with pytest.raises(ValueError, match="zip"):
        list(Ranking(np.array([1, 2]), np.ones(1, np.float32)))


def test_ranks_and_slices() -> None:
    ranking = Ranking(np.array(["b", "a", "c"]), np.array([4.0, 2.0, 1.0], np.float32))
    assert ranking[0] == ("b", 4.0) and ranking[-1] == ("c", 1.0) and ranking[np.int64(1)] == ("a", 2.0)
    assert isinstance(ranking[:2], Ranking) and list(ranking[:2]) == [("b", 4.0), ("a", 2.0)]
    assert dict(ranking) == {"b": 4.0, "a": 2.0, "c": 1.0}
    assert json.loads(json.dumps(ranking.to_dict())) == {"ids": ["b", "a", "c"], "scores": [4.0, 2.0, 1.0]}
    with pytest.raises(IndexError):
        ranking[3]
