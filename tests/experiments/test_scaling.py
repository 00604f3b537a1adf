"""Growth: the same synthetic FDEs however they are cut, and recall of an exact search."""

import numpy as np
import pytest

from experiments.datasets.synthetic import synthetic_collection
from experiments.runner import scaling
from experiments.runner.scaling import RECALL, scaling_rows, scaling_settings

pytestmark = pytest.mark.compiled("searches whole collections")


def test_rows_are_the_same_however_they_are_cut() -> None:
    real = np.random.default_rng(0).normal(size=(70, 4)).astype(np.float32)
    whole = np.concatenate([rows for _, rows in scaling._blocks(real, 0, 9000, 1)])
    parts = [(0, 50), (50, 5000), (5000, 9000)]
    cut = np.concatenate([rows for a, b in parts for _, rows in scaling._blocks(real, a, b, 1)])
    np.testing.assert_array_equal(whole, cut)
    np.testing.assert_array_equal(whole[:70], real)
    assert len(np.unique(whole, axis=0)) > 8600  # one in 70 adds the difference of a text with itself


def test_every_search_is_measured_at_every_size_and_an_exact_one_finds_all() -> None:
    settings = scaling_settings(
        {
            "sizes": [100, 5000],
            "build": {"num_repetitions": 2, "num_simhash_projections": 2, "projection_dimension": 4},
            "searches": [{"backend": "exact"}, {"backend": "hnsw", "most": 100}, {"backend": "hnws"}],
            "queries": 3,
        }
    )
    part = synthetic_collection("quick-wide", documents=40, queries=6)
    rows, failures = scaling_rows(settings, part, "scaling", 42, 1)
    assert [(row["label"], row["build"]["n"]) for row in rows] == [
        ("exact", 100),
        ("exact", 5000),
        ("hnsw", 100),
    ]
    for row in rows[:2]:
        assert row["metrics"][RECALL]["mean"] == 1
        assert row["build"]["vector_dimension"] == 2 * 4 * 4 + 128 + 1
    assert rows[0]["build_seconds"] < rows[1]["build_seconds"]
    ((backend, message),) = failures
    assert backend == "hnws" and "backend must be" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"size": [1]}, r"no key of scaling 'size'\. Did you mean 'sizes'"),
        ({"sizes": [2, 1]}, "scaling needs sizes, rising numbers of FDEs"),
        ({"sizes": [1], "searches": [{"bakend": "exact"}]}, "no key of a search 'bakend'"),
    ],
)
def test_wrong_settings_are_named(content: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        scaling_settings(content)
