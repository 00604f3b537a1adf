"""Expected scores with tolerances, one JSON object a line, compared with the scores of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from muvera.utils.atomic_files import write_bytes

from ..known_names import require_known
from .session import ALL

__all__ = ["EXPECTED", "check_run", "record_run"]

#: Where expected scores are kept.
EXPECTED = Path(__file__).parents[1] / "expected"

_KEYS = ("experiment", "collection", "point", "metric", "value", "tolerance")


def check_run(run: Path, files: Sequence[Path] | None = None) -> list[str]:
    """Compare a run with expected scores.

    Parameters
    ----------
    run : Path
        Folder of a run.
    files : sequence of Path, optional
        Default: all in EXPECTED.

    Returns
    -------
    list of str
        A line for each score, beginning with "OK" or "FAIL".  Scores of collections and experiments
        that are not in the run are left out.

    Raises
    ------
    ValueError
        Where no expected score is of anything in the run.
    """
    found = _scores(run)
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    lines = [
        f"FAIL {failure['collection']}: {failure['message']}"
        for failure in manifest["failures"]
        if failure["experiment"] == ALL and failure["collection"] not in manifest["collections"]
    ]
    for path in sorted(EXPECTED.glob("*.jsonl")) if files is None else files:
        for one in _expected(path):
            if one["experiment"] not in manifest["experiments"]:
                continue
            if one["collection"] in manifest["collections"]:
                lines.append(_line(one, found))
    if not lines:
        raise ValueError(f"No expected score is of anything in {run}. Give a file with --expected.")
    return lines


def record_run(run: Path, path: Path, tolerance: float) -> int:
    """Write a run's scores as expected ones, mean over seeds; return how many."""
    scores = [
        {**dict(zip(_KEYS[:4], key, strict=True)), "value": round(value, 4), "tolerance": tolerance}
        for key, value in _scores(run).items()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in scores)
    write_bytes(path, lines.encode())
    return len(scores)


def _line(one: dict[str, Any], found: dict[tuple[str, ...], float]) -> str:
    key = tuple(str(one[name]) for name in _KEYS[:4])
    what = ", ".join(key)
    if key not in found:
        return f"FAIL {what}: expected {one['value']}, not measured"
    value = found[key]
    good = abs(value - one["value"]) <= one["tolerance"]
    return f"{'OK' if good else 'FAIL'} {what}: {value:.4f}, expected {one['value']} +- {one['tolerance']}"


def _scores(run: Path) -> dict[tuple[str, ...], float]:
    """Return the mean over seeds of every metric by (experiment, collection, point, metric)."""
    path = run / "summary.json"
    if not path.exists():
        raise FileNotFoundError(f"{run} has no summary.json: it is no folder of a run, or not finished.")
    found: dict[tuple[str, ...], list[float]] = {}
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        for metric, value in row["metrics"].items():
            if value is not None:
                point = _point(row)
                key = (row["experiment"], row["collection"], point, metric)
                found.setdefault(key, []).append(value["mean"])
    return {key: float(np.mean(values)) for key, values in found.items()}


def _point(row: dict[str, Any]) -> str:
    n = row["build"].get("n")
    return row["point"] if n is None or row["system"] == "scaling" else f"{row['point']}, n={n}"


def _expected(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            one = json.loads(line)
        except ValueError:
            one = None
        if not isinstance(one, dict):
            raise ValueError(f"{path}, line {number}: an expected score must be a JSON object, got {line!r}.")
        for key in one:
            require_known(key, _KEYS, "key of an expected score")
        missing = [key for key in _KEYS if key not in one]
        if missing:
            raise ValueError(f"{path}: an expected score has no {missing[0]}: {one}.")
        yield one
