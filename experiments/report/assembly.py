"""Put the page together: one file that needs nothing else."""

from __future__ import annotations

import base64
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import vl_convert

from . import page_tables as tables
from .appearance import DARK, LIGHT, Mark, css_variables
from .charts import DASHES
from .experiment_view import ExperimentView, marks_of_views
from .numbers import flattened, number
from .page_data import page_data
from .plots import Kind, Plot, plots_of
from .points import variants_of
from .run_folder import FAMILIES, Run
from .shapes import SHAPES

__all__ = ["page_of"]

_HERE = Path(__file__).parent

#: Words after a plot's measure, and which corner is the best.
_TITLES: dict[Kind, tuple[str, str]] = {
    "speed": ("against queries per second", "upper right is better"),
    "size": ("against bytes per document, token vectors included", "lower right is better"),
    "sweep": ("against", ""),
    "sweep-speed": ("Queries per second against", ""),
    "depth": ("against", ""),
}


def page_of(run: Run) -> str:
    """Return the run's page as HTML."""
    views = [ExperimentView(run, name) for name in run.experiments]
    plots = [plots_of(view) for view in views]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("page.html.jinja").render(
        run=run,
        counts=_counts(run),
        facts=_facts(run),
        versions={name: number(value) for name, value in flattened(run.manifest.get("versions")).items()},
        collections_table=tables.collections(run),
        experiments=_experiments(views, plots),
        failures=[_failure(one) for one in run.failures],
        families={family: [n for n, f in run.systems.items() if f == family] for family in FAMILIES},
        family_words=FAMILIES,
        family_shapes=SHAPES,
        systems=list(run.systems),
        number=number,
        light=css_variables(LIGHT),
        dark=css_variables(DARK),
        style=_text("page.css"),
        library=_library(),
        script=_text("page.js"),
        data=_for_script(page_data(views, plots)),
    )
    return page.lstrip()


def _experiments(views: list[ExperimentView], plots: list[list[Plot]]) -> list[dict[str, Any]]:
    """Return what the template shows of each experiment; plots are numbered as in the script's data."""
    found = []
    first = 0
    for view, own, marks in zip(views, plots, marks_of_views(views), strict=True):
        groups: dict[str, list[dict[str, Any]]] = {}
        for position, plot in enumerate(own, start=first):
            groups.setdefault(plot.collection, []).append(_described(view, plot) | {"position": position})
        first += len(own)
        found.append(_experiment(view, groups, marks))
    return found


def _experiment(
    view: ExperimentView, groups: dict[str, list[dict[str, Any]]], marks: dict[str, Mark]
) -> dict[str, Any]:
    run = view.run
    configured = view.configuration
    reproduces = configured.get("reproduces")
    return {
        "name": view.title,
        "identity": f"experiment-{run.experiments.index(view.name)}",
        "about": f"{view.caption} {_asked(run, view.name)}".strip(),
        "reproduces": f"After {reproduces}." if reproduces else "",
        "configuration": json.dumps(configured, indent=2, ensure_ascii=False) if configured else "",
        "series": [(series.name, series.system, marks[series.name]) for series in view.series],
        "groups": [
            {
                "name": name,
                "collection": run.collections.index(name),
                "facts": _collection_facts(run, name),
                "plots": described,
            }
            for name, described in groups.items()
        ],
        "narrow": all(len(described) == 1 for described in groups.values()),
        "tradeoffs": any(plot["hint"] for described in groups.values() for plot in described),
        "tables": tables.own_tables(view),
        "comparisons": tables.comparisons(view),
        "measurements": tables.measurements(view),
        "failures": sum(one.get("experiment") == view.name for one in run.failures),
    }


def _described(view: ExperimentView, plot: Plot) -> dict[str, Any]:
    words, hint = _TITLES[plot.kind]
    variants = variants_of([plot])
    measure = {"sweep-speed": "", "depth": plot.title}.get(plot.kind, view.main_measure)
    count = len(set(plot.rows))
    return {
        "measure": measure,
        "chosen": plot.kind not in ("sweep-speed", "depth"),
        "words": f"{words} {plot.parameter}".strip(),
        "hint": hint,
        "strokes": list(zip(DASHES, variants, strict=False)) if len(variants) > 1 else [],
        "about": f"on {plot.collection}: {count} configurations. "
        "Arrow keys go through the points; all values stand in the table of measurements.",
    }


def _counts(run: Run) -> list[str]:
    found = {
        "experiment": run.experiments,
        "collection": run.collections,
        "system": run.systems,
        "measurement": run.rows,
    }
    return [f"{len(parts):,} {name}{'' if len(parts) == 1 else 's'}" for name, parts in found.items()]


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


def _asked(run: Run, experiment: str) -> str:
    """Say of how many documents and queries an experiment is, where it takes a sample."""
    whole = run.manifest.get("collections") or {}
    parts = []
    for one in run.manifest.get("asked") or []:
        about = whole.get(one["collection"]) or {}
        sampled = any(one[key] < about.get(key, 0) for key in ("documents", "queries"))
        if one["experiment"] == experiment and sampled:
            parts.append(f"{one['collection']} {one['documents']:,} documents, {one['queries']:,} queries")
    return f"Sampled: {'; '.join(parts)}." if parts else ""


@cache
def _library() -> str:
    """Return the plotting library, compressed to less than half; making it takes seconds."""
    newest = vl_convert.get_vegalite_versions()[-1]
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=newest)
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()


def _for_script(value: Any) -> str:
    """Return JSON that cannot end the script element that it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
