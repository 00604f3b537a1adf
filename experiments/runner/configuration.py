"""Configurations: one YAML file per experiment, checked before anything runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..evaluation.metrics import parse_metric
from ..known_names import require_known
from ..systems.base import arguments_of
from ..systems.registry import SYSTEMS

#: Folder of configurations that are found by name.
CONFIGS = Path(__file__).parents[1] / "configs"

#: The seeds of an experiment are far apart, because some libraries draw repetition r
#: from seed + r.
FIRST_SEED, SEED_STEP = 42, 1000

_TABLES = ("metrics", "speed", "size", "speed_at_recall", "floats", "candidates", "variance")
_PLAIN_KEYS = ("title", "caption", "reproduces", "paper", "k", "queries", "timed")
_KEYS = (*_PLAIN_KEYS, "seeds", "collections", "metrics", "systems", "compare", "tables")
_ENTRY_KEYS = ("system", "label", "build", "variants", "query", "sweep", "allow_fewer")


@dataclass(frozen=True)
class Entry:
    """One built system, and the settings at which it answers queries."""

    system: str
    #: Name of the curve.
    label: str
    build: dict[str, Any]
    #: Query arguments of each point of the curve.
    queries: tuple[dict[str, Any], ...]
    #: Accept fewer than k documents.
    allow_fewer: bool = False
    #: Index of this entry's system in the configuration.
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
    """Differences of `metrics` between points over the same queries.

    Each of the points `what` is compared with the point `to`.
    """

    to: str
    what: tuple[str, ...]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Experiment:
    """The content of a configuration; experiments/README.md describes its keys."""

    name: str
    title: str
    caption: str = ""
    reproduces: str = ""
    #: What the reproduced paper found.
    paper: str = ""
    k: int = 100
    queries: int = 300
    seeds: tuple[int, ...] = (FIRST_SEED,)
    timed: bool = False
    #: Names; empty: all.
    collections: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    tables: tuple[str, ...] = ("metrics",)
    #: The file's content.
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
        For an unknown system, key or configuration, with the nearest name, and for
        wrong values.
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
            raise ValueError(f"{path} must contain keys and values, got {type(content).__name__}.")
        if set(content) == {"include"}:
            included = load_experiments(content["include"], path.parent)
            experiments |= {experiment.name: experiment for experiment in included}
        else:
            try:
                experiments[path.stem] = experiment_of(path.stem, content)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path.stem}: {error}") from error
    return list(experiments.values())


def experiment_of(name: str, content: dict[str, Any]) -> Experiment:
    """Return the experiment that a configuration's content describes."""
    _require_keys(content, _KEYS, "key of an experiment")
    _require("title" in content, "title is missing: describe what the experiment shows.")
    given = {"k": 100, "queries": 300, "seeds": 1, **content}
    for key in ("k", "queries", "seeds"):
        _require(
            type(given[key]) is int and given[key] > 0,
            f"{key} must be an int of at least 1, got {given[key]!r}.",
        )
    collections = given.get("collections", [])
    _require(isinstance(collections, list), f"collections must be a list of names, got {collections!r}.")
    metrics, tables = (
        tuple(given.get(key, default)) for key, default in (("metrics", ()), ("tables", ("metrics",)))
    )
    for metric in metrics:
        if parse_metric(metric).cutoff > given["k"]:
            raise ValueError(f"{metric} reads more documents than k={given['k']}. Raise k.")
    for table in tables:
        require_known(table, _TABLES, "table")
    entries = [entry for line, row in enumerate(given.get("systems", [])) for entry in _entries(row, line)]
    _require_enough_candidates(entries, given["k"])
    names = [point.name for entry in entries for point in entry.points()]
    for point in names:
        _require(names.count(point) == 1, f"Two points have the name {point!r}. Give their systems labels.")
    return Experiment(
        name=name,
        entries=tuple(entries),
        seeds=tuple(FIRST_SEED + SEED_STEP * i for i in range(given["seeds"])),
        collections=tuple(collections),
        metrics=metrics,
        tables=tables,
        comparisons=tuple(_comparison(row, names, metrics) for row in given.get("compare", [])),
        raw=content,
        **{key: given[key] for key in _PLAIN_KEYS if key in given},
    )


def _comparison(content: dict[str, Any], names: list[str], metrics: tuple[str, ...]) -> Comparison:
    _require_keys(content, ("to", "what", "metrics"), "key of a comparison")
    to = content.get("to", "")
    what = tuple(content.get("what", [name for name in names if name != to]))
    comparison = Comparison(to, what, tuple(content.get("metrics", metrics)))
    for name in (to, *what):
        require_known(name, names, "point")
    for metric in comparison.metrics:
        require_known(metric, metrics, "metric of the experiment")
    return comparison


def _entries(content: dict[str, Any], line: int) -> list[Entry]:
    _require_keys(content, _ENTRY_KEYS, "key of a system")
    system = content.get("system", "")
    require_known(system, SYSTEMS, "system")
    entries = []
    queries = [{**content.get("query", {}), **sweep} for sweep in _product(content.get("sweep", {}))]
    for variant in content.get("variants", [{}]):
        changes = dict(variant)
        label = changes.pop("label", content.get("label"))
        build = {**content.get("build", {}), **changes}
        if label is None:
            label = ", ".join([system, *(f"{key}={{{key}}}" for key in changes)])
        for name in re.findall(r"{(\w+)}", label):
            require_known(name, build, "build argument of the label")
        _require_arguments(system, "build", build)
        for query in queries:
            _require_arguments(system, "query", query)
        fewer = content.get("allow_fewer", False)
        entries.append(Entry(system, label.format(**build), build, tuple(queries), fewer, line))
    return entries


def _product(lists: dict[str, list[Any]]) -> list[dict[str, Any]]:
    for name, values in lists.items():
        _require(
            isinstance(values, list) and bool(values), f"{name} must be a list of values, got {values!r}."
        )
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def _require_arguments(system: str, side: Any, arguments: dict[str, Any]) -> None:
    for name in arguments:
        require_known(name, arguments_of(SYSTEMS[system], side), f"{side} argument of {system}")


def _require_enough_candidates(entries: Iterable[Entry], k: int) -> None:
    """Raise ValueError for fewer candidates than `k`; 0 ranks none.

    Systems rank at least `k`, so such a point would repeat the one with `k` candidates.
    """
    for entry in entries:
        for query in entry.queries:
            number = query.get("candidates", k)
            _require(
                type(number) is not int or not 0 < number < k,
                f"{entry.label}: candidates={number} is below k={k}, but a search ranks at least k documents. "
                "Raise candidates, or lower k.",
            )


def _require_keys(content: Any, known: Iterable[str], kind: str) -> None:
    _require(isinstance(content, dict), f"Keys and values are expected, got {content!r}.")
    for key in content:
        require_known(key, known, kind)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
