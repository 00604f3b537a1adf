"""The bench of muvera.adapt on tiny texts."""

import numpy as np
from builders.text_encoders import HashEncoder

from experiments.bench.adapt import measure


def test_the_same_model_finds_all_of_its_best_texts() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"word{i}" for i in rng.integers(0, 40, 6)) for _ in range(120)]
    encoders = {"a": HashEncoder(12), "b": HashEncoder(12), "other": HashEncoder(20)}
    rows = list(measure("some", texts, ["word1 word7", "word3"], encoders, [("a", "b"), ("a", "other")]))
    assert [row["texts"] for row in rows] == 2 * [25, 50, 100, 200]
    assert all(row["orthogonal"] == row["own"] == row["ten"] == 1 for row in rows[:4])
    assert rows[0]["tokens"] == 25 * 6
    assert all(0 < row["ten"] <= row["orthogonal"] <= 1 for row in rows[4:])
