"""Cost by the size of a collection: its document vectors, followed by synthetic ones.

A synthetic vector is a document's vector plus half the difference of two others, so that lengths and
directions vary as in real ones.  Only the first stage is measured, against an exact search of the same
vectors.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera.encoders.base import Encoder
from muvera.encoders.registry import make_encoder
from muvera.index.candidates import CandidateSearch
from muvera.index.settings import IndexSettings
from muvera.mips import ExactSearch

from ..datasets.collection import Collection
from ..evaluation.metrics import recall
from ..evaluation.statistics import latency, mean_interval
from ..known_names import require_known
from ..systems.library import encoder_config

__all__ = ["RECALL", "ScalingSettings", "scaling_rows", "scaling_settings"]

#: Recall of the best vectors by inner product, not of exact Chamfer's best documents.
RECALL = "10-recall@10 of FDEs"

# Number of vectors generated at a time, and of results for recall.
_BLOCK, _K = 4096, 10


@dataclass(frozen=True)
class ScalingSettings:
    """Ascending numbers of vectors, the encoder's arguments with ``preset``, and the searches.

    A search has ``backend``, ``hnsw`` and ``most``, the largest size to measure.
    """

    sizes: tuple[int, ...]
    build: dict[str, Any] = field(default_factory=dict)
    searches: tuple[dict[str, Any], ...] = ({"backend": "exact"},)
    queries: int = 30


def scaling_settings(content: dict[str, Any]) -> ScalingSettings:
    """Read the settings of a configuration; raise ValueError for unknown keys and sizes that are not ascending."""
    for key in content:
        require_known(key, ScalingSettings.__dataclass_fields__, "key of scaling")
    sizes = tuple(content.get("sizes", ()))
    if not sizes or list(sizes) != sorted(set(sizes)):
        raise ValueError(f"scaling needs sizes, ascending numbers of vectors, got {sizes}.")
    for search in content.get("searches", ()):
        for key in search:
            require_known(key, ("backend", "hnsw", "most"), "key of a search")
    lists = {key: tuple(content[key]) for key in ("searches",) if key in content}
    return ScalingSettings(**{**content, **lists, "sizes": sizes})


def scaling_rows(
    settings: ScalingSettings, part: Collection, experiment: str, seed: int, threads: int
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Grow one search after another and measure each at every size; return rows and failures (backend, message).

    ``build_seconds`` is the time of adding vectors, without encoding; ``build`` has ``n``, ``vector_dimension`` and
    ``resident_bytes``, the growth of the process per document.
    """
    build = dict(settings.build)
    documents, queries = part.documents, part.queries[: settings.queries]
    encoder = make_encoder(encoder_config(build.pop("preset", "fde"), documents.dimension, seed, build))
    if encoder.needs_fit:
        encoder.fit(documents, threads=threads)
    real = encoder.encode_documents(documents, threads=threads)
    vectors = encoder.encode_queries(queries, threads=threads)
    exact = _exact_best(real, vectors, settings.sizes, seed, threads)
    rows, failures = [], []
    for search in settings.searches:
        backend = search.get("backend", "exact")
        sizes = [size for size in settings.sizes if size <= search.get("most", settings.sizes[-1])]
        try:
            for measured in _grow(encoder, search, real, vectors, exact, sizes, seed, threads):
                label = {"system": "scaling", "family": "muvera", "label": backend}
                found = {**settings.build, "backend": backend, **measured.pop("build")}
                label |= {"point": f"{backend}, n={found['n']}"}
                where = {"experiment": experiment, "collection": part.name}
                rows.append({**where, **label, "build": found, "query": {}, "seed": seed, **measured})
        except (ValueError, TypeError, RuntimeError, MemoryError) as error:
            failures.append((backend, f"{type(error).__name__}: {error}"))
    return rows, failures


def _grow(
    encoder: Encoder,
    search: dict[str, Any],
    real: NDArray[np.float32],
    vectors: NDArray[np.float32],
    exact: dict[int, NDArray[np.int64]],
    sizes: list[int],
    seed: int,
    threads: int,
) -> Iterator[dict[str, Any]]:
    """Yield the measurements of a search at each size."""
    changes = {key: value for key, value in search.items() if key != "most"}
    held = CandidateSearch(encoder, IndexSettings.of(**{"backend": "exact", **changes})).search
    gc.collect()
    before, build_seconds = _resident(), 0.0
    for size in sizes:
        for start, block in _blocks(real, len(held), size, seed):
            began = time.perf_counter()
            held.add(np.arange(start, start + len(block)), block, threads)
            build_seconds += time.perf_counter() - began
        began = time.perf_counter()
        held.search(vectors[:1], _K, threads=threads)  # includes work that is delayed until the first search
        build_seconds += time.perf_counter() - began
        seconds, ids = [], []
        for vector in vectors:
            began = time.perf_counter()
            ids.append(held.search(vector[np.newaxis], _K, threads=threads)[0])
            seconds.append(time.perf_counter() - began)
        resident = _resident() - before
        size_bytes = float(held.info()["bytes_per_vector"])
        yield {
            "build": {
                "n": size,
                "vector_dimension": int(real.shape[1]),
                "resident_bytes": resident / size if resident > 0 else None,
            },
            "metrics": {RECALL: mean_interval(recall(np.concatenate(ids), exact[size]))},
            **latency(seconds),
            "build_seconds": round(build_seconds, 4),
            "bytes_per_document": size_bytes,
            "total_bytes_per_document": size_bytes,
        }


def _exact_best(
    real: NDArray[np.float32], vectors: NDArray[np.float32], sizes: tuple[int, ...], seed: int, threads: int
) -> dict[int, NDArray[np.int64]]:
    """Return the exact best for every size, with only one block of vectors in memory."""
    best: dict[int, NDArray[np.int64]] = {}
    ids, scores = np.zeros((len(vectors), 0), np.int64), np.zeros((len(vectors), 0), np.float32)
    done = 0
    for size in sizes:
        for start, block in _blocks(real, done, size, seed):
            search = ExactSearch(real.shape[1])
            search.add(np.arange(start, start + len(block)), block)
            more, values = search.search(vectors, min(_K, len(block)), threads=threads)
            ids, scores = np.concatenate([ids, more], axis=1), np.concatenate([scores, values], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :_K]
            ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
        best[size], done = ids, size
    return best


def _blocks(
    real: NDArray[np.float32], start: int, stop: int, seed: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first row, vectors) of rows `start` to `stop`; the rows do not depend on the division into blocks."""
    while start < stop:
        block, offset = divmod(start, _BLOCK)
        count = min(stop - start, _BLOCK - offset)
        yield start, _block(real, block, seed)[offset : offset + count]
        start += count


def _block(real: NDArray[np.float32], number: int, seed: int) -> NDArray[np.float32]:
    """Return one block: real vectors first, then synthetic ones."""
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    a, b, c = stream.integers(0, len(real), (3, _BLOCK))
    rows: NDArray[np.float32] = real[a] + np.float32(0.5) * (real[b] - real[c])
    own = real[number * _BLOCK : (number + 1) * _BLOCK]
    rows[: len(own)] = own
    return rows


def _resident() -> int:
    """Return the bytes of memory of this process; 0 if the system cannot tell."""
    path = Path("/proc/self/statm")
    return int(path.read_text(encoding="ascii").split()[1]) * 4096 if path.exists() else 0
