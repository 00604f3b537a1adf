"""Stored results, from which documents are generated.

There is one JSON file of tables per experiment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from muvera.utils.atomic_files import write_bytes

from .run_folder import load_run
from .table import Table

#: Folder of the stored results.
RESULTS = Path(__file__).parents[1] / "results"

#: Folder of ids, within the stored results and within a run; see stored_ids.
IDS = "ids"


def load_results(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Return stored results, or an empty dictionary if there are none."""
    path = folder / f"{name}.json"
    if not path.exists():
        return {}
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def save_results(name: str, values: dict[str, Any], folder: Path = RESULTS) -> None:
    """Store results with one list entry per line, for readable diffs.

    Parameters
    ----------
    name : str
        Name of the experiment, and of the file without ``.json``.
    values : dict[str, Any]
        Content of the file; stored results are replaced.
    folder : Path
        Folder of the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{name}.json", f"{_lines(values)}\n".encode())


def save_tables(name: str, title: str, tables: Iterable[Table], folder: Path = RESULTS) -> None:
    """Store tables; they replace stored ones with the same title.

    If the headers are equal, stored rows whose first cell was not measured now are
    kept.

    Parameters
    ----------
    name : str
        Name of the experiment, and of the file without ``.json``.
    title : str
        Title of the experiment on its page.
    tables : Iterable[Table]
        The measured tables.
    folder : Path
        Folder of the file.
    """
    stored = {table["title"]: table for table in load_results(name, folder).get("tables", [])}
    for table in tables:
        new: dict[str, Any] = {
            "title": table.title,
            "caption": table.caption,
            "header": table.header,
            "rows": table.cells,
        }
        old = stored.get(table.title, {})
        if old.get("header") == table.header:
            measured = {row[0] for row in table.cells}
            kept = [row for row in old["rows"] if row[0] not in measured]
            new["rows"] = [*kept, *table.cells]
            if kept:
                new["caption"] += " Some rows are of earlier runs."
        stored[table.title] = new
    values = {"experiment": name, "configuration": {"title": title}, "tables": list(stored.values())}
    save_results(name, values, folder)


def save_run(folder: Path, results: Path = RESULTS) -> None:
    """Store the tables of a finished run, and the ids from which they are computed.

    There is one file of each for each experiment with tables.
    """
    run = load_run(folder)
    manifest = run.manifest
    on = {"machine": manifest["machine"], "threads": manifest["threads"]}
    on["commits"] = sorted({str(one["commit"]) for one in manifest["measured"]})
    for name in dict.fromkeys(table["experiment"] for table in run.tables):
        tables = [table for table in run.tables if table["experiment"] == name]
        stored = {"experiment": name, "configuration": manifest["experiments"][name], **on, "tables": tables}
        save_results(name, stored, results)
        ids, target = folder / IDS / f"{name}.npz", results / IDS / f"{name}.npz"
        if ids.exists():
            target.parent.mkdir(exist_ok=True)
            write_bytes(target, ids.read_bytes())
        else:  # a run of an earlier version
            target.unlink(missing_ok=True)


def _lines(value: Any, indent: int = 0) -> str:
    inner, end = " " * (indent + 1), "\n" + " " * indent
    if isinstance(value, dict) and any(isinstance(part, (dict, list)) for part in value.values()):
        parts = [f"{inner}{json.dumps(key)}: {_lines(part, indent + 1)}" for key, part in value.items()]
        return "{\n" + ",\n".join(parts) + end + "}"
    if isinstance(value, list) and any(isinstance(part, (dict, list)) for part in value):
        parts = [f"{inner}{_lines(part, indent + 1)}" for part in value]
        return "[\n" + ",\n".join(parts) + end + "]"
    return json.dumps(value, ensure_ascii=False)
