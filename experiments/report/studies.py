"""Tables of the studies that have a command of their own, from what the command measured or stored.

Numbers in captions are settings of the measuring modules in experiments/bench.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..evaluation.statistics import growth_exponent
from .machines import Machine
from .stored_results import plain
from .table import Column, Table, markdown, text

__all__ = ["STUDIES", "machine_text", "study_markdown", "study_text"]

Found = dict[str, Any]


def study_text(name: str, results: Found) -> str:
    """Return a study's tables for the terminal."""
    return "\n\n".join(map(text, STUDIES[name][1](plain(results))))


def study_markdown(name: str, results: Found) -> str:
    """Return a study's tables as sections of a page."""
    parts = []
    for table in STUDIES[name][1](plain(results)):
        parts += [f"## {table.title}" if table.title else "", table.caption, markdown(table)]
    return "\n\n".join(part for part in parts if part)


def machine_text(on: Found) -> str:
    """Describe the machine and the versions that results were measured with."""
    numba = f", numba {on['numba']}" if "numba" in on else ""
    return (
        f"{on['processor']}, {on['cores']} cores (load {on['load']} at the start), Python {on['python']}, "
        f"NumPy {on['numpy']}{numba}"
    )


# ---- speed


def _speed(found: Found) -> list[Table]:
    columns = ["muvera / other", "muvera", "other", "unit", "ratio", "min - max", "processor time", "target"]
    rows = [
        [
            *(line["name"], _three(line["muvera"]), _three(line["other"]), line["unit"]),
            *(f"{_ratio(line['ratio'])}x", f"{_ratio(line['least'])} - {_ratio(line['greatest'])}"),
            f"{_ratio(line['processor_ratio'])}x" if line["processor_ratio"] else None,
            line["target"],
        ]
        for line in found["lines"]
    ]
    caption = (
        f"Median of {found['rounds']} interleaved rounds, one thread each unless stated otherwise. Jobs had a "
        f"processor {found['share'] or 0:.0%} of the time; the column of processor time has the same ratio without "
        f"waiting. {machine_text(found['machine'])}, BLAS kernel {found['machine'].get('blas_kernel') or 'unknown'}."
    )
    calls = [
        [call["name"], call["seconds"], "under 1 s" if call["name"] == "import muvera" else None]
        for call in found.get("first_calls") or []
    ]
    checks = [[name, f"{value:.3g}"] for name, value in found["checks"].items()]
    tables = [
        Table("", columns, rows, caption),
        Table("In a new process", ["call", Column("time", "s", "{:.2f}"), "target"], calls),
        Table("Checked before timing", ["check", "value"], checks),
    ]
    return [table for table in tables if table.rows]


