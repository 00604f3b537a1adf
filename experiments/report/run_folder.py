"""Read a run's folder: what was run (manifest.json) and what was measured (summary.json)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FAMILIES", "Row", "Run", "load_run"]

Row = dict[str, Any]

#: Families of systems, in the order in which they are shown.
FAMILIES = {"muvera": "this library", "baseline": "baselines", "peer": "peers"}


@dataclass(frozen=True, eq=False)
class Run:
    """A run.

    Parameters
    ----------
    manifest : dict
        What was run, and on what.
    rows : list of dict
        One entry per measured configuration; any number in it may be None.
    comparisons : list of dict
        Paired differences with their intervals.
    tables : list of dict
        Tables that the run made: experiment, title, caption, header, rows.
    """

    manifest: dict[str, Any]
    rows: list[Row]
    comparisons: list[dict[str, Any]]
    tables: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.manifest.get("run") or "unnamed")

    @property
    def failures(self) -> list[dict[str, Any]]:
        """What failed, and why."""
        return list(self.manifest.get("failures") or [])

    @property
    def experiments(self) -> list[str]:
        """Names of the experiments: those configured, then any others that were measured."""
        measured = [str(part["experiment"]) for part in (*self.rows, *self.tables, *self.comparisons)]
        return list(dict.fromkeys([*(self.manifest.get("experiments") or {}), *measured]))

    @property
    def collections(self) -> list[str]:
        """Names of the measured collections, in the manifest's order."""
        measured = dict.fromkeys(row["collection"] for row in self.rows)
        described = [name for name in self.manifest.get("collections") or {} if name in measured]
        return list(dict.fromkeys([*described, *measured]))

    @property
    def systems(self) -> dict[str, str]:
        """Name of a system -> its family, in the order of the families."""
        families = {row["system"]: row["family"] for row in self.rows}
        return dict(sorted(families.items(), key=lambda item: list(FAMILIES).index(item[1])))


def load_run(folder: Path) -> Run:
    """Read and check a run's folder.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is not JSON or not what a run writes, or if nothing was measured.
    """
    manifest, summary = (_read(folder, name) for name in ("manifest.json", "summary.json"))
    rows = _list_of(summary, "rows", ("experiment", "collection", "system", "family"), folder)
    for i, row in enumerate(rows):
        if row["family"] not in FAMILIES:
            raise ValueError(
                f"{folder / 'summary.json'}: rows[{i}] has the family {row['family']!r}. It must be one of "
                f"{', '.join(FAMILIES)}."
            )
    failures = _list_of(manifest, "failures", (), folder)
    if not rows:
        first = f" and {len(failures)} failures, the first: {failures[0].get('message')}" if failures else ""
        raise ValueError(f"{folder / 'summary.json'} holds no rows{first}. Run the experiments again.")
    return Run(
        manifest=manifest,
        rows=rows,
        comparisons=_list_of(summary, "comparisons", ("experiment", "collection"), folder),
        tables=_list_of(summary, "tables", ("experiment", "header", "rows"), folder),
    )


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {name}. Give the folder of a finished run.")
    try:
        # NaN counts as missing.
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}). Run the experiments again.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object, but holds a {type(content).__name__}.")
    return content


def _list_of(
    content: dict[str, Any], key: str, needed: tuple[str, ...], folder: Path
) -> list[dict[str, Any]]:
    entries = content.get(key) or []
    if not isinstance(entries, list):
        raise ValueError(f"{folder}: {key!r} must be a list, but is a {type(entries).__name__}.")
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{folder}: {key}[{i}] must be an object, but is a {type(entry).__name__}.")
        for name in needed:
            if entry.get(name) is None:
                raise ValueError(f"{folder}: {key}[{i}] has no {name!r}.")
    return entries
