"""Expected scores with tolerances, compared with the scores of a run.

A file has one JSON object per line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from muvera.utils.atomic_files import write_bytes

from ..report.run_folder import Run, load_run
from .raw_store import ALL

#: Folder of expected scores.
EXPECTED = Path(__file__).parents[1] / "expected"

_NAMES = ("experiment", "collection", "point", "metric")
_KEYS = (*_NAMES, "value", "tolerance")


def check_run(run: Path, files: Sequence[Path] | None = None) -> list[str]:
    """Compare a run with expected scores, by default all in EXPECTED.

    A score's line begins with "OK" or "FAIL".  Scores of collections and experiments
    that are not in the run are skipped; a run without any of the scores raises
    ValueError.
    """
    found = load_run(run)
    scores, manifest = _scores(found), found.manifest
    lines = [
        f"FAIL {failure['collection']}: {failure['message']}"
        for failure in manifest["failures"]
        if failure["experiment"] == ALL and failure["collection"] not in manifest["collections"]
    ]
    for path in sorted(EXPECTED.glob("*.jsonl")) if files is None else files:
        for expected in _expected(path):
            if (
                expected["experiment"] in manifest["experiments"]
                and expected["collection"] in manifest["collections"]
            ):
                lines.append(_line(expected, scores))
    if not lines:
        raise ValueError(f"No expected score belongs to {run}. Give a file with --expected.")
    return lines


def record_run(run: Path, path: Path, tolerance: float) -> int:
    """Write a run's scores (means over seeds) as expected scores.

    Parameters
    ----------
    run : Path
        Folder of a finished run.
    path : Path
        File to write, one JSON object per line.  An existing file is replaced.
    tolerance : float
        Largest accepted difference of a later score, in the unit of the metric.

    Returns
    -------
    int
        Number of scores.
    """
    scores = [
        {**dict(zip(_NAMES, key, strict=True)), "value": round(value, 4), "tolerance": tolerance}
        for key, value in _scores(load_run(run)).items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in scores).encode())
    return len(scores)


def _line(expected: dict[str, Any], scores: dict[tuple[str, ...], float]) -> str:
    key = tuple(str(expected[name]) for name in _NAMES)
    label, value, tolerance = ", ".join(key), expected["value"], expected["tolerance"]
    if key not in scores:
        return f"FAIL {label}: expected {value}, not measured"
    word = "OK" if abs(scores[key] - value) <= tolerance else "FAIL"
    return f"{word} {label}: {scores[key]:.4f}, expected {value} +- {tolerance}"


def _scores(run: Run) -> dict[tuple[str, ...], float]:
    """Return every metric's mean over seeds.

    Keys are (experiment, collection, point, metric).
    """
    values: dict[tuple[str, ...], list[float]] = {}
    for row in run.rows:
        for metric, value in row["metrics"].items():
            if value is not None:
                key = (row["experiment"], row["collection"], row["point"], metric)
                values.setdefault(key, []).append(value["mean"])
    return {key: float(np.mean(means)) for key, means in values.items()}


def _expected(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: an expected score must be a JSON object, got {line!r}.")
        missing = [key for key in _KEYS if key not in row]
        if missing:
            raise ValueError(f"{path}: an expected score has no {missing[0]}: {row}.")
        yield row
