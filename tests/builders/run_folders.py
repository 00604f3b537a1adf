"""A made-up run of the size of a full study, with names that need escaping and numbers that are missing."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

#: Label -> system, family, what it is built with.  Some names are hostile.
ENTRIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "muvera": ("muvera", "muvera", {"hnsw": {"m": 16}}),
    "muvera, 512 floats": ("muvera", "muvera", {"compact_dimension": 512}),
    "muvera paper": ("muvera", "muvera", {"preset": "paper"}),
    "exhaustive": ("exhaustive", "baseline", {}),
    "bm25": ("bm25", "baseline", {}),
    "mean <token>": ("pooled", "baseline", {}),
    "fastembed": ("fastembed", "peer", {}),
    'plaid & "warp"': ("plaid", "peer", {}),
    "xtr": ("</script><b>xtr", "peer", {}),
}
FAMILIES = {system: family for system, family, _ in ENTRIES.values()} | {"fde": "muvera"}
COLLECTIONS = [
    "cranfield-minilm",
    "scifact-minilm",
    "cosqa-minilm",
    "cisi-minilm",
    "lareqa-en-e5",
    "lotte500",
]
SIZES = [500, 1000, 2000, 4000]
CANDIDATES = [10, 20, 50, 100, 200, 500]
DEPTHS = [1, 10, 50, 100, 500]
SHAPES = [(5, 3, 8), (10, 3, 8), (20, 3, 8), (20, 4, 8), (20, 5, 8), (20, 5, 16), (40, 6, 16)]

#: The experiments' configurations; of the systems only what names their arguments.
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "end_to_end": {
        "title": "End to <end>",
        "caption": "One thread, all systems in turns.",
        "reproduces": "MUVERA paper, figures 6 and 7",
        "timed": True,
        "systems": [
            {"build": {"hnsw": {"m": 16}, "preset": "paper", "compact_dimension": 512}},
            {"sweep": {"candidates": CANDIDATES}},
        ],
    },
    "vector_dimension": {
        "title": "FDE recall against dimension",
        "systems": [
            {"grid": {"preset": ["paper", "default"]}},
            {"variants": [{"num_repetitions": 20, "num_simhash_projections": 5, "projection_dimension": 16}]},
        ],
    },
    "collection_size": {"title": "Cost against size", "timed": True, "systems": [], "documents": SIZES},
    "nearest_neighbor": {"title": "The nearest among the first N", "systems": [{"grid": {"preset": []}}]},
}


def write_run(folder: Path, rows: list[dict[str, Any]] | None = None, **manifest: Any) -> Path:
    """Write manifest.json and summary.json, of about 500 rows unless they are given.

    ``comparisons`` go into the summary, all else that is given into the manifest.
    """
    made = list(_rows(np.random.default_rng(0))) if rows is None else rows
    whole = {
        "run": "study <1>",
        "created": "2026-11-25T03:00:00+00:00",
        "machine": {"processor": "AMD EPYC", "cores": 2, "load": None},
        "versions": {"muvera": "0.1.0", "numpy": "2.4.6", "commit": None},
        "threads": 1,
        "seed": 42,
        "config_hash": "3f1c9a7be0d2",
        "experiments": EXPERIMENTS,
        "collections": {name: _collection(name) for name in COLLECTIONS},
        "failures": [
            {
                "experiment": "end_to_end",
                "collection": "cisi-minilm",
                "system": "fastembed",
                "message": "MemoryError: <needed> 12 GB & more",
            }
        ],
    } | manifest
    summary = {
        "rows": made,
        "comparisons": whole.pop("comparisons", list(_comparisons())),
        "tables": _tables(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(whole), encoding="utf-8")
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return folder


def row(experiment: str, collection: str, system: str, recall: float | None, **rest: Any) -> dict[str, Any]:
    """Return one row; `rest` replaces what it would hold."""
    speed = rest.get("queries_per_second", 100.0)
    parts = {"p50": 0.9, "p95": 1.6, "p99": 2.4, "mean": 1.0}
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
        "latency_ms": None if speed is None else {name: part * 1000 / speed for name, part in parts.items()},
        "build_seconds": 12.5,
        "bytes_per_document": 4096.0,
        "total_bytes_per_document": rest.get("bytes_per_document", 4096.0),
    } | rest


def spread(mean: float | None) -> dict[str, float] | None:
    """Return a mean with an interval."""
    return None if mean is None else {"mean": mean, "low": mean - 0.012, "high": min(1.0, mean + 0.011)}


def _collection(name: str) -> dict[str, Any]:
    judged = "minilm" in name
    about = {"documents": 5183, "tokens": 1_200_345, "queries": 300, "dimension": 128, "judged": judged}
    return about | {"checksum": "9b2f00aa51c3"}


def _rows(random: np.random.Generator) -> Iterator[dict[str, Any]]:
    for collection in COLLECTIONS:
        yield from _end_to_end(collection, random)
        yield from _dimensions(collection)
        yield from _depths(collection)
    for size in SIZES:
        for system in ("muvera", "exhaustive"):
            speed = 2e5 / size if system == "exhaustive" else 400 - 20 * float(np.log2(size))
            recall = 1.0 if system == "exhaustive" else 0.97 - size / 2e5
            built = {"n": size, "vector_dimension": 10240.0}
            yield row("collection_size", "lotte500", system, recall, build=built, queries_per_second=speed)
    yield row("collection_size", "lotte500", "bm25", None, build={"n": 500}, latency_ms=None)


def _end_to_end(collection: str, random: np.random.Generator) -> Iterator[dict[str, Any]]:
    ease = float(random.uniform(0.0, 0.06))
    for label, (system, family, build) in ENTRIES.items():
        lead = {"muvera": 0.7, "baseline": 0.0, "peer": 0.4}[family] + float(random.uniform(-0.2, 0.2))
        pace = float(random.uniform(0.6, 1.6)) * 900
        small = 0.06 if "floats" in label else 1.0
        for candidates in CANDIDATES:
            once = system == "exhaustive"
            recall = 1.0 if once else 1 - (0.42 - ease) * float(np.exp(-lead - np.log2(candidates / 20) / 2))
            made = row(
                "end_to_end",
                collection,
                system,
                recall,
                label=label,
                point=label if once else f"{label}, candidates={candidates}",
                build=build | {"vector_dimension": 10240.0},
                query={} if once else {"candidates": candidates},
                queries_per_second=9.5 if once else pace / (candidates / 20) ** 0.7 * (2 - small),
                bytes_per_document=0 if once else 40968 * small * (0.5 + lead / 2),
            )
            made["metrics"]["nDCG@10"] = spread(recall * 0.6) if "minilm" in collection else None
            yield made
            if once:
                break


def _dimensions(collection: str) -> Iterator[dict[str, Any]]:
    names = ("num_repetitions", "num_simhash_projections", "projection_dimension")
    for preset, lead in (("paper", 0.0), ("default", 0.4)):
        for shape in SHAPES:
            size = shape[0] * 2 ** shape[1] * shape[2]
            recall = 1 - float(np.exp(-lead - np.log2(size / 100) / 3))
            for seed in (42, 43):
                yield row(
                    "vector_dimension",
                    collection,
                    "fde",
                    recall + (seed - 42) * 0.004,
                    label=f"{preset} R={shape[0]} k={shape[1]} p={shape[2]}",
                    build={
                        "preset": preset,
                        **dict(zip(names, shape, strict=True)),
                        "vector_dimension": size,
                    },
                    seed=seed,
                    queries_per_second=None,
                    build_seconds=None,
                    bytes_per_document=4.0 * size + 8,
                )


def _depths(collection: str) -> Iterator[dict[str, Any]]:
    for preset, lead in (("paper", 1.0), ("default", 1.6)):
        metrics = {
            f"1-recall@{depth}": spread(1 - float(np.exp(-lead - np.log(depth) / 2))) for depth in DEPTHS
        }
        yield row(
            "nearest_neighbor",
            collection,
            "fde",
            None,
            label=preset,
            build={"preset": preset},
            metrics=metrics,
            queries_per_second=None,
        )


def _comparisons() -> Iterator[dict[str, Any]]:
    for k, collection in enumerate(COLLECTIONS):
        for other in ("fastembed", "bm25"):
            difference = 0.03 - 0.01 * k
            yield {
                "experiment": "end_to_end",
                "collection": collection,
                "metric": "10-recall@10",
                "a": f"{other}, candidates=100",
                "b": "muvera, candidates=100",
                "difference": difference,
                "low": difference - 0.012,
                "high": difference + 0.012,
                "n": 5183,
            }


def _tables() -> list[dict[str, Any]]:
    rows: list[list[Any]] = [
        [
            label if label == "exhaustive" else f"{label}, candidates=100",
            *(f"{0.8 + 0.013 * k:.3f} [0.801, 0.899]" for k in range(len(COLLECTIONS))),
        ]
        for label in ENTRIES
    ]
    rows[4][2] = ""
    return [
        {
            "experiment": "end_to_end",
            "title": "End to <end>: 10-recall@10",
            "caption": "One thread, all systems in turns.",
            "header": ["system", *COLLECTIONS],
            "rows": rows,
        }
    ]
