"""Ways of leaving candidates unscored: what each finds of the exact best, and its time.

The candidates are the best by the mean token, best first.  Every way ranks the same ones, once a round, so that
all meet the same machine; times are of one thread's processor.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import MeanConfig, MeanEncoder, MultiVectors
from muvera.data.ranking import best_first
from muvera.kernels.tile import LANES
from muvera.reranking.codecs import fit_codec
from muvera.reranking.codecs.base import CodedVectors, score_coded
from muvera.reranking.pruning import RerankOptions, rank_candidates

from ..datasets.collection import Collection
from ..peers.environments import PEERS, Worker, save_texts

__all__ = ["CANDIDATES", "measure"]

K, CANDIDATES = 10, 200

# Of candidates whose first-stage score is further below the k-th best one's than this part of it.
_ALPHAS = (0.5, 0.4, 0.3, 0.2, 0.1)

# Col-Bandit's one knob: its own default, and the careful end of its range.
_BANDITS = (0.2, 1.0)

#: The way that others are compared with.
BASE = "bounds, first stage's order"

_Floats = NDArray[np.float32]
_Rows = NDArray[np.int64]
Way = Callable[[_Floats, _Rows, _Floats], tuple[_Rows, float]]


def measure(
    collections: Iterable[Collection], rounds: int, cache: Path | None, queries: int = 60
) -> list[dict[str, Any]]:
    """Return a row for each way and collection.

    Parameters
    ----------
    collections : iterable of Collection
    rounds : int
    cache : Path, optional
        Where environments of peers are; None: without peers.
    queries : int
        Of each collection at most.
    """
    rows: list[dict[str, Any]] = []
    for collection in collections:
        rows += [{"collection": collection.name, **row} for row in _one(collection, rounds, cache, queries)]
    return rows


def _one(collection: Collection, rounds: int, cache: Path | None, queries: int) -> list[dict[str, Any]]:
    tokens = np.asarray(collection.documents.tokens, np.float32)
    documents = MultiVectors.from_flat(tokens, offsets=collection.documents.offsets)
    encoder = MeanEncoder(MeanConfig(dimension=documents.dimension)).fit(documents)
    asked = [np.ascontiguousarray(query, np.float32) for query in collection.queries[:queries] if len(query)]
    proposed, scores = [], []
    stored = encoder.encode_documents(documents)
    for vector in encoder.encode_queries(MultiVectors.from_arrays(asked)):
        products = stored @ vector
        best = best_first(products, min(CANDIDATES, len(documents)))
        proposed.append(best)
        scores.append(products[best])
    ways = _ways(documents)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[_Rows]] = {}
    made: dict[str, list[float]] = {name: [] for name in ways}
    for lap in range(rounds + 1):
        for name, way in ways.items():
            began = time.thread_time()
            answers = [way(*one) for one in zip(asked, proposed, scores, strict=True)]
            if lap:  # the first compiles
                taken[name].append((time.thread_time() - began) / len(asked))
            found[name] = [rows for rows, _ in answers]
            made[name] = [share for _, share in answers]
    exact = found["all products"]
    rows: list[dict[str, Any]] = [
        {
            "way": name,
            "ms": 1000 * float(np.median(taken[name])),
            "ratio": float(np.median(np.array(taken[BASE]) / np.array(taken[name]))),
            "same": float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found[name], strict=True)])),
            "products": float(np.mean(made[name])),
        }
        for name in ways
    ]
    if cache is not None:
        base = rows[list(ways).index(BASE)]["ms"]
        rows += _bandits(documents, asked, proposed, exact, rounds, cache, base)
    return rows


def _ways(documents: MultiVectors) -> dict[str, Way]:
    def rank(query: _Floats, rows: _Rows, *, bounds: bool = True) -> tuple[_Rows, float]:
        products: list[int] = []
        how = RerankOptions(K, early_exit=bounds, products=products)
        best, _ = rank_candidates(
            query, None, rows, lambda at, _: [(documents, at, np.arange(len(at)))], how, 1
        )
        possible = int(documents.lengths[rows].sum()) * -(-len(query) // LANES)
        return best, sum(products) / possible if bounds else 1.0

    def ordered_by(name: str) -> Way:
        codec = fit_codec(name, np.asarray(documents.tokens), threads=1)
        coded = CodedVectors.of(codec, documents, threads=1)

        def way(query: _Floats, rows: _Rows, _: _Floats) -> tuple[_Rows, float]:
            places = np.arange(len(rows))
            scores = score_coded(query, codec, [(coded, rows, places)], len(rows), threads=1)
            return rank(query, rows[best_first(scores, len(rows))])

        return way

    def above(alpha: float) -> Way:
        def way(query: _Floats, rows: _Rows, scores: _Floats) -> tuple[_Rows, float]:
            least = scores[K - 1] - alpha * abs(scores[K - 1])
            return rank(query, rows[scores >= least])

        return way

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
    base: float,
) -> list[dict[str, Any]]:
    """Return rows of Col-Bandit, which runs in an environment and a process of its own."""
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
                    how = {"query": query, "k": K, "alpha": alpha}
                    shares.append(np.isin(best, worker.result("rank", folder, **how)).mean())
                    times.append(float(np.median(worker.time("rank", rounds, **how)[1])))
                ms = 1000 * float(np.mean(times))
                rows.append(
                    {
                        "way": f"Col-Bandit, alpha_ef {alpha}",
                        "ms": ms,
                        "ratio": base / ms,
                        "same": float(np.mean(shares)),
                        "products": None,
                    }
                )
    return rows
