"""What a run found, in sentences that its data generate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from ..evaluation.pareto import EXACT_SYSTEM, TARGETS, pareto_front
from .experiment_view import ExperimentView
from .numbers import interval, number, quality
from .run_folder import Row

__all__ = ["Finding", "findings"]

#: The quality at which systems are compared first: the greatest target up to this that all collections reach.
_FIRST_TARGET = 0.95

_SIZE = "n"


@dataclass(frozen=True)
class Finding:
    """What an experiment found.

    Parameters
    ----------
    sentences : list of str
        Over all collections.
    details : list of str
        One collection a sentence.
    """

    sentences: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)


def findings(view: ExperimentView) -> Finding:
    """Return an experiment's findings.

    Where times were measured: which points stand on the Pareto front of quality and queries per second, and by how
    much the fastest are faster than others.  Where configurations were compared over the same queries: by how much
    they differ.  Elsewhere: which configuration finds the most.
    """
    if not view.measures:
        return Finding()
    if _grows(view):
        return Finding(_scaling(view))
    fronts = {name: front for name in view.run.collections if (front := _front(view, name))}
    if view.timed and fronts:
        return _timed(view, fronts)
    return Finding(_differences(view) or _best(view))


# ---- Quality and speed


def _timed(view: ExperimentView, fronts: dict[str, list[int]]) -> Finding:
    details = []
    for name, front in fronts.items():
        points = [f"{_name(_point(view, i))} ({_quality(view, i)}, {_rate(view.run.rows[i])})" for i in front]
        details.append(
            f"On {name}, the Pareto front of {view.main_measure} and queries per second is, from the fastest to "
            f"the best: {_listed(points)}."
        )
        details += [_speedup(view, one) for one in _merged(_speedups(view, name))]
    sentences = [_on_all_fronts(view, fronts)] if len(fronts) > 1 else []
    target = _common_target(view, list(fronts))
    if target is not None and len(fronts) > 1:
        sentences.append(_over_collections(view, target))
    return Finding(sentences, details) if sentences else Finding(details)


def _front(view: ExperimentView, collection: str) -> list[int]:
    """Return the rows on the front of a collection, by rising quality."""
    rows = [
        (i, value, rate)
        for i in view.rows
        if view.run.rows[i]["collection"] == collection
        and (value := view.quality(i, view.main_measure)) is not None
        and (rate := view.run.rows[i].get("queries_per_second"))
    ]
    return [rows[k][0] for k in pareto_front([(value, 1 / rate) for _, value, rate in rows])]


def _on_all_fronts(view: ExperimentView, fronts: dict[str, list[int]]) -> str:
    found: dict[str, dict[str, list[float]]] = {}
    for collection, front in fronts.items():
        for i in front:
            value = view.quality(i, view.main_measure)
            found.setdefault(view.series_of(i).name, {}).setdefault(collection, []).append(value or 0.0)
    parts = []
    for name, values in sorted(found.items(), key=lambda one: -len(one[1])):
        every = [value for of_collection in values.values() for value in of_collection]
        parts.append(f"{_name(name)} on {_all_of(len(values), len(fronts))} ({_between(every)})")
    return (
        f"The Pareto front of {view.main_measure} and queries per second (what no other configuration beats in "
        f"both) holds {_listed(parts)}."
    )


def _speedups(view: ExperimentView, collection: str) -> list[dict[str, Any]]:
    """Return what the run says of the collection's fastest points, those at its greatest size."""
    found = [
        one
        for one in view.run.speedups
        if (one["experiment"], one["collection"]) == (view.name, collection)
        and one.get("measure") == view.main_measure
    ]
    greatest = max((one.get(_SIZE) or 0 for one in found), default=0)
    return [one for one in found if (one.get(_SIZE) or 0) == greatest]


