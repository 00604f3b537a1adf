"""Pages of patch vectors: what pooling costs, how fast pages rank, and their bytes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import MultiVectors, MuveraIndex, chamfer_matrix
from muvera.pages.page import Page

from ..datasets.discovery import CACHE
from ..datasets.made_pages import DOCUMENT, GRID, PAGE, MadePages
from ..report.table import Column, Table
from .plumbing import Cache, Save, finish, progress

_K = 10

# Best pages by means that all patches rank again.
_RESCORED = (20, 30, 50)

# Pages that are ranked for the times.
_CANDIDATES = 100

# Searches of one kind whose times count.
_ROUNDS = 60

# Pages that are made and pooled at a time.
_BATCH = 100

# Pages that are added to a large index at a time, and queries that it is searched with.
_GROWN, _QUERIES = 5000, 50

# A large index has single vectors from this many tokens on.
_EXACT_TOKENS = 350_000

# Candidates of a search of a large index.
_DEPTHS = (1000, 2500, 5000)

_Pool = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def ward(factor: float) -> _Pool:
    """Return a function that pools a page as PageIndex does."""
    return lambda vectors: Page(vectors, "made", grid=GRID).pooled(factor)


def neighbors(rows: int, columns: int) -> _Pool:
    """Return a function that replaces rectangles of patches by their means."""

    def pool(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        count = GRID[0] * GRID[1]
        grid = vectors[:count].reshape(*GRID, -1)
        means = [
            grid[i : i + rows, j : j + columns].reshape(-1, vectors.shape[1]).mean(axis=0)
            for i in range(0, GRID[0], rows)
            for j in range(0, GRID[1], columns)
        ]
        made = np.array(means, np.float32)
        made /= np.linalg.norm(made, axis=1, keepdims=True)
        return np.concatenate([made, vectors[count:]])

    return pool


#: Ways to pool by name.
WAYS: dict[str, _Pool] = {
    "none": lambda vectors: vectors,
    **{f"Ward, factor={factor}": ward(factor) for factor in (2, 3, 4, 6, 9)},
    "neighbors, rows=1, columns=3": neighbors(1, 3),
    "neighbors, rows=2, columns=2": neighbors(2, 2),
    "neighbors, rows=3, columns=3": neighbors(3, 3),
}


def measure_pooling(made: MadePages, pages: int, queries: int) -> list[dict[str, Any]]:
    """Return a row for each way to pool: 10-recall@10 before and after rescoring."""
    asked = MultiVectors.from_arrays([made.query(i, i * pages // queries) for i in range(queries)])
    scores: dict[str, list[NDArray[np.float32]]] = {name: [] for name in WAYS}
    seconds, sizes = dict.fromkeys(WAYS, 0.0), dict.fromkeys(WAYS, 0)
    for start in range(0, pages, _BATCH):
        progress(f"{start:,} of {pages:,} pages")
        batch = [made.vectors(number) for number in range(start, min(start + _BATCH, pages))]
        for name, pool in WAYS.items():
            begun = time.process_time()
            pooled = [pool(vectors) for vectors in batch]
            seconds[name] += time.process_time() - begun
            sizes[name] = len(pooled[0])
            scores[name].append(chamfer_matrix(asked, MultiVectors.from_arrays(pooled)))
    orders = {name: np.argsort(-np.concatenate(own, axis=1), axis=1) for name, own in scores.items()}
    best = [set(row[:_K].tolist()) for row in orders["none"]]
    rows = []
    for name, order in orders.items():
        found = {
            f"@{depth}": np.mean(
                [len(own & set(row[:depth].tolist())) / _K for own, row in zip(best, order, strict=True)]
            )
            for depth in (_K, *_RESCORED)
        }
        rows.append({"way": name, "vectors": sizes[name], "ms": 1e3 * seconds[name] / pages, **found})
    return rows


def measure_times(made: MadePages) -> list[dict[str, Any]]:
    """Return the times of ranking 100 pages on one thread, by kind of token."""
    pages = [made.vectors(number) for number in range(_CANDIDATES)]
    pooled = [ward(3)(vectors) for vectors in pages]
    queries = [made.query(number, number % _CANDIDATES) for number in range(_ROUNDS)]
    kinds = {
        **{f"all patches, {kind}": (pages, kind) for kind in ("float32", "int8", "4bit", "2bit", "1bit")},
        "pooled by 3, int8": (pooled, "int8"),
    }
    indexes = {
        name: MuveraIndex.build(vectors, tokens=kind, exact_tokens=1 << 62)
        for name, (vectors, kind) in kinds.items()
    }
    times: dict[str, list[float]] = {name: [] for name in indexes}
    for round_ in range(-2, _ROUNDS):
        for name, index in indexes.items():
            begun = time.perf_counter()
            index.search([queries[round_]], _K, threads=1)
            if round_ >= 0:
                times[name].append(time.perf_counter() - begun)
    rows = []
    for name, index in indexes.items():
        codec = index.info().token_codec
        ms = 1e3 * np.array(times[name])
        count = len(kinds[name][0][0])
        rows.append(
            {
                "way": name, "vectors": count, "bytes": count * codec["bytes_per_token"],
                "p50": np.percentile(ms, 50), "p95": np.percentile(ms, 95),
            }
        )  # fmt: skip
    return rows


def grow(made: MadePages, count: int, folder: Path, minutes: float) -> dict[str, Any] | None:
    """Build an index of pooled pages; return its size, times and recall at the end.

    It is saved in `folder`, and continued by the next call if `minutes` are over.
    """
    ended = time.monotonic() + 60 * minutes
    groups = ward_groups(made.page[: made.patches], 3)
    if (folder / "index").exists():
        index = MuveraIndex.load(folder / "index")
    else:
        index = MuveraIndex(
            "simhash", dimension=made.page.shape[1], tokens="int8", exact_tokens=_EXACT_TOKENS
        )
    begun, first = time.perf_counter(), len(index)
    while len(index) < count and time.monotonic() < ended:
        numbers = range(len(index), min(len(index) + _GROWN, count))
        index.add(list(made.pooled(numbers, groups)), ids=list(numbers))
        if len(index) % (4 * _GROWN) == 0:
            index.save(folder / "index")
        progress(f"{len(index):,} of {count:,} pages")
    seconds = time.perf_counter() - begun
    if len(index) > first:
        index.save(folder / "index")
        print(f"{len(index) - first:,} pages in {seconds:.0f} s")
    if len(index) < count:
        return None
    queries = [made.query(i, i * count // _QUERIES) for i in range(_QUERIES)]
    exact = index.search(queries, _K, candidates=count)
    row: dict[str, Any] = {"pages": count, "bytes": index.info().bytes_per_document}
    for candidates in _DEPTHS:
        index.search(queries[:5], _K, candidates=candidates, threads=1)
        times, found = [], []
        for query, best in zip(queries, exact, strict=True):
            begun = time.perf_counter()
            ranking = index.search([query], _K, candidates=candidates, threads=1)[0]
            times.append(1e3 * (time.perf_counter() - begun))
            found.append(len(set(ranking.ids.tolist()) & set(best.ids.tolist())) / _K)
        row[f"recall {candidates}"], row[f"p50 {candidates}"] = np.mean(found), np.percentile(times, 50)
    return row


def ward_groups(patches: NDArray[np.float32], factor: float) -> NDArray[np.int64]:
    """Return the group of each patch: the nearest mean of :func:`ward`."""
    means = Page(patches, "real", grid=GRID).pooled(factor)
    _, groups = np.unique((patches @ means.T).argmax(axis=1), return_inverse=True)
    return groups.astype(np.int64)


def pages(
    page: Annotated[Path, typer.Option(help="Vectors of a real page (1030, dimension), .npy.")] = PAGE,
    count: Annotated[int, typer.Option(min=20, help="Generated pages.")] = 1000,
    queries: Annotated[int, typer.Option(min=1, help="Queries.")] = 100,
    part: Annotated[str, typer.Option(help="pooling, times, size or all.")] = "all",
    large: Annotated[int, typer.Option(min=2000, help="Generated pages of the part size.")] = 22_000,
    minutes: Annotated[float, typer.Option(help="Minutes to grow; the next call continues.")] = 60,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Compare ways to pool patches of generated pages, and time a ranking of pages."""
    made = MadePages(page)
    tables = []
    about = (
        "Generated pages: the patches of one real page of ColPali (32 x 32 patches, 128 columns) plus noise along "
        f"their own directions, for documents of {DOCUMENT} pages and for each page. Patches that are alike stay "
        "alike, and each also gets noise as large as its distance to the most similar one."
    )
    if part in ("pooling", "all"):
        rows = measure_pooling(made, count, queries)
        columns = [
            Column("pooling", "way"),
            Column("vectors per page", "vectors", "{:,}"),
            Column("ms to pool a page", "ms", "{:.1f}"),
            Column("pooled alone", "@10", "{:.3f}"),
            *(Column(f"best {depth} rescored", f"@{depth}", "{:.3f}") for depth in _RESCORED),
        ]
        caption = (
            f"10-recall@10: the share of the ten best pages by all patches that are found. {about} {count:,} pages, "
            f"{queries} queries: 20 neighboring patches of a page with noise. Rescoring ranks the best pages "
            "again by all patches; PageIndex rescores 2 k + 10."
        )
        tables.append(Table.of("Pooling of patches", columns, rows, caption))
    if part in ("times", "all"):
        rows = measure_times(made)
        columns = [
            Column("ranked by", "way"),
            Column("vectors per page", "vectors", "{:,}"),
            Column("bytes per page", "bytes", "{:,}"),
            Column("p50, ms", "p50", "{:.1f}"),
            Column("p95, ms", "p95", "{:.1f}"),
        ]
        caption = f"Ranking {_CANDIDATES} pages for a query of 20 vectors, on one thread. {about}"
        tables.append(Table.of("Ranking pages", columns, rows, caption))
    if part in ("size", "all"):
        folder = cache.expanduser() / "pages"
        folder.mkdir(parents=True, exist_ok=True)
        row = grow(made, large, folder, minutes)
        if row is not None:
            tables.append(_size_table(row, about))
    finish("pages", "Pages", tables, save)


def _size_table(row: dict[str, Any], about: str) -> Table:
    depths = [
        {"depth": depth, "recall": row[f"recall {depth}"], "p50": row[f"p50 {depth}"]} for depth in _DEPTHS
    ]
    columns = [
        Column("candidates", "depth", "{:,}"),
        Column("10-recall@10", "recall", "{:.3f}"),
        Column("p50, ms", "p50", "{:.1f}"),
    ]
    caption = (
        f"{row['pages']:,} pages pooled by 3, int8, with single vectors (simhash): {row['bytes']:,} bytes per page. "
        f"10-recall@10 of the candidates that the means rank, compared with ranking all pages by means; {_QUERIES} "
        f"queries on one thread. {about} Here, only the means are generated, from those of the real page."
    )
    return Table.of("Candidates in a large collection", columns, depths, caption)
