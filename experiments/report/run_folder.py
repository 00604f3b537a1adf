"""Read a run's folder: what was run (manifest.json) and what was found (summary.json)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["FAMILIES", "Row", "Run", "load_run"]

Row = dict[str, Any]

#: Who made a system, in the order in which systems are shown, with the word for it.
FAMILIES = {"muvera": "this library", "baseline": "baseline", "peer": "peer"}

_NAMES = ("experiment", "collection", "system")


@dataclass(frozen=True, eq=False)
class Run:
    """A run as its folder tells it.

    Parameters
    ----------
    manifest : dict
        What was run and on what.
    rows : list of dict
        One entry a measured configuration; any number in it may be None.
    comparisons : list of dict
        Paired differences with their intervals.
    tables : list of dict
        Tables that the run made itself: experiment, title, caption, header, rows.
    """

    manifest: dict[str, Any]
    rows: list[Row]
    comparisons: list[dict[str, Any]]
    tables: list[dict[str, Any]]

    @property
    def is_quick(self) -> bool:
        """Whether small versions of the experiments were run on made-up collections."""
        return bool(self.manifest.get("quick"))

    @property
    def name(self) -> str:
        """Name of the run."""
        return str(self.manifest.get("run") or "unnamed")

    @property
    def failures(self) -> list[dict[str, Any]]:
        """What could not be measured, and why."""
        return list(self.manifest.get("failures") or [])

    @property
    def experiments(self) -> list[str]:
        """Names of the experiments: those configured first, then any others that left a trace."""
        named = list(self.manifest.get("experiments") or {})
        found = [str(part["experiment"]) for part in (*self.rows, *self.tables, *self.comparisons)]
        return list(dict.fromkeys([*named, *found]))

    @property
    def collections(self) -> list[str]:
        """Names of the collections that were measured, in the manifest's order."""
        measured = dict.fromkeys(row["collection"] for row in self.rows)
        described = [name for name in self.manifest.get("collections") or {} if name in measured]
        return list(dict.fromkeys([*described, *measured]))

    @property
    def systems(self) -> dict[str, str]:
        """Name of a system -> its family; muvera first, then baselines, then peers."""
        families = {row["system"]: row["family"] for row in self.rows}
        order = list(FAMILIES)
        return dict(sorted(families.items(), key=lambda item: order.index(item[1])))

    @property
    def measures(self) -> list[str]:
        """Names of all quality measures, in the order in which they are met."""
        return list(dict.fromkeys(name for row in self.rows for name in row.get("metrics") or {}))


def load_run(folder: Path) -> Run:
    """Read and check a run's folder.

    Raises
    ------
    FileNotFoundError
        Where a file is missing.
    ValueError
        Where a file is not JSON or not what a run writes, or nothing was measured.
    """
    manifest, summary = (_read(folder, name) for name in ("manifest.json", "summary.json"))
    rows = _list_of(summary, "rows", (*_NAMES, "family"), folder)
    for i, row in enumerate(rows):
        if row["family"] not in FAMILIES:
            raise ValueError(
                f"{folder / 'summary.json'}: rows[{i}] has the family {row['family']!r}; it must be one of "
                f"{', '.join(FAMILIES)}."
            )
    failures = _list_of(manifest, "failures", (), folder)
    if not rows:
        first = f" and {len(failures)} failures, the first: {failures[0].get('message')}" if failures else ""
        raise ValueError(
            f"{folder / 'summary.json'} holds no rows{first or ', so that there is nothing to show'}. "
            "Run the experiments again."
        )
    return Run(
        manifest=manifest,
        rows=rows,
        comparisons=_list_of(summary, "comparisons", ("experiment", "collection"), folder),
        tables=_list_of(summary, "tables", ("experiment", "header", "rows"), folder),
    )


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {name}: give the folder that a finished run has written.")
    try:
        # A number that is none, NaN, is as good as missing.
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{path} is not JSON ({error.msg}, {place}). Run the experiments again.") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8. Run the experiments again.") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object, but holds a {type(found).__name__}.")
    return found


def _list_of(found: dict[str, Any], key: str, needed: tuple[str, ...], folder: Path) -> list[dict[str, Any]]:
    entries = found.get(key) or []
    if not isinstance(entries, list):
        raise ValueError(f"{folder}: {key!r} must be a list, but is a {type(entries).__name__}.")
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise ValueError(f"{folder}: {key}[{i}] must be an object, but is a {type(entry).__name__}.")
        for name in needed:
            if entry.get(name) is None:
                raise ValueError(f"{folder}: {key}[{i}] has no {name!r}.")
    return entries
