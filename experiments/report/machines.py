"""Machines and queries per second for large collections.

The numbers are computed from the stored results.

Bytes per vector and the time of a scan come from the study ``first_stage``.  The time
of encoding a query and ranking its candidates comes from ``end_to_end`` and includes
the first stage of its small collection.  A scan reads every code, so beyond the largest
measured size its time is proportional to the number of vectors.  The shard that finds a
candidate also stores its tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from muvera.mips.exact import byte_depth

from .stored_results import load_results
from .table import Column, Table

#: Collection and system in the stored table.
COLLECTION, SYSTEM = "cosqa-minilm", "muvera, candidates=100"

#: Number of candidates in the study.
CANDIDATES = 200

#: Tokens of a document, their dimension, and bits per number of their codes.
TOKENS, DIMENSION, BITS = 100, 128, (1, 2, 4)

#: Floats of a vector.
FLOATS = 512

# Bytes of a token's factor and centroid.
_OVERHEAD = 3

#: A node of a graph on disk has one page: its vector, and the links with their codes.
PAGE = 4096

#: Links of a node, as many as a page has room for beside a vector of one byte a float.
LINKS = 64

#: Nodes that a query visits in each shard, and documents that it ranks there.
VISITED, RANKED = (300, 1000, 3000), 100

#: Nodes that are read at the same time.
BEAM = 8


@dataclass(frozen=True)
class Machine:
    """A machine, and the total queries per second of all machines."""

    memory_gb: float = 128
    cores: int = 16
    rate: float = 1000
    #: Share of the memory for codes.
    share: float = 0.75
    #: Maximum milliseconds of a first stage on one core, which limits the documents of
    #: a shard.
    most_ms: float = 100


@dataclass(frozen=True)
class Disks:
    """The disks of a machine: figures of two data-center NVMe drives, not measured."""

    terabytes: float = 15.36
    #: Random reads of a page, per second.
    reads: float = 1_000_000
    #: Milliseconds of one read.
    ms: float = 0.1


class ScanCost(NamedTuple):
    """Measured cost of a scan.

    Bytes in memory and mapped from disk, and milliseconds of a query.
    """

    memory: float
    mapped: float
    documents: float
    ms: float


def scan_cost() -> ScanCost:
    """Return the stored cost of the largest scan."""
    table = next(
        table for table in load_results("first_stage")["tables"] if f": {CANDIDATES} " in table["title"]
    )
    scans = [dict(zip(table["header"], row, strict=True)) for row in table["rows"] if row[1] == "scan"]
    documents, largest = max((_number(row["vectors"].split()[0]), k) for k, row in enumerate(scans))
    row, mapped = scans[largest], byte_depth(FLOATS)
    memory = _number(row["bytes per vector"]) - mapped
    return ScanCost(memory, mapped, documents, _number(row["one query, processor ms"]))


def query_ms() -> float:
    """Return the stored milliseconds of a query: encoding, a small graph, ranking."""
    tables = load_results("end_to_end")["tables"]
    table = next(table for table in tables if "queries per second" in table["title"])
    row = next(row for row in table["rows"] if row[0] == SYSTEM)
    cell: str = row[table["header"].index(COLLECTION)]
    return _number(cell.partition("(")[2].partition("/")[0])


def machine_table(documents: Iterable[int], machine: Machine) -> Table:
    """Return a row for each size."""
    rest, cost, rows = query_ms(), scan_cost(), []
    room = machine.memory_gb * 1e9 * machine.share / cost.memory
    each = min(room, cost.documents * machine.most_ms / cost.ms)
    for count in documents:
        shards = math.ceil(count / each)
        own = count / shards
        ms = own * cost.ms / cost.documents + rest
        rate = 1000 * machine.cores / ms
        copies = math.ceil(machine.rate / rate)
        disks = [own * (cost.mapped + TOKENS * (DIMENSION * bits / 8 + _OVERHEAD)) for bits in BITS]
        first = [count, _size(count * cost.memory), shards, own, " / ".join(map(_size, disks))]
        rows.append([*first, ms, rate, copies, shards * copies])
    whole = "{:,.0f}"
    columns: list[Column | str] = [
        *("documents", "memory", "shards", Column("documents per shard", format=whole)),
        f"disk per shard, tokens of {' / '.join(map(str, BITS))} bits",
        *(Column("core ms per query", format="{:,.1f}"), Column("queries/s per copy", format=whole)),
        *("copies", "machines"),
    ]
    return Table("", columns, rows)


def disk_table(documents: Iterable[int], machine: Machine, disks: Disks) -> Table:
    """Return a row for each size and number of visited nodes, with a graph on disk.

    Distances to the links of a node are computed from codes, each in the time that the
    stored scan needs for one.
    """
    cost = scan_cost()
    bits = BITS[1]
    tokens = TOKENS * (DIMENSION * bits / 8 + _OVERHEAD)
    pages = math.ceil(tokens / PAGE) + 1  # tokens do not begin at a page
    rows = []
    for count in documents:
        size = count * (PAGE + tokens)
        shards = math.ceil(size / (disks.terabytes * 1e12))
        for visited in VISITED:
            reads = visited + RANKED * pages
            ms = visited * LINKS * cost.ms / cost.documents + query_ms()
            by_disk, by_core = disks.reads / reads, 1000 * machine.cores / ms
            copies = math.ceil(machine.rate / min(by_disk, by_core))
            wait = (math.ceil(visited / BEAM) + 1) * disks.ms + ms
            rows.append([count, _size(size), shards, visited, reads, by_disk, by_core, wait, shards * copies])
    whole = "{:,.0f}"
    columns: list[Column | str] = [
        *("documents", "on disk", "shards", "nodes visited"),
        "pages per query and shard",
        Column("queries/s by disks", format=whole),
        Column("queries/s by cores", format=whole),
        Column("ms per query", format="{:,.0f}"),
        "machines",
    ]
    return Table("", columns, rows)


def _size(count: float) -> str:
    return f"{count / 1e12:.1f} TB" if count >= 1e12 else f"{count / 1e9:.0f} GB"


def _number(text: str) -> float:
    return float(text.strip().replace(",", ""))
