"""A generated run with names that need escaping and numbers that are missing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Label -> system, build arguments.  Some names are hostile.
ENTRIES: dict[str, tuple[str, dict[str, Any]]] = {
    "muvera": ("muvera", {"hnsw": {"m": 16}}),
    "muvera paper": ("muvera", {"preset": "paper"}),
    "exhaustive": ("exhaustive", {}),
    'plaid & "warp"': ("plaid", {}),
    "xtr": ("</script><b>xtr", {}),
}
COLLECTIONS = ["cranfield-minilm", "lotte500"]
CANDIDATES = [10, 20, 50, 100]

#: The experiments' configurations.
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "end_to_end": {"title": "End to <end>", "timed": True},
}


def write_run(folder: Path, rows: list[dict[str, Any]] | None = None, **manifest: Any) -> Path:
    """Write manifest.json and summary.json; `manifest` replaces entries of the manifest."""
    whole = {
        "run": "study <1>",
        "created": "today",
        "machine": {"processor": "AMD EPYC", "load": None},
        "versions": {},
        "threads": 1,
        "quick": False,
        "experiments": EXPERIMENTS,
        "collections": {name: {"documents": 5183, "judged": True} for name in COLLECTIONS},
        "failures": [
            {"experiment": "end_to_end", "collection": "all", "system": "plaid", "message": "<needed> 12 GB"}
        ],
    } | manifest
    tables = [
        {
            "experiment": "end_to_end",
            "title": "End to <end>: 10-recall@10",
            "header": ["system", *COLLECTIONS],
            "rows": [["xtr", "0.800 [0.7, 0.9]", ""]],
        }
    ]
    summary = {"rows": list(_rows()) if rows is None else rows, "tables": tables}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(whole), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def row(experiment: str, collection: str, system: str, recall: float | None, **rest: Any) -> dict[str, Any]:
    """Return one row; `rest` replaces its default values."""
    return {
        "experiment": experiment,
        "collection": collection,
        "system": system,
        "label": system,
        "point": system,
        "build": {},
        "query": {},
        "metrics": {"10-recall@10": _spread(recall)},
        "queries_per_second": 100.0,
        "latency_ms": {"p50": 0.9, "p95": 1.6, "p99": 2.4, "mean": 1.0},
        "total_bytes_per_document": 8192.0,
    } | rest


def _spread(mean: float | None) -> dict[str, float] | None:
    return None if mean is None else {"mean": mean, "low": mean - 0.012, "high": min(1.0, mean + 0.011)}


def _rows() -> Iterator[dict[str, Any]]:
    for collection in COLLECTIONS:
        for k, (label, (system, build)) in enumerate(ENTRIES.items()):
            for candidates in CANDIDATES if system != "exhaustive" else [None]:
                query = {} if candidates is None else {"candidates": candidates}
                recall = 1.0 if candidates is None else 1 - (0.4 - 0.05 * k) * 10 / candidates
                point = label if candidates is None else f"{label}, candidates={candidates}"
                rest = {
                    "label": label,
                    "point": point,
                    "query": query,
                    "total_bytes_per_document": 4096.0 * (k + 1),
                }
                speed = (1 + k) * 3000 / (candidates or 2000)
                made = row(
                    "end_to_end", collection, system, recall, **rest, build=build, queries_per_second=speed
                )
                made["metrics"]["nDCG@10"] = _spread(0.5 + k / 100) if collection == COLLECTIONS[0] else None
                yield made
    yield row("end_to_end", "lotte500", "bm25", None, queries_per_second=None)
