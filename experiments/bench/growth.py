"""An index of coded tokens at growing numbers of documents: time and memory of building and searching it.

Documents beyond the real ones are made of these: a document's tokens, each moved by half the difference of
two tokens of two others, so that directions and lengths vary as those of real ones do.  A block of them
depends on its number and the seed alone, so that every size has the same documents and a run that was
interrupted goes on after the last size that it measured.  Builds and searches are given in processor time,
which others that use the machine disturb less.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import MultiVectors, MuveraIndex, chamfer_matrix
from muvera.data.ranking import best_first
from muvera.encoders.moments.config import MeanConfig
from muvera.utils.atomic_files import write_json

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE, DatasetPath, find_collections
from ..datasets.loading import load_collection
from ..report.markdown import text_table
from ..runner.provenance import machine

__all__ = ["grow", "grown_batches"]

#: Tokens of a document that is made, and documents of a block.
TOKENS, BLOCK = 64, 2048

K, QUERIES = 10, 40


def grown_batches(collection: Collection, count: int, seed: int = 0) -> Iterator[MultiVectors]:
    """Yield `count` documents: the real ones, as far as they go, and others made of them."""
    documents = collection.documents
    real = np.asarray(documents.tokens, np.float32)
    starts, lengths = documents.offsets[:-1], documents.lengths
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(start // BLOCK,)))
        parents = stream.integers(0, len(documents), (3, BLOCK))
        draws = stream.random((3, BLOCK, TOKENS))
        own, plus, minus = (
            real[starts[which][:, np.newaxis] + (draw * lengths[which][:, np.newaxis]).astype(np.int64)]
            for which, draw in zip(parents, draws, strict=True)
        )
        norms = np.sqrt(np.einsum("ijk,ijk->ij", own, own))[..., np.newaxis]
        moved = own + np.float32(0.5) * (plus - minus)
        moved *= norms / np.maximum(np.sqrt(np.einsum("ijk,ijk->ij", moved, moved)), 1e-6)[..., np.newaxis]
        arrays = [
            np.asarray(documents[start + i], np.float16) if start + i < len(documents) else text
            for i, text in enumerate(moved[:size].astype(np.float16))
        ]
        yield MultiVectors.from_arrays(arrays, ids=range(start, start + size))


def _measure(path: DatasetPath, count: int, codec: str, candidates: int, folder: Path, out: Path) -> None:
    """Build, search and grow one index, and write what was measured."""
    collection = load_collection(path)
    queries = collection.queries[: min(QUERIES, len(collection.queries))]
    shutil.rmtree(folder, ignore_errors=True)
    began = time.process_time()
    MuveraIndex.build(
        grown_batches(collection, count),
        MeanConfig(dimension=collection.documents.dimension),
        tokens=codec,
        path=folder,
        exact_tokens=0,
    )
    built = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    index = MuveraIndex.load(folder)
    loaded = time.perf_counter() - began
    exact = _exact(collection, queries, count)
    seconds: list[float] = []
    found: list[Any] = []
    for _ in range(2):  # the first round compiles and reads
        seconds, found = [], []
        for query in queries:
            began = time.thread_time()
            found.append(index.search(query, K, candidates=candidates, threads=1)[0].ids)
            seconds.append(time.thread_time() - began)
    more = next(iter(grown_batches(collection, 1000, seed=1)))
    began = time.perf_counter()
    index.add(more.with_ids(range(count, count + len(more))))
    added = time.perf_counter() - began
    disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    shutil.rmtree(folder)
    write_json(
        out,
        {
            "documents": count,
            "build_seconds": built,
            "peak_bytes": 1024 * peak,
            "disk_bytes": disk,
            "load_seconds": loaded,
            "p50": 1000 * float(np.percentile(seconds, 50)),
            "p95": 1000 * float(np.percentile(seconds, 95)),
            "recall": float(
                np.mean([np.isin(best, ids).mean() for best, ids in zip(exact, found, strict=True)])
            ),
            "add_seconds": added,
        },
    )


def _exact(collection: Collection, queries: MultiVectors, count: int) -> NDArray[np.int64]:
    """Return the exact best documents of all, a batch at a time."""
    ids = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    done = 0
    for batch in grown_batches(collection, count):
        ids = np.concatenate([ids, np.tile(np.arange(done, done + len(batch)), (len(queries), 1))], axis=1)
        scores = np.concatenate([scores, chamfer_matrix(queries, batch)], axis=1)
        best = np.stack([best_first(row, K) for row in scores])
        ids, scores = np.take_along_axis(ids, best, 1), np.take_along_axis(scores, best, 1)
        done += len(batch)
    return ids


def grow(
    size: Annotated[list[int] | None, typer.Option(help="Documents; may be repeated.")] = None,
    collection: Annotated[str, typer.Option()] = "lareqa-en-e5",
    data: Annotated[list[Path] | None, typer.Option(help="Folder of collections.")] = None,
    codec: Annotated[str, typer.Option(help="How tokens are kept.")] = "2bit",
    candidates: Annotated[int, typer.Option(min=K)] = 100,
    cache: Annotated[Path, typer.Option(help="Where indexes and what was measured are kept.")] = CACHE,
) -> None:
    """Build and search indexes of a growing number of documents; goes on where it was interrupted."""
    try:
        path = find_collections(data, cache, [collection])[collection]
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    rows: list[dict[str, Any]] = []
    folder = cache.expanduser() / "growth"
    folder.mkdir(parents=True, exist_ok=True)
    for count in sorted(set(size or [10_000, 100_000])):
        name = f"{collection}-{codec}-{candidates}-{count}"
        out = folder / f"{name}.json"
        if not out.exists():
            arguments = (path, count, codec, candidates, folder / f"{name}.index", out)
            process = multiprocessing.get_context("spawn").Process(target=_measure, args=arguments)
            process.start()
            process.join()
            if process.exitcode:
                raise typer.Exit(1)
        rows.append(json.loads(out.read_text(encoding="utf-8")))
    typer.echo(
        text_table(_HEADER, [_cells(row, before) for row, before in zip(rows, [None, *rows], strict=False)])
    )
    on = machine()
    typer.echo(f"{on['processor']}, {on['cores']} cores (load {on['load']} now); one thread searches")


_HEADER = [
    "documents", "build, processor s", "exponent", "peak, MB", "disk, B a document", "load, s",
    "p50, processor ms", "exponent", "p95", "10-recall@10", "1,000 added, s",
]  # fmt: skip


def _cells(row: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    def exponent(key: str) -> str:
        if before is None:
            return ""
        return f"{np.log(row[key] / before[key]) / np.log(row['documents'] / before['documents']):.2f}"

    return [
        f"{row['documents']:,}", f"{row['build_seconds']:.1f}", exponent("build_seconds"),
        f"{row['peak_bytes'] / 1e6:.0f}", f"{row['disk_bytes'] / row['documents']:.0f}",
        f"{row['load_seconds']:.2f}", f"{row['p50']:.2f}", exponent("p50"), f"{row['p95']:.2f}",
        f"{row['recall']:.3f}", f"{row['add_seconds']:.2f}",
    ]  # fmt: skip
