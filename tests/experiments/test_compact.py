"""The compact command on a tiny collection: what it measures, its table."""

from typing import Any

import numpy as np
import pytest

from experiments import compact
from experiments.datasets.collections import Collection
from muvera import MultiVectors


@pytest.fixture(scope="module")
def collection() -> Collection:
    stream = np.random.default_rng(0)

    def texts(count: int) -> MultiVectors:
        arrays = [stream.normal(size=(int(stream.integers(3, 9)), 16)) for _ in range(count)]
        return MultiVectors.from_arrays([a / np.linalg.norm(a, axis=1, keepdims=True) for a in arrays])

    return Collection("small", texts(80), texts(6), "0")


@pytest.fixture(scope="module")
def run(collection: Collection) -> dict[str, Any]:
    return compact.measure(collection, 0, True, threads=1)


@pytest.mark.compiled("encodes with 10,240 floats")
def test_what_a_run_holds(run: dict[str, Any]) -> None:
    for group in ("all", "outside"):
        assert list(run[group]) == ["long", "512", "256"]
        # 50 of 80 or 60 documents: by chance .62 or .83 of the top ten are among them.
        assert run[group]["long"] > 0.8
        assert run[group]["512"] > 0.6
    assert list(run["queries"]) == list(run["without"]) == ["512", "256"]
    assert run["encode"] > 0.5


@pytest.mark.compiled("encodes with 10,240 floats")
def test_table(run: dict[str, Any]) -> None:
    results = {
        "machine": {"processor": "one"},
        "threads": None,
        "collections": {"small": {"documents": 80, "runs": [run]}},
        "graph": {"build": 29.4, "query": 12.0},
    }
    text = compact.markdown(results)
    assert "mean over 1 quarters; one." in text
    share = f"{run['queries']['512']:.3f}".removeprefix("0")
    before = f"{run['without']['512']:.3f}".removeprefix("0")
    assert f"| {share} ({before}) |" in text
    assert "512 floats 29 times as fast as that of the long FDEs, and answers 12 times" in text
    assert "small" in compact.table(results)


@pytest.mark.compiled("encodes with 10,240 floats")
def test_graph_ratios(collection: Collection) -> None:
    ratios = compact.graph_ratios(collection, 0)
    assert ratios["build"] > 1
    assert ratios["query"] > 1
