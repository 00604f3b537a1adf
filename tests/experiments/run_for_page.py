"""A made-up run of the size of a full study, with names that need escaping and numbers that are missing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

#: Name -> family; some names are hostile.
SYSTEMS = {
    "muvera": "ours",
    "muvera <compact>": "ours",
    "exhaustive": "baseline",
    "bm25": "baseline",
    "pooled": "baseline",
    "fastembed": "peer",
    'plaid & "warp"': "peer",
    "</script><b>xtr": "peer",
}
COLLECTIONS = ["scifact-minilm", "cosqa-minilm", "cisi-minilm", "lareqa-en-e5", "plaid-colbertv2-lotte500"]
SIZES = [1000, 2000, 4000, 8000]


def write_run(folder: Path) -> Path:
    """Write manifest.json and summary.json of about 600 rows into `folder`."""
    rows = list(_rows(np.random.default_rng(0)))
    experiments = list(dict.fromkeys(row["experiment"] for row in rows))
    sized = {f"joined-{size}": size for size in SIZES}
    manifest = {
        "run": "study <1>",
        "created": "2026-11-25T03:00:00+00:00",
        "machine": {"processor": "AMD EPYC", "cores": 2, "memory_bytes": 8_000_000_000},
        "versions": {"python": "3.11.7", "numpy": "2.4.6", "numba": "0.68.1", "muvera-toolkit": "0.1.0"},
        "threads": 1,
        "seed": 42,
        "config_hash": "3f1c9a7be0d2",
        "experiments": {
            name: {"question": f"What does {name} change?", "seeds": [42]} for name in experiments
        },
        "collections": {
            name: {
                "documents": sized.get(name, 5183),
                "tokens": 1_200_345,
                "queries": 300,
                "dimension": 128,
                "checksum": "9b2f00aa51c3",
                "judged": "minilm" in name,
            }
            for name in [*COLLECTIONS, *sized]
        },
        "failures": [
            {
                "experiment": "tradeoff",
                "collection": "cisi-minilm",
                "system": "fastembed",
                "message": "MemoryError: <needed> 12 GB & more",
            }
        ],
    }
    summary = {"rows": rows, "comparisons": list(_comparisons()), "tables": _tables()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def row(experiment: str, collection: str, system: str, recall: float | None, **rest: Any) -> dict[str, Any]:
    """Return one row; `rest` replaces what it would hold."""
    measure = None if recall is None else {"mean": recall, "low": recall - 0.012, "high": recall + 0.011}
    speed = rest.get("queries_per_second", 100.0)
    latency = {
        name: part * 1000 / speed for name, part in (("p50", 0.9), ("p95", 1.6), ("p99", 2.4), ("mean", 1))
    }
    return {
        "experiment": experiment,
        "collection": collection,
        "system": system,
        "family": SYSTEMS[system],
        "label": system,
        "build": {},
        "query": {},
        "seed": 42,
        "metrics": {"recall@10": measure},
        "queries_per_second": speed,
        "latency_ms": latency,
        "build_seconds": 12.5,
        "bytes_per_document": 4096.0,
    } | rest


def _rows(random: np.random.Generator) -> Iterator[dict[str, Any]]:
    for collection in COLLECTIONS:
        ease = random.uniform(0.02, 0.1)
        for system, family in SYSTEMS.items():
            lead = {"ours": 0.05, "baseline": -0.04, "peer": 0.0}[family] + random.uniform(-0.02, 0.02)
            for size in (2560, 10240, 40960):
                for candidates in (20, 50, 100, 200):
                    effort = np.log2(size * candidates / 51200) / 12
                    recall = float(np.clip(1 - (0.35 - lead) * np.exp(-2 * effort) - ease, 0.2, 1))
                    small = system in ("exhaustive", "bm25")
                    if small and (size, candidates) != (2560, 20):
                        continue
                    speed = 1e6 / (size**0.6 * candidates**0.8) * random.uniform(0.7, 1.4)
                    made = row(
                        "tradeoff",
                        collection,
                        system,
                        1.0 if system == "exhaustive" else recall,
                        label=f"{system} {size}",
                        build={} if small else {"dimension": size, "hnsw": {"m": 16}},
                        query={} if small else {"candidates": candidates},
                        queries_per_second=8.5 if system == "exhaustive" else float(speed),
                        bytes_per_document=0 if system == "exhaustive" else size * random.uniform(0.5, 4),
                    )
                    made["metrics"]["nDCG@10"] = (
                        {"mean": recall * 0.6, "low": recall * 0.58, "high": recall * 0.63}
                        if "minilm" in collection
                        else None
                    )
                    yield made
        for system in ("muvera", "fastembed"):
            for k in (4, 5):
                for repetitions in (5, 10, 20, 40, 80):
                    recall = 0.95 - (0.4 + 0.02 * k) / repetitions**0.6 - (system == "fastembed") * 0.06
                    yield row(
                        "dimension",
                        collection,
                        system,
                        float(recall),
                        build={"num_repetitions": repetitions, "num_simhash_projections": k, "fill": False},
                        queries_per_second=9000.0 / repetitions,
                    )
    for size in SIZES:
        for system in ("muvera", "exhaustive"):
            speed = 2e5 / size if system == "exhaustive" else 400 - 20 * float(np.log2(size))
            recall = 1.0 if system == "exhaustive" else 0.97 - size / 2e5
            yield row("collection size", f"joined-{size}", system, recall, queries_per_second=speed)
    yield row("collection size", f"joined-{SIZES[0]}", "bm25", None, queries_per_second=50.0, latency_ms=None)


def _comparisons() -> Iterator[dict[str, Any]]:
    for k, collection in enumerate(COLLECTIONS):
        for other in ("fastembed", "bm25"):
            difference = 0.03 - 0.01 * k
            yield {
                "experiment": "tradeoff",
                "collection": collection,
                "metric": "recall@10",
                "a": "muvera",
                "b": other,
                "difference": difference,
                "low": difference - 0.012,
                "high": difference + 0.012,
            }


def _tables() -> list[dict[str, Any]]:
    rows = [[name, *(0.8 + 0.013 * k for k in range(len(COLLECTIONS)))] for name in SYSTEMS]
    rows[3][2] = None
    return [
        {
            "experiment": "tradeoff",
            "title": "Recall at <10>",
            "caption": "Best configuration of each system.",
            "header": ["system", *COLLECTIONS],
            "rows": rows,
        }
    ]
