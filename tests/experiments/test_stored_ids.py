"""Ids of stored results: every recall and nDCG on a page follows from them."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.small_runs import command, results, run

from experiments import commands
from experiments.bench import size
from experiments.evaluation.summary import Found
from experiments.report.stored_ids import read_ids, recomputed, write_found
from experiments.report.stored_results import RESULTS, save_results, save_run

#: Two seeds, a curve, a system with fewer documents than k, and differences.
CONTENT: dict[str, Any] = {
    "k": 10,
    "seeds": 2,
    "metrics": ["10-recall@10", "1-recall@5", "nDCG@5"],
    "tables": ["metrics", "candidates", "floats"],
    "compare": [{"to": "bm25", "what": ["fde"]}],
}
SYSTEMS: list[dict[str, Any]] = [
    {"system": "fde", "build": {"preset": "paper", "num_repetitions": 1}},
    {"system": "muvera", "build": {"preset": "mean"}, "sweep": {"candidates": [10, 30]}},
    {"system": "bm25", "allow_fewer": True},
]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The stored results of a run."""
    assert run(tmp_path, SYSTEMS, **CONTENT) == []
    save_run(tmp_path / "out", tmp_path / "results")
    return tmp_path / "results"


def test_every_stored_recall_and_ndcg_follows_from_the_stored_ids(stored: Path, tmp_path: Path) -> None:
    cells = list(recomputed("mine", stored))
    assert [cell for cell in cells if cell.stored != cell.recomputed] == []
    titles = [table["title"] for table in results(tmp_path)["tables"] if "bytes" not in table["title"]]
    assert list(dict.fromkeys(cell.table for cell in cells)) == list(dict.fromkeys(titles))
    assert {cell.row for cell in cells} >= {"fde", "muvera, candidates=30", "fde minus bm25, nDCG@5"}
    assert read_ids("mine", stored)["quick-wide"].ids["fde", 42].shape == (12, 10)


def test_deviations_over_seeds_follow_from_the_stored_ids(tmp_path: Path) -> None:
    assert run(tmp_path, SYSTEMS[:1], k=10, seeds=2, metrics=["10-recall@10"], tables=["variance"]) == []
    save_run(tmp_path / "out", tmp_path)
    (cell,) = recomputed("mine", tmp_path)
    assert cell.stored == cell.recomputed and "+- 0.0" in cell.stored


@pytest.mark.parametrize("kind", ["ids", "judgements", "exact"])
def test_wrong_ids_change_what_follows_from_them(
    stored: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = read_ids("mine", stored)
    own = found["quick-wide"]
    if kind == "ids":
        own.ids["fde", 42] = own.ids["fde", 42][:, ::-1]
    elif kind == "judgements":
        assert own.judgements is not None
        own.judgements = own.judgements[1:] + own.judgements[:1]
    else:
        own.exact = np.roll(own.exact, 1, axis=0)
    write_found("mine", found, stored)
    wrong = {cell.row for cell in recomputed("mine", stored) if cell.stored != cell.recomputed}
    assert "fde" in wrong and (kind != "ids" or "bm25" not in wrong)
    monkeypatch.setattr(commands, "RESULTS", stored)
    code, output = command("recompute", "mine")
    assert code == 1 and re.search(r"FAIL Mine: [^,]+, fde, quick-wide: 0", output)


def test_results_without_ids_still_load(stored: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "ids" / "mine.npz").unlink()
    save_run(tmp_path / "out", stored)  # as a run of an earlier version
    assert list(recomputed("mine", stored)) == [] and (stored / "mine.json").exists()
    assert not (stored / "ids" / "mine.npz").exists()


def test_recalls_by_size_follow_from_the_stored_ids(tmp_path: Path) -> None:
    exact = np.arange(40).reshape(4, 10)
    worse = exact.copy()
    worse[:, 5] = 99
    found = Found(exact, ids={("ours, 20", 0): worse, ("ours, 60", 0): exact, ("ours, 100", 0): exact})
    write_found("size", {"1,000": found}, tmp_path)
    header = ["system", "documents", "candidates for .95", "10-recall@10 of 100 candidates"]
    table = {"title": "Real texts by size", "header": header, "rows": [["ours", "1,000", "40", "0.999"]]}
    save_results("size", {"configuration": {"title": ""}, "tables": [table]}, tmp_path)
    cells = {cell.column: (cell.stored, cell.recomputed) for cell in size.recomputed("size", tmp_path)}
    assert cells == {header[2]: ("40", "40"), header[3]: ("0.999", "1.000")}


def test_the_ids_in_the_repository_lead_to_the_stored_numbers() -> None:
    """Of the smallest file; the command checks all."""
    path = min((RESULTS / "ids").glob("*.npz"), key=lambda path: path.stat().st_size)
    cells = list(recomputed(path.stem))
    assert cells and [cell for cell in cells if cell.stored != cell.recomputed] == []
    for path in (RESULTS / "ids").glob("*.npz"):
        assert json.loads((RESULTS / f"{path.stem}.json").read_text(encoding="utf-8"))["tables"]
