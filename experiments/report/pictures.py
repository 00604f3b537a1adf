"""The picture of each stored result, drawn from its tables."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from muvera.utils.atomic_files import write_bytes

from .charts import Plot, Row, marks_of, picture, specification

#: Collections of pictures, the preferred one first.
_COLLECTIONS = ("scifact-minilm", "lotte500-colbertv2", "cranfield-minilm")

Stored = dict[str, Any]


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


def write_picture(plot: Plot, path: Path) -> None:
    """Draw a plot as SVG, unless the file already shows the same plot."""
    mark = checksum_line(plot)
    if path.exists() and mark in path.read_text(encoding="utf-8"):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, f"{picture(plot)}{mark}\n".encode())


def checksum_line(plot: Plot) -> str:
    """Return the comment that names a plot's content in its SVG file."""
    content = json.dumps(specification(plot), sort_keys=True).encode()
    return f"<!-- plot {hashlib.sha256(content).hexdigest()[:16]} -->"


def _speed(stored: Stored) -> Plot | None:
    """Plot the first metric by queries per second."""
    return _joined(stored, "queries per second (", "queries per second", "more")


def _size(stored: Stored) -> Plot | None:
    """Plot the first metric by bytes per document."""
    return _joined(stored, "bytes per", "bytes per document", "less")


def _joined(stored: Stored, begin: str, cost: str, better: str) -> Plot | None:
    tables = {_title(stored, table): table for table in stored["tables"]}
    quality = next((name for name in stored["configuration"].get("metrics", ()) if name in tables), None)
    costs = next((table for title, table in tables.items() if title.startswith(begin)), None)
    if quality is None or costs is None:
        return None
    collection = _collection(tables[quality]["header"])
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
    return _plot(collection, quality, "distractors", "more", points)


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


def _collection(header: Sequence[str]) -> str:
    names = header[1:]
    return next((name for name in _COLLECTIONS if name in names), names[-1])


def _title(stored: Stored, table: Row) -> str:
    return str(table["title"]).removeprefix(f"{stored['configuration']['title']}: ")


_PLOTS: dict[str, Callable[[Stored], Plot | None]] = {
    **dict.fromkeys(("headline", "end_to_end", "sparse", "graph", "plaid", "carving", "token_search"), _speed),
    **dict.fromkeys(("vector_dimension", "final_projection", "quantization", "nested", "views"), _size),
    **dict.fromkeys(("texts", "pooling", "coil"), _size),
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
    "pages": _columns("Pooling of patches", ["pooling"], "pooled alone", "vectors per page"),
    "size": _columns("Real texts by size", ["system"], "query at .95, ms", "documents"),
    "first_stage": _columns(
        "Exact search, a scan of codes and a graph: 200",
        ["search"], "recall", "one query, processor ms", by="vectors",
    ),
}  # fmt: skip
