"""What an experiment varies: its arguments, and the series in which its rows are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeGuard

from .appearance import Mark, marks_of
from .numbers import flattened, interval, number
from .run_folder import Row, Run

__all__ = ["SIZE", "ExperimentView", "Series", "is_number", "marks_of_views", "short_name"]

#: The size of an FDE: found when an index is built, and yet what plots are drawn against.
SIZE = "build.vector_dimension"

#: Arguments that a configuration does not name but its number of documents.
_DOCUMENTS = "build.n"


@dataclass(frozen=True)
class Series:
    """Rows of one system that differ in numbers alone.

    Parameters
    ----------
    name : str
        The configuration's label where all rows share it; unique within the experiment.
    system, family : str
    """

    name: str
    system: str
    family: str


class ExperimentView:
    """An experiment of a run.

    Parameters
    ----------
    run : Run
    name : str
        The experiment's.
    """

    def __init__(self, run: Run, name: str) -> None:
        self.run = run
        self.name = name
        configured = (run.manifest.get("experiments") or {}).get(name)
        self.configuration: dict[str, Any] = configured if isinstance(configured, dict) else {}
        self.rows = [i for i, row in enumerate(run.rows) if row["experiment"] == name]

    @property
    def title(self) -> str:
        """What the configuration calls the experiment, or its name."""
        return str(self.configuration.get("title") or self.name)

    @property
    def caption(self) -> str:
        """What the configuration says of it."""
        return str(self.configuration.get("caption") or "")

    @property
    def timed(self) -> bool:
        """Whether times can be compared: systems were not measured in turns unless it is asked for."""
        return bool(self.configuration.get("timed")) or "systems" not in self.configuration

    @cached_property
    def measures(self) -> list[str]:
        """Names of the quality measures that have a value here."""
        found = (self.run.rows[i].get("metrics") or {} for i in self.rows)
        return list(
            dict.fromkeys(
                name for one in found for name, value in one.items() if interval(value).mean is not None
            )
        )

    @cached_property
    def main_measure(self) -> str:
        """The recall that the most rows have; any measure where there is no recall."""
        names = [name for name in self.measures if "recall" in name.lower()] or self.measures
        return max(
            names, key=lambda name: sum(self.quality(i, name) is not None for i in self.rows), default=""
        )

    def quality(self, row: int, measure: str) -> float | None:
        """Return the mean of a measure in the row at a position of the run's."""
        return interval((self.run.rows[row].get("metrics") or {}).get(measure)).mean

    @cached_property
    def arguments(self) -> dict[int, dict[str, Any]]:
        """Position of a row -> its arguments that were configured, and its number of documents.

        Numbers that were found while building stand beside them in a row; they are left out.
        """
        known = set(_keys(self.configuration))
        open_ended = not {"systems", "scaling"} & known  # nothing says what was configured
        return {
            i: {
                name: value
                for name, value in _flat(self.run.rows[i]).items()
                if open_ended or name == _DOCUMENTS or name.rpartition(".")[2] in known
            }
            for i in self.rows
        }

    @cached_property
    def sizes(self) -> dict[int, Any]:
        """Position of a row -> the size of its FDEs, None where there are none."""
        return {i: _flat(self.run.rows[i]).get(SIZE) for i in self.rows}

    @cached_property
    def series(self) -> list[Series]:
        """All series, those of muvera first."""
        return list(dict.fromkeys(self._series_of.values()))

    def series_of(self, row: int) -> Series:
        """Return the series of the row at a position of the run's."""
        return self._series_of[row]

    @cached_property
    def _series_of(self) -> dict[int, Series]:
        keys = {i: self._series_key(i) for i in self.rows}
        members: dict[str, list[int]] = {}
        order = list(self.run.systems)
        for i in sorted(self.rows, key=lambda i: order.index(self.run.rows[i]["system"])):
            members.setdefault(keys[i], []).append(i)
        found: dict[int, Series] = {}
        taken: set[str] = set()
        for own in members.values():
            first = self.run.rows[own[0]]
            labels = {self.run.rows[i].get("label") or first["system"] for i in own}
            name = str(labels.pop()) if len(labels) == 1 else self._composed(own[0])
            if name in taken:
                name = f"{name} ({len(taken) + 1})"
            taken.add(name)
            found |= dict.fromkeys(own, Series(name, first["system"], first["family"]))
        return found

    def _series_key(self, row: int) -> str:
        words = {
            name: "a number" if is_number(value) else value
            for name, value in self.arguments[row].items()
            if name.startswith("build.") or not is_number(value)
        }
        words.pop(_DOCUMENTS, None)
        return repr((self.run.rows[row]["system"], sorted(words.items())))

    def _composed(self, row: int) -> str:
        """Name a series by the words that tell it from the system's others."""
        system = self.run.rows[row]["system"]
        others = [self.arguments[i] for i in self.rows if self.run.rows[i]["system"] == system]
        words = [
            f"{short_name(name)} {number(value)}"
            for name, value in self.arguments[row].items()
            if not is_number(value) and any(other.get(name) != value for other in others)
        ]
        return ", ".join([system, *words])


def marks_of_views(views: Sequence[ExperimentView]) -> list[dict[str, Mark]]:
    """Return color and shape of each series of each experiment of a run."""
    return marks_of([{series.name: series.family for series in view.series} for view in views])


def is_number(value: Any) -> TypeGuard[float]:
    """Say whether a value is a number; truth values are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def short_name(name: str) -> str:
    """Return an argument's name without "build" or "query".

    Examples
    --------
    >>> short_name("build.hnsw.m")
    'hnsw.m'
    """
    return name.partition(".")[2]


def _flat(row: Row) -> dict[str, Any]:
    return flattened({"build": row.get("build") or {}, "query": row.get("query") or {}})


def _keys(value: Any) -> Iterator[str]:
    """Give the keys of nested dictionaries and lists."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _keys(part)
