"""``python -m experiments page``: a run as one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from muvera.utils.atomic_files import write_bytes

from .run_folder import Run, load_run
from .table import Column, Table, html, number
from .views import ExperimentView

__all__ = ["page", "page_of"]

_HERE = Path(__file__).parent

_SHARE = "{:.3f}"


def page(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run, with manifest.json and summary.json.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="File of the page. Default: page.html in the run's folder.")
    ] = None,
) -> None:
    """Write one HTML page of a run; it needs no other file and no network."""
    target = out or run_folder / "page.html"
    try:
        content = page_of(load_run(run_folder)).encode()
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, content)
    except ModuleNotFoundError as error:
        typer.echo(
            f"error: The page needs {error.name}: pip install 'muvera-toolkit[experiments]'.", err=True
        )
        raise typer.Exit(2) from None
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(f"{target} ({len(content) / 1e6:.2f} MB)")


def page_of(run: Run) -> str:
    """Return the run's page as HTML."""
    import jinja2  # here, so that other commands do not need it

    plots: list[dict[str, Any]] = []
    experiments = [_experiment(ExperimentView(run, name), plots) for name in run.experiments]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    names = {row[key]: row["system"] for row in run.rows for key in ("label", "point")}
    return environment.get_template("page.html.jinja").render(
        run=run,
        counts={
            "experiments": len(run.experiments), "collections": len(run.collections),
            "systems": len(run.systems), "measurements": len(run.rows),
        },
        experiments=experiments,
        facts=_facts(run),
        collections_table=html(_collections(run)),
        failures=run.manifest["failures"],
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
        library=_library(),
        data=_packed(json.dumps({"plots": plots, "systems": names}, ensure_ascii=False)),
    ).lstrip()  # fmt: skip


def _experiment(view: ExperimentView, plots: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the template's data of an experiment, and append its plots."""
    run = view.run
    groups: dict[str, list[dict[str, Any]]] = {}
    for plot in view.plots():
        title = f"{plot.quality} by {plot.cost}"
        groups.setdefault(plot.collection, []).append({"number": len(plots), "title": title})
        marks = {label: mark._asdict() for label, mark in plot.marks.items()}
        plots.append({**plot._asdict(), "marks": marks})
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
    import vl_convert

    newest = vl_convert.get_vegalite_versions()[-1]
    return _packed(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=newest))


def _packed(text: str) -> str:
    """Return a text compressed and in base64, which cannot end the script element around it."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
