"""Search of real texts at growing numbers of documents: recall, time, bytes and build.

Each system is built and searched in its own process on one thread, and its results are
written to a file of the cache, so an interrupted command continues with the next
system.  Systems are not timed in turns, so their times also depend on what else the
machine does.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from muvera import MultiVectors
from muvera.utils.atomic_files import write_json

from ..datasets.collection import tokens_checksum
from ..datasets.discovery import CACHE, DatasetPath
from ..datasets.loading import load_collection
from ..evaluation.metrics import recall
from ..evaluation.summary import Found
from ..report.stored_ids import Recomputed, read_ids, write_found
from ..report.stored_results import RESULTS, load_results
from ..report.stored_tables import StoredTables
from ..report.table import Column, Table
from ..systems.base import Material, NotApplicableError
from ..systems.library import Muvera
from ..systems.registry import SYSTEMS
from .landmarks import best_of, exact_scores
from .plumbing import Cache, Data, Save, finish, in_new_process, measured_on, paths_of, progress

#: Exact best documents that count, and the recall at which systems are compared.
K, RECALL = 10, 0.95

# Candidates that are measured, until one reaches _ENOUGH.
_CANDIDATES = (10, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000, 10_000)
_ENOUGH = 0.97

# Queries that are timed.
_TIMED = 100

# Values of `recall=` that are tried on the default index, and the number of documents
# that are then added to it.
_DIAL, _ADDED = (0.9, 0.95, 0.98), 10_000


class Competitor(NamedTuple):
    """A system, its name in tables, and the largest collection that it is built for."""

    label: str
    system: str
    build: dict[str, Any]
    query: dict[str, Any]
    most: int


#: The systems; some do not fit into 16 GB of memory or an hour beyond `most`.
COMPETITORS = (
    Competitor("muvera", "muvera", {}, {}, 1_000_000),
    Competitor("muvera, hnswlib", "muvera", {"backend": "hnsw"}, {"ef": 4}, 400_000),
    Competitor("the paper's FDE, scan", "muvera", {"preset": "paper", "backend": "scan"}, {}, 400_000),
    Competitor(
        "the paper's FDE, hnswlib", "muvera", {"preset": "paper", "backend": "hnsw"}, {"ef": 2}, 30_000
    ),
    Competitor("mean vectors", "pooled", {}, {}, 1_000_000),
    Competitor("BM25", "bm25", {}, {}, 1_000_000),
    Competitor("Qdrant Edge, mean vectors and MaxSim", "qdrant", {}, {}, 400_000),
    Competitor("LEMUR", "lemur", {}, {}, 10_000),
)


def measure(
    path: DatasetPath, competitor: Competitor, count: int, queries: int, cache: Path, out: Path
) -> None:
    """Write the measurements of a system among the first `count` documents to `out`."""
    loaded = load_collection(path)
    collection = loaded.with_documents(count)
    documents = collection.documents
    asked = collection.queries[:queries].with_ids(np.arange(queries))
    best = _exact(documents, asked, out.with_suffix(".npy").with_stem(out.stem.partition("-")[0]))
    results: dict[str, Any] = {"machine": measured_on(), "points": []}
    ids = dict[str, Any]()
    system = SYSTEMS[competitor.system](**competitor.build)
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        material = Material(collection, Path(folder), cache, 42, 1)
        try:
            system.prepare(material)
            begun = time.process_time()
            system.build(material)
            took = time.process_time() - begun
            results["build"] = system.build_seconds if system.own_process else took
            results["bytes"] = system.bytes_per_document()
            for candidates in _CANDIDATES:
                how = {name: factor * candidates for name, factor in competitor.query.items()}
                answers = system.search(asked, K, candidates=candidates, **how)
                ids[str(candidates)] = answers.ids
                found = float(recall(answers.ids, best).mean())
                seconds = float(np.median(answers.seconds[:_TIMED]))
                results["points"].append([candidates, found, 1000 * seconds])
                if found >= _ENOUGH and candidates >= 100:
                    break
            if competitor == COMPETITORS[0]:
                assert isinstance(system, Muvera)
                results |= _dial(system, asked, best)
                results |= _add(system, loaded.documents[count : count + _ADDED])
        except NotApplicableError as error:
            results = {"skipped": str(error)}
        finally:
            system.close()
    with tempfile.NamedTemporaryFile(dir=out.parent, delete=False) as file:
        np.savez_compressed(file, **ids)
    shutil.move(file.name, _ids_of(out))
    write_json(out, results)


def _ids_of(out: Path) -> Path:
    """Return the file of the ids that each number of candidates led to."""
    return out.with_suffix(".npz")


def _dial(system: Muvera, queries: MultiVectors, best: NDArray[np.int64]) -> dict[str, Any]:
    """Return the mean recalls and median milliseconds of searches for some recalls."""
    values = {}
    for target in _DIAL:
        answers = system.search(queries, K, recall=target)
        values[f"found {target}"] = float(recall(answers.ids, best).mean())
        values[f"ms {target}"] = 1000 * float(np.median(answers.seconds[:_TIMED]))
    return values


def _add(system: Muvera, documents: MultiVectors) -> dict[str, Any]:
    """Return the seconds of adding documents, if there are enough."""
    if len(documents) < _ADDED:
        return {}
    begun = time.process_time()
    system.add(documents)
    return {"add": time.process_time() - begun}


def _exact(documents: MultiVectors, queries: MultiVectors, path: Path) -> NDArray[np.int64]:
    """Return the exact best documents; a file keeps them for the other systems."""
    if not path.exists():
        best = best_of(exact_scores(queries, documents), K)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            np.save(file, best)
        shutil.move(file.name, path)
    return np.asarray(np.load(path, allow_pickle=False), np.int64)


def at_recall(points: list[list[float]], target: float = RECALL) -> tuple[float, float] | None:
    """Return the candidates and milliseconds at a recall.

    They are interpolated between two measured points.  None if the recall is never
    reached.
    """
    before: list[float] | None = None
    for point in points:
        if point[1] >= target:
            if before is None or point[1] == before[1]:
                return point[0], point[2]
            share = (target - before[1]) / (point[1] - before[1])
            return before[0] + share * (point[0] - before[0]), before[2] + share * (point[2] - before[2])
        before = point
    return None


def tables_of(rows: list[dict[str, Any]], name: str, queries: int) -> list[Table]:
    """Return the measurements, and the time by size with the exponent of its growth."""
    columns = [
        *(Column("system"), Column("documents"), Column("candidates for .95", "candidates", "{:,.0f}")),
        Column("query at .95", "ms", "{:.2f}", "ms"),
        Column("10-recall@10 of 100 candidates", "hundred", "{:.3f}"),
        Column("bytes per text, without tokens", "bytes", "{:,.0f}"),
        Column("build", "build", "{:,.0f}", "processor s"),
    ]
    on = next((row["machine"] for row in rows if "machine" in row), "")
    caption = (
        f"The first documents of {name} and {queries} queries; one thread builds and searches. Builds of other "
        "processes (Qdrant, LEMUR) are wall time. Candidates "
        f"are ranked by exact Chamfer. Empty: {RECALL} is not reached by {_CANDIDATES[-1]:,} candidates. "
        "hnswlib keeps 4 times as many vectors as candidates (the paper's FDE: 2 times). Systems are "
        f"measured one after another. {on}"
    )
    dial_columns = [Column("documents")]
    for target in _DIAL:
        dial_columns += [Column(f"recall={target}", f"found {target}", "{:.3f}")]
        dial_columns += [Column(f"query, recall={target}", f"ms {target}", "{:.2f}", "ms")]
    dial_columns += [Column(f"adding {_ADDED:,} documents", "add", "{:.1f}", "processor s")]
    dial_caption = (
        f"10-recall@10 and median time of `search(recall=)` of the index in the row {COMPETITORS[0].label!r}, "
        f"and the time of adding the next {_ADDED:,} documents to it."
    )
    sizes = list(dict.fromkeys(row["documents"] for row in rows))
    by_size = []
    for label in dict.fromkeys(row["system"] for row in rows):
        own = {row["documents"]: row.get("ms") for row in rows if row["system"] == label}
        by_size.append([label, *(own.get(size) for size in sizes), _exponent(own)])
    shown = [{**row, "documents": f"{row['documents']:,}"} for row in rows]
    dialled = [row for row in shown if row["system"] == COMPETITORS[0].label]
    header: list[Column | str] = ["system"]
    header += [Column(f"{size:,}", format="{:.2f}") for size in sizes]
    header += [Column("exponent", format="{:.2f}")]
    growth = (
        f"Milliseconds of a query at a recall of {RECALL}. The exponent e of n**e is that of the smallest "
        "and the largest measured size."
    )
    return [
        Table.of("Real texts by size", columns, shown, caption),
        Table("Growth of a query's time", header, by_size, growth),
        Table.of("Searches for a recall, and additions", dial_columns, dialled, dial_caption),
    ]


def _exponent(times: dict[int, float | None]) -> float | None:
    known = [(size, ms) for size, ms in times.items() if ms]
    if len(known) < 2:
        return None
    (first, early), (last, late) = known[0], known[-1]
    return float(np.log(late / early) / np.log(last / first))


def size(
    collection: Annotated[str, typer.Option(help="Collection with texts.")] = "apidocs-minilm",
    documents: Annotated[
        list[int] | None,
        typer.Option(min=1000, help="Number of documents; may be repeated. Default: 10,000 to all."),
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Number of queries.")] = 200,
    system: Annotated[
        list[str] | None, typer.Option(help="Name of a system's row; may be repeated. Default: all.")
    ] = None,
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Compare systems on the first 10,000, 30,000, 100,000 and all documents.

    An interrupted command continues with the next system.  Larger sizes are added to
    those that were measured before.
    """
    (path,) = paths_of([collection], data, cache)
    loaded = load_collection(path)
    whole, asked = len(loaded.documents), min(queries, len(loaded.queries))
    sizes = sorted({min(count, whole) for count in documents or (10_000, 30_000, 100_000, whole)})
    marks = {count: tokens_checksum(loaded.documents[:count], loaded.queries[:asked]) for count in sizes}
    del loaded
    folder = cache.expanduser() / "size"
    folder.mkdir(parents=True, exist_ok=True)
    rows, found = [], dict[str, Found]()
    for count in sizes:
        for each in COMPETITORS:
            if count > each.most or (system and each.label not in system):
                continue
            name = "".join(letter if letter.isalnum() else "-" for letter in each.label)
            out = folder / f"{marks[count]}-{name}.json"
            if not out.exists():
                progress(f"{each.label}, {count:,} documents")
                if in_new_process(measure, path, each, count, asked, cache, out):
                    progress(f"FAILED: {each.label}, {count:,} documents")
                    continue
            results = json.loads(out.read_text(encoding="utf-8"))
            if "skipped" in results:
                progress(f"skipped: {each.label}: {results['skipped']}")
                continue
            rows.append({"system": each.label, "documents": count, **_row(results)})
            progress(str(rows[-1]))
            if _ids_of(out).exists():
                best = np.load(folder / f"{marks[count]}.npy", allow_pickle=False)
                own = found.setdefault(f"{count:,}", Found(np.asarray(best, np.int64)))
                with np.load(_ids_of(out), allow_pickle=False) as file:
                    own.ids |= {(f"{each.label}, {name}", 0): file[name] for name in file.files}
    finish("size", "Real texts by size", tables_of(rows, collection, asked), save)
    if save:
        _save_ids(found, {row["system"] for row in rows})


