"""The pictures of each stored result, drawn from its tables."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from muvera.utils.atomic_files import write_bytes

from ..evaluation.statistics import pareto_front
from .charts import MOST_LINES, Plot, Row, marks_of, picture, picture_specification

#: Collections of pictures, the preferred one first.
_COLLECTIONS = ("lotte500-colbertv2", "scifact-minilm", "cranfield-minilm")

Stored = dict[str, Any]


class Chart(NamedTuple):
    """One picture of an experiment: its lines and their names."""

    #: Pattern of the names of points -> the name of their line, which may contain the
    #: pattern's groups.  The group "knob" is written at the points.
    lines: dict[str, str]
    #: What the knobs are.
    knobs: str = ""
    #: Part of the file's name.
    suffix: str = ""
    #: Points of a larger cost are not shown.
    most: float = float("inf")


def plot_of(stored: Stored) -> Plot | None:
    """Return the plot of an experiment's stored tables, or None if it has none.

    Examples
    --------
    >>> rows = [["x", "0.5"]]
    >>> table = {"title": "T: 1-recall@5", "header": ["system", "a"], "rows": rows}
    >>> nearest = {"experiment": "nearest_neighbor", "tables": [table]}
    >>> plot_of(nearest | {"configuration": {"title": "T"}}).points
    [{'x': 0.5, 'y': 5.0, 'label': 'x', 'name': 'x, N=5'}]
    """
    maker = _PLOTS.get(stored["experiment"])
    plot = None if maker is None else maker(stored)
    return plot if plot is not None and len(plot.points) else None


def pictures_of(stored: Stored) -> dict[str, Plot]:
    """Return the plots of an experiment's pictures by the names of their files.

    Each has at most :data:`MOST_LINES` lines.
    """
    plot = plot_of(stored)
    if plot is None:
        return {}
    name = stored["experiment"]
    charts = _CHARTS.get(name, (Chart({}),))
    drawn = {f"{name}{chart.suffix}": arranged(plot, chart) for chart in charts}
    return {name: plot for name, plot in drawn.items() if plot.points}


def arranged(plot: Plot, chart: Chart) -> Plot:
    """Return the points of a chart's lines, with their knobs.

    Of points that were swept for speed, only those remain that no other point of their
    line beats.
    """
    lines: dict[str, list[Row]] = {}
    for point in plot.points:
        found = _line(chart.lines, point) if chart.lines else (point["label"], "")
        if found is not None and point["y"] <= chart.most:
            label, knob = found
            lines.setdefault(label, []).append({**point, "label": label, **({"knob": knob} if knob else {})})
    order = list(chart.lines.values())
    names = sorted(lines, key=lambda label: order.index(label) if label in order else len(order))
    kept = []
    for label in names[:MOST_LINES]:
        points = lines[label]
        if plot.better == "more":
            points = [points[k] for k in pareto_front([(point["x"], -point["y"]) for point in points])]
        kept += points
    return plot._replace(points=kept, marks=marks_of(point["label"] for point in kept), knobs=chart.knobs)


def _line(lines: dict[str, str], point: Row) -> tuple[str, str] | None:
    """Return the line and the knob of a point, or None if it is not shown."""
    for pattern, label in lines.items():
        found = re.fullmatch(pattern, point["name"])
        if found:
            return found.expand(label), found.groupdict().get("knob") or ""
    return None


def write_picture(plot: Plot, path: Path) -> None:
    """Draw a plot as SVG, unless the file already shows the same plot."""
    mark = checksum_line(plot)
    if path.exists() and mark in path.read_text(encoding="utf-8"):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, f"{picture(plot)}{mark}\n".encode())


def checksum_line(plot: Plot) -> str:
    """Return the comment that names a plot's content in its SVG file."""
    content = json.dumps(picture_specification(plot), sort_keys=True).encode()
    return f"<!-- plot {hashlib.sha256(content).hexdigest()[:16]} -->"


def _speed(stored: Stored) -> Plot | None:
    """Plot the first metric by queries per second."""
    return _joined(stored, "queries per second (", "queries per second", "more")


