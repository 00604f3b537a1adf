"""The stored results from which documents are generated: one JSON file per experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muvera import FDEConfig, LearnedConfig
from muvera.utils.atomic_files import write_bytes

from .run_folder import load_run

__all__ = [
    "RESULTS",
    "default_encoders",
    "has_current_defaults",
    "load_results",
    "save_results",
    "save_run",
]

#: Where results are stored.
RESULTS = Path(__file__).parents[1] / "results"

# Hashes of earlier default configurations that have other fields but make the same vectors.
_SAME_DEFAULTS = ["f80ef2dd4fb7ff4a", "1c0d27953187c101"]


def load_results(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Return stored results, or an empty dictionary if there are none."""
    path = folder / f"{name}.json"
    if not path.exists():
        return {}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def save_results(name: str, values: dict[str, Any], folder: Path = RESULTS) -> None:
    """Store results with one list entry per line, for readable diffs."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{name}.json", f"{_lines(values)}\n".encode())


def save_run(folder: Path, results: Path = RESULTS) -> list[str]:
    """Store the tables of a finished run, and return the names of its experiments."""
    run = load_run(folder)
    manifest = run.manifest
    names = []
    for name, configuration in manifest["experiments"].items():
        tables = [table for table in run.tables if table["experiment"] == name]
        if tables:
            names.append(name)
            stored = {
                "experiment": name,
                "configuration": configuration,
                "defaults": default_encoders(),
                "machine": manifest["machine"],
                "threads": manifest["threads"],
                "commits": sorted({str(one.get("commit")) for one in manifest.get("measured", [])}),
                "tables": tables,
            }
            save_results(name, stored, results)
    return names


def default_encoders() -> list[str]:
    """Return the hashes of the default configurations of FDEs and of learned vectors."""
    return [FDEConfig(dimension=128).hash, LearnedConfig(dimension=128).hash]


def has_current_defaults(stored: dict[str, Any]) -> bool:
    """Return True if results were measured with today's default encoders."""
    return stored.get("defaults") in (default_encoders(), _SAME_DEFAULTS)


def _lines(value: Any, indent: int = 0) -> str:
    inner, end = " " * (indent + 1), "\n" + " " * indent
    if isinstance(value, dict) and any(isinstance(part, (dict, list)) for part in value.values()):
        parts = [f"{inner}{json.dumps(key)}: {_lines(part, indent + 1)}" for key, part in value.items()]
        return "{\n" + ",\n".join(parts) + end + "}"
    if isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        parts = [f"{inner}{_lines(part, indent + 1)}" for part in value]
        return "[\n" + ",\n".join(parts) + end + "]"
    return json.dumps(value, ensure_ascii=False)
