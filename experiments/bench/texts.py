"""Search of a TextIndex beside BM25 with stems: quality, times, build and bytes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import ir_measures
import numpy as np
import typer
from numpy.typing import NDArray

from muvera import TextEncoder, TextIndex, load_text_encoder
from muvera.data.ranking import best_first

from ..datasets.encode import read_texts
from ..datasets.loading import read_judgements
from ..evaluation.statistics import mean_interval
from ..report.table import Column, Table
from ..systems.texts import Words
from .plumbing import Save, finish, measured_on, progress

# Ranks that count, and ranks of a text that a user may read.
K, RANKS = 10, 100

# S@k is the share of queries with a relevant text among the first k.
_MEASURES = {
    f"nDCG@{K}": ir_measures.nDCG @ K,
    f"MRR@{K}": ir_measures.RR @ K,
    f"S@{K}": ir_measures.Success @ K,
    f"S@{RANKS}": ir_measures.Success @ RANKS,
}

# Measures whose difference is in the table, with its interval.
_COMPARED = (f"nDCG@{K}", f"S@{RANKS}")

Search = Callable[[str], Sequence[int] | NDArray[np.int64]]


class Asked(NamedTuple):
    """Texts and queries by position, with judgements and an encoder."""

    name: str
    texts: list[str]
    queries: list[str]
    grades: list[dict[int, int]]
    #: None for words alone.
    encoder: Any


def read_asked(
    folder: Path,
    split: str,
    encoder: TextEncoder | None,
    texts: int | None = None,
    queries: int | None = None,
) -> Asked:
    """Read the first texts of a folder in BEIR's layout, and queries of these.

    `queries` is the maximum number of queries, which are then drawn at random.
    """
    documents, asked = read_texts(folder, split)
    row_of = {name: row for row, (name, _) in enumerate(documents[:texts])}
    grades: dict[str, dict[int, int]] = {}
    for query, document, grade in read_judgements(folder / "qrels" / f"{split}.tsv"):
        if document in row_of and grade > 0:
            grades.setdefault(query, {})[row_of[document]] = grade
    kept = some([query for query in asked if query[0] in grades], queries)
    return Asked(
        folder.resolve().name, [text for _, text in documents[:texts]], [text for _, text in kept],
        [grades[query] for query, _ in kept], encoder,
    )  # fmt: skip


def some(rows: list[Any], most: int | None) -> list[Any]:
    """Return at most `most` rows at random, in order; with None, all."""
    if most is None or len(rows) <= most:
        return rows
    return [rows[i] for i in np.sort(np.random.default_rng(0).permutation(len(rows))[:most])]


def values(
    ranked: Sequence[Sequence[int] | NDArray[np.int64]], grades: Sequence[Mapping[int, int]], measure: Any
) -> NDArray[np.float64]:
    """Return a measure for each query, given the positions of its best texts."""
    judgements = {str(i): {str(id): grade for id, grade in own.items()} for i, own in enumerate(grades)}
    run = {
        str(i): {str(id): -float(rank) for rank, id in enumerate(best[:RANKS])}
        for i, best in enumerate(ranked)
    }
    found = {one.query_id: one.value for one in ir_measures.iter_calc([measure], judgements, run)}
    return np.array([found.get(str(i), 0.0) for i in range(len(grades))])


def score(
    ranked: Sequence[Any], grades: Sequence[Mapping[int, int]], measure: Any = _MEASURES["nDCG@10"]
) -> float:
    """Return the mean of a measure over all queries."""
    return float(values(ranked, grades, measure).mean())


def measure(asked: Asked) -> dict[str, Any]:
    """Return a row of measurements of a saved text index, and of BM25 with stems.

    Both answer each query in turn.
    """
    progress(f"{asked.name}: {len(asked.texts):,} texts, {len(asked.queries):,} queries")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        begun = time.perf_counter()
        TextIndex.build(asked.texts, asked.encoder, path=path)
        built = time.perf_counter() - begun
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        index = TextIndex.load(path, asked.encoder)
        begun = time.perf_counter()
        words = Words(asked.texts, stems=True)
        row: dict[str, Any] = {
            "collection": asked.name, "texts": len(asked.texts), "queries": len(asked.queries),
            "build": built, "bm25 build": time.perf_counter() - begun, "bytes": size / len(asked.texts),
            "text bytes": sum(len(text.encode()) for text in asked.texts) / len(asked.texts),
        }  # fmt: skip
        searches: dict[str, Search] = {
            "texts": lambda query: [int(hit.id) for hit in index.search(query, RANKS, threads=1)],
            "bm25": partial(best_by_words, words),
        }
        ranked, seconds = _in_turns(searches, asked.queries)
    for name in searches:
        median, slow = np.percentile(1000 * seconds[name], (50, 95))
        row |= {f"{name} median": float(median), f"{name} 95%": float(slow)}
    for label, how in _MEASURES.items():
        found = {name: values(ranked[name], asked.grades, how) for name in searches}
        row |= {f"{name} {label}": float(each.mean()) for name, each in found.items()}
        row[f"more {label}"] = mean_interval(found["texts"] - found["bm25"])
    return row


def best_by_words(words: Words, query: str) -> NDArray[np.int64]:
    """Return the positions of the best texts that share a word with the query."""
    scores = words.scores(query)
    best = best_first(scores, RANKS)
    return best[scores[best] > 0]


def _in_turns(
    searches: Mapping[str, Search], queries: Sequence[str]
) -> tuple[dict[str, list[Any]], dict[str, NDArray[np.float64]]]:
    """Return what each search found, and the seconds of each query.

    The searches answer one query after the other; the first one is another each time.
    """
    names = list(searches)
    ranked: dict[str, list[Any]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for search in searches.values():  # compiles
        search(queries[0])
    for turn, query in enumerate(queries):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            begun = time.perf_counter()
            ranked[name].append(searches[name](query))
            seconds[name].append(time.perf_counter() - begun)
    return ranked, {name: np.array(times) for name, times in seconds.items()}


def _with_mean(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows, and a row of the means of their measures."""
    if len(rows) == 1:
        return rows
    keys = [f"{name} {label}" for name in ("texts", "bm25") for label in _MEASURES]
    return [
        *rows,
        {"collection": "mean", **{key: float(np.mean([row[key] for row in rows])) for key in keys}},
    ]