def _size(stored: Stored) -> Plot | None:
    """Plot the first metric by bytes per document."""
    return _joined(stored, "bytes per", "bytes per document", "less")


def _size_at_100(stored: Stored) -> Plot | None:
    """Plot the recall among 100 by bytes per document, as the paper's tables do."""
    return _joined(stored, "bytes per", "bytes per document", "less", "10-recall@100")


def _repetitions(stored: Stored) -> Plot | None:
    """Plot the recall among 100 by the number of repetitions, which names contain."""
    quality = "10-recall@100"
    table = next((one for one in stored["tables"] if _title(stored, one) == quality), None)
    if table is None:
        return None
    collection = _collection(table["header"])
    place = table["header"].index(collection)
    points = [
        _point(row[place], found.group(1), row[0])
        for row in table["rows"]
        if (found := re.search(r"R=(\d+)", row[0]))
    ]
    return _plot(collection, quality, "R (repetitions)", "less", points)


def _joined(stored: Stored, begin: str, cost: str, better: str, metric: str = "") -> Plot | None:
    tables = {_title(stored, table): table for table in stored["tables"]}
    metrics = [metric] if metric else stored["configuration"].get("metrics", ())
    quality = next((name for name in metrics if name in tables), None)
    costs = next((table for title, table in tables.items() if title.startswith(begin)), None)
    if quality is None or costs is None:
        return None
    collection = _collection(tables[quality]["header"], quality)
    if collection not in costs["header"]:
        return None
    place, other = tables[quality]["header"].index(collection), costs["header"].index(collection)
    by_name = {row[0]: row[other] for row in costs["rows"]}
    points = [
        _point(row[place], by_name.get(row[0], by_name.get(_label(row[0]), "")), row[0])
        for row in tables[quality]["rows"]
    ]
    return _plot(collection, quality, cost, better, points)


def _candidates(stored: Stored) -> Plot | None:
    """Plot the first metric by the number of candidates in the names of rows."""
    quality = stored["configuration"]["metrics"][0]
    table = next((one for one in stored["tables"] if _title(stored, one) == quality), None)
    if table is None:
        return None
    collection = _collection(table["header"])
    place = table["header"].index(collection)
    points = [
        _point(row[place], found.group(1), row[0])
        for row in table["rows"]
        if (found := re.search(r"candidates=(\d+)", row[0]))
    ]
    return _plot(collection, quality, "candidates", "less", points)


def _depth(stored: Stored) -> Plot | None:
    """Plot recall@N by N, which the titles of tables contain."""
    points, collection = [], ""
    for table in stored["tables"]:
        found = re.fullmatch(r"1-recall@(\d+)", _title(stored, table))
        if found:
            collection = _collection(table["header"])
            place = table["header"].index(collection)
            for row in table["rows"]:
                point = _point(row[place], found.group(1), row[0])
                points.append(point and {**point, "name": f"{row[0]}, N={found.group(1)}"})
    return _plot(collection, "1-recall@N", "N", "less", points)


def _distractors(stored: Stored) -> Plot | None:
    """Plot the first metric by the number of distractors, which names contain."""
    quality = stored["configuration"]["metrics"][0]
    table = next((one for one in stored["tables"] if _title(stored, one) == quality), None)
    if table is None:
        return None
    collection = _collection(table["header"])
    place = table["header"].index(collection)
    points = []
    for row in table["rows"]:
        label, _, number = row[0].removesuffix(" distractors").rpartition(", ")
        point = _point(row[place], number, row[0]) if number != "0" else None  # the axis is logarithmic
        points.append(point and {**point, "label": label})
    return _plot(collection, quality, "distractors", "less", points)


