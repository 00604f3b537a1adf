"""Machines and queries per second for large collections, computed from the stored results.

Bytes per vector, and the growth of search time with the number of vectors, come from the study ``first_stage``;
the time of encoding a query and ranking its candidates comes from ``end_to_end`` and includes the first stage of
its small collection.  Beyond the largest measured size, time follows a power of the documents.  The shard that
finds a candidate also has its tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from muvera.mips.exact import byte_depth

from ..evaluation.statistics import growth_exponent
from .stored_results import load_results
from .table import Column, Table

__all__ = ["Machine", "SearchCost", "machine_table", "query_ms", "search_costs"]

#: Collection and system in the stored table.
COLLECTION, SYSTEM = "cosqa-minilm", "muvera learned, candidates=100"

#: Searches and number of candidates in the study; a graph's ef is the number of candidates.
SEARCHES, CANDIDATES = ("scan", "hnsw, ef=200"), 200

#: Tokens of a document, their dimension, and bits per number of their codes.
TOKENS, DIMENSION, BITS = 100, 128, (1, 2, 4)

#: Floats of a vector.
FLOATS = 256

# Bytes of a token's factor and centroid.
_OVERHEAD = 3


@dataclass(frozen=True)
class Machine:
    """A machine, and the total queries per second of all machines."""

    memory_gb: float = 128
    cores: int = 16
    rate: float = 1000
    #: Share of the memory for vectors and links.
    share: float = 0.75
    #: Greatest milliseconds of a first stage on one core, which limits the documents of a shard.
    most_ms: float = 100


@dataclass(frozen=True)
class SearchCost:
    """Measured cost of a first stage."""

    name: str
    #: Bytes in memory, and bytes that are mapped from disk.
    bytes_document: float
    mapped_bytes: float
    #: Largest measured size, and milliseconds of its median query.
    documents: int
    ms: float
    #: Search time grows with the number of documents to this power.
    exponent: float

    def ms_of(self, documents: float) -> float:
        """Return the milliseconds of a query over this many documents."""
        return self.ms * math.pow(documents / self.documents, self.exponent)

    def most_of(self, ms: float) -> float:
        """Return the number of documents that take this time."""
        return self.documents * math.pow(ms / self.ms, 1 / self.exponent)


def search_costs() -> list[SearchCost]:
    """Return the stored costs of searches, with the exponent fitted to all their sizes."""
    stored = [row for row in load_results("first_stage")["rows"] if row["candidates"] == CANDIDATES]
    costs = []
    for name in SEARCHES:
        rows = [row for row in stored if row["search"] == name]
        exponent = growth_exponent([row["documents"] for row in rows], [row["ms"] for row in rows]) or 0.0
        last = rows[-1]
        mapped = byte_depth(FLOATS) if name == "scan" else 0
        costs.append(
            SearchCost(name, last["bytes"] - mapped, mapped, last["documents"], last["ms"], exponent)
        )
    return costs


def query_ms() -> float:
    """Return the stored milliseconds of a whole query: encoding, a small graph, ranking."""
    tables = load_results("end_to_end")["tables"]
    table = next(table for table in tables if "queries per second" in table["title"])
    row = next(row for row in table["rows"] if row[0] == SYSTEM)
    cell: str = row[table["header"].index(COLLECTION)]
    return _number(cell.partition("(")[2].partition("/")[0])


def machine_table(documents: Iterable[int], machine: Machine) -> Table:
    """Return a row for each size and each first stage."""
    rest, rows = query_ms(), []
    for count in documents:
        for cost in search_costs():
            total = count * cost.bytes_document
            each = min(
                machine.memory_gb * 1e9 * machine.share / cost.bytes_document, cost.most_of(machine.most_ms)
            )
            shards = math.ceil(count / each)
            ms = cost.ms_of(count / shards) + rest
            rate = 1000 * machine.cores / ms
            copies = math.ceil(machine.rate / rate)
            disks = [
                _size(count / shards * (cost.mapped_bytes + TOKENS * (DIMENSION * bits / 8 + _OVERHEAD)))
                for bits in BITS
            ]
            first = [count, cost.name, _size(total), shards, count / shards, " / ".join(disks)]
            rows.append([*first, ms, rate, copies, shards * copies])
    whole = "{:,.0f}"
    columns: list[Column | str] = [
        *("documents", "first stage", "memory", "shards", Column("documents per shard", format=whole)),
        f"disk per shard, tokens of {' / '.join(map(str, BITS))} bits",
        *(Column("core ms per query", format="{:,.1f}"), Column("queries/s per copy", format=whole)),
        *("copies", "machines"),
    ]
    return Table("", columns, rows)


def _size(count: float) -> str:
    return f"{count / 1e12:.1f} TB" if count >= 1e12 else f"{count / 1e9:.0f} GB"


def _number(text: str) -> float:
    return float(text.strip().replace(",", ""))
