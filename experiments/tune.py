"""What tuning finds beside every preset at its own size, with queries that had no say.

Half of the queries tune, on a sample of the documents; the other half asks all documents.
10-recall@50 is the share of exact Chamfer's top ten among the first 50.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, tune
from muvera.encoders.base import Encoder, EncoderConfig
from muvera.encoders.registry import PRESETS, config_from_dict, make_encoder
from muvera.mips import PQSearch
from muvera.tuning.search_space import STORAGES, Storage

from .datasets.collections import Collection
from .report.stored_results import markdown_table, text_table

__all__ = ["DEPTH", "SAMPLE", "markdown", "measure", "table"]

#: Candidates, and the documents to tune on: `muvera tune`'s default.
DEPTH, SAMPLE = 50, 1500

_TOP, _DRAWS = 10, 2000


def measure(
    collection: Collection, top: NDArray[np.int64], sample: int, seed: int, threads: int | None = None
) -> dict[str, Any]:
    """Tune with half of the queries, and compare with every preset by the other half.

    Parameters
    ----------
    collection : Collection
    top : int64 (n_queries, 10)
        Exact.
    sample : int
        Documents to tune on.
    seed : int
        Of the halves and of the tuning.
    threads : int, optional

    Returns
    -------
    dict
        ``presets``: one entry a preset, its recall and that of what tuning finds in its bytes,
        also where windows of documents choose instead of queries.
    """
    order = np.random.default_rng(seed).permutation(len(collection.queries))
    half = len(order) // 2
    known, held = np.sort(order[:half]), np.sort(order[half:])
    tuning = tune(
        collection.documents,
        collection.queries[known],
        candidates=DEPTH,
        sample=sample,
        seed=seed,
        threads=threads,
    )
    test = _Test(collection.documents, collection.queries[held], top[held], threads)
    rows = []
    for name, changes in PRESETS.items():
        config = config_from_dict({"dimension": collection.documents.dimension, **changes})
        size = STORAGES[0].bytes_per_vector(config.vector_dimension)
        preset = test.recall(config, STORAGES[0])
        tuned = tuning.within(max_bytes=size)
        found = test.recall(tuned.config, tuned.storage)
        windows = tuning.within(max_bytes=size, by_pseudo_queries=True)
        by_windows = test.recall(windows.config, windows.storage)
        low, high = _interval(found - preset, seed)
        rows.append(
            {
                "preset": name,
                "floats": config.vector_dimension,
                "bytes": size,
                "recall": _rounded(preset.mean()),
                "tuned": f"{tuned.name}, {tuned.storage.name}",
                "tuned_bytes": tuned.bytes,
                "tuned_recall": _rounded(found.mean()),
                "low": _rounded(low),
                "high": _rounded(high),
                "windows": f"{windows.name}, {windows.storage.name}",
                "windows_recall": _rounded(by_windows.mean()),
            }
        )
    return {
        "documents": len(collection.documents),
        "sample": tuning.sampled_documents,
        "queries": len(known),
        "held_out": len(held),
        "presets": rows,
    }


class _Test:
    """Recall a query over all documents; an encoder learns from them as an index would let it."""

    def __init__(
        self, documents: MultiVectors, queries: MultiVectors, top: NDArray[np.int64], threads: int | None
    ) -> None:
        self._documents, self._queries, self._top, self._threads = documents, queries, top, threads
        self._found: dict[tuple[EncoderConfig, str], NDArray[np.float64]] = {}
        self._encoders: dict[EncoderConfig, Encoder] = {}  # fitting takes longest

    def recall(self, config: EncoderConfig, storage: Storage) -> NDArray[np.float64]:
        """Return the recall of each query."""
        if (config, storage.name) not in self._found:
            self._found[config, storage.name] = self._measured(config, storage)
        return self._found[config, storage.name]

    def _measured(self, config: EncoderConfig, storage: Storage) -> NDArray[np.float64]:
        if config not in self._encoders:
            self._encoders[config] = make_encoder(config).fit(self._documents, threads=self._threads)
        encoder = self._encoders[config]
        search = storage.make_search(config.vector_dimension)
        vectors = encoder.encode_documents(self._documents, threads=self._threads)
        search.add(np.arange(len(vectors)), vectors, self._threads)
        if isinstance(search, PQSearch):
            search.learn(self._threads)
        asked = encoder.encode_queries(self._queries, threads=self._threads)
        labels, _ = search.search(asked, DEPTH, threads=self._threads)
        hits = (self._top[:, :_TOP, np.newaxis] == labels[:, np.newaxis, :]).any(axis=2)
        recall: NDArray[np.float64] = hits.mean(axis=1)
        return recall


def _interval(differences: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Return 95 per cent of the means of differences drawn anew."""
    draws = np.random.default_rng(seed).integers(0, len(differences), (_DRAWS, len(differences)))
    low, high = np.percentile(differences[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _rounded(value: float) -> float:
    return round(float(value), 5)


def table(results: dict[str, Any]) -> str:
    """Return the table for the terminal."""
    return f"{text_table(*_table(results))}\n\n{_windows(results)}"


def markdown(results: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    return f"{_caption(results)}\n\n{markdown_table(*_table(results))}\n\n{_windows(results)}"


def _caption(results: dict[str, Any]) -> str:
    return (
        f"10-recall@{DEPTH} of all documents, asked by the half of the queries that had no say. Tuned: what "
        "the other half chose on a sample, of what takes no more bytes a document than the preset's floats. "
        "The difference is paired, its interval of 95 per cent by bootstrap."
    )


def _table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = ["", "preset", "bytes", "recall", "tuned", "bytes", "recall", "difference"]
    rows = []
    for name, one in results["collections"].items():
        for i, row in enumerate(one["presets"]):
            difference = row["tuned_recall"] - row["recall"]
            label = f"{name.removeprefix('plaid-')}, {one['documents']:,}, {one['held_out']} asked"
            rows.append(
                [
                    label if i == 0 else "",
                    f"{row['preset']}, {row['floats']:,}",
                    f"{row['bytes']:,}",
                    f"{row['recall']:.3f}",
                    row["tuned"],
                    f"{row['tuned_bytes']:,}",
                    f"{row['tuned_recall']:.3f}",
                    f"{difference:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})",
                ]
            )
    return header, rows


def _windows(results: dict[str, Any]) -> str:
    """Return in words what windows of documents cost in place of queries."""
    rows = [row for one in results["collections"].values() for row in one["presets"]]
    losses = [row["tuned_recall"] - row["windows_recall"] for row in rows]
    ahead = sum(row["tuned_recall"] > row["recall"] for row in rows)
    behind = sum(row["tuned_recall"] < row["recall"] for row in rows)
    return (
        f"Tuned finds more than the preset in {ahead} of {len(rows)} rows, less in {behind}. Where windows "
        "of documents chose instead of queries, of the same measured configurations, the choice found "
        f"{np.mean(losses):.4f} less on average, at worst {max(losses):.4f}."
    )
