"""The tune command's parts: a measured collection, and tables of made-up numbers."""

from pathlib import Path
from typing import Any

import pytest
from builders.realistic_collections import DIM, documents_like_real, queries_like_real
from builders.small_search_space import use_small_encoders

from experiments import tune as tunings
from experiments.datasets.collections import Collection, exact_top
from muvera import MultiVectors


@pytest.mark.compiled("encodes hundreds of documents many times")
def test_every_preset_meets_what_fits_in_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_encoders(monkeypatch)
    presets: dict[str, dict[str, Any]] = {
        "large": {"num_repetitions": 4},
        "small": {"num_repetitions": 1, "num_simhash_projections": 1, "center": False},
    }
    monkeypatch.setattr(tunings, "PRESETS", presets)
    texts = documents_like_real(500)
    filled = texts[texts.lengths > 0]
    documents = MultiVectors(filled.tokens, filled.offsets)
    collection = Collection("small", documents, queries_like_real(documents, 60), "0" * 16)
    found = tunings.measure(collection, exact_top(collection, 10, tmp_path), 300, 0)
    assert (found["documents"], found["sample"], found["queries"], found["held_out"]) == (471, 300, 30, 30)
    large, small = found["presets"]
    assert (large["floats"], small["floats"]) == (4 * 32 * DIM, 2 * DIM)
    for row in (large, small):
        assert row["tuned_bytes"] <= row["bytes"] == 4 * row["floats"] + 8
        assert row["low"] <= row["tuned_recall"] - row["recall"] <= row["high"]
    # 32 floats of a single repetition say little.
    assert small["tuned_recall"] > small["recall"]


def test_tables() -> None:
    row = {
        "preset": "default",
        "floats": 10240,
        "bytes": 40968,
        "recall": 0.9,
        "tuned": "learned 1,024, int8",
        "tuned_bytes": 1036,
        "tuned_recall": 0.95,
        "low": 0.04,
        "high": 0.06,
        "windows": "learned 512, int8",
        "windows_recall": 0.94,
    }
    worse = {**row, "preset": "paper", "tuned_recall": 0.9, "low": 0.0, "high": 0.0, "windows_recall": 0.9}
    one = {"documents": 1400, "sample": 1000, "queries": 112, "held_out": 113, "presets": [row, worse]}
    results = {"collections": {"plaid-small": one}}
    text = tunings.markdown(results)
    assert "| small, 1,400, 113 asked | default, 10,240 | 40,968 | 0.900 |" in text
    assert "| learned 1,024, int8 | 1,036 | 0.950 | +0.050 (+0.040 to +0.060) |" in text
    assert "more than the preset in 1 of 2 rows, less in 0." in text
    assert "found 0.0050 less on average, at worst 0.0100." in text
    assert "paper, 10,240" in tunings.table(results)
