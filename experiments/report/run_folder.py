"""Read a run's folder: configurations and measurements.

They are in manifest.json and summary.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, eq=False)
class Run:
    """A run: its manifest, rows of measurements, and tables."""

    manifest: dict[str, Any]
    rows: list[dict[str, Any]]
    tables: list[dict[str, Any]]

    @property
    def experiments(self) -> list[str]:
        """Names of the experiments that were measured, in the manifest's order."""
        measured = {row["experiment"] for row in self.rows}
        return [name for name in self.manifest["experiments"] if name in measured]

    @property
    def collections(self) -> list[str]:
        """Names of the measured collections, in the manifest's order."""
        measured = {row["collection"] for row in self.rows}
        return [name for name in self.manifest["collections"] if name in measured]

    @property
    def systems(self) -> list[str]:
        """Names of the measured systems."""
        return list(dict.fromkeys(row["system"] for row in self.rows))


def load_run(folder: Path) -> Run:
    """Read the folder of a finished run."""
    manifest, summary = _read(folder / "manifest.json"), _read(folder / "summary.json")
    return Run(manifest, summary["rows"], summary.get("tables", []))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}. Give the folder of a finished run.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Run the experiments again.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must contain a JSON object, but contains a {type(content).__name__}.")
    return content
