"""Cost against the size of a collection: a collection's FDEs, and synthetic ones behind them.

A synthetic FDE is a document's plus half the difference of two others', so that lengths and
directions vary as those of real ones do.  Token vectors are not needed: the first stage alone is
measured, against an exact search of the same FDEs.
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
from ..systems.encoder_settings import encoder_config

__all__ = ["RECALL", "ScalingSettings", "scaling_rows", "scaling_settings"]

#: The share of the exact best FDEs, not of exact Chamfer's best documents.
RECALL = "10-recall@10 of FDEs"

# FDEs made at a time, and results whose recall is taken.
_BLOCK, _K = 4096, 10


@dataclass(frozen=True)
class ScalingSettings:
    """What grows.

    Parameters
    ----------
    sizes : tuple of int
        Numbers of FDEs, rising.
    build : dict
        FDE arguments and ``preset``.
    searches : tuple of dict
        ``backend``, ``hnsw``, ``pq`` and ``most``, the largest size that is worth its time.
    queries : int
        How many are timed.
    """

    sizes: tuple[int, ...]
    build: dict[str, Any] = field(default_factory=dict)
    searches: tuple[dict[str, Any], ...] = ({"backend": "exact"},)
    queries: int = 30


def scaling_settings(content: dict[str, Any]) -> ScalingSettings:
    """Read the settings of a configuration.

    Raises
    ------
    ValueError
        For an unknown key, with the nearest name, and for sizes that do not rise.
    """
    for key in content:
        require_known(key, ScalingSettings.__dataclass_fields__, "key of scaling")
    sizes = tuple(content.get("sizes", ()))
    if not sizes or list(sizes) != sorted(set(sizes)):
        raise ValueError(f"scaling needs sizes, rising numbers of FDEs, got {sizes}.")
    for search in content.get("searches", ()):
        for key in search:
            require_known(key, ("backend", "hnsw", "pq", "most"), "key of a search")
    return ScalingSettings(
        sizes,
        dict(content.get("build", {})),
        tuple(content.get("searches", ({"backend": "exact"},))),
        int(content.get("queries", 30)),
    )


def scaling_rows(
    settings: ScalingSettings, part: Collection, experiment: str, seed: int, threads: int
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Grow one search after the other and measure it at every size.

    Parameters
    ----------
    settings : ScalingSettings
    part : Collection
    experiment : str
        Its name.
    seed, threads : int

    Returns
    -------
    rows : list of dict
        As ``summary.json`` has them: ``build_seconds`` is the time of adding FDEs, without making them;
        ``build`` holds ``n``, ``vector_dimension`` and ``resident_bytes``, by which the process grew for
        each document.  The recall is that of the ten best of an exact search of the same FDEs.
    failures : list of (backend, message)
    """
    rows, failures = [], []
    for found in _measure(settings, part, seed, threads):
        if "error" in found:
            failures.append((found["backend"], found["error"]))
            continue
        rows.append(
            {
                "experiment": experiment,
                "collection": part.name,
                "system": "scaling",
                "family": "muvera",
                "label": found["backend"],
                "point": f"{found['backend']}, n={found['n']}",
                "build": {
                    **settings.build,
                    "backend": found["backend"],
                    "n": found["n"],
                    "vector_dimension": found["dimension"],
                    "resident_bytes": found["resident"],
                },
                "query": {},
                "seed": seed,
                "metrics": {RECALL: mean_interval(found["recall"])},
                **latency(found["seconds"]),
                "build_seconds": round(found["build_seconds"], 4),
                "bytes_per_document": found["bytes"],
                "total_bytes_per_document": found["bytes"],
            }
        )
    return rows, failures


