"""The benches of muvera.adapt and of exact tokens on a disk, on tiny inputs."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.realistic_collections import documents_like_real, queries_like_real
from builders.text_encoders import HashEncoder

from experiments.bench import cold
from experiments.bench.adapt import measure
from muvera import MultiVectors, MuveraIndex


def test_the_same_model_finds_all_of_its_best_texts() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"word{i}" for i in rng.integers(0, 40, 6)) for _ in range(120)]
    encoders = {"a": HashEncoder(12), "b": HashEncoder(12), "other": HashEncoder(20)}
    rows = list(measure("some", texts, ["word1 word7", "word3"], encoders, [("a", "b"), ("a", "other")]))
    assert [row["texts"] for row in rows] == 2 * [25, 50, 100, 200]
    assert all(row["orthogonal"] == row["own"] == row["ten"] == 1 for row in rows[:4])
    assert rows[0]["tokens"] == 25 * 6
    assert all(0 < row["ten"] <= row["orthogonal"] <= 1 for row in rows[4:])


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mincore and advice are Linux's")


@pytest.fixture
def on_disk(tmp_path: Path) -> tuple[Path, MultiVectors]:
    documents = documents_like_real(300)
    how: dict[str, Any] = {
        "tokens": "2bit",
        "keep_exact": True,
        "exact_tokens": 0,
        "path": tmp_path / "index",
    }
    MuveraIndex.build(documents, "mean", threads=1, **how)
    return tmp_path / "index", queries_like_real(documents, 8)


@linux
def test_hits_are_needed_rows_that_were_prefetched_before_codes(
    on_disk: tuple[Path, MultiVectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, queries = on_disk
    monkeypatch.setattr(cold.ColdIndex, "drop", lambda self: None)  # temporary files may be in memory
    for together in (1, 4):
        rows = {row["way"]: row for row in cold.measure(folder, queries, together)}
        assert list(rows) == [*cold.WAYS, "in memory"]
        before = rows.pop("prefetched before the codes")
        assert 0.3 < before["hits"] < 1 and before["p50"] > 0
        assert all(row.get("hits") is None for row in rows.values())


@linux
def test_nothing_is_measured_while_pages_stay_in_memory(
    on_disk: tuple[Path, MultiVectors], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cold, "_TRIES", 1)
    monkeypatch.setattr(cold, "_resident", lambda tokens: np.array([True, False]))
    with pytest.raises(RuntimeError, match=r"50\.0% of the pages are still in memory"):
        cold.measure(*on_disk, 1)
