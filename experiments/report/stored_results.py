"""The store of results that documents are generated from: one JSON file an experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from muvera import FDEConfig, LearnedConfig
from muvera.utils.atomic_files import write_bytes

from .run_folder import load_run

__all__ = ["RESULTS", "default_encoders", "load_results", "save_results", "save_run"]

#: Where results are stored.
RESULTS = Path(__file__).parents[1] / "results"


def load_results(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Return stored results, an empty dictionary where there are none."""
    path = folder / f"{name}.json"
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def save_results(name: str, values: dict[str, Any], folder: Path = RESULTS) -> None:
    """Store results, one entry of the lists in them a line, so that changes can be read."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{name}.json", f"{_lines(values)}\n".encode())


def save_run(run: Path, folder: Path = RESULTS) -> list[str]:
    """Store tables of a finished run, and return the names of the experiments.

    Parameters
    ----------
    run : Path
        Folder of the run.
    folder : Path
    """
    found = load_run(run)
    manifest, tables = found.manifest, found.tables
    names = [name for name in manifest["experiments"] if any(name == table["experiment"] for table in tables)]
    for name in names:
        stored = {
            "experiment": name,
            "configuration": manifest["experiments"][name],
            "defaults": default_encoders(),
            "machine": manifest["machine"],
            "threads": manifest["threads"],
            "commits": sorted({str(one.get("commit")) for one in manifest.get("measured", [])}),
            "tables": [table for table in tables if table["experiment"] == name],
        }
        save_results(name, stored, folder)
    return names


def default_encoders() -> list[str]:
    """Return the hashes of the default configurations of FDEs and of learned vectors."""
    return [FDEConfig(dimension=128).hash, LearnedConfig(dimension=128).hash]


def _lines(value: Any, indent: int = 0) -> str:
    inner = " " * (indent + 1)
    if isinstance(value, dict) and any(isinstance(part, (dict, list)) for part in value.values()):
        parts = [f"{inner}{json.dumps(key)}: {_lines(part, indent + 1)}" for key, part in value.items()]
        return "{\n" + ",\n".join(parts) + "\n" + " " * indent + "}"
    if isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        parts = [f"{inner}{_lines(part, indent + 1)}" for part in value]
        return "[\n" + ",\n".join(parts) + "\n" + " " * indent + "]"
    return json.dumps(value, ensure_ascii=False)
