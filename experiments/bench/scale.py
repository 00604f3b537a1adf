"""Shards on Ray: time to build, queries per second, and bytes over the network.

A cluster of two nodes runs on this machine.  The client is on the first node and has no
cores; all actors are on the second one.  So what they exchange goes over the loopback
device, whose bytes Linux counts.
"""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated, Any

import numpy as np
import typer

from muvera import FDEEncoder, MultiVectors, MuveraIndex
from muvera.distributed import RayIndex, build_shards
from muvera.utils.checks import import_extra

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..report.table import Column, Table
from .grown_documents import GrownDocuments
from .plumbing import (
    Cache,
    Data,
    Save,
    exact_best,
    finish,
    load_collections,
    mean_recall,
    measured_on,
    progress,
)

K = 10

# Queries that are timed one after another, and seconds of concurrent queries.
_TIMED, _SECONDS = 200, 8.0

# Queries whose answers are compared with those of one index.
_COMPARED = 20

# Clients that send queries at the same time.
_CLIENTS = 4

# Seconds in which the loopback device is watched without queries.
_IDLE = 2.0

# Bytes of each node's object store, which queries and answers hardly use.
_STORE = 100_000_000

_LOOPBACK = Path("/sys/class/net/lo/statistics/tx_bytes")


def measure(collection: Collection, documents: int, shards: list[int], folder: Path) -> list[dict[str, Any]]:
    """Return a row for one index in this process, and one for each number of shards.

    Parameters
    ----------
    collection : Collection
    documents : int
        Real documents come first, then generated ones.
    shards : list of int
    folder : Path
        For the Parquet files and the shards.
    """
    pa, pq = (import_extra(name, "ray", "This bench") for name in ("pyarrow", "pyarrow.parquet"))
    batches = list(GrownDocuments(collection.documents).batches(documents))
    whole = MultiVectors.concatenate(batches)
    encoder = FDEEncoder.preset("fde", whole.dimension).fit(collection.documents)
    queries = MultiVectors.from_arrays([np.asarray(q, np.float32) for q in collection.queries if len(q)])
    best = [set(row.tolist()) for row in exact_best(queries[:_TIMED], whole, K)]
    (folder / "parquet").mkdir()
    for number, batch in enumerate(batches):
        table = pa.table({"id": batch.ids, "tokens": batch.to_arrow()})
        pq.write_table(table, folder / "parquet" / f"part-{number}.parquet")
    start = time.perf_counter()
    index = MuveraIndex.build(iter(batches), encoder, exact_tokens=0, path=folder / "one", threads=1)
    built = time.perf_counter() - start
    one = MuveraIndex.load(folder / "one")
    rows = [{"search": "one index, one thread, without Ray", "build": built}]
    rows[0] |= _searched(lambda query: one.search(query, K, threads=1), queries, best)
    progress(f"{rows[0]}")
    expected = index.search(queries[:_COMPARED], K, candidates=documents, threads=1)
    for count in shards:
        start = time.perf_counter()
        target = folder / f"shards-{count}"
        build_shards(folder / "parquet", encoder, target, shards=count, cores=1, exact_tokens=0)
        row: dict[str, Any] = {"search": f"Ray, {count} shards" if count > 1 else "Ray, 1 shard"}
        row["build"] = time.perf_counter() - start
        with RayIndex.open(target) as opened:
            row |= _searched(lambda query, index=opened: index.search(query, K).rankings, queries, best)
            all_ranked = opened.search(queries[:_COMPARED], K, candidates=documents).rankings
        row["equal"] = np.mean(
            [
                own.ids.tolist() == other.ids.tolist() and own.scores.tolist() == other.scores.tolist()
                for own, other in zip(all_ranked, expected, strict=True)
            ]
        )
        progress(f"{row}")
        rows.append(row)
    return rows


