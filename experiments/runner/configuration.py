"""Configurations: one YAML file an experiment, checked before anything runs."""

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
from .scaling import scaling_settings

__all__ = ["CONFIGS", "LARGEST", "Comparison", "Entry", "Experiment", "Point", "load_experiments"]

#: Where configurations are looked for by name.
CONFIGS = Path(__file__).parents[1] / "configs"

#: Seeds of an experiment: far apart, since some programs draw repetition r from seed + r.
FIRST_SEED, SEED_STEP = 42, 1000

#: Instead of names of collections: only the one with most documents.
LARGEST = "largest"

_KINDS = ("systems", "scaling")
_TABLES = (
    "metrics",
    "speed",
    "size",
    "facts",
    "losses",
    "candidates",
    "variance",
    "scaling",
    "crossover",
    "speed_at_recall",
)
_ENTRY_KEYS = ("system", "label", "build", "variants", "grid", "query", "sweep", "allow_fewer")
_COMPARISON_KEYS = ("to", "what", "metrics")


@dataclass(frozen=True)
class Entry:
    """One built system, and the settings at which it answers.

    Parameters
    ----------
    system : str
        Name in SYSTEMS.
    label : str
        Name of the curve.
    build : dict
        Build arguments.
    queries : tuple of dict
        Query arguments of each point of the curve.
    allow_fewer : bool
        Whether fewer than k documents are no fault.
    line : int
        Which of the configuration's systems it comes from.
    """

    system: str
    label: str
    build: dict[str, Any]
    queries: tuple[dict[str, Any], ...]
    allow_fewer: bool = False
    line: int = 0

    def points(self) -> list[Point]:
        """Return the points of the curve, named by what changes along it."""
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
    """A system at one setting: what a row of results is about."""

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
    """A configuration as read.

    Parameters
    ----------
    name : str
        Its file's name.
    title, caption, reproduces : str
        Words for the report.
    kind : {"systems", "scaling"}
    k : int
        Documents that each system returns.
    queries : int
        At most so many of a collection's queries, the same for all systems.
    training_queries : float
        Share of a collection's queries that systems may learn from instead; the others are asked.
    documents : tuple of int or None
        Sizes of the collection; None is all.
    seeds : tuple of int
    timed : bool
        Systems are built together and asked in turns.
    collections : tuple of str
        Only these; empty: all; LARGEST: the one with most documents.
    metrics : tuple of str
    entries : tuple of Entry
    comparisons : tuple of Comparison
    tables : tuple of str
    scaling : dict
        Settings of :mod:`experiments.runner.scaling`.
    raw : dict
        The file's content.
    """

    name: str
    title: str
    caption: str = ""
    reproduces: str = ""
    kind: str = "systems"
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
    scaling: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)

    def points(self) -> list[Point]:
        """Return the points of all entries."""
        return [point for entry in self.entries for point in entry.points()]


def load_experiments(names: Sequence[str], folder: Path = CONFIGS) -> list[Experiment]:
    """Read configurations by path or by name in `folder`.

    Parameters
    ----------
    names : sequence of str
        A file with the one key ``include`` stands for the files that it lists.
    folder : Path

    Raises
    ------
    ValueError
        For an unknown system, key or configuration, with the nearest name, and for wrong values.
    """
    found: dict[str, Experiment] = {}
    for name in names:
        path = Path(name)
        if not path.is_file():
            known = sorted(file.stem for file in folder.glob("*.yaml"))
            require_known(path.stem if path.suffix == ".yaml" else name, known, "configuration")
            path = folder / f"{path.stem if path.suffix == '.yaml' else name}.yaml"
        content = _read(path)
        if set(content) == {"include"}:
            found |= {one.name: one for one in load_experiments(content["include"], path.parent)}
        else:
            found[path.stem] = _experiment(path.stem, content)
    return list(found.values())


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold keys and values, got {type(content).__name__}.")
    return content


_KEYS = (
    *("title", "caption", "reproduces", "kind", "k", "queries", "training_queries", "documents"),
    *("seeds", "timed", "collections", "metrics", "systems", "compare", "tables", "scaling"),
)