def _three(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


# ---- tokens

# Codec -> targets: 10-recall@10, time of float32 over its own, and the same if the best 20 are rescored.
_TOKEN_TARGETS: dict[str, tuple[float | None, float | None, float | None]] = {
    "float16": (None, 1.0, None),
    "int8": (0.99, 3.0, 2.2),
    "4bit": (0.965, None, None),
    "2bit": (0.90, 2.7, 2.0),
    "1bit": (0.79, None, None),
}


def _tokens(found: Found) -> list[Table]:
    def target(name: str, position: int) -> float | None:
        return _TOKEN_TARGETS.get(name, (None, None, None))[position]

    share, times, tenth = "{:.3f}", "{:.2f}x", "{:.1f}"
    quality = Table(
        "Recall of codecs over all documents",
        [
            *("collection, codec", "bytes per token", Column("10-recall@10", format=share)),
            *(Column("@20", format=share), Column("@30, rescored @10", format=share)),
            *(Column("target @10", format=share), Column("squared error", format="{:.4f}")),
            *(Column("fit", "s", tenth), Column("encode", "us per token", tenth)),
        ],
        [
            [
                *(f"{row['collection']}, {row['codec']}", row["bytes"], row["recall_10"], row["recall_20"]),
                *(row["rescored_30"], target(row["codec"], 0), row["error"]),
                *(row["fit_seconds"], row["encode_microseconds"]),
            ]
            for row in found["quality"]
        ],
        f"Processor time of one thread, median of {found['rounds']} interleaved rounds. "
        f"{machine_text(found['machine'])}.",
    )
    speed = Table(
        "Ranking 100 candidates in random order, one thread",
        [
            *("collection, codec", Column("time", "ms", "{:.2f}"), Column("float32 / this", format=times)),
            *("min - max", Column("target", format="{:.1f}x")),
        ],
        [
            [
                f"{row['collection']}, {row['way']}" + (", best 20 by float32" if row["checked"] else ""),
                *(row["milliseconds"], row["ratio"], f"{row['least']:.2f} - {row['greatest']:.2f}"),
                target(row["way"], 2 if row["checked"] else 1),
            ]
            for row in found["speed"]
        ],
    )
    return [quality, speed]


# ---- cold


def _cold(found: Found) -> list[Table]:
    tables = []
    for run in found["runs"]:
        ahead, times = run["read_ahead_kb"], run["milliseconds"]
        read_ahead = f"read-ahead of {'an unknown size' if ahead is None else f'{ahead:,} KB'}"
        # Prefetching must pay on a cold file, by the disk's read-ahead, and cost next to nothing on a warm one.
        cold_target = None if ahead is None or ahead < 128 else 10.0 if ahead >= 1024 else 3.0
        targets = {"warm, prefetched": 0.97, "cold, prefetched": cold_target}
        rows = [
            [name, ms, times[name.partition(",")[0]] / ms, targets.get(name)] for name, ms in times.items()
        ]
        columns = [
            *(f"{run['documents']:,} documents", Column("time", "ms", "{:.2f}")),
            *(Column("plain mmap / this", format="{:.2f}x"), Column("target", format="{:g}x")),
        ]
        caption = (
            f"Wall time of one query of 32 tokens on one thread: ranking 100 random documents of {run['tokens']} "
            f'float16 tokens in a file of {run["megabytes"]:,} MB. "2-bit pre-ranking" reads the tokens of up to '
            f"30 candidates that 2-bit codes in memory select. {machine_text(run['machine'])}."
        )
        tables.append(Table(f"{read_ahead[0].upper()}{read_ahead[1:]}", columns, rows, caption))
        if run["limited"]:
            columns = ["read", "queries", *(Column(p, "ms", "{:.2f}") for p in ("p50", "p95", "p99"))]
            columns += [Column("page faults per query", format="{:.0f}")]
            columns += [Column("share of the file in memory", format="{:.0%}")]
            rows = [
                [row[key] for key in ("way", "queries", "p50", "p95", "p99", "faults", "resident")]
                for row in run["limited"]
            ]
            caption = (
                "Distinct queries one after another, each with 100 random candidates: 1,000 queries, or as many as "
                f"45 seconds allow. The process may use {run['memory']:,} MB more than before the first query, "
                "cached pages of its files included."
            )
            tables.append(Table(f"With {run['memory']:,} MB of memory, {read_ahead}", columns, rows, caption))
    return tables


# ---- growth

# Searches in the stored results, with their title.
_SEARCHES = {"quick": "fast search", "thorough": "thorough search"}

# Key, title, unit, divisor, format, target at a million documents, cost per document (factor and unit).
_GROWTH: list[tuple[str, str, float, str, float | None, tuple[float, str] | None]] = [
    ("build_seconds", "build, s", 1, ",.0f", 900, (1e6, "us")),
    ("build_processor_seconds", "build, processor s", 1, ",.0f", None, (1e6, "us")),
    ("build_peak_bytes", "peak memory of the build, MB", 1e6, ",.0f", 6 * 2.0**30, (1, "B")),
    ("resident_bytes", "resident memory while searching, MB", 1e6, ",.0f", 3 * 2.0**30, (1, "B")),
    ("anonymous_bytes", "of this, not backed by files, MB", 1e6, ",.0f", None, None),
    ("disk_bytes", "on disk without exact tokens, MB", 1e6, ",.0f", 4 * 2.0**30, (1, "B")),
    ("exact_bytes", "exact tokens on disk, MB", 1e6, ",.0f", None, (1, "B")),
    ("load_seconds", "load, s", 1, ".2f", 2, None),
    ("load_processor_seconds", "load, processor s", 1, ".2f", None, None),
    *(
        (f"{key}_{name}", f"{way}: {title}", 1, form, target, None)
        for key, way in _SEARCHES.items()
        for name, title, form, target in (
            ("recall", "10-recall@10", ".3f", 0.97),
            ("p50", "p50, processor ms", ".2f", 2.5),
            ("p95", "p95, processor ms", ".2f", 5),
            ("clock_p50", "p50, wall ms", ".2f", None),
            ("clock_p95", "p95, wall ms", ".2f", None),
        )
    ),
    ("add_seconds", "add 1,000, s", 1, ".2f", 2, None),
    ("add_processor_seconds", "add 1,000, processor s", 1, ".2f", None, None),
    ("save_seconds", "save after that, s", 1, ".2f", None, None),
    ("save_bytes", "written by that save, MB", 1e6, ",.1f", None, None),
    ("reload_seconds", "load after that, s", 1, ".2f", None, None),
    ("reload_processor_seconds", "load after that, processor s", 1, ".2f", None, None),
]


def _growth(found: Found) -> list[Table]:
    measured = found["rows"]
    sizes = [row["documents"] for row in measured]
    columns = ["", *(f"{size:,}" for size in sizes), Column("exponent", format="{:.2f}")]
    columns += ["per document", "target at 1,000,000"]
    rows = []
    for key, title, divisor, form, target, cost in _GROWTH:
        values = [row[key] for row in measured]
        grows = not key.endswith("recall") and key != "save_bytes"
        each = f"{cost[0] * values[-1] / sizes[-1]:,.0f} {cost[1]}" if cost else None
        rows.append(
            [
                *(title, *(f"{value / divisor:{form}}" for value in values)),
                *(growth_exponent(sizes, values) if grows else None, each),
                None if target is None else f"{target / divisor:{form}}",
            ]
        )
    last, exact = measured[-1], found["keep_exact"]
    rescored = ", then the best {} of them by exact tokens" if exact else ""
    caption = (
        f"The documents of {found['collection']}, and others of 48 to 80 tokens generated from them. Preset "
        f"{found['encoder']!r}, backend {found['backend']!r} (m={last['m']}, "
        f"ef_construction={last['ef_construction']}), {found['codec']} codes {'and' if exact else 'without'} exact "
        f"tokens; one thread searches. A fast search ranks 500 candidates found with ef=1000{rescored.format(30)}; a "
        f"thorough search ranks 800 candidates found with ef=2000{rescored.format(50)}. Build times exclude "
        f"generating documents. Recall is over {found['judged']} queries; 200 other queries are timed once each. The "
        f"exponent is the power of the number of documents that a quantity grows with. Other jobs used the machine "
        f"at the same time. {machine_text(last['build_machine'])}."
    )
    return [Table("", columns, rows, caption), *([_outlook(measured)] if len(measured) > 1 else [])]


def _outlook(measured: list[Found]) -> Table:
    """Extrapolate to more documents than were measured."""
    machine, last = Machine(), measured[-1]
    documents = last["documents"]
    memory = (last["resident_bytes"] - last["empty_process_bytes"]) / documents
    disk = (last["disk_bytes"] + last["exact_bytes"]) / documents
    seconds = last["build_processor_seconds"] / documents
    slower = growth_exponent([r["documents"] for r in measured], [r["thorough_p50"] for r in measured]) or 0.0
    rows = []
    for count in (10**8, 10**10):
        shards = math.ceil(count * memory / (machine.share * machine.memory_gb * 1e9))
        ms = last["thorough_p50"] * math.pow(count / shards / documents, slower)
        minutes = count * seconds / 60 / (shards * machine.cores)
        rows.append(
            [
                f"{count:,}",
                count * memory / 1e9,
                count * disk / 1e12,
                shards,
                count / shards / 1e6,
                ms,
                minutes,
            ]
        )
    whole, tenth = "{:,.0f}", "{:,.1f}"
    columns = [
        *("documents", Column("memory", "GB", whole), Column("disk", "TB", tenth), "machines"),
        *(
            Column("documents per machine", "millions", whole),
            Column("thorough search", "processor ms", tenth),
        ),
        Column("build", "minutes", whole),
    ]
    caption = (
        f"Extrapolated, for machines of {machine.memory_gb:.0f} GB and {machine.cores} cores: the time of a search "
        "keeps growing with the measured exponent. Recall falls unless ef grows, too."
    )
    return Table("Larger collections", columns, rows, caption)


# ---- distractors and pruning


def _distractors(found: Found) -> list[Table]:
    titles = {
        "made": "Distractors generated from the real documents",
        "noise": "Distractors of random tokens",
    }
    share = "{:.3f}"
    tables = []
    for kind, measured in found["kinds"].items():
        sizes = sorted({row["documents"] for row in measured})
        by_encoder: dict[str, list[Found]] = {}
        for row in sorted(measured, key=lambda row: row["documents"]):
            by_encoder.setdefault(row["encoder"], []).append(row)
        rows = []
        for name in dict.fromkeys(row["encoder"] for row in measured):
            own = by_encoder[name]
            needed = [row["candidates"] for row in own]
            exponent = growth_exponent([row["documents"] for row in own], needed)
            rows.append(
                [name, own[0]["floats"], *needed, exponent, own[-1]["recall"], own[-1]["distractors"]]
            )
        columns = [
            "vectors",
            "floats",
            *(f"n={size:,}" for size in sizes),
            Column("exponent", format="{:.2f}"),
        ]
        columns += [Column(f"recall of the first 100, n={sizes[-1]:,}", format=share)]
        columns += [Column("distractors among these", format=share)]
        tables.append(Table(titles.get(kind, kind), columns, rows))
    caption = (
        f"Candidates that hold 95% of exact Chamfer's top 10 as distractors are added to {found['collection']} "
        f"({found['queries']} queries); encoders were fitted on the real documents. Candidates grow with the number "
        f"of documents to the power of the exponent. Random tokens have the mean and covariance of the real ones."
    )
    tables[0] = Table(tables[0].title, tables[0].columns, tables[0].rows, caption)
    return tables


def _pruning(found: Found) -> list[Table]:
    base = "bounds, first stage's order"
    columns = [
        *("collection, method", Column("time", "ms", "{:.2f}"), Column(f"{base} / this", format="{:.2f}x")),
        *(Column("share of the exact top 10", format="{:.3f}"), Column("share of products", format="{:.2f}")),
    ]
    rows = [
        [f"{row['collection']}, {row['way']}", *(row[key] for key in ("ms", "ratio", "same", "products"))]
        for row in found["rows"]
    ]
    caption = (
        "The best 10 of 200 candidates, which are the best by the mean token; one thread, processor time, median of "
        f"{found['rounds']} rounds. The library uses {base!r}. Alpha skips candidates whose first-stage score is "
        "more than that share below the tenth best. Col-Bandit packs each query's candidates before timing starts. "
        f"{machine_text(found['machine'])}."
    )
    return [Table("Skipping candidates", columns, rows, caption)]


#: Name of the study and of its stored results -> title of its page, and its tables.
STUDIES: dict[str, tuple[str, Callable[[Found], list[Table]]]] = {
    "speed": ("Speed compared with other libraries", _speed),
    "tokens": ("Token codecs", _tokens),
    "cold": ("Tokens on disk", _cold),
    "growth": ("Cost of an index by number of documents", _growth),
    "distractors": ("Candidates needed as distractors are added", _distractors),
    "pruning": ("Skipping candidates", _pruning),
}
