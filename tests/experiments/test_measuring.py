"""What the measurements share."""

import numpy as np

from experiments.measuring import processor_time, recall_of_scores, share


def test_recall_is_counted_among_the_first_fifty() -> None:
    exact = np.arange(100, dtype=np.float32)[np.newaxis]
    assert recall_of_scores(exact, exact) == 1
    assert recall_of_scores(exact, -exact) == 0


def test_the_processors_time_and_how_a_share_is_written() -> None:
    assert 0 <= processor_time(lambda: None) < 60
    assert share([0.5, 0.7]) == ".600"
    assert share([1.0]) == "1.000"
    assert share([]) == ""
