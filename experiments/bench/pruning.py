"""Ways to skip candidates: the recall of the exact best, and the time.

The candidates are the best by the mean token.  Every way ranks the same candidates on one thread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import MultiVectors
from muvera.data.ranking import best_first
from muvera.encoders.registry import make_encoder, preset_config
from muvera.kernels.tile import LANES
from muvera.reranking.codecs import fit_codec
from muvera.reranking.codecs.base import CodedVectors, score_coded
from muvera.reranking.pruning import DocumentSlice, RerankOptions, rank_candidates

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..peers.environments import PEERS, Worker, save_texts
from ..runner.provenance import machine
from .plumbing import Cache, Data, Rounds, Save, finish, interleaved, load_collections, timed

__all__ = ["BASE", "measure", "pruning"]

_K, _CANDIDATES = 10, 200

# Skip candidates whose first-stage score is more than this share below the k-th best one's.
_ALPHAS = (0.5, 0.4, 0.3, 0.2, 0.1)

# Col-Bandit's only setting: its default, and the careful end of its range.
_BANDITS = (0.2, 1.0)

#: The library's way, the baseline of the comparison.
BASE = "bounds, first stage's order"

_Floats = NDArray[np.float32]
_Rows = NDArray[np.int64]
#: Function of a query, its candidates and their first-stage scores; returns rows and the share of computed
#: products.
Way = Callable[[_Floats, _Rows, _Floats], tuple[_Rows, float]]


def measure(
    collections: Iterable[Collection], rounds: int, cache: Path | None, queries: int = 60
) -> list[dict[str, Any]]:
    """Return a row for each way and collection; peers need a `cache` of environments."""
    rows: list[dict[str, Any]] = []
    for collection in collections:
        rows += [{"collection": collection.name, **row} for row in _rows(collection, rounds, cache, queries)]
    return rows


def _rows(collection: Collection, rounds: int, cache: Path | None, queries: int) -> list[dict[str, Any]]:
    floats = np.asarray(collection.documents.tokens, np.float32)
    documents = MultiVectors.from_flat(floats, offsets=collection.documents.offsets)
    encoder = make_encoder(preset_config("mean", documents.dimension)).fit(documents)
    asked = [np.ascontiguousarray(query, np.float32) for query in collection.queries[:queries] if len(query)]
    products = encoder.encode_queries(MultiVectors.from_arrays(asked)) @ encoder.encode_documents(documents).T
    proposed = [best_first(row, min(_CANDIDATES, len(documents))) for row in np.ascontiguousarray(products)]
    scores = [row[best] for row, best in zip(products, proposed, strict=True)]
    ways = _ways(documents)
    answers: dict[str, list[tuple[_Rows, float]]] = {}

    def job(name: str) -> Callable[[], None]:
        def rank() -> None:
            answers[name] = [ways[name](*row) for row in zip(asked, proposed, scores, strict=True)]

        return rank

    seconds = interleaved({name: timed(job(name)) for name in ways}, rounds)
    exact = [best for best, _ in answers["all products"]]
    rows: list[dict[str, Any]] = []
    for name in ways:
        shares = [np.isin(a, b).mean() for a, (b, _) in zip(exact, answers[name], strict=True)]
        row: dict[str, Any] = {"way": name, "ms": 1000 * float(np.median(seconds[name][1])) / len(asked)}
        row["ratio"] = float(np.median(seconds[BASE][1] / seconds[name][1]))
        row |= {
            "same": float(np.mean(shares)),
            "products": float(np.mean([made for _, made in answers[name]])),
        }
        rows.append(row)
    if cache is not None:
        base = next(row["ms"] for row in rows if row["way"] == BASE)
        rows += _bandits(documents, asked, proposed, exact, rounds, cache, base)
    return rows


def _ways(documents: MultiVectors) -> dict[str, Way]:
    def slices_of(rows: _Rows, _: bool) -> list[DocumentSlice]:
        return [(documents, rows, np.arange(len(rows)))]

    def rank(query: _Floats, rows: _Rows, *, bounds: bool = True) -> tuple[_Rows, float]:
        products: list[int] = []
        options = RerankOptions(_K, early_exit=bounds, products=products)
        best, _ = rank_candidates(query, rows, slices_of, options, 1)
        possible = int(documents.lengths[rows].sum()) * -(-len(query) // LANES)
        return best, sum(products) / possible if bounds else 1.0

    def ordered_by(name: str) -> Way:
        codec = fit_codec(name, np.asarray(documents.tokens), threads=1)
        coded = CodedVectors.of(codec, documents, threads=1)

        def way(query: _Floats, rows: _Rows, _: _Floats) -> tuple[_Rows, float]:
            scores = score_coded(query, codec, [(coded, rows, np.arange(len(rows)))], len(rows), threads=1)
            return rank(query, rows[best_first(scores, len(rows))])

        return way

    def above(alpha: float) -> Way:
        return lambda query, rows, scores: rank(
            query, rows[scores >= scores[_K - 1] - alpha * abs(scores[_K - 1])]
        )

    return {
        "all products": lambda query, rows, _: rank(query, rows, bounds=False),
        BASE: lambda query, rows, _: rank(query, rows),
        **{f"bounds, {name} codes' order": ordered_by(name) for name in ("int8", "1bit")},
        **{f"bounds, alpha {alpha}": above(alpha) for alpha in _ALPHAS},
    }


def _bandits(
    documents: MultiVectors,
    asked: list[_Floats],
    proposed: list[_Rows],
    exact: list[_Rows],
    rounds: int,
    cache: Path,
    base_ms: float,
) -> list[dict[str, Any]]:
    """Return rows of Col-Bandit, which runs in its own environment and process."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_texts(folder, "documents", list(documents))
        save_texts(folder, "queries", asked)
        np.save(folder / "candidates.npy", np.stack(proposed))
        with Worker(PEERS["colbandit"], folder, cache) as worker:
            for alpha in _BANDITS:
                times, shares = [], []
                for query, best in enumerate(exact):
                    how = {"query": query, "k": _K, "alpha": alpha}
                    shares.append(np.isin(best, worker.result("rank", folder, **how)).mean())
                    times.append(float(np.median(worker.time("rank", rounds, **how)[1])))
                ms = 1000 * float(np.mean(times))
                row: dict[str, Any] = {
                    "way": f"Col-Bandit, alpha_ef {alpha}",
                    "ms": ms,
                    "ratio": base_ms / ms,
                }
                rows.append({**row, "same": float(np.mean(shares)), "products": None})
    return rows


def pruning(
    data: Data = None,
    collection: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    rounds: Rounds = 7,
    peers: Annotated[bool, typer.Option(help="Include Col-Bandit, in its own environment.")] = True,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Rank the same candidates in ways that skip some of them."""
    names = collection or ["lareqa-en-e5", "cranfield-minilm", "plaid-colbertv2-lotte500"]
    collections = load_collections(names, data, cache)
    results: dict[str, Any] = {"machine": machine(), "rounds": rounds}
    finish("pruning", {**results, "rows": measure(collections, rounds, cache if peers else None)}, save)
