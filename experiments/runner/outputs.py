"""The files of a run: manifest, summary, results as CSV, rankings for trec_eval."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from muvera.utils.atomic_files import write_bytes, write_json

from ..datasets.collection import Collection
from ..evaluation.summary import Part, Results
from .configuration import Experiment
from .provenance import machine
from .raw_store import RawStore, key_of

__all__ = ["manifest_of", "write_csv", "write_rankings", "write_run"]


def manifest_of(
    name: str,
    created: str,
    experiments: list[Experiment],
    loaded: list[Collection],
    parts: list[Part],
    threads: int,
    versions: dict[str, Any],
) -> dict[str, Any]:
    """Return what was run, on what and with what."""
    collections = {
        one.name: {
            "documents": len(one.documents),
            "tokens": one.documents.num_tokens,
            "queries": len(one.queries),
            "dimension": one.documents.dimension,
            "checksum": one.checksum,
            "judged": one.judgements is not None,
        }
        for one in loaded
    }
    asked = [
        {
            "experiment": part.experiment.name,
            "collection": part.collection,
            "documents": part.size,
            "queries": len(part.query_ids),
            "checksum": part.checksum,
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


def write_run(
    out: Path, manifest: dict[str, Any], results: Results, tables: Sequence[Mapping[str, Any]]
) -> None:
    """Write the manifest, the summary and the CSV; the summary last, for it says that all is there."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "manifest.json", manifest)
    write_csv(out / "results.csv", results.rows)
    summary = {
        "rows": results.rows,
        "comparisons": results.comparisons,
        "tables": tables,
    }
    write_json(out / "summary.json", summary)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with a column for each metric and the ends of its interval."""
    metrics = list(dict.fromkeys(metric for row in rows for metric in row["metrics"]))
    plain = (
        "experiment",
        "collection",
        "system",
        "family",
        "label",
        "point",
        "build",
        "query",
        "facts",
        "seed",
    )
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
            [*(_plain(row.get(name)) for name in plain), *values]
            + ["" if row[name] is None else row[name] for name in numbers]
            + [spread.get(name, "") for name in times]
        )
    write_bytes(path, stream.getvalue().encode())


def write_rankings(out: Path, results: Results, parts: list[Part], store: RawStore) -> None:
    """Write what the first seed of every timed experiment returned, as trec_eval reads it."""
    for part in parts:
        experiment = part.experiment
        if not experiment.timed:
            continue
        for point in experiment.points():
            key = (experiment.name, part.collection, part.size, point.name, experiment.seeds[0])
            raw = store.load(results.raws[key]) if key in results.raws else None
            if raw is None:
                continue
            tag = _word(point.name)
            names = [_field(name) for name in part.document_ids]
            lines = [
                f"{_field(query)} Q0 {names[position]} {rank + 1} {score:.7g} {tag}\n"
                for query, ids, scores in zip(part.query_ids, raw.ids, raw.scores, strict=True)
                for rank, (position, score) in enumerate(zip(ids.tolist(), scores.tolist(), strict=True))
                if position >= 0
            ]
            sized = len(experiment.documents) > 1
            name = f"{part.collection}-n={part.size}" if sized else part.collection
            folder = out / "runs" / experiment.name / name
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / f"{tag}.trec", "".join(lines).encode())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        plain = {
            key: one["mean"] if isinstance(one, dict) and "mean" in one else one for key, one in value.items()
        }
        return "; ".join(f"{key}={one}" for key, one in plain.items())
    return value


def _field(text: str) -> str:
    """Return an id without what would end a field: judgements have it as it is."""
    return re.sub(r"\s+", "_", text)


def _word(text: str) -> str:
    """Return `text` without what would end a field or a file's name."""
    return re.sub(r"[^\w.=+-]+", "_", text).strip("_")
