"""Configurations: one YAML file per experiment, checked before anything runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ..evaluation.metrics import parse_metric
from ..known_names import require_known
from ..systems.base import arguments_of
from ..systems.registry import SYSTEMS

__all__ = ["CONFIGS", "LARGEST", "Comparison", "Entry", "Experiment", "Point", "load_experiments"]

#: Folder of configurations that are found by name.
CONFIGS = Path(__file__).parents[1] / "configs"

#: The seeds of an experiment are far apart, because some libraries draw repetition r from seed + r.
FIRST_SEED, SEED_STEP = 42, 1000

#: Special name: only the collection with the most documents.
LARGEST = "largest"

_TABLES = (
    *("metrics", "speed", "size", "facts", "losses", "candidates", "variance", "crossover"),
    "speed_at_recall",
)
_PLAIN_KEYS = (
    "title",
    "caption",
    "reproduces",
    "k",
    "queries",
    "training_queries",
    "timed",
)
_KEYS = (*_PLAIN_KEYS, "documents", "seeds", "collections", "metrics", "systems", "compare", "tables")
_ENTRY_KEYS = ("system", "label", "build", "variants", "grid", "query", "sweep", "allow_fewer")


@dataclass(frozen=True)
class Entry:
    """One built system, and the settings at which it answers queries.

    Parameters
    ----------
    system : str
        Name in SYSTEMS.
    label, series : str
        Name of the curve; the same with "*" for numbers, so curves that differ only in numbers share it.
    build : dict
        Build arguments.
    queries : tuple of dict
        Query arguments of each point of the curve.
    allow_fewer : bool
        Accept fewer than k documents.
    line : int
        Index of this entry's system in the configuration.
    """

    system: str
    label: str
    series: str
    build: dict[str, Any]
    queries: tuple[dict[str, Any], ...]
    allow_fewer: bool = False
    line: int = 0

    def points(self) -> list[Point]:
        """Return the points of the curve, named by the arguments that vary along it."""
        changing = [
            name
            for name in dict.fromkeys(itertools.chain(*self.queries))
            if len({repr(query.get(name)) for query in self.queries}) > 1
        ]
        return [
            Point(self, query, ", ".join([self.label, *(f"{name}={query[name]}" for name in changing)]))
            for query in self.queries
        ]


@dataclass(frozen=True)
class Point:
    """A system at one setting: the subject of a row of results."""

    entry: Entry
    query: dict[str, Any]
    name: str


@dataclass(frozen=True)
class Comparison:
    """Differences of `metrics` between the points `what` and the point `to`, over the same queries."""

    to: str
    what: tuple[str, ...]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Experiment:
    """The content of a configuration.

    Parameters
    ----------
    name : str
        Name of its file.
    title, caption, reproduces : str
        Texts for the report.
    k : int
        Documents that each system returns.
    queries : int
        At most this many of a collection's queries, the same for all systems.
    training_queries : float
        Share of a collection's queries for training; the others are measured.
    documents : tuple of int or None
        Sizes of the collection; None is all documents.
    seeds : tuple of int
    timed : bool
        Build all systems first, then alternate between them.
    collections : tuple of str
        Collections to use; empty: all; LARGEST: the one with the most documents.
    metrics, tables : tuple of str
    entries : tuple of Entry
    comparisons : tuple of Comparison
    raw : dict
        The file's content.
    """

    name: str
    title: str
    caption: str = ""
    reproduces: str = ""
    k: int = 100
    queries: int = 300
    training_queries: float = 0.0
    documents: tuple[int | None, ...] = (None,)
    seeds: tuple[int, ...] = (FIRST_SEED,)
    timed: bool = False
    collections: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    tables: tuple[str, ...] = ("metrics",)
    raw: dict[str, Any] = field(default_factory=dict)

    def points(self) -> list[Point]:
        """Return the points of all entries."""
        return [point for entry in self.entries for point in entry.points()]


def load_experiments(names: Sequence[str], folder: Path = CONFIGS) -> list[Experiment]:
    """Read configurations by path, or by name in `folder`.

    A file whose only key is ``include`` is replaced by the files that it lists.

    Raises
    ------
    ValueError
        For an unknown system, key or configuration, with the nearest name, and for wrong values.
    """
    experiments: dict[str, Experiment] = {}
    for name in names:
        path = Path(name)
        if not path.is_file():
            stem = name.removesuffix(".yaml")
            require_known(stem, sorted(file.stem for file in folder.glob("*.yaml")), "configuration")
            path = folder / f"{stem}.yaml"
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} is not YAML: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} must hold keys and values, got {type(content).__name__}.")
        if set(content) == {"include"}:
            included = load_experiments(content["include"], path.parent)
            experiments |= {experiment.name: experiment for experiment in included}
        else:
            try:
                experiments[path.stem] = _experiment(path.stem, content)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path.stem}: {error}") from error
    return list(experiments.values())


def _experiment(name: str, content: dict[str, Any]) -> Experiment:
    _require_keys(content, _KEYS, "key of an experiment")
    if "title" not in content:
        raise ValueError("title is missing: describe what the experiment shows.")
    k, seeds = content.get("k", 100), content.get("seeds", 1)
    for key, value in (("k", k), ("queries", content.get("queries", 300)), ("seeds", seeds)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{key} must be an int of at least 1, got {value!r}.")
    share = content.get("training_queries", 0.0)
    if not (isinstance(share, float) and 0 <= share < 1):
        raise ValueError(f"training_queries must be a share of the queries below 1, got {share!r}.")
    metrics, tables = tuple(content.get("metrics", ())), tuple(content.get("tables", ("metrics",)))
    for metric in metrics:
        if parse_metric(metric).cutoff > k:
            raise ValueError(f"{metric} reads more documents than k={k}. Raise k.")
    for table in tables:
        require_known(table, _TABLES, "table")
    sizes = content.get("documents", ["all"])
    for size in sizes if isinstance(sizes, list) else [sizes]:
        if not (size == "all" or (type(size) is int and size > 0)):
            raise ValueError(f"documents must be a list of numbers and 'all', got {size!r}.")
    collections = content.get("collections", [])
    if not isinstance(collections, list) and collections != LARGEST:
        raise ValueError(f"collections must be a list of names, or {LARGEST!r}, got {collections!r}.")
    entries = [entry for line, row in enumerate(content.get("systems", ())) for entry in _entries(row, line)]
    if "crossover" in tables and [len(entry.queries) for entry in entries] != [1, 1, 1]:
        raise ValueError("The table 'crossover' needs three systems of one point each.")
    experiment = Experiment(
        name=name,
        entries=tuple(entries),
        seeds=tuple(FIRST_SEED + SEED_STEP * i for i in range(seeds)),
        documents=tuple(None if size == "all" else size for size in sizes),
        collections=(LARGEST,) if collections == LARGEST else tuple(collections),
        metrics=metrics,
        tables=tables,
        raw=content,
        **{key: content[key] for key in _PLAIN_KEYS if key in content},
    )
    names = [point.name for point in experiment.points()]
    for point in names:
        if names.count(point) > 1:
            raise ValueError(f"Two points have the name {point!r}. Give their systems labels.")
    comparisons = tuple(_comparison(row, names, metrics) for row in content.get("compare", ()))
    return replace(experiment, comparisons=comparisons)


def _comparison(content: dict[str, Any], names: list[str], metrics: tuple[str, ...]) -> Comparison:
    _require_keys(content, ("to", "what", "metrics"), "key of a comparison")
    to = content.get("to", "")
    comparison = Comparison(
        to,
        tuple(content.get("what", [name for name in names if name != to])),
        tuple(content.get("metrics", metrics)),
    )
    for name in (to, *comparison.what):
        require_known(name, names, "point")
    for metric in comparison.metrics:
        require_known(metric, metrics, "metric of the experiment")
    return comparison


def _entries(content: dict[str, Any], line: int) -> list[Entry]:
    _require_keys(content, _ENTRY_KEYS, "key of a system")
    system = content.get("system", "")
    require_known(system, SYSTEMS, "system")
    entries = []
    for variant in content.get("variants", [{}]):
        for values in _product(content.get("grid", {})):
            changes = {**variant, **values}
            label = changes.pop("label", content.get("label"))
            build = {**content.get("build", {}), **changes}
            if label is None:
                label = ", ".join([system, *(f"{key}={{{key}}}" for key in changes)])
            for name in re.findall(r"{(\w+)}", label):
                require_known(name, build, "build argument of the label")
            queries = [{**content.get("query", {}), **sweep} for sweep in _product(content.get("sweep", {}))]
            _require_arguments(system, "build", build)
            for query in queries:
                _require_arguments(system, "query", query)
            plain = {name: "*" if type(value) in (int, float) else value for name, value in build.items()}
            series, fewer = label.format(**plain), content.get("allow_fewer", False)
            entries.append(Entry(system, label.format(**build), series, build, tuple(queries), fewer, line))
    return entries


def _product(lists: dict[str, list[Any]]) -> list[dict[str, Any]]:
    for name, values in lists.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{name} must be a list of values, got {values!r}.")
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def _require_arguments(system: str, side: Any, arguments: dict[str, Any]) -> None:
    try:
        known = arguments_of(SYSTEMS[system], side)
    except ModuleNotFoundError:
        return  # a missing extra raises an error only when the system is used
    for name in arguments:
        require_known(name, known, f"{side} argument of {system}")


def _require_keys(content: Any, known: Iterable[str], kind: str) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"Keys and values are expected, got {content!r}.")
    for key in content:
        require_known(key, known, kind)
