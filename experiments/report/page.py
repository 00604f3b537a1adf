"""``python -m experiments page``: a run as one HTML file that needs no other file and no network."""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from muvera.utils.atomic_files import write_bytes

from .charts import CSS, DARK, LIGHT, chart, config
from .run_folder import FAMILIES, Run, load_run
from .table import Column, Table, html, number
from .views import ExperimentView, flattened

__all__ = ["page", "page_of"]

_HERE = Path(__file__).parent

_SHARE = "{:.3f}"


def page(
    run_folder: Annotated[Path, typer.Argument(help="Folder of a run, with manifest.json and summary.json.")],
    out: Annotated[Path | None, typer.Option(help="Default: page.html in the run's folder.")] = None,
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

    charts: list[dict[str, Any]] = []
    experiments = [_experiment(ExperimentView(run, name), charts) for name in run.experiments]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    names = {str(row[key]): row["system"] for row in run.rows for key in ("label", "point") if row.get(key)}
    packed = {"config": config(CSS, legend=False), "charts": charts, "systems": names}
    return environment.get_template("page.html.jinja").render(
        run=run,
        counts={
            "experiments": len(run.experiments), "collections": len(run.collections),
            "systems": len(run.systems), "measurements": len(run.rows),
        },
        families=[(word, [n for n, f in run.systems.items() if f == key]) for key, word in FAMILIES.items()],
        measures=list(dict.fromkeys(name for row in run.rows for name in row.get("metrics") or {})),
        experiments=experiments,
        facts=_facts(run),
        collections_table=html(_collections(run)),
        failures=[
            (", ".join(str(one[key]) for key in ("experiment", "collection", "system") if one.get(key)), one)
            for one in run.failures
        ],
        themes=["".join(f"--{name}: {color};" for name, color in theme.items()) for theme in (LIGHT, DARK)],
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
        library=_library(),
        data=_packed(json.dumps(packed, ensure_ascii=False)),
    ).lstrip()  # fmt: skip


def _experiment(view: ExperimentView, charts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the template shows of an experiment, and append its charts."""
    run = view.run
    groups: dict[str, list[dict[str, Any]]] = {}
    for plot in view.plots():
        shown = {series for point in plot.points if (series := point["series"])}
        marks = {name: mark for name, mark in view.marks.items() if name in shown}
        groups.setdefault(plot.collection, []).append({"number": len(charts), "title": plot.title})
        charts.append(chart(plot, marks, CSS))
    tables = [
        Table(str(table.get("title") or "").removeprefix(f"{view.title}: "), table["header"], table["rows"])
        for table in run.tables
        if table["experiment"] == view.name
    ]
    system_of = {view.series[i]: run.rows[i]["system"] for i in view.rows}
    return {
        "identity": f"experiment-{run.experiments.index(view.name)}",
        "title": view.title,
        "caption": view.caption,
        "reproduces": view.configuration.get("reproduces"),
        "samples": _samples(run, view.name),
        "configuration": json.dumps(view.configuration, indent=2, ensure_ascii=False),
        "key": [(name, system_of[name], mark) for name, mark in view.marks.items()] if groups else [],
        "groups": groups,
        "tables": [html(table) for table in tables],
        "folded": {
            table.title: html(table) for table in (_comparisons(view), _measurements(view)) if table.rows
        },
    }


def _measurements(view: ExperimentView) -> Table:
    """Return everything that was measured, one row per configuration."""
    times = ("mean", "p50", "p95", "p99")
    columns = [
        *("collection", "system", "configuration", *(Column(name, format=_SHARE) for name in view.measures)),
        *("queries/s", *(Column(name, "ms") for name in times), Column("build", "s")),
        *("bytes per document", "with tokens", "seed", "build arguments", "query arguments"),
    ]
    rows = []
    for row in (view.run.rows[i] for i in view.rows):
        metrics, latency = row.get("metrics") or {}, row.get("latency_ms") or {}
        rows.append(
            [
                *(row["collection"], row["system"], row.get("point") or row.get("label")),
                *(metrics.get(name) for name in view.measures),
                *(row.get("queries_per_second"), *(latency.get(name) for name in times)),
                *(
                    row.get("build_seconds"),
                    row.get("bytes_per_document"),
                    row.get("total_bytes_per_document"),
                ),
                *(row.get("seed"), _arguments(row.get("build")), _arguments(row.get("query"))),
            ]
        )
    caption = "Means with 95% intervals over queries in brackets; times are of one query."
    return Table(f"All measurements ({len(rows):,})", columns, rows, caption).without_empty_columns()


def _comparisons(view: ExperimentView) -> Table:
    """Return the paired differences of an experiment."""
    rows = []
    for one in view.run.comparisons:
        if one["experiment"] == view.name:
            low, high = one.get("low"), one.get("high")
            clear = None if low is None or high is None else low > 0 or high < 0
            difference = {"mean": one.get("difference"), "low": low, "high": high}
            names = (one["collection"], one.get("n"), one.get("metric"), one.get("a"), one.get("b"))
            rows.append([*names, difference, clear])
    columns = [
        "collection",
        "documents",
        "measure",
        "a",
        "b",
        Column("a - b", format="{:+.3f}"),
        "excludes 0",
    ]
    return Table(
        "Paired differences", columns, rows, "Over the same queries, with 95% intervals in brackets."
    )


def _collections(run: Run) -> Table:
    described = run.manifest.get("collections") or {}
    keys = ("documents", "tokens", "queries", "dimension", "judged", "checksum")
    names = dict.fromkeys([*described, *run.collections])
    rows = [[name, *((described.get(name) or {}).get(key) for key in keys)] for name in names]
    return Table("Collections", ["collection", *keys], rows)


def _facts(run: Run) -> dict[str, str]:
    """Return what was run and with what, as text."""
    manifest = run.manifest
    facts = {"created": manifest.get("created"), **flattened(manifest.get("machine"))}
    facts |= {"threads": manifest.get("threads"), "seed": manifest.get("seed")}
    facts |= {"configuration": manifest.get("config_hash"), **flattened(manifest.get("versions"))}
    return {name.replace("_", " "): number(value) for name, value in facts.items() if value is not None}


def _samples(run: Run, experiment: str) -> str:
    """Name the collections of which an experiment used a sample."""
    whole = run.manifest.get("collections") or {}
    return "; ".join(
        f"{one['collection']}: {one['documents']:,} documents, {one['queries']:,} queries"
        for one in run.manifest.get("asked") or []
        if one["experiment"] == experiment
        and any(one[k] < (whole.get(one["collection"]) or {}).get(k, 0) for k in ("documents", "queries"))
    )


def _arguments(values: Any) -> str:
    return ", ".join(f"{name}={number(value)}" for name, value in flattened(values).items())


@cache
def _library() -> str:
    """Return the plotting library as a packed script."""
    import vl_convert

    newest = vl_convert.get_vegalite_versions()[-1]
    return _packed(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=newest))


def _packed(text: str) -> str:
    """Return a text compressed and in base64, which cannot end the script element around it."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()
