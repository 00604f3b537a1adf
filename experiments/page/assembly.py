"""Put the page together: one file that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from . import tables
from .appearance import DARK, LIGHT, VARIABLES, Mark, css_variables, marks_of
from .charts import sweep_chart, themed, tradeoff_chart
from .numbers import flattened, interval, number
from .plots import Plot, plots_of
from .run_folder import FAMILIES, Run

__all__ = ["page_of"]

_HERE = Path(__file__).parent

#: Names that the page's script replaces in a drawing.
_QUALITY, _PARAMETER, _TICKS = "__quality__", "__parameter__", "__ticks__"

#: What the libraries' bundle leaves to the page's script.
_BUNDLE = "window.vegaEmbed = vegaEmbed;"

_TITLES = {
    "speed": ("against queries per second", "upper right is better"),
    "size": ("against bytes per document", "lower right is better"),
    "sweep": ("against", ""),
    "sweep-speed": ("Queries per second against", ""),
}


def page_of(run: Run) -> str:
    """Return the run's page as HTML."""
    marks = marks_of(run.systems)
    experiments = [_experiment(run, name, number_) for number_, name in enumerate(run.experiments)]
    plots = [plot for one in experiments for group in one["groups"] for plot in group["plots"]]
    for position, plot in enumerate(plots):
        plot["position"] = position
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html.jinja").render(
        run=run,
        facts=_facts(run),
        versions=flattened(run.manifest.get("versions")),
        collections_table=tables.collections(run),
        experiments=experiments,
        failures=[_failure(one) for one in run.failures],
        families={family: [n for n, f in run.systems.items() if f == family] for family in FAMILIES},
        family_words=FAMILIES,
        systems=list(run.systems),
        marks=marks,
        number=number,
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        style=_text("page.css"),
        bundle=vl_convert.javascript_bundle(_BUNDLE, vl_version=vl_convert.get_vegalite_versions()[-1]),
        script=_text("page.js"),
        data=_for_script(_data(run, [plot["plot"] for plot in plots], marks)),
    )


def _experiment(run: Run, name: str, position: int) -> dict[str, Any]:
    configured = (run.manifest.get("experiments") or {}).get(name)
    about = configured if isinstance(configured, dict) else {}
    groups: dict[str, list[dict[str, Any]]] = {}
    for plot in plots_of(run, name):
        groups.setdefault(plot.group, []).append(_described(run, plot))
    used = {row["system"] for row in run.rows if row["experiment"] == name}
    return {
        "name": name,
        "identity": f"experiment-{position}",
        "about": next(
            (str(about[key]) for key in ("question", "description", "title") if about.get(key)), ""
        ),
        "configuration": json.dumps(configured, indent=2, ensure_ascii=False) if configured else "",
        "systems": [system for system in run.systems if system in used],
        "groups": [
            {
                "name": group,
                "collection": run.collections.index(group) if group in run.collections else None,
                "facts": _collection_facts(run, group),
                "plots": described,
            }
            for group, described in groups.items()
        ],
        "tables": tables.own_tables(run, name),
        "comparisons": tables.comparisons(run, name),
        "measurements": tables.measurements(run, name),
        "failures": sum(one.get("experiment") == name for one in run.failures),
    }


def _described(run: Run, plot: Plot) -> dict[str, Any]:
    words, hint = _TITLES[plot.kind]
    systems = {run.rows[i]["system"] for i in plot.rows}
    return {
        "plot": plot,
        "quality": plot.kind != "sweep-speed",
        "words": f"{words} {plot.parameter}".strip(),
        "hint": hint,
        "about": f"on {plot.group}: {len(plot.rows)} configurations of {len(systems)} systems. "
        "Arrow keys go through the points; all values stand in the table of measurements.",
    }


def _failure(one: dict[str, Any]) -> dict[str, str]:
    places = [str(one[key]) for key in ("experiment", "collection", "system") if one.get(key)]
    return {"place": ", ".join(places), "message": str(one.get("message") or "")}


def _facts(run: Run) -> dict[str, str]:
    manifest = run.manifest
    found = {"created": manifest.get("created"), **flattened(manifest.get("machine"))}
    found |= {name: manifest.get(name) for name in ("threads", "seed")}
    found["configuration"] = manifest.get("config_hash")
    return {name: number(value) for name, value in found.items() if value is not None}


def _collection_facts(run: Run, name: str) -> str:
    about = (run.manifest.get("collections") or {}).get(name) or {}
    parts = [f"{about[key]:,} {key}" for key in ("documents", "tokens", "queries") if about.get(key)]
    return ", ".join(parts)


def _data(run: Run, plots: list[Plot], marks: dict[str, Mark]) -> dict[str, Any]:
    """Return what the script draws from: drawings to fill in, rows, and what each plot shows."""
    systems, collections, measures = list(run.systems), run.collections, run.measures
    return {
        "drawings": _drawings(marks),
        "measures": measures,
        "systems": systems,
        "families": list(run.systems.values()),
        "rows": [
            {
                "system": systems.index(row["system"]),
                "collection": collections.index(row["collection"]),
                "measures": [_rounded(interval((row.get("metrics") or {}).get(name))) for name in measures],
                "speed": _rounded([row.get("queries_per_second")])[0],
                "size": _rounded([row.get("bytes_per_document")])[0],
            }
            for row in run.rows
        ],
        "plots": [
            {
                "drawing": _drawing_name(plot),
                "kind": plot.kind,
                "parameter": plot.parameter,
                "rows": plot.rows,
                "values": plot.values,
                "lines": _indices(plot.lines),
            }
            for plot in plots
        ],
    }


def _drawings(marks: dict[str, Mark]) -> dict[str, str]:
    found = {}
    for kind in ("speed", "size"):
        found[kind] = themed(tradeoff_chart(kind, _QUALITY, marks, VARIABLES), VARIABLES)
    for kind in ("sweep", "sweep-speed"):
        for logarithmic in (False, True):
            chart = sweep_chart(
                _PARAMETER,
                _TICKS,
                _QUALITY,
                marks,
                VARIABLES,
                logarithmic=logarithmic,
                speed=kind == "sweep-speed",
            )
            found[f"{kind}-log" if logarithmic else kind] = themed(chart, VARIABLES)
    return {name: json.dumps(drawing, separators=(",", ":")) for name, drawing in found.items()}


def _drawing_name(plot: Plot) -> str:
    return f"{plot.kind}-log" if plot.logarithmic else plot.kind


def _indices(names: list[str]) -> list[int]:
    known = {name: position for position, name in enumerate(dict.fromkeys(names))}
    return [known[name] for name in names]


def _rounded(values: Any) -> list[float | None]:
    """Five digits are more than a plot shows."""
    return [None if value is None else float(f"{value:.5g}") for value in values]


def _for_script(value: Any) -> str:
    """Return JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