def _columns(
    title: str, label: Sequence[str], quality: str, cost: str, better: str = "less", by: str | None = None
) -> Callable[[Stored], Plot | None]:
    """Return a function that plots two columns of a bench's table.

    `label` are the columns that name a curve, and `by` is the column of collections.
    A collection may also stand before the comma of the first column.
    """

    def plot(stored: Stored) -> Plot | None:
        table = next((one for one in stored["tables"] if one["title"].startswith(title)), None)
        if table is None or not {*label, quality, cost} <= set(table["header"]):
            return None
        rows = [dict(zip(table["header"], row, strict=True)) for row in table["rows"]]
        collection = ""
        if by is not None:
            names = [row[by].partition(", ")[0] for row in rows]
            collection = _collection(["", *names])
            rows = [row for row, name in zip(rows, names, strict=True) if name == collection]
        points = []
        for row in rows:
            name = ", ".join(row[column].removeprefix(f"{collection}, ") for column in label)
            name = name.replace("**", "")
            points.append(_point(row[quality], row[cost], name))
        return _plot(collection, quality, cost, better, points)

    return plot


def _plot(collection: str, quality: str, cost: str, better: str, points: Sequence[Row | None]) -> Plot | None:
    kept = [point for point in points if point is not None]
    if not kept:
        return None
    return Plot(collection, quality, cost, better, kept, marks_of(point["label"] for point in kept))


def _point(quality: str, cost: str, name: str) -> Row | None:
    """Return a point of two cells, or None if one of them has no number.

    A cost of 0 is replaced by the next number of its cell, the bytes with token
    vectors: the axis is logarithmic.
    """
    values = list(_numbers(quality))
    costs = [number for number in _numbers(cost) if number]
    if not values or not costs:
        return None
    point: Row = {"x": values[0], "y": costs[0], "label": _label(name), "name": name}
    if len(values) == 3:
        point |= {"low": values[1], "high": values[2]}
    return point


def _numbers(cell: str) -> Iterator[float]:
    """Yield the numbers of a cell such as ``1,234 (5.6 / 7.8)``.

    Examples
    --------
    >>> list(_numbers("0.584 [0.559, 0.608]")), list(_numbers("4,180 (0.2 / 0.3)"))[0]
    ([0.584, 0.559, 0.608], 4180.0)
    """
    for text in re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", cell):
        yield float(text.replace(",", ""))


def _label(name: str) -> str:
    """Return a point's name without the arguments that vary along its curve.

    Examples
    --------
    >>> _label("muvera, tokens int8, candidates=10, ef=80")
    'muvera, tokens int8'
    """
    return re.sub(r"(, \w+=[^,]+)+$", "", name)


def _collection(header: Sequence[str], quality: str = "recall") -> str:
    """Return the collection that a picture shows.

    Measures by judgements cannot tell rankings of the first collection apart.
    """
    names = header[1:]
    preferred = _COLLECTIONS if "recall" in quality else _COLLECTIONS[1:]
    return next((name for name in preferred if name in names), names[-1])


def _title(stored: Stored, table: Row) -> str:
    return str(table["title"]).removeprefix(f"{stored['configuration']['title']}: ")


_PLOTS: dict[str, Callable[[Stored], Plot | None]] = {
    **dict.fromkeys(("headline", "end_to_end", "sparse", "graph", "plaid", "carving", "token_search"), _speed),
    **dict.fromkeys(("nested", "views", "texts", "pooling", "coil"), _size),
    **dict.fromkeys(("final_projection", "quantization"), _size_at_100),
    "vector_dimension": _repetitions,
    "single_vector": _candidates,
    "distractors": _distractors,
    "nearest_neighbor": _depth,
    "default_vectors": _columns("The family of FDEs", ["FDE"], "@20", "floats", by="collection"),
    "pipeline": _columns(
        "Time at equal recall", ["FDE", "search"], "10-recall@10", "time, ms", by="collection"
    ),
    "searches": _columns(
        "Token codecs at equal recall", ["collection, tokens"], "recall", "time, ms", by="collection, tokens"
    ),
    "tokens": _columns(
        "Recall of codecs", ["collection, codec"], "10-recall@10", "bytes per token", by="collection, codec"
    ),
    "adapt": _columns(
        "Candidates of an old index", ["models"], "share among 50", "texts of the fit", by="collection"
    ),
    "cold": _columns("One query at a time", ["exact tokens"], "in memory when needed", "ms per query, p50"),
    "dial": _columns(
        "Recalls and their times", ["collection, tokens"], "10-recall@10", "time, ms", by="collection, tokens"
    ),
    "meter": _columns("The interval over queries", ["line"], "recall", "queries"),
    "pages": _columns("Pooling of patches", ["pooling"], "pooled alone", "vectors per page"),
    "size": _columns("Real texts by size", ["system"], "query at .95, ms", "documents"),
    "landmarks": _columns("Landmarks, floats and covariance", ["FDE"], "@50", "floats"),
    "first_stage": _columns(
        "Exact search, a scan of codes and a graph: 200",
        ["search"], "recall", "one query, processor ms", by="vectors",
    ),
}  # fmt: skip

