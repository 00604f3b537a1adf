"""The files of a run: manifest, summary, results as CSV, rankings for trec_eval."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import muvera
from muvera.utils.atomic_files import write_bytes, write_json

from ..datasets.embedded import StudyCollection
from ..evaluation.summary import Part, Study
from ..peers.environments import PEERS
from ..report.stored_results import machine
from .configuration import Experiment
from .raw_store import RawStore, key_of

__all__ = ["manifest_of", "stamp", "stored_study", "write_csv", "write_rankings", "write_run"]

_PACKAGES = ("numpy", "numba", "scipy", "hnswlib", "bm25s", "ir-measures", "PyYAML")


def stamp() -> dict[str, Any]:
    """Return versions of what measures, and the checkout's commit."""
    versions: dict[str, Any] = {"muvera": muvera.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    versions |= {name: library.requirement for name, library in PEERS.items()}
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
        versions["commit"] = done.stdout.strip() or None
    except OSError:  # no git
        versions["commit"] = None
    return versions


def manifest_of(
    name: str,
    created: str,
    experiments: list[Experiment],
    loaded: list[StudyCollection],
    parts: list[Part],
    threads: int,
    versions: dict[str, Any],
) -> dict[str, Any]:
    """Return what was run, on what and with what."""
    collections = {
        one.name: {
            "documents": len(one.tokens.documents),
            "tokens": one.tokens.documents.num_tokens,
            "queries": len(one.tokens.queries),
            "dimension": one.tokens.documents.dimension,
            "checksum": one.tokens.checksum,
            "judged": one.judgements is not None,
        }
        for one in loaded
    }
    asked = [
        {
            "experiment": part.experiment.name,
            "collection": part.collection.name,
            "documents": len(part.collection.document_ids),
            "queries": len(part.collection.query_ids),
            "checksum": part.collection.tokens.checksum,
        }
        for part in parts
    ]
    raw = {experiment.name: experiment.raw for experiment in experiments}
    # As run: a quick run leaves out most of what its configurations say.
    run = {experiment.name: vars(experiment) | {"raw": None} for experiment in experiments}
    return {
        "run": name,
        "created": created,
        "machine": machine(),
        "versions": versions,
        "threads": threads,
        "seed": experiments[0].seeds[0] if experiments else None,
        "config_hash": key_of(experiments=run),
        "experiments": raw,
        "collections": collections,
        "asked": asked,
        "failures": [],
        "left_out": [],
    }


def write_run(out: Path, manifest: dict[str, Any], study: Study, tables: list[dict[str, Any]]) -> None:
    """Write the manifest, the summary and the CSV; the summary last, for it says that all is there."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "manifest.json", manifest)
    write_csv(out / "results.csv", study.rows)
    summary = {
        "rows": study.rows,
        "comparisons": study.comparisons,
        "speedups": study.speedups,
        "tables": tables,
    }
    write_json(out / "summary.json", summary)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with a column for each metric and the ends of its interval."""
    metrics = list(dict.fromkeys(metric for row in rows for metric in row["metrics"]))
    plain = ("experiment", "collection", "system", "family", "label", "point", "build", "query", "seed")
    numbers = (
        *("queries_per_second", "build_seconds", "bytes_per_document"),
        "total_bytes_per_document",
    )
    times = ("p50", "p95", "p99", "mean")
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    ends = [f"{metric}{end}" for metric in metrics for end in ("", " low", " high", " queries")]
    writer.writerow([*plain, *ends, *numbers, *(f"ms {name}" for name in times)])
    for row in rows:
        found = [row["metrics"].get(metric) or {} for metric in metrics]
        values = [one.get(end, "") for one in found for end in ("mean", "low", "high", "n")]
        spread = row["latency_ms"] or {}
        writer.writerow(
            [*(_plain(row[name]) for name in plain), *values]
            + ["" if row[name] is None else row[name] for name in numbers]
            + [spread.get(name, "") for name in times]
        )
    write_bytes(path, stream.getvalue().encode())


def write_rankings(out: Path, study: Study, parts: list[Part], store: RawStore) -> None:
    """Write what the first seed of every timed experiment returned, as trec_eval reads it."""
    for part in parts:
        experiment, collection = part.experiment, part.collection
        if not experiment.timed:
            continue
        for point in experiment.points():
            seed = experiment.seeds[0]
            key = (experiment.name, collection.name, len(collection.document_ids), point.name, seed)
            raw = store.load(study.raws[key]) if key in study.raws else None
            if raw is None:
                continue
            tag = _word(point.name)
            names = [_field(name) for name in collection.document_ids]
            lines = [
                f"{_field(query)} Q0 {names[position]} {rank + 1} {score:.7g} {tag}\n"
                for query, ids, scores in zip(collection.query_ids, raw.ids, raw.scores, strict=True)
                for rank, (position, score) in enumerate(zip(ids.tolist(), scores.tolist(), strict=True))
                if position >= 0
            ]
            sized = len(experiment.documents) > 1
            name = f"{collection.name}-n={len(collection.document_ids)}" if sized else collection.name
            folder = out / "runs" / experiment.name / name
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / f"{tag}.trec", "".join(lines).encode())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return "; ".join(f"{key}={one}" for key, one in value.items())
    return value


def _field(text: str) -> str:
    """Return an id without what would end a field: judgements have it as it is."""
    return re.sub(r"\s+", "_", text)


def _word(text: str) -> str:
    """Return `text` without what would end a field or a file's name."""
    return re.sub(r"[^\w.=+-]+", "_", text).strip("_")


def stored_study(out: Path) -> dict[str, Any]:
    """Return what of a run is kept with the project: its manifest, differences and tables."""
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {"manifest": manifest, "comparisons": summary["comparisons"], "tables": summary["tables"]}
