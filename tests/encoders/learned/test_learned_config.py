"""LearnedConfig: round trips and refusals."""

from typing import Any

import pytest

from muvera import LearnedConfig


def test_round_trip_and_hash() -> None:
    config = LearnedConfig(dimension=96, vector_dimension=512, seed=3)
    assert LearnedConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["encoder"] == "learned"
    assert config.hash == LearnedConfig.from_dict(config.to_dict()).hash
    assert config.hash != LearnedConfig(dimension=96, vector_dimension=512).hash
    assert isinstance(LearnedConfig(dimension=8, ridge=1).ridge, float)


@pytest.mark.parametrize(
    ("values", "error", "sentence"),
    [
        ({"dimension": 0}, ValueError, "dimension must be at least 1, got 0."),
        ({"dimension": 8.0}, TypeError, "dimension must be an int, got float 8.0."),
        ({"num_landmarks": True}, TypeError, "num_landmarks must be an int, got bool True."),
        (
            {"vector_dimension": 5000},
            ValueError,
            "vector_dimension must be at most num_features=2048, got 5000.",
        ),
        ({"ridge": 0.0}, ValueError, "ridge must be between 0.001 and 100, got 0.0."),
        ({"ridge": "much"}, TypeError, "ridge must be a number, got str 'much'."),
        ({"training_epochs": -1}, ValueError, "training_epochs must be at least 0, got -1."),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1."),
        ({"split_mean": 1}, TypeError, "split_mean must be a bool, got int 1."),
        (
            {"split_mean": True, "vector_dimension": 9},
            ValueError,
            "vector_dimension must be at least 10 with split_mean=True, of which the mean token and the bias take 9, "
            "got 9. Use longer vectors, or split_mean=False.",
        ),
    ],
)
def test_wrong_values(values: dict[str, Any], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as caught:
        LearnedConfig(**{"dimension": 8, **values})
    assert sentence in str(caught.value)


def test_unknown_and_missing_keys() -> None:
    with pytest.raises(ValueError, match=r"LearnedConfig has no 'num_repetitions'\. It has: dimension"):
        LearnedConfig.from_dict({"dimension": 8, "num_repetitions": 20})
    with pytest.raises(ValueError, match="LearnedConfig needs dimension, the columns of a token vector"):
        LearnedConfig.from_dict({"encoder": "learned"})