def _merged(speedups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the greatest of the targets that the same point answers in the same way."""
    kept = {(one["fastest"], *(other["point"] for other in one["over"])): one for one in speedups}
    return list(kept.values())


def _speedup(view: ExperimentView, one: dict[str, Any]) -> str:
    row = _row_of(view, one["collection"], one["fastest"])
    rate = f" with {_rate(view.run.rows[row])}" if row is not None else ""
    parts = [f"{_times(other)} as many as {_named(view, one, other)}" for other in one["over"]]
    compared = f": {_listed(parts)}" if parts else ", and nothing else reaches it"
    return (
        f"Where {view.main_measure} must be at least {one['target']:g}, "
        f"{_with_quality(view, one['collection'], one['fastest'])} is the fastest{rate}{compared}."
    )


def _over_collections(view: ExperimentView, target: float) -> str:
    """Say who is the fastest at a target over all collections, and from which to which ratio."""
    found = [one for one in view.run.speedups if one["experiment"] == view.name and one["target"] == target]
    counts = Counter(_series(view, one["collection"], one["fastest"]) for one in found)
    winners = [f"{_name(name)} on {_all_of(count, len(found))}" for name, count in counts.most_common()]
    text = f"Where {view.main_measure} must be at least {target:g}, the fastest is {_listed(winners)}"
    exact = [(one, other) for one in found for other in one["over"] if _is_exact(view, one, other)]
    others = [(one, other) for one in found for other in one["over"][:1] if not _is_exact(view, one, other)]
    ranges = [
        f"{_range(pairs)} as many as {what}"
        for pairs, what in ((others, "the fastest of the other series"), (exact, "exact search"))
        if pairs
    ]
    return f"{text}. It answers {_listed(ranges)}." if ranges else f"{text}."


def _range(pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    ordered = sorted(pairs, key=lambda pair: float(pair[1]["ratio"]))
    (first, least), (last, most) = ordered[0], ordered[-1]
    if len(pairs) == 1:
        return f"{_times(least)} ({first['collection']})"
    return f"{_times(least)} ({first['collection']}) to {_times(most)} ({last['collection']})"


def _common_target(view: ExperimentView, collections: Sequence[str]) -> float | None:
    reached = [{one["target"] for one in _speedups(view, name)} for name in collections]
    common = [
        target for target in TARGETS if target <= _FIRST_TARGET and all(target in one for one in reached)
    ]
    return max(common, default=None)


# ---- Quality alone


def _differences(view: ExperimentView) -> list[str]:
    """Say of every pair that was compared, by the first measure, from which to which difference."""
    compared = [
        one
        for one in view.run.comparisons
        if one["experiment"] == view.name and one.get("difference") is not None
    ]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in compared:
        if one.get("metric") == compared[0].get("metric"):
            found.setdefault((str(one.get("a")), str(one.get("b"))), []).append(one)
    sentences = []
    for (first, second), differences in found.items():
        ordered = sorted(differences, key=lambda one: float(one["difference"]))
        ends = [ordered[0]] if len(ordered) == 1 else [ordered[0], ordered[-1]]
        spread = " to ".join(f"{_difference(one)} ({one['collection']})" for one in ends)
        clear = [one for one in ordered if (one.get("low") or 0) > 0 or (one.get("high") or 0) < 0]
        certain = f"the interval excludes 0 on {_all_of(len(clear), len(ordered))}"
        names = f"{_name(first)} minus that of {_name(second)}"
        sentences.append(f"{compared[0].get('metric')} of {names}: {spread}; {certain}.")
    return sentences


def _best(view: ExperimentView) -> list[str]:
    """Say which configuration finds the most on the mean of the collections."""
    values: dict[str, dict[str, list[float]]] = {}
    for i in view.rows:
        value = view.quality(i, view.main_measure)
        if value is not None:
            of_point = values.setdefault(_point(view, i), {})
            of_point.setdefault(view.run.rows[i]["collection"], []).append(value)
    most = max((len(one) for one in values.values()), default=0)
    means = {
        name: {collection: fmean(seeds) for collection, seeds in one.items()}
        for name, one in values.items()
        if len(one) == most
    }
    if len(means) < 2:
        return []
    name = max(means, key=lambda name: fmean(means[name].values()))
    ends = means[name]
    spread = f" ({_between(list(ends.values()))})" if most > 1 else ""
    where = f"the mean over {most} collections" if most > 1 else next(iter(ends))
    return [
        f"Of {len(means)} configurations, {_name(name)} has the highest {view.main_measure} on {where}: "
        f"{quality(fmean(ends.values()))}{spread}."
    ]


# ---- Growing collections


def _grows(view: ExperimentView) -> bool:
    sizes: dict[str, set[int | None]] = {}
    for i in view.rows:
        row = view.run.rows[i]
        sizes.setdefault(row["collection"], set()).add(_documents(row))
    return any(len(found - {None}) > 1 for found in sizes.values())


def _scaling(view: ExperimentView) -> list[str]:
    """Say of each series how its speed changes from the least to the greatest number of documents."""
    sentences = []
    for collection in view.run.collections:
        for series in view.series:
            sized = {
                size: row["queries_per_second"]
                for i in view.rows
                if view.series_of(i) == series
                and (row := view.run.rows[i])["collection"] == collection
                and (size := _documents(row)) is not None
                and row.get("queries_per_second")
            }
            if len(sized) > 1:
                few, many = min(sized), max(sized)
                sentences.append(
                    f"On {collection}, {_name(series.name)} answers {number(sized[few])} queries per second with "
                    f"{few:,} documents and {number(sized[many])} with {many:,}: {many / few:.3g} times the "
                    f"documents take {number(sized[few] / sized[many])} times as long."
                )
    return sentences


def _documents(row: Row) -> int | None:
    found = (row.get("build") or {}).get(_SIZE)
    return int(found) if isinstance(found, (int, float)) else None


# ---- Words


def _row_of(view: ExperimentView, collection: str, point: str) -> int | None:
    return next(
        (i for i in view.rows if view.run.rows[i]["collection"] == collection and _point(view, i) == point),
        None,
    )


def _point(view: ExperimentView, row: int) -> str:
    found = view.run.rows[row]
    return str(found.get("point") or found.get("label") or found["system"])


def _series(view: ExperimentView, collection: str, point: str) -> str:
    row = _row_of(view, collection, point)
    return point if row is None else view.series_of(row).name


def _quality(view: ExperimentView, row: int) -> str:
    found = interval((view.run.rows[row].get("metrics") or {}).get(view.main_measure))
    if found.low is None or found.high is None or found.low == found.high:
        return quality(found.mean)
    return f"{quality(found.mean)} [{quality(found.low)}, {quality(found.high)}]"


def _with_quality(view: ExperimentView, collection: str, point: str) -> str:
    row = _row_of(view, collection, point)
    return _name(point) if row is None else f"{_name(point)} ({_quality(view, row)})"


def _is_exact(view: ExperimentView, one: dict[str, Any], other: dict[str, Any]) -> bool:
    row = _row_of(view, one["collection"], other["point"])
    return row is not None and view.run.rows[row]["system"] == EXACT_SYSTEM


def _named(view: ExperimentView, one: dict[str, Any], other: dict[str, Any]) -> str:
    if _is_exact(view, one, other):
        return "exact search"
    return f"the fastest of the other series, {_with_quality(view, one['collection'], other['point'])}"


def _times(other: dict[str, Any]) -> str:
    return f"{number(other['ratio'])} times [{number(other['low'])}, {number(other['high'])}]"


def _difference(one: dict[str, Any]) -> str:
    text = quality(one["difference"], signed=True)
    if one.get("low") is None or one.get("high") is None:
        return text
    return f"{text} [{quality(one['low'], signed=True)}, {quality(one['high'], signed=True)}]"


def _rate(row: Row) -> str:
    return f"{number(row.get('queries_per_second'))} queries/s"


def _all_of(count: int, total: int) -> str:
    if total == 1:
        return "the one collection" if count else "no collection"
    if count < total:
        return f"{count or 'none'} of {total} collections"
    return "both collections" if total == 2 else f"all {total} collections"


def _between(values: Sequence[float]) -> str:
    least, most = quality(min(values)), quality(max(values))
    return least if least == most else f"{least} to {most}"


def _name(text: str) -> str:
    """Return a name, in quotation marks where it holds a comma."""
    return f'"{text}"' if "," in text else text


def _listed(parts: Sequence[str]) -> str:
    """Join parts with commas, or semicolons where they hold commas, the last one with "and"."""
    if len(parts) == 1:
        return parts[0]
    if any("," in part for part in parts):
        return f"{'; '.join(parts[:-1])}; and {parts[-1]}"
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
