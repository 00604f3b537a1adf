"""Token codecs: recall and bytes.

:mod:`experiments.bench.searches` measures their time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from muvera import MultiVectors
from muvera.reranking.codecs import CODECS, NUM_CENTROIDS, fit_plaid_codec
from muvera.reranking.coded_vectors import CodedVectors

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..evaluation.metrics import recall
from ..report.table import Column, Table
from .plumbing import Cache, Data, Save, exact_best, finish, float_documents, load_collections, measured_on

# Depths of recall, number of results that exact tokens rescore, and of tokens to fit
# codecs on.
_K, _DEEPER, _RESCORED, _FITTED = 10, 20, 30, 50_000

#: ColBERT's codec for comparison: functions that fit it on tokens, by name.
PLAID: dict[str, Callable[..., Any]] = {
    f"plaid {bits}bit{', means' if means else ''}": partial(
        fit_plaid_codec, nbits=bits, num_centroids=NUM_CENTROIDS, bucket_means=means
    )
    for bits in (4, 2, 1)
    for means in (False, True)
}


def measure(collections: Iterable[Collection], queries: int = 150) -> Table:
    """Return a row for each collection and codec."""
    on, rows = measured_on(), list[dict[str, Any]]()
    for collection in collections:
        asked, documents = collection.queries[:queries], float_documents(collection)
        exact = exact_best(asked, documents, _K)
        for name in (*CODECS, *PLAID):
            rows.append({"name": f"{collection.name}, {name}", **_quality(name, documents, asked, exact)})
    columns = [
        *(Column("collection, codec", "name"), Column("bytes per token", "bytes")),
        *(Column("10-recall@10", "recall_10", "{:.3f}"), Column("@20", "recall_20", "{:.3f}")),
        Column("@10 after rescoring 30", "rescored_30", "{:.3f}"),
        *(Column("squared error", "error", "{:.4f}"), Column("fit", "fit_seconds", "{:,.1f}", "s")),
        Column("encode", "encode_microseconds", "{:,.1f}", "us per token"),
    ]
    caption = f"Times are processor time of one thread. {on}"
    return Table.of("Recall of codecs over all documents", columns, rows, caption)


def _quality(
    name: str, documents: MultiVectors, queries: MultiVectors, exact: NDArray[np.int64]
) -> dict[str, Any]:
    tokens = np.asarray(documents.tokens, np.float32)
    sample = tokens[np.sort(np.random.default_rng(0).permutation(len(tokens))[:_FITTED])]
    began = time.process_time()
    codec = PLAID[name](sample, threads=1) if name in PLAID else CODECS[name](sample, threads=1)
    fitted = time.process_time()
    coded = CodedVectors.of(codec, documents, threads=1)
    encoded = time.process_time()
    decoded = coded.decoded(1)
    best = exact_best(queries, decoded, _RESCORED)
    return {
        "bytes": codec.bytes_per_token,
        "fit_seconds": fitted - began,
        "encode_microseconds": 1e6 * (encoded - fitted) / max(1, len(tokens)),
        "error": float(np.mean((tokens - decoded.tokens) ** 2) / np.mean(tokens**2)),
        "recall_10": float(recall(best[:, :_K], exact).mean()),
        "recall_20": float(recall(best[:, :_DEEPER], exact).mean()),
        # Exact tokens rerank these, so this is the recall@10 afterwards.
        "rescored_30": float(recall(best, exact).mean()),
    }


def tokens(
    data: Data = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="May be repeated. Default: lareqa-en-e5 and cranfield-minilm.")
    ] = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Measure the recall and the bytes of token codecs.

    `searches` measures their time.
    """
    collections = load_collections(collection or ["lareqa-en-e5", "cranfield-minilm"], data, cache)
    with threadpool_limits(1):
        finish("tokens", "Token codecs", [measure(collections)], save)
