"""Rankings: the rule that orders them, and access by rank."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera.data.ranking import Ranking, best_first

# Few different values, so that most rankings have ties; sometimes enough for the
# selection path.
scores = st.lists(st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 3.0]), max_size=30)


@given(scores, st.integers(1, 40), st.sampled_from([1, 20]))
def test_best_first_sorts_by_score_then_position(values: list[float], k: int, repeats: int) -> None:
    array = np.array(values * repeats, np.float32)
    expected = sorted((i for i in range(len(array)) if array[i] > -np.inf), key=lambda i: (-array[i], i))
    assert best_first(array, k).tolist() == expected[:k]


def test_a_ranking_is_a_list_of_pairs() -> None:
    ranking = Ranking(np.array(["b", "a", "c", "d"]), np.array([4.0, 2.0, 1.0, -0.5], np.float32))
    assert len(ranking) == 4 and dict(ranking) == {"b": 4.0, "a": 2.0, "c": 1.0, "d": -0.5}
    assert ranking[0] == ("b", 4.0) and ranking[-1] == ("d", -0.5) and ranking[np.int64(1)] == ("a", 2.0)
    assert isinstance(ranking[:2], Ranking) and list(ranking[:2]) == [("b", 4.0), ("a", 2.0)]
    assert json.loads(json.dumps(ranking[:2].to_dict())) == {"ids": ["b", "a"], "scores": [4.0, 2.0]}
    with pytest.raises(IndexError):
        ranking[4]