def _measure(
    settings: ScalingSettings, part: Collection, seed: int, threads: int
) -> Iterator[dict[str, Any]]:
    """Yield what was found at each size of each search, or its error."""
    build = dict(settings.build)
    documents, queries = part.documents, part.queries[: settings.queries]
    encoder = make_encoder(encoder_config(build.pop("preset", "default"), documents.dimension, seed, build))
    if encoder.needs_fit:
        encoder.fit(documents, threads=threads)
    real = encoder.encode_documents(documents, threads=threads)
    asked = encoder.encode_queries(queries, threads=threads)
    truth = _exact_best(real, asked, settings.sizes, seed, threads)
    for search in settings.searches:
        sizes = [size for size in settings.sizes if size <= search.get("most", settings.sizes[-1])]
        try:
            yield from _grow(encoder, search, real, asked, truth, sizes, seed, threads)
        except (ValueError, TypeError, RuntimeError, MemoryError) as error:
            yield {"backend": search.get("backend", "exact"), "error": f"{type(error).__name__}: {error}"}


def _grow(
    encoder: Encoder,
    search: dict[str, Any],
    real: NDArray[np.float32],
    asked: NDArray[np.float32],
    truth: dict[int, NDArray[np.int64]],
    sizes: list[int],
    seed: int,
    threads: int,
) -> Iterator[dict[str, Any]]:
    backend = search.get("backend", "exact")
    settings = {"backend": backend, "hnsw": search.get("hnsw"), "pq": search.get("pq")}
    held = CandidateSearch(encoder, IndexSettings.from_dict(settings)).search
    gc.collect()
    before, built = _resident(), 0.0
    for size in sizes:
        for start, fdes in _blocks(real, len(held), size, seed):
            began = time.perf_counter()
            held.add(np.arange(start, start + len(fdes)), fdes, threads)
            built += time.perf_counter() - began
        began = time.perf_counter()
        held.train(threads)
        held.search(asked[:1], _K, threads=threads)  # what is put off to the first search belongs to it
        built += time.perf_counter() - began
        seconds, found = [], []
        for query in asked:
            began = time.perf_counter()
            found.append(held.search(query[np.newaxis], _K, threads=threads)[0])
            seconds.append(time.perf_counter() - began)
        resident = _resident() - before
        yield {
            "backend": search.get("backend", "exact"),
            "n": size,
            "dimension": int(real.shape[1]),
            "build_seconds": built,
            "bytes": float(held.info()["bytes_per_vector"]),
            "resident": resident / size if resident > 0 else None,
            "seconds": seconds,
            "recall": recall(np.concatenate(found), truth[size]),
        }


def _exact_best(
    real: NDArray[np.float32], asked: NDArray[np.float32], sizes: tuple[int, ...], seed: int, threads: int
) -> dict[int, NDArray[np.int64]]:
    """Return the exact best for every size, without holding more than a block of FDEs."""
    found: dict[int, NDArray[np.int64]] = {}
    ids = np.zeros((len(asked), 0), np.int64)
    scores = np.zeros((len(asked), 0), np.float32)
    done = 0
    for size in sizes:
        for start, fdes in _blocks(real, done, size, seed):
            block = ExactSearch(real.shape[1])
            block.add(np.arange(start, start + len(fdes)), fdes)
            here, values = block.search(asked, min(_K, len(fdes)), threads=threads)
            ids, scores = np.concatenate([ids, here], axis=1), np.concatenate([scores, values], axis=1)
            order = np.argsort(-scores, axis=1, kind="stable")[:, :_K]
            ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
        found[size], done = ids, size
    return found


def _blocks(
    real: NDArray[np.float32], start: int, stop: int, seed: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield (first row, FDEs) of rows `start` to `stop`; the same rows however they are cut."""
    while start < stop:
        block, offset = divmod(start, _BLOCK)
        count = min(stop - start, _BLOCK - offset)
        yield start, _rows(real, block, seed)[offset : offset + count]
        start += count


def _rows(real: NDArray[np.float32], block: int, seed: int) -> NDArray[np.float32]:
    """Return one block: real FDEs as far as they go, synthetic ones behind them."""
    first = block * _BLOCK
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(block,)))
    a, b, c = stream.integers(0, len(real), (3, _BLOCK))
    rows: NDArray[np.float32] = real[a] + np.float32(0.5) * (real[b] - real[c])
    known = real[first : first + _BLOCK]
    rows[: len(known)] = known
    return rows


def _resident() -> int:
    """Return the bytes of memory that this process holds; 0 where the system does not tell."""
    path = Path("/proc/self/statm")
    return int(path.read_text(encoding="ascii").split()[1]) * 4096 if path.exists() else 0
