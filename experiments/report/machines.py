"""Machines and queries per second for large collections, computed from the stored results.

Bytes per document, and the growth of search time with the number of documents, come from the experiment
``scaling``; the time of encoding a query and ranking its candidates comes from ``end_to_end`` and includes the
graph of its small collection.  Beyond the largest measured size, time follows a power of the documents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ..evaluation.statistics import growth_exponent
from .stored_results import load_results
from .table import Column, Table

__all__ = ["Machine", "SearchCost", "machine_table", "query_ms", "search_costs"]

#: Collection, system and searches in the stored tables.
COLLECTION, SYSTEM, SEARCHES = "cosqa-minilm", "muvera learned, candidates=100", ("int8", "hnsw")


@dataclass(frozen=True)
class Machine:
    """A machine, and the total queries per second of all machines."""

    memory_gb: float = 128
    cores: int = 16
    rate: float = 1000
    #: Share of the memory for vectors and links.
    share: float = 0.75


@dataclass(frozen=True)
class SearchCost:
    """Measured cost of a first stage."""

    name: str
    bytes_document: float
    #: Largest measured size, and milliseconds of its median query.
    documents: int
    ms: float
    #: Search time grows with the number of documents to this power.
    exponent: float

    def ms_of(self, documents: float) -> float:
        """Return the milliseconds of a query over this many documents."""
        return self.ms * math.pow(documents / self.documents, self.exponent)


def search_costs() -> list[SearchCost]:
    """Return the stored costs of searches, with the exponent fitted to all their sizes."""
    table = load_results("scaling")["tables"][0]
    columns = [table["header"].index(name) for name in ("documents", "p50, ms", "bytes/document")]
    costs = []
    for name in SEARCHES:
        rows = [[_number(row[c]) for c in columns] for row in table["rows"] if row[0] == name]
        exponent = growth_exponent([row[0] for row in rows], [row[1] for row in rows]) or 0.0
        documents, ms, size = rows[-1]
        costs.append(SearchCost(name, size, int(documents), ms, exponent))
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
            shards = math.ceil(total / (machine.memory_gb * 1e9 * machine.share))
            ms = cost.ms_of(count / shards) + rest
            rate = 1000 * machine.cores / ms
            copies = math.ceil(machine.rate / rate)
            memory = f"{total / 1e12:.1f} TB" if total >= 1e12 else f"{total / 1e9:.0f} GB"
            rows.append([count, cost.name, memory, shards, count / shards, ms, rate, copies, shards * copies])
    whole = "{:,.0f}"
    columns: list[Column | str] = [
        *("documents", "first stage", "memory", "shards", Column("documents per shard", format=whole)),
        *(Column("core ms per query", format="{:,.1f}"), Column("queries/s per copy", format=whole)),
        *("copies", "machines"),
    ]
    return Table("", columns, rows)


def _number(text: str) -> float:
    return float(text.strip().replace(",", ""))