def _save_ids(found: dict[str, Found], measured: set[str]) -> None:
    """Store ids by number of documents; those of systems not `measured` are kept."""
    for count, own in read_ids("size").items():
        kept = {key: ids for key, ids in own.ids.items() if key[0].rpartition(", ")[0] not in measured}
        if kept:
            found.setdefault(count, Found(own.exact)).ids |= kept
    if found:
        write_found("size", found)


def recomputed(name: str, results: Path = RESULTS) -> Iterator[Recomputed]:
    """Yield the recalls and candidates that the stored ids determine."""
    stored = StoredTables(load_results(name, results))
    title, hundred, needed = "Real texts by size", "10-recall@10 of 100 candidates", "candidates for .95"
    for count, found in read_ids(name, results).items():
        points: dict[str, list[list[float]]] = {}
        for (point, _), ids in found.ids.items():
            label, _, candidates = point.rpartition(", ")
            points.setdefault(label, []).append([float(candidates), recall(ids, found.exact).mean(), 0])
        for label, curve in points.items():
            reached = at_recall(curve)
            cells = {hundred: next((f"{share:.3f}" for number, share, _ in curve if number == 100), "")}
            cells[needed] = "" if reached is None else f"{reached[0]:,.0f}"
            for column, text in cells.items():
                known = stored.cell(title, [label, count], column, empty=True)
                yield Recomputed(title, f"{label}, {count}", column, known, text)


def _row(results: dict[str, Any]) -> dict[str, Any]:
    reached = at_recall(results["points"])
    row = {name: results[name] for name in ("machine", "build", "bytes")}
    row |= {name: value for name, value in results.items() if name.startswith(("found", "ms", "add"))}
    row["hundred"] = next((found for count, found, _ in results["points"] if count == 100), None)
    if reached is not None:
        row |= {"candidates": reached[0], "ms": reached[1]}
    return row
