"""The quantized command's parts: a measured collection, and tables of made-up numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import quantized
from experiments.datasets.collections import Collection, exact_top
from muvera import MultiVectors


@pytest.mark.compiled("encodes and codes long FDEs")
def test_rows_are_measured_on_one_collection(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = MultiVectors.from_arrays([rng.standard_normal((4, 16)) for _ in range(80)])
    queries = MultiVectors.from_arrays([rng.standard_normal((3, 16)) for _ in range(5)])
    collection = Collection("small", documents, queries, "0" * 16)
    found = quantized.measure(collection, exact_top(collection, 10, tmp_path), 42, threads=1)
    assert list(found) == [row.name for row in quantized.ROWS]
    sizes = {name: one["bytes_per_vector"] for name, one in found.items()}
    assert sizes["PQ-256-8"] == 10240 // 8 + 8 and sizes["int8"] == 10240 + 12
    assert sizes["PQ-256-8, 200 rescored by int8"] == sizes["PQ-256-8"] + 10244
    for one in found.values():
        assert one["milliseconds"] > 0 and one["recall"]["50"] <= one["recall"]["75"] <= 1
    # Fewer documents than centroids are coded without loss.
    assert found["PQ-256-4"]["recall"] == found["float32, exact"]["recall"]


def results() -> dict[str, Any]:
    def run(float_recall: float, code_recall: float) -> dict[str, Any]:
        return {
            row.name: {
                "recall": {
                    str(d): (code_recall if row.group else float_recall) + d / 1e4 for d in quantized.DEPTHS
                },
                "bytes_per_vector": 1288 if row.group else 41216,
                "milliseconds": 1.0 if row.group else 4.0,
                "seconds": 2.5,
            }
            for row in quantized.ROWS
        }

    return {
        "machine": {"processor": "a processor", "load": 0.5},
        "threads": 1,
        "collections": {
            "plaid-few": {"documents": 10, "runs": [run(0.9, 0.9), run(0.9, 0.9)]},
            "many": {"documents": 2000, "runs": [run(0.8, 0.79), run(0.8, 0.77)]},
        },
    }


def test_tables_show_losses_against_floats_and_costs_of_the_largest_collection() -> None:
    text = quantized.table(results())
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert text.splitlines()[0].split()[:2] == ["few", "many"]
    codes = next(line for line in text.splitlines() if line.startswith("PQ-256-16"))
    assert codes.split()[1:] == [".905", ".785", ".845", "0.0100", "0.0200"]
    assert lines["PQ-256-8, 75 candidates"][3:] == [".907", ".787", ".847", "0.0075", "0.0175"]
    assert text.splitlines()[-1].split()[1:] == ["1,288", "32.0x", "1.00", "4.0x", "2.5"]


def test_markdown_says_how_it_was_measured() -> None:
    text = quantized.markdown(results())
    assert "mean over 2 seeds" in text and "many, 2,000 documents" in text and "a processor, load 0.5" in text
    assert text.count("| --- |") == 2