_CANDIDATES = r", candidates=(?P<knob>\d+)"

# Experiments without charts here show their first lines, without knobs.
_CHARTS: dict[str, tuple[Chart, ...]] = {
    "headline": (
        Chart({
            rf"muvera{_CANDIDATES}": "muvera",
            rf"lemur, ranked exactly{_CANDIDATES}": "LEMUR",
            rf"qdrant, means and MaxSim{_CANDIDATES}": "Qdrant Edge",
            r"warp, ranked exactly, nprobe=(?P<knob>\d+), .*": "WARP",
            r"plaid, ranked exactly, .*n_full_scores=(?P<knob>\d+)": "PLAID",
        }, "candidates (WARP: nprobe; PLAID: n_full_scores)"),
        Chart({
            rf"muvera{_CANDIDATES}": "fde",
            rf"muvera moments{_CANDIDATES}": "moments",
            rf"muvera simhash{_CANDIDATES}": "simhash",
            rf"muvera paper{_CANDIDATES}": "paper",
            rf"muvera paper, hnswlib{_CANDIDATES}, ef=\d+": "paper, hnswlib",
            rf"mean token vector{_CANDIDATES}": "mean token vector",
        }, "candidates", "-encoders"),
    ),
    "end_to_end": (
        Chart({
            rf"muvera{_CANDIDATES}": "muvera",
            rf"muvera moments{_CANDIDATES}": "moments",
            rf"muvera simhash{_CANDIDATES}": "simhash",
            rf"muvera paper{_CANDIDATES}": "paper",
            rf"mean token vector{_CANDIDATES}": "mean token vector",
            rf"bm25{_CANDIDATES}": "BM25",
        }, "candidates"),
    ),
    "vector_dimension": (
        Chart({
            r"paper R=\d+ k=(\d) p=32": r"k=\1, p=32",
            r"paper R=\d+ k=(\d) p=16": r"k=\1, p=16",
            r"paper R=\d+ k=(\d) p=8": r"k=\1, p=8",
            r"paper k-means R=\d+ k=(\d) p=16": r"k-means, p=16",
        }),
    ),
    "nearest_neighbor": (
        Chart({
            "fde, N=.*": "fde",
            r"paper R=(\d+) k=(\d+) p=(\d+), N=.*": r"(\1,\2,\3)",
            "mean token vector, N=.*": "mean token",
        }, most=100),
    ),
    "single_vector": (
        Chart({
            "fde, .*": "fde",
            r"paper \(20,5,16\), .*": "(20,5,16)",
            r"paper \(40,6,128\) to 4096, .*": "4,096 floats",
            r"paper \(40,6,128\) to 10240, .*": "10,240 floats",
            "single vectors, .*": "tokens",
            "single vectors without deduplication, .*": "tokens, not deduplicated",
        }, most=300),
    ),
    "carving": (Chart({r"carving, tau=(?P<knob>.*)": "ball carving"}, "tau"),),
    "graph": (
        Chart({
            "fde, exact": "fde, exact",
            "fde, scan": "fde, scan",
            r"fde, hnswlib, ef=(?P<knob>\d+)": "fde, graph",
            "paper, exact": "paper, exact",
            r"paper, hnswlib, ef=(?P<knob>\d+)": "paper, graph",
        }, "ef"),
    ),
    "plaid": (
        Chart({
            rf"muvera{_CANDIDATES}": "muvera",
            rf"muvera paper, hnswlib{_CANDIDATES}": "paper, graph",
            "exhaustive": "exhaustive",
            r"plaid, n_ivf_probe=\d+, n_full_scores=(?P<knob>\d+)": "PLAID",
            r"plaid, ranked exactly, .*n_full_scores=(?P<knob>\d+)": "PLAID, ranked exactly",
        }, "candidates (PLAID: n_full_scores)"),
    ),
    "token_search": (
        Chart({
            rf"muvera{_CANDIDATES}": "muvera",
            rf"single vectors{_CANDIDATES}": "single vectors",
            "exhaustive": "exhaustive",
            r"xtr, tokens=(?P<knob>\d+)": "XTR",
            r"xtr, ranked exactly, tokens=(?P<knob>\d+)": "XTR, ranked exactly",
        }, "candidates (XTR: tokens)"),
    ),
    "final_projection": (
        Chart({
            r"simhash to (?P<knob>\d+), learned": "learned",
            r"\(40,6,128\) to (?P<knob>\d+) at random": "random",
            r"(?P<knob>\(\d+,\d+,\d+\))": "no projection",
        }, "floats, or (R,k,p)"),
    ),
    "quantization": (
        Chart({
            r"paper, PQ-256-(?P<knob>\d+)": "paper, PQ",
            "paper, exact": "paper, floats",
            "paper, scan": "paper, scan",
            r"fde, PQ-256-(?P<knob>\d+)": "fde, PQ",
            "fde, exact": "fde, floats",
            "fde, scan": "fde, scan",
        }, "floats per byte (PQ)"),
    ),
    "nested": (
        Chart({
            r"fde, first (?P<knob>\d+) floats": "first of 512 floats",
            r"fde of (?P<knob>\d+) floats": "learned for the length",
        }, "floats"),
    ),
    "views": (Chart({r"(?P<knob>\d+) vectors": "cluster means", "fde": "fde"}, "means per document"),),
    "pooling": (
        Chart({
            "all tokens": "all tokens",
            r"sentence-transformers, factor (?P<knob>\d)": "sentence-transformers",
            r"colpali, factor (?P<knob>\d)": "colpali",
            r"pylate, factor (?P<knob>\d)": "pylate",
            r"colbert, factor (?P<knob>\d)": "colbert",
            "unique words": "unique words",
        }, "factor"),
    ),
    "default_vectors": (
        Chart({
            "fde(, .*floats|, large.*)?": "fde",
            "moments": "moments",
            "mean": "mean",
            "simhash": "simhash",
            "paper": "paper",
            "learned features": "learned features",
        }),
    ),
    "tokens": (
        Chart({
            "int8": "int8",
            r"(?P<knob>\d)bit": "bits",
            r"plaid (?P<knob>\d)bit, means": "PLAID, means",
            r"plaid (?P<knob>\d)bit": "PLAID",
        }, "bits"),
    ),
    "adapt": (
        Chart({
            "index of minilm, layer 5; queries of minilm": "layer 6 to layer 5",
            "index of minilm; queries of minilm, layer 5": "layer 5 to layer 6",
            "index of minilm; queries of static": "static to MiniLM",
            "index of static; queries of minilm": "MiniLM to static",
        }),
    ),
    "pipeline": (
        Chart({
            "fde, scan": "fde, scan",
            "fde, hnsw": "fde, graph",
            "moments, scan": "moments, scan",
            "simhash, scan": "simhash, scan",
            "paper, R_reps=20, k_sim=5, scan": "paper, scan",
            "paper, R_reps=20, k_sim=5, hnsw": "paper, graph",
        }),
    ),
    "pages": (
        Chart({
            "none": "all patches",
            r"Ward, factor=(?P<knob>\d+)": "Ward",
            r"neighbors, rows=(?P<knob>.*), columns=.*": "neighbors",
        }, "factor, or rows"),
    ),
    "texts": (
        Chart({
            "default": "default",
            "floats, no words": "float32, no words",
            "bytes, no words": "int8, no words",
            "float16, words": "float16, words",
            "2bit, words": "2bit, words",
            "words alone": "words alone",
        }),
    ),
}  # fmt: skip
