"""Machines and queries a second for collections too large to measure here, by arithmetic from stored results.

Bytes a document and the growth of a search's time with the documents are those of the experiment ``scaling``;
encoding a query and ranking its candidates are those of ``end_to_end``, with the graph of its own small
collection in them.  Times beyond the largest measured size follow a power of the number of documents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .stored_results import load_results

__all__ = ["HEADER", "Machine", "SearchCost", "machine_rows", "query_ms", "search_costs"]

#: Collection, system and searches of the stored tables that are read.
COLLECTION, SYSTEM, SEARCHES = "cosqa-minilm", "muvera learned, candidates=100", ("int8", "hnsw")

HEADER = [
    "documents", "first stage", "in memory", "shards", "documents a shard", "ms of a core a query",
    "queries/s of one set of shards", "sets", "machines",
]  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """What a machine has, and how many queries a second all of them shall answer."""

    memory_gb: float = 128
    cores: int = 16
    rate: float = 1000
    #: Part of the memory that vectors and links may take.
    share: float = 0.75


@dataclass(frozen=True)
class SearchCost:
    """What a first stage costs, as it was measured."""

    name: str
    bytes_document: float
    #: Largest measured size and milliseconds of its median query.
    documents: int
    ms: float
    #: Of the documents, in the time of a query.
    exponent: float

    def ms_of(self, documents: float) -> float:
        """Return the milliseconds of a query among this many documents."""
        return self.ms * math.pow(documents / self.documents, self.exponent)


def search_costs() -> list[SearchCost]:
    """Return the stored costs of searches; the exponent is fitted to all their sizes."""
    table = load_results("scaling")["tables"][0]
    column = {name: number for number, name in enumerate(table["header"])}
    found = []
    for name in SEARCHES:
        rows = [row for row in table["rows"] if row[column["search"]] == name]
        sizes = np.array([_number(row[column["documents"]]) for row in rows])
        ms = np.array([_number(row[column["p50, ms"]]) for row in rows])
        exponent = float(np.polyfit(np.log(sizes), np.log(ms), 1)[0])
        size = _number(rows[-1][column["bytes/document"]])
        found.append(SearchCost(name, size, int(sizes[-1]), float(ms[-1]), exponent))
    return found


def query_ms() -> float:
    """Return the stored milliseconds of a whole query: encoding, a small graph, ranking."""
    table: dict[str, Any] = next(
        one for one in load_results("end_to_end")["tables"] if "queries per second" in one["title"]
    )
    row = next(row for row in table["rows"] if row[0] == SYSTEM)
    cell: str = row[table["header"].index(COLLECTION)]
    return _number(cell.partition("(")[2].partition("/")[0])


def machine_rows(documents: Iterable[int], machine: Machine) -> list[list[str]]:
    """Return a row of :data:`HEADER` for each size and each first stage."""
    rest, rows = query_ms(), []
    for count in documents:
        for cost in search_costs():
            total = count * cost.bytes_document
            shards = math.ceil(total / (machine.memory_gb * 1e9 * machine.share))
            ms = cost.ms_of(count / shards) + rest
            rate = 1000 * machine.cores / ms
            sets = math.ceil(machine.rate / rate)
            row = [f"{count:,}", cost.name, _bytes(total), f"{shards:,}", f"{count / shards:,.0f}"]
            rows.append([*row, f"{ms:,.1f}", f"{rate:,.0f}", f"{sets:,}", f"{shards * sets:,}"])
    return rows


def _number(text: str) -> float:
    return float(text.strip().replace(",", ""))


def _bytes(count: float) -> str:
    return f"{count / 1e12:.1f} TB" if count >= 1e12 else f"{count / 1e9:.0f} GB"
