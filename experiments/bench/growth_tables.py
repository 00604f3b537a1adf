"""Tables of an index at growing numbers of documents, and what they say of many more."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..report.machines import Machine
from ..report.markdown import markdown_table, text_table
from .growth import SEARCHES, TIMED

__all__ = ["exponent", "markdown", "outlook", "text"]

#: What is aimed at with a million documents: name of a quantity -> the most, or with `recall` the least.
TARGETS = {
    "build_seconds": 900.0,
    "build_peak_bytes": 6 * 2.0**30,
    "resident_bytes": 3 * 2.0**30,
    "disk_bytes": 4 * 2.0**30,
    **{
        f"{way}_{name}": most
        for way in SEARCHES
        for name, most in (("p50", 2.5), ("p95", 5.0), ("recall", 0.97))
    },
    "add_seconds": 2.0,
    "load_seconds": 2.0,
}

# Names of a quantity, the unit that it is shown in, and how.
_QUANTITIES = [
    ("build_seconds", "build, s", 1.0, ",.0f"),
    ("build_processor_seconds", "build, processor s", 1.0, ",.0f"),
    ("build_peak_bytes", "peak memory of the build, MB", 1e6, ",.0f"),
    ("resident_bytes", "resident while searching, MB", 1e6, ",.0f"),
    ("anonymous_bytes", "of it not of files, MB", 1e6, ",.0f"),
    ("disk_bytes", "on disk without exact tokens, MB", 1e6, ",.0f"),
    ("exact_bytes", "exact tokens on disk, MB", 1e6, ",.0f"),
    ("load_seconds", "load, s", 1.0, ".2f"),
    ("load_processor_seconds", "load, processor s", 1.0, ".2f"),
    *(
        (f"{way}_{name}", f"{way} search: {title}", 1.0, form)
        for way in SEARCHES
        for name, title, form in (
            ("recall", "10-recall@10", ".3f"),
            ("p50", "p50, processor ms", ".2f"),
            ("p95", "p95, processor ms", ".2f"),
            ("clock_p50", "p50 by the clock, ms", ".2f"),
            ("clock_p95", "p95 by the clock, ms", ".2f"),
        )
    ),
    ("add_seconds", "1,000 added, s", 1.0, ".2f"),
    ("add_processor_seconds", "1,000 added, processor s", 1.0, ".2f"),
    ("save_seconds", "saved after that, s", 1.0, ".2f"),
    ("save_bytes", "written by that, MB", 1e6, ",.1f"),
    ("reload_seconds", "loaded after that, s", 1.0, ".2f"),
    ("reload_processor_seconds", "loaded after that, processor s", 1.0, ".2f"),
]

# Those of which a document's part, and the power of the number of documents, tell something.
_SHARED = {
    "build_seconds": (1e6, "us"),
    "build_processor_seconds": (1e6, "us"),
    "build_peak_bytes": (1.0, "B"),
    "resident_bytes": (1.0, "B"),
    "disk_bytes": (1.0, "B"),
    "exact_bytes": (1.0, "B"),
}


def exponent(rows: list[dict[str, Any]], name: str) -> float | None:
    """Return the power of the number of documents that a quantity grows with; None of one size alone."""
    if len(rows) < 2 or min(row[name] for row in rows) <= 0:
        return None
    sizes = np.log([row["documents"] for row in rows])
    return float(np.polyfit(sizes, np.log([row[name] for row in rows]), 1)[0])


def _table(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    rows = found["rows"]
    header = [
        "",
        *(f"{row['documents']:,}" for row in rows),
        "power",
        "a document",
        "aimed at with 1,000,000",
    ]
    cells = []
    for name, title, unit, form in _QUANTITIES:
        power = None if name.endswith("recall") or name == "save_bytes" else exponent(rows, name)
        share = ""
        if name in _SHARED:
            times, of = _SHARED[name]
            share = f"{times * rows[-1][name] / rows[-1]['documents']:,.0f} {of}"
        target = "" if name not in TARGETS else f"{TARGETS[name] / unit:{form}}"
        shown = [f"{row[name] / unit:{form}}" for row in rows]
        cells.append([title, *shown, "" if power is None else f"{power:.2f}", share, target])
    return header, cells


def outlook(found: dict[str, Any], machine: Machine | None = None) -> str:
    """Return what the rows say of a hundred million and of ten billion documents, in sentences."""
    rows = found["rows"]
    if len(rows) < 2:
        return "One size says nothing of others: measure two at least."
    machine = machine or Machine()
    last = rows[-1]
    fixed = last["empty_process_bytes"]
    memory = (last["resident_bytes"] - fixed) / last["documents"]
    disk = (last["disk_bytes"] + last["exact_bytes"]) / last["documents"]
    seconds = last["build_processor_seconds"] / last["documents"]
    slower = exponent(rows, "thorough_p50") or 0.0
    sentences = []
    for count, name in ((10**8, "100 million"), (10**10, "10 billion")):
        shards = math.ceil(count * memory / (machine.share * machine.memory_gb * 1e9))
        ms = last["thorough_p50"] * math.pow(count / shards / last["documents"], slower)
        minutes = count * seconds / 60 / (shards * machine.cores)
        held = (
            "fits one machine"
            if shards == 1
            else f"needs {shards:,} machines, each a shard of {count / shards / 1e6:,.0f} million"
        )
        sentences.append(
            f"{name} documents would take {count * memory / 1e9:,.0f} GB in memory and {count * disk / 1e12:,.1f} TB "
            f"on disks: with {machine.memory_gb:.0f} GB a machine this {held}; a shard answers in about {ms:.1f} "
            f"processor ms, and all are built in {minutes:,.0f} minutes of {machine.cores} cores each."
        )
    return (
        f"{' '.join(sentences)} One index a machine behind ShardedIndex, or the adapters of vector databases, "
        "carry the first; the second is for a cluster of Milvus or Qdrant, or tokens on object storage. Beyond what "
        "was measured the time of a search is taken to grow with the same power, and recall falls unless the "
        "graph's ef grows, too."
    )


def _caption(found: dict[str, Any]) -> str:
    exact = found["keep_exact"]
    searches = " ".join(
        f"A {way} search ranks {candidates} candidates that a walk of breadth {ef} finds"
        + (f", and {rescore} of them by exact tokens." if exact else ".")
        for way, (candidates, ef, rescore) in SEARCHES.items()
    )
    last = found["rows"][-1]
    on = last["build_machine"]
    loads = ", ".join(str(row["build_machine"]["load"]) for row in found["rows"])
    graph = f"m={last['m']}, ef_construction={last['ef_construction']}"
    return (
        f"{found['collection']}'s documents, and others of 48 to 80 tokens made of them; preset "
        f"{found['encoder']!r}, backend {found['backend']!r} ({graph}), codes of {found['codec']} "
        f"{'beside exact tokens' if exact else 'alone'}, one thread searches. {searches} Seconds of builds are without "
        f"making documents. The exact ten are those of {found['judged']} queries of the collection; {TIMED} others are "
        f"timed, each once. {on['processor']}, {on['cores']} cores, which others used at the same time (load {loads} "
        f"at the starts), Python {on['python']}, NumPy {on['numpy']}, numba {on['numba']}."
    )


def text(found: dict[str, Any]) -> str:
    """Return the table for the terminal."""
    return f"{text_table(*_table(found))}\n\n{_caption(found)}\n\n{outlook(found)}"


def markdown(found: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    return f"{_caption(found)}\n\n{markdown_table(*_table(found))}\n\n{outlook(found)}"
