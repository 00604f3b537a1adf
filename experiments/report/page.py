"""The page of a run: one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from muvera.utils.checks import import_extra

from .charts import CONFIG, specification
from .run_folder import Run
from .table import Column, Table, html, number
from .views import ExperimentView

_HERE = Path(__file__).parent

_SHARE = "{:.3f}"


def page_of(run: Run) -> str:
    """Return the run's page as HTML; raises ValueError if nothing was measured."""
    failures = run.manifest["failures"]
    if not run.rows:
        first = f" and {len(failures)} failures, the first: {failures[0]['message']}" if failures else ""
        raise ValueError(f"The run has no rows{first}. Run the experiments again.")
    jinja2 = import_extra("jinja2", "experiments", "The page of a run")
    plots: list[dict[str, Any]] = []
    experiments = [_experiment(ExperimentView(run, name), plots) for name in run.experiments]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    names = {row[key]: row["system"] for row in run.rows for key in ("label", "point")}
    text: str = environment.get_template("page.html.jinja").render(
        run=run,
        counts={
            "experiments": len(run.experiments), "collections": len(run.collections),
            "systems": len(run.systems), "measurements": len(run.rows),
        },
        experiments=experiments,
        facts=_facts(run),
        collections_table=html(_collections(run)),
        failures=failures,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
        library=_library(),
        data=_packed(json.dumps({"plots": plots, "systems": names, "config": CONFIG}, ensure_ascii=False)),
    )  # fmt: skip
    return text.lstrip()


def _experiment(view: ExperimentView, plots: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the template's data of an experiment, and append its plots."""
    run = view.run
    groups: dict[str, list[dict[str, Any]]] = {}
    for plot in view.plots():
        title = f"{plot.quality} by {plot.cost}"
        groups.setdefault(plot.collection, []).append({"number": len(plots), "title": title})
        plots.append(specification(plot))
    tables = [
        Table(table["title"].removeprefix(f"{view.title}: "), table["header"], table["rows"])
        for table in run.tables
        if table["experiment"] == view.name
    ]
    system_of = {row["label"]: row["system"] for row in view.rows}
    return {
        "identity": f"experiment-{run.experiments.index(view.name)}",
        "title": view.title,
        "caption": view.configuration.get("caption", ""),
        "reproduces": view.configuration.get("reproduces"),
        "paper": view.configuration.get("paper"),
        "configuration": json.dumps(view.configuration, indent=2, ensure_ascii=False),
        "key": [(name, system_of[name], mark) for name, mark in view.marks.items()] if groups else [],
        "groups": groups,
        "tables": [html(table) for table in tables],
        "measurements": html(_measurements(view)),
    }


def _measurements(view: ExperimentView) -> Table:
    """Return all measurements, one row per configuration."""

    def inside(name: str, key: str) -> Callable[[dict[str, Any]], Any]:
        return lambda row: (row[name] or {}).get(key)

    def arguments(name: str) -> Callable[[dict[str, Any]], str]:
        return lambda row: ", ".join(f"{k}={number(v)}" for k, v in row[name].items())

    columns = [
        *(Column("collection"), Column("system")),
        Column("configuration", "point"),
        *(Column(name, inside("metrics", name), _SHARE) for name in view.measures),
        Column("queries/s", "queries_per_second"),
        *(Column(name, inside("latency_ms", name), unit="ms") for name in ("mean", "p50", "p95", "p99")),
        Column("build", "build_seconds", unit="s"),
        *(
            Column("bytes per document", "bytes_per_document"),
            Column("with tokens", "total_bytes_per_document"),
        ),
        *(Column("seed"), Column("build arguments", arguments("build"))),
        Column("query arguments", arguments("query")),
    ]
    caption = "Means with 95% intervals over queries in brackets; times are of one query."
    return Table.of(f"{len(view.rows):,} measurements", columns, view.rows, caption).without_empty_columns()


def _collections(run: Run) -> Table:
    keys = ("name", "documents", "tokens", "queries", "dimension", "judged", "checksum")
    rows = [{**facts, "name": name} for name, facts in run.manifest["collections"].items()]
    return Table.of("Collections", [Column(key) for key in keys], rows)


def _facts(run: Run) -> dict[str, str]:
    """Return the text about the run: configurations, versions and machine."""
    manifest = run.manifest
    facts = {"created": manifest["created"], **manifest["machine"]}
    facts |= {"threads": manifest["threads"], **manifest["versions"]}
    return {name.replace("_", " "): number(value) for name, value in facts.items() if value is not None}


@cache
def _library() -> str:
    """Return the plotting library as a packed script."""
    vl_convert = import_extra("vl_convert", "experiments", "The page of a run")
    newest = vl_convert.get_vegalite_versions()[-1]
    return _packed(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=newest))


def _packed(text: str) -> str:
    """Return a text compressed and in base64.

    Base64 cannot end the script element around it.
    """
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
