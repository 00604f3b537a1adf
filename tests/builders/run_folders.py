"""A generated run with names that need escaping and numbers that are missing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Label -> system, family, build arguments.  Some names are hostile.
ENTRIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "muvera": ("muvera", "muvera", {"hnsw": {"m": 16}}),
    "muvera paper": ("muvera", "muvera", {"preset": "paper"}),
    "exhaustive": ("exhaustive", "baseline", {}),
    'plaid & "warp"': ("plaid", "peer", {}),
    "xtr": ("</script><b>xtr", "peer", {}),
}
FAMILIES = {system: family for system, family, _ in ENTRIES.values()} | {"fde": "muvera", "bm25": "baseline"}
COLLECTIONS = ["cranfield-minilm", "lotte500"]
SIZES = [500, 1000, 2000, 4000]
CANDIDATES = [10, 20, 50, 100]
DEPTHS = [1, 10, 50, 100, 500]
SHAPES = [(5, 3), (10, 3), (20, 4), (40, 6)]

#: The experiments' configurations; of the systems only what names their arguments.
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "end_to_end": {
        "title": "End to <end>",
        "timed": True,
        "systems": [{"build": {"hnsw": {"m": 16}, "preset": "paper"}}, {"sweep": {"candidates": CANDIDATES}}],
    },
    "vector_dimension": {
        "title": "FDE recall by dimension",
        "systems": [{"grid": {"preset": [], "num_repetitions": [], "num_simhash_projections": []}}],
    },
    "collection_size": {"title": "Cost by size", "timed": True, "systems": [], "documents": SIZES},
    "nearest_neighbor": {"title": "The nearest among the first N", "systems": [{"grid": {"preset": []}}]},
}


def write_run(folder: Path, rows: list[dict[str, Any]] | None = None, **manifest: Any) -> Path:
    """Write manifest.json and summary.json; `manifest` replaces entries of the manifest."""
    about = {"documents": 5183, "tokens": 1_200_345, "queries": 300, "dimension": 128, "judged": True}
    failure = {
        "experiment": "end_to_end",
        "collection": "lotte500",
        "system": "plaid",
        "message": "<needed> 12 GB",
    }
    whole = {
        "run": "study <1>",
        "created": "2026-11-25T03:00:00+00:00",
        "machine": {"processor": "AMD EPYC", "cores": 2, "load": None},
        "versions": {"muvera": "0.1.0", "commit": None},
        "threads": 1,
        "seed": 42,
        "config_hash": "3f1c9a7be0d2",
        "experiments": EXPERIMENTS,
        "collections": dict.fromkeys(COLLECTIONS, about),
        "failures": [failure],
    } | manifest
    summary = {
        "rows": list(_rows()) if rows is None else rows,
        "comparisons": [
            {
                "experiment": "end_to_end", "collection": name, "metric": "10-recall@10", "n": 5183,
                "a": "xtr, candidates=100", "b": "muvera, candidates=100",
                "difference": difference, "low": difference - 0.012, "high": difference + 0.012,
            }
            for name, difference in zip(COLLECTIONS, (0.03, 0.01), strict=True)
        ],
        "tables": [
            {
                "experiment": "end_to_end", "title": "End to <end>: 10-recall@10", "caption": "",
                "header": ["system", *COLLECTIONS], "rows": [["xtr", "0.800 [0.7, 0.9]", ""]],
            }
        ],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(whole), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def row(experiment: str, collection: str, system: str, recall: float | None, **rest: Any) -> dict[str, Any]:
    """Return one row; `rest` replaces what it would hold."""
    speed = rest.get("queries_per_second", 100.0)
    times = {"p50": 0.9, "p95": 1.6, "p99": 2.4, "mean": 1.0}
    return {
        "experiment": experiment,
        "collection": collection,
        "system": system,
        "family": FAMILIES[system],
        "label": system,
        "point": rest.get("label", system),
        "build": {},
        "query": {},
        "seed": 42,
        "metrics": {"10-recall@10": spread(recall)},
        "queries_per_second": speed,
        "latency_ms": speed and {name: time * 1000 / speed for name, time in times.items()},
        "build_seconds": 12.5,
        "bytes_per_document": 4096.0,
        "total_bytes_per_document": 8192.0,
    } | rest


def spread(mean: float | None) -> dict[str, float] | None:
    """Return a mean with an interval."""
    return None if mean is None else {"mean": mean, "low": mean - 0.012, "high": min(1.0, mean + 0.011)}


def _rows() -> Iterator[dict[str, Any]]:
    for collection in COLLECTIONS:
        for k, (label, (system, _, build)) in enumerate(ENTRIES.items()):
            for candidates in CANDIDATES if system != "exhaustive" else [1]:
                made = row(
                    "end_to_end",
                    collection,
                    system,
                    1.0 if candidates == 1 else 1 - (0.4 - 0.05 * k) * 10 / candidates,
                    label=label,
                    point=label if candidates == 1 else f"{label}, candidates={candidates}",
                    build=build | {"vector_dimension": 10240.0},
                    query={} if candidates == 1 else {"candidates": candidates},
                    queries_per_second=9.5 if candidates == 1 else (1 + k) * 3000 / candidates**0.7,
                    total_bytes_per_document=4096.0 * (k + 1),
                )
                made["metrics"]["nDCG@10"] = spread(0.5 + k / 100) if collection == COLLECTIONS[0] else None
                yield made
        for preset, lead in (("paper", 0.1), ("fde", 0.2)):
            for repetitions, bits in SHAPES:
                yield row(
                    "vector_dimension",
                    collection,
                    "fde",
                    lead + repetitions / 60,
                    label=f"{preset} R={repetitions}",
                    build={
                        "preset": preset, "num_repetitions": repetitions, "num_simhash_projections": bits,
                        "vector_dimension": repetitions * 2**bits * 8,
                    },
                    queries_per_second=None,
                )  # fmt: skip
            metrics = {f"1-recall@{depth}": spread(lead + depth / 1000) for depth in DEPTHS}
            build, rest = {"preset": preset}, {"metrics": metrics, "queries_per_second": None}
            yield row("nearest_neighbor", collection, "fde", None, label=preset, build=build, **rest)
    for size in SIZES:
        for system in ("muvera", "exhaustive"):
            speed = 2e5 / size if system == "exhaustive" else 400 - size / 100
            yield row("collection_size", "lotte500", system, 0.9, build={"n": size}, queries_per_second=speed)
    yield row("collection_size", "lotte500", "bm25", None, build={"n": 500}, queries_per_second=None)
