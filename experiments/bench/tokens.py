"""Token codecs: what they find, what they take, and how fast they rank candidates.

Times are of one thread, in processor time, every way once a round, so that all meet the same machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, chamfer_matrix
from muvera.data.ranking import best_first
from muvera.reranking.codecs import CODECS, fit_codec
from muvera.reranking.codecs.base import CodedVectors, TokenCodec, score_coded
from muvera.reranking.codecs.residual import NUM_CENTROIDS, fit_plaid_codec
from muvera.reranking.pruning import RerankOptions, rank_candidates

from ..datasets.collection import Collection
from ..evaluation.metrics import recall

__all__ = ["measure"]

K, CANDIDATES, CHECKED, RESCORED = 10, 100, 20, 30

#: Tokens that codecs are fitted on, and queries that are timed in a round.
_FITTED, _TIMED = 50_000, 20

#: ColBERT's codec with as many centroids, for comparison: bits, and whether buckets stand for their means.
PLAID = {
    f"plaid {bits}bit{', means' if means else ''}": (bits, means)
    for bits in (4, 2, 1)
    for means in (False, True)
}

Rank = Callable[[NDArray[np.float32], NDArray[np.int64]], object]


def measure(collections: Iterable[Collection], rounds: int, queries: int = 150) -> dict[str, Any]:
    """Return rows of what codecs find in each collection, and of times.

    Parameters
    ----------
    collections : iterable of Collection
    rounds : int
    queries : int
        Of each collection at most.
    """
    quality: list[dict[str, Any]] = []
    speed: list[dict[str, Any]] = []
    for collection in collections:
        documents, asked = collection.documents, collection.queries[:queries]
        tokens = np.asarray(documents.tokens, np.float32)
        exact = _best(chamfer_matrix(asked, documents, threads=1), K)
        floats = MultiVectors.from_flat(tokens, offsets=documents.offsets)
        coded: dict[str, CodedVectors] = {}
        for name in CODECS:
            found, row = _quality(name, tokens, floats, asked, exact)
            coded[name] = found
            quality.append({"collection": collection.name, **row})
        for name in PLAID:
            _, row = _quality(name, tokens, floats, asked, exact)
            quality.append({"collection": collection.name, **row})
        speed += [{"collection": collection.name, **row} for row in _speed(floats, coded, asked, rounds)]
    return {"quality": quality, "speed": speed}


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    return np.stack([best_first(row, count) for row in np.ascontiguousarray(scores)])


def _quality(
    name: str,
    tokens: NDArray[np.float32],
    documents: MultiVectors,
    queries: MultiVectors,
    exact: NDArray[np.int64],
) -> tuple[CodedVectors, dict[str, Any]]:
    sample = tokens[np.sort(np.random.default_rng(0).permutation(len(tokens))[:_FITTED])]
    began = time.process_time()
    codec = _fitted(name, sample)
    fitted = time.process_time() - began
    began = time.process_time()
    coded = CodedVectors.of(codec, documents, threads=1)
    encoded = time.process_time() - began
    decoded = coded.decoded(1)
    found = _best(chamfer_matrix(queries, decoded, threads=1), RESCORED)
    every = np.arange(len(documents))
    by_bytes = np.stack(
        [
            best_first(
                score_coded(_floats(query), codec, [(coded, every, every)], len(every), threads=1), RESCORED
            )
            for query in queries
        ]
    )
    return coded, {
        "codec": name,
        "bytes": codec.bytes_per_token,
        "fit_seconds": round(fitted, 2),
        "encode_microseconds": round(1e6 * encoded / max(1, len(tokens)), 2),
        "error": float(np.mean((tokens - decoded.tokens) ** 2) / np.mean(tokens**2)),
        "recall_10": float(recall(found[:, :K], exact).mean()),
        "recall_20": float(recall(found[:, :CHECKED], exact).mean()),
        # What of the best 30 by bytes exact tokens order: the same as recall@10 after that.
        "rescored_30": float(recall(by_bytes, exact).mean()),
    }


def _fitted(name: str, sample: NDArray[np.float32]) -> TokenCodec:
    if name not in PLAID:
        return fit_codec(name, sample, threads=1)
    bits, means = PLAID[name]
    return fit_plaid_codec(sample, bits, NUM_CENTROIDS, bucket_means=means, threads=1)


def _floats(query: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(query, np.float32)


def _speed(
    documents: MultiVectors, coded: dict[str, CodedVectors], queries: MultiVectors, rounds: int
) -> list[dict[str, Any]]:
    halves = MultiVectors.from_flat(documents.tokens.astype(np.float16), offsets=documents.offsets)
    ways: dict[str, tuple[Rank, Rank | None]] = {
        "float32": (_by_floats(documents), None),
        "float16": (_by_floats(halves), None),
        **{name: (_by_codes(codes), _checked(codes, documents)) for name, codes in coded.items()},
    }
    stream = np.random.default_rng(1)
    asked = [_floats(query) for query in queries if len(query)][:_TIMED]
    taken: dict[tuple[str, bool], list[float]] = {}
    for lap in range(rounds + 1):
        chosen = [stream.permutation(len(documents))[:CANDIDATES] for _ in asked]
        for name, pair in ways.items():
            for checked, way in zip((False, True), pair, strict=True):
                if way is None:
                    continue
                began = time.thread_time()
                for query, positions in zip(asked, chosen, strict=True):
                    way(query, positions)
                if lap:  # the first compiles
                    taken.setdefault((name, checked), []).append((time.thread_time() - began) / len(asked))
    base = np.array(taken["float32", False])
    return [
        {
            "way": name,
            "checked": checked,
            "milliseconds": round(1000 * float(np.median(times)), 3),
            "ratio": float(np.median(base / np.array(times))),
            "least": float(np.min(base / np.array(times))),
            "greatest": float(np.max(base / np.array(times))),
        }
        for (name, checked), times in taken.items()
    ]


def _by_floats(documents: MultiVectors) -> Rank:
    """Rank candidates by floats without leaving any out."""
    options = RerankOptions(K, early_exit=False)

    def rank(query: NDArray[np.float32], positions: NDArray[np.int64]) -> object:
        return rank_candidates(
            query, None, positions, lambda at, _: [(documents, at, np.arange(len(at)))], options, 1
        )

    return rank


def _by_codes(coded: CodedVectors) -> Rank:
    def rank(query: NDArray[np.float32], positions: NDArray[np.int64]) -> object:
        places = np.arange(len(positions))
        scores = score_coded(query, coded.codec, [(coded, positions, places)], len(positions), threads=1)
        return best_first(scores, K)

    return rank


def _checked(coded: CodedVectors, documents: MultiVectors) -> Rank:
    """Rank by codes, and the best of these by float32, until the errors so far rule out the rest."""

    def rank(query: NDArray[np.float32], positions: NDArray[np.int64]) -> object:
        places = np.arange(len(positions))
        scores = score_coded(query, coded.codec, [(coded, positions, places)], len(positions), threads=1)
        order = best_first(scores, CHECKED)
        options = RerankOptions(K, early_exit=False, estimates=scores[order])
        return rank_candidates(
            query, None, positions[order], lambda at, _: [(documents, at, np.arange(len(at)))], options, 1
        )

    return rank
