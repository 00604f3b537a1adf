"""The measurement of learned vectors, on a small collection; the tables."""

from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import documents_like_real, queries_like_real

from experiments import learned
from experiments.datasets.collections import Collection


@pytest.fixture
def collection() -> Collection:
    documents = documents_like_real(80)
    return Collection("small", documents, queries_like_real(documents, 12), "0" * 16)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "SIZES", {64: (64, 32), 16: (16, 8)})
    monkeypatch.setattr(learned, "COSTS", {"num_landmarks": (32, 64), "num_features": (64,)})
    monkeypatch.setattr(learned, "COSTS_AT", 16)


@pytest.mark.compiled("fits with thousands of landmarks")
def test_measures_and_writes_tables(collection: Collection) -> None:
    run = learned.measure(collection, 0)
    assert set(run["all"]) == set(run["outside"]) == {"64", "32", "16", "8"}
    assert run["all"]["8"] <= run["all"]["64"] <= 1
    costs = list(learned.measure_costs(collection, 0))
    assert [(row["knob"], row["value"]) for row in costs] == [
        ("num_landmarks", 32),
        ("num_landmarks", 64),
        ("num_features", 64),
    ]
    results: dict[str, Any] = {
        "threads": 1,
        "machine": {"processor": "one", "cores": 2},
        "collections": {"small": {"documents": 80, "runs": [run, run]}},
        "costs": {"small": costs},
    }
    text = learned.markdown(results)
    assert "mean over 2 quarters" in text and "| small |" in text and "landmarks 32" in text
    assert learned.table(results).splitlines()[0].split()[:2] == ["64", "32"]


def test_a_quarter_is_a_quarter() -> None:
    picked = learned.quarter(41, 3)
    assert len(picked) == 10 and len(np.unique(picked)) == 10 and picked.max() < 41
    assert learned.quarter(1, 0).tolist() == [0]