def _experiment(name: str, content: dict[str, Any]) -> Experiment:
    try:
        _require_keys(content, _KEYS, "key of an experiment")
        if "title" not in content:
            raise ValueError("title is missing: say what the experiment shows.")
        k, metrics = content.get("k", 100), tuple(content.get("metrics", ()))
        _require_counts({"k": k, "queries": content.get("queries", 300), "seeds": content.get("seeds", 1)})
        share = content.get("training_queries", 0.0)
        if not (isinstance(share, float) and 0 <= share < 1):
            raise ValueError(f"training_queries must be a share of the queries below 1, got {share!r}.")
        for metric in metrics:
            if parse_metric(metric).cutoff > k:
                raise ValueError(f"{metric} looks at more documents than k={k}. Raise k.")
        require_known(content.get("kind", "systems"), _KINDS, "kind of experiment")
        for table in content.get("tables", ()):
            require_known(table, _TABLES, "table")
        sizes = content.get("documents", ["all"])
        for size in sizes if isinstance(sizes, list) else [sizes]:
            if not (size == "all" or (type(size) is int and size > 0)):
                raise ValueError(f"documents must be a list of numbers and 'all', got {size!r}.")
        if content.get("kind") == "scaling":
            scaling_settings(content.get("scaling", {}))
        entries = tuple(
            entry for line, one in enumerate(content.get("systems", ())) for entry in _entries(one, line)
        )
        if "crossover" in content.get("tables", ()) and [len(entry.queries) for entry in entries] != [
            1,
            1,
            1,
        ]:
            raise ValueError("The table 'crossover' needs three systems of one point each.")
        experiment = Experiment(
            name=name,
            entries=entries,
            seeds=tuple(FIRST_SEED + SEED_STEP * i for i in range(content.get("seeds", 1))),
            documents=tuple(None if size == "all" else size for size in sizes),
            collections=_collections(content.get("collections", [])),
            metrics=metrics,
            tables=tuple(content.get("tables", ("metrics",))),
            raw=content,
            **{
                key: content[key]
                for key in (
                    *("title", "caption", "reproduces", "kind", "k", "queries", "training_queries"),
                    *("timed", "scaling"),
                )
                if key in content
            },
        )
        names = [point.name for point in experiment.points()]
        for point in names:
            if names.count(point) > 1:
                raise ValueError(f"Two points are called {point!r}. Give their systems labels.")
        return _with_comparisons(experiment, content.get("compare", ()), names)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: {error}") from error


def _collections(content: Any) -> tuple[str, ...]:
    if content == LARGEST:
        return (LARGEST,)
    if not isinstance(content, list):
        raise ValueError(f"collections must be a list of names, or {LARGEST!r}, got {content!r}.")
    return tuple(content)


def _with_comparisons(
    experiment: Experiment, contents: Iterable[dict[str, Any]], names: list[str]
) -> Experiment:
    comparisons = []
    for one in contents:
        _require_keys(one, _COMPARISON_KEYS, "key of a comparison")
        require_known(one.get("to", ""), names, "point")
        what = one.get("what", [name for name in names if name != one["to"]])
        for name in what:
            require_known(name, names, "point")
        metrics = one.get("metrics", experiment.metrics)
        for metric in metrics:
            require_known(metric, experiment.metrics, "metric of the experiment")
        comparisons.append(Comparison(one["to"], tuple(what), tuple(metrics)))
    return Experiment(**{**vars(experiment), "comparisons": tuple(comparisons)})


def _entries(content: dict[str, Any], line: int) -> list[Entry]:
    _require_keys(content, _ENTRY_KEYS, "key of a system")
    system = content.get("system", "")
    require_known(system, SYSTEMS, "system")
    found = []
    for variant in content.get("variants", [{}]):
        for values in _product(content.get("grid", {})):
            changes = {**variant, **values}
            label = changes.pop("label", content.get("label"))
            build = {**content.get("build", {}), **changes}
            if label is None:
                label = ", ".join([system, *(f"{key}={value}" for key, value in changes.items())])
            queries = [{**content.get("query", {}), **sweep} for sweep in _product(content.get("sweep", {}))]
            _require_arguments(system, "build", build)
            for query in queries:
                _require_arguments(system, "query", query)
            found.append(
                Entry(
                    system,
                    _filled(label, build),
                    build,
                    tuple(queries),
                    allow_fewer=content.get("allow_fewer", False),
                    line=line,
                )
            )
    return found


def _product(lists: dict[str, list[Any]]) -> list[dict[str, Any]]:
    for name, values in lists.items():
        if not isinstance(values, list) or not values:
            raise ValueError(f"{name} must be a list of values to run through, got {values!r}.")
    return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]


def _filled(label: str, build: dict[str, Any]) -> str:
    """Put build arguments into a label's {braces}."""
    for name in re.findall(r"{(\w+)}", label):
        require_known(name, build, "build argument of the label")
    return label.format(**build)


def _require_arguments(system: str, side: Any, given: dict[str, Any]) -> None:
    try:
        known = arguments_of(SYSTEMS[system], side)
    except ModuleNotFoundError:
        return  # a missing extra is an error when the system is used
    for name in given:
        require_known(name, known, f"{side} argument of {system}")


def _require_keys(content: Any, known: Iterable[str], what: str) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"Keys and values are expected, got {content!r}.")
    for key in content:
        require_known(key, known, what)


def _require_counts(values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an int of at least 1, got {value!r}.")