def table_of(rows: list[dict[str, Any]], label: str, title: str) -> Table:
    """Return the table of a text index with the encoder `label`, beside BM25."""
    columns = [Column("texts", "collection"), Column("documents", "texts"), Column("queries")]
    for shown in _MEASURES:
        columns += [
            Column(f"{shown}, {label}", f"texts {shown}", "{:.3f}"),
            Column(f"{shown}, BM25", f"bm25 {shown}", "{:.3f}"),
        ]
        if shown in _COMPARED:
            columns.append(Column(f"{shown}, {label} minus BM25", f"more {shown}", "{:+.3f}"))
    columns += [
        Column(f"search, {label}: median", "texts median", "{:.1f}", "ms"),
        Column("95%", "texts 95%", "{:.1f}", "ms"),
        Column("search, BM25: median", "bm25 median", "{:.1f}", "ms"),
        Column("95%", "bm25 95%", "{:.1f}", "ms"),
        Column(f"build, {label}", "build", "{:.1f}", "s"),
        Column("build, BM25", "bm25 build", "{:.1f}", "s"),
        Column("bytes per text", "bytes", "{:,.0f}"),
        Column("the text itself", "text bytes", "{:,.0f}"),
    ]
    caption = (
        f"A TextIndex with default settings and the encoder {label}, loaded from its folder, beside bm25s with "
        "Snowball's stems and without the most common English words. S@k is the share of queries with a relevant "
        "text among the first k. Square brackets hold 95% intervals. A search returns 100 texts, runs on one "
        "thread, and includes the encoding of the query; both searches take turns. A build writes the folder, "
        "whose bytes include the texts; BM25 stays in memory. The row of means is of collections that were "
        f"measured together. {measured_on()}"
    )
    return Table.of(title, columns, rows, caption)


def texts(
    folders: Annotated[list[Path], typer.Argument(help="Folders of texts in BEIR's layout.")],
    split: Annotated[str, typer.Option(help="Split of the judgements.")] = "test",
    encoder: Annotated[str, typer.Option(help="Text encoder.")] = "static",
    first: Annotated[
        list[int] | None, typer.Option(help="Measure the growth, by the first texts; may be repeated.")
    ] = None,
    queries: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of queries. Default: all.")
    ] = None,
    save: Save = False,
) -> None:
    """Compare whole searches of a TextIndex with BM25, in quality and in time."""
    model = load_text_encoder(encoder)
    if first:
        rows = []
        for folder in folders:
            for most in first:
                row = measure(read_asked(folder, split, model, most, queries))
                rows.append(row | {"collection": f"{row['collection']}, first {row['texts']:,}"})
        tables = [table_of(rows, encoder, f"Growth, {encoder}")]
    else:
        rows = [measure(read_asked(folder, split, model, queries=queries)) for folder in folders]
        tables = [table_of(_with_mean(rows), encoder, f"Beside BM25, {encoder}")]
    finish("beside_bm25", "Beside BM25", tables, save)
