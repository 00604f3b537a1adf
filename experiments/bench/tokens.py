"""Token codecs: their recall, their bytes, and the time of ranking candidates by them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from muvera import MultiVectors, chamfer_matrix
from muvera.data.ranking import best_first
from muvera.reranking.codecs import CODECS, fit_codec
from muvera.reranking.codecs.base import CodedVectors, score_coded
from muvera.reranking.codecs.residual import NUM_CENTROIDS, fit_plaid_codec
from muvera.reranking.pruning import DocumentSlice, RerankOptions, rank_candidates

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..evaluation.metrics import recall
from ..report.table import Column, Table
from .plumbing import (
    Cache,
    Data,
    Rounds,
    Save,
    finish,
    float_documents,
    interleaved,
    load_collections,
    measured_on,
    timed,
)

__all__ = ["PLAID", "measure", "tokens"]

# Number of results, of ranked candidates, of candidates reranked by floats, and of results for recall.
_K, _CANDIDATES, _CHECKED, _RESCORED = 10, 100, 20, 30

# Number of tokens to fit codecs on, and of queries per round.
_FITTED, _TIMED = 50_000, 20

#: ColBERT's codec for comparison: functions that fit it on tokens, by name.
PLAID: dict[str, Callable[..., Any]] = {
    f"plaid {bits}bit{', means' if means else ''}": partial(
        fit_plaid_codec, nbits=bits, num_centroids=NUM_CENTROIDS, bucket_means=means
    )
    for bits in (4, 2, 1)
    for means in (False, True)
}


# Codec -> targets: 10-recall@10, time of float32 over its own, and the same if the best 20 are rescored.
_TARGETS: dict[str, tuple[float | None, float | None, float | None]] = {
    "float16": (None, 1.0, None),
    "int8": (0.99, 3.0, 2.2),
    "4bit": (0.965, None, None),
    "2bit": (0.90, 2.7, 2.0),
    "1bit": (0.79, None, None),
}


def measure(collections: Iterable[Collection], rounds: int, queries: int = 150) -> list[Table]:
    """Return a table of the quality of codecs in each collection, and one of times, on one thread."""
    on, quality, speed = measured_on(), list[dict[str, Any]](), list[dict[str, Any]]()
    for collection in collections:
        asked, documents = collection.queries[:queries], float_documents(collection)
        exact = _best(chamfer_matrix(asked, documents, threads=1), _K)
        coded: dict[str, CodedVectors] = {}
        for name in (*CODECS, *PLAID):
            codes, row = _quality(name, documents, asked, exact)
            quality.append({"name": f"{collection.name}, {name}", **row})
            if name in CODECS:
                coded[name] = codes
        for row in _speed(documents, coded, asked, rounds):
            checked = ", best 20 by float32" if row["checked"] else ""
            speed.append({"name": f"{collection.name}, {row['way']}{checked}", **row})

    def target(name: str, position: int) -> float | None:
        return _TARGETS.get(name, (None, None, None))[position]

    quality_columns = [
        *(Column("collection, codec", "name"), Column("bytes per token", "bytes")),
        *(Column("10-recall@10", "recall_10", "{:.3f}"), Column("@20", "recall_20", "{:.3f}")),
        Column("@10 after rescoring 30", "rescored_30", "{:.3f}"),
        Column("target @10", lambda row: target(row["codec"], 0), "{:.3f}"),
        *(Column("squared error", "error", "{:.4f}"), Column("fit", "fit_seconds", "{:,.1f}", "s")),
        Column("encode", "encode_microseconds", "{:,.1f}", "us per token"),
    ]
    speed_columns = [
        *(Column("collection, codec", "name"), Column("time", "milliseconds", "{:.2f}", "ms")),
        Column("float32 / this", "ratio", "{:.2f}x"),
        Column("min - max", lambda row: f"{row['least']:.2f} - {row['greatest']:.2f}"),
        Column("target", lambda row: target(row["way"], 2 if row["checked"] else 1), "{:.1f}x"),
    ]
    caption = f"Processor time of one thread, median of {rounds} interleaved rounds. {on}"
    return [
        Table.of("Recall of codecs over all documents", quality_columns, quality, caption),
        Table.of("Ranking 100 candidates in random order, one thread", speed_columns, speed),
    ]


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    return np.stack([best_first(row, count) for row in np.ascontiguousarray(scores)])


def _quality(
    name: str, documents: MultiVectors, queries: MultiVectors, exact: NDArray[np.int64]
) -> tuple[CodedVectors, dict[str, Any]]:
    tokens = np.asarray(documents.tokens, np.float32)
    sample = tokens[np.sort(np.random.default_rng(0).permutation(len(tokens))[:_FITTED])]
    began = time.process_time()
    codec = PLAID[name](sample, threads=1) if name in PLAID else fit_codec(name, sample, threads=1)
    fitted = time.process_time()
    coded = CodedVectors.of(codec, documents, threads=1)
    encoded = time.process_time()
    decoded = coded.decoded(1)
    best = _best(chamfer_matrix(queries, decoded, threads=1), _RESCORED)
    every = np.arange(len(documents))
    by_codes = np.stack([best_first(_code_scores(coded, query, every), _RESCORED) for query in queries])
    return coded, {
        "codec": name,
        "bytes": codec.bytes_per_token,
        "fit_seconds": fitted - began,
        "encode_microseconds": 1e6 * (encoded - fitted) / max(1, len(tokens)),
        "error": float(np.mean((tokens - decoded.tokens) ** 2) / np.mean(tokens**2)),
        "recall_10": float(recall(best[:, :_K], exact).mean()),
        "recall_20": float(recall(best[:, :_CHECKED], exact).mean()),
        # Exact tokens rerank these, so this is the recall@10 afterwards.
        "rescored_30": float(recall(by_codes, exact).mean()),
    }


def _code_scores(coded: CodedVectors, query: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    tokens = np.ascontiguousarray(query, np.float32)
    return score_coded(tokens, coded.codec, [(coded, rows, np.arange(len(rows)))], len(rows), threads=1)


def _speed(
    documents: MultiVectors, coded: dict[str, CodedVectors], queries: MultiVectors, rounds: int
) -> list[dict[str, Any]]:
    halves = MultiVectors.from_flat(documents.tokens.astype(np.float16), offsets=documents.offsets)
    asked = [np.ascontiguousarray(query, np.float32) for query in queries if len(query)][:_TIMED]
    stream = np.random.default_rng(1)
    candidates: list[NDArray[np.int64]] = []

    def draw() -> None:
        candidates[:] = [stream.permutation(len(documents))[:_CANDIDATES] for _ in asked]

    def job(way: Callable[[NDArray[np.float32], NDArray[np.int64]], object]) -> Any:
        return timed(lambda: [way(query, rows) for query, rows in zip(asked, candidates, strict=True)])

    def by_floats(texts: MultiVectors, **options: Any) -> Callable[..., object]:
        def slices_of(rows: NDArray[np.int64], _: bool) -> list[DocumentSlice]:
            return [(texts, rows, np.arange(len(rows)))]

        how = RerankOptions(_K, early_exit=False, **options)
        return lambda query, rows: rank_candidates(query, rows, slices_of, how, 1)

    def by_codes(codes: CodedVectors) -> Callable[..., object]:
        return lambda query, rows: best_first(_code_scores(codes, query, rows), _K)

    def rescored(codes: CodedVectors) -> Callable[..., object]:
        """Rank by codes, then the best by float32 until the errors so far rule out the rest."""

        def rank(query: NDArray[np.float32], rows: NDArray[np.int64]) -> object:
            scores = _code_scores(codes, query, rows)
            order = best_first(scores, _CHECKED)
            return by_floats(documents, estimates=scores[order])(query, rows[order])

        return rank

    ways = {"float32": by_floats(documents), "float16": by_floats(halves)}
    ways |= {name: by_codes(codes) for name, codes in coded.items()}
    jobs = {(name, False): job(way) for name, way in ways.items()}
    jobs |= {(name, True): job(rescored(codes)) for name, codes in coded.items()}
    seconds = interleaved(jobs, rounds, draw)
    rows = []
    for (name, checked), (_, times) in seconds.items():
        ratios = seconds["float32", False][1] / times
        row = {"way": name, "checked": checked, "ratio": float(np.median(ratios))}
        row |= {"least": float(ratios.min()), "greatest": float(ratios.max())}
        rows.append({**row, "milliseconds": 1000 * float(np.median(times)) / len(asked)})
    return rows


def tokens(
    data: Data = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="May be repeated. Default: lareqa-en-e5 and cranfield-minilm.")
    ] = None,
    rounds: Rounds = 9,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Measure token codecs: their recall, their bytes, and the time of ranking candidates by them."""
    collections = load_collections(collection or ["lareqa-en-e5", "cranfield-minilm"], data, cache)
    with threadpool_limits(1):
        finish("tokens", "Token codecs", measure(collections, rounds), save)