def _searched(search: Any, queries: MultiVectors, best: list[set[int]]) -> dict[str, float]:
    """Return recall, milliseconds, queries per second and bytes of a search."""
    single = [queries[i : i + 1] for i in range(len(queries))]
    for query in single[:_CLIENTS]:  # compiles
        search(query)
    rankings, times = [], []
    sent = _sent()
    begun = time.perf_counter()
    for query in single[:_TIMED]:
        start = time.perf_counter()
        rankings += search(query)
        times.append(time.perf_counter() - start)
    took, sent = time.perf_counter() - begun, _sent() - sent
    before = _sent()
    time.sleep(_IDLE)
    idle = (_sent() - before) / _IDLE * took
    end = time.perf_counter() + _SECONDS

    def client(number: int) -> int:
        count = 0
        while time.perf_counter() < end:
            search(single[(number + _CLIENTS * count) % len(single)])
            count += 1
        return count

    with ThreadPoolExecutor(_CLIENTS) as pool:
        done = sum(pool.map(client, range(_CLIENTS)))
    return {
        "recall": mean_recall(rankings, best),
        "p50": 1000 * float(np.percentile(times, 50)),
        "p95": 1000 * float(np.percentile(times, 95)),
        "rate": done / _SECONDS,
        "bytes": max(0.0, sent - idle) / len(times),
        "payload": float(np.mean([query.tokens.nbytes for query in single[:_TIMED]])),
    }


def _sent() -> int:
    """Return the bytes that the loopback device has sent; 0 on other systems."""
    return int(_LOOPBACK.read_text(encoding="ascii")) if _LOOPBACK.exists() else 0


def scale_table(rows: list[dict[str, Any]], caption: str) -> Table:
    """Return a row for each search."""
    columns: list[Column | str] = [
        "search",
        Column("build, s", format="{:,.1f}"),
        Column("10-recall@10", format="{:.3f}"),
        Column("one client: p50, ms", format="{:.2f}"),
        Column("p95, ms", format="{:.2f}"),
        Column(f"{_CLIENTS} clients: queries/s", format="{:,.0f}"),
        "KB over the network per query",
        "equal to one index",
    ]
    cells = [
        [
            *(row[key] for key in ("search", "build", "recall", "p50", "p95", "rate")),
            f"{row['bytes'] / 1e3:,.0f}" if "equal" in row else "",
            f"{row['equal']:.0%}" if "equal" in row else "",
        ]
        for row in rows
    ]
    return Table("Shards on Ray", columns, cells, caption)


def scale(
    collection: Annotated[str, typer.Option(help="Collection of real documents and queries.")] = (
        "lareqa-en-minilm"
    ),
    size: Annotated[int, typer.Option(min=256, help="Documents; others are generated.")] = 10_000,
    shards: Annotated[
        list[int] | None, typer.Option(min=1, help="Number of shards; may be repeated. Default: 1, 2, 4.")
    ] = None,
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Build and search shards on a Ray cluster of two nodes on this machine.

    Needs the extra "ray".
    """
    ray = import_extra("ray", "ray", "This bench")
    cluster_utils = import_extra("ray.cluster_utils", "ray", "This bench")
    (loaded,) = load_collections([collection], data, cache)
    counts = shards or [1, 2, 4]
    on = measured_on()
    folder = Path(mkdtemp(prefix="muvera-scale-"))
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": _STORE}
    )
    try:
        cluster.add_node(num_cpus=max(counts), object_store_memory=_STORE)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        rows = measure(loaded, size, counts, folder)
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder)
    tokens = rows[0]["payload"] / 1e3
    real = min(size, len(loaded.documents))
    caption = (
        f"{size:,} documents, of which {real:,} are the real ones of {collection} and the others are "
        f"generated; preset 'fde', 100 candidates in each shard. {_TIMED} queries of {tokens:,.0f} KB (mean) "
        f"are timed one after another. Then {_CLIENTS} clients send queries for {_SECONDS:.0f} seconds. A "
        "cluster of two nodes on this machine: the client is on the first node, and all actors, of one core "
        "each, on the second one. More shards add no cores here, as this machine has 2; on more machines, "
        "they do. Bytes are counted on the loopback device, without those of an idle cluster. 'Equal' is the share "
        f"of {_COMPARED} queries with the ids and scores of one index if each shard ranks all documents. Build times "
        f"include reading Parquet and starting processes. {on}"
    )
    finish("scale", "Shards on Ray", [scale_table(rows, caption)], save)
