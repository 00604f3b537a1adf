"""Tables of the studies with their own command, from measured or stored results.

Numbers in captions are settings of the measuring modules in experiments/bench.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..evaluation.statistics import growth_exponent
from .machines import Machine
from .old_names import plain
from .table import Column, Table, markdown, number, text

__all__ = ["STUDIES", "machine_text", "study_markdown", "study_text"]

Results = dict[str, Any]

_WHOLE, _TENTH, _TWO, _SHARE, _TIMES = "{:,.0f}", "{:,.1f}", "{:.2f}", "{:.3f}", "{:.2f}x"


def study_text(name: str, results: Results) -> str:
    """Return a study's tables for the terminal."""
    return "\n\n".join(map(text, STUDIES[name][1](plain(results))))


def study_markdown(name: str, results: Results) -> str:
    """Return a study's tables as sections of a page."""
    parts = []
    for table in STUDIES[name][1](plain(results)):
        parts += [f"## {table.title}" if table.title else "", table.caption, markdown(table)]
    return "\n\n".join(part for part in parts if part)


def machine_text(on: Results) -> str:
    """Describe the machine and the versions that results were measured with."""
    numba = f", numba {on['numba']}" if "numba" in on else ""
    return (
        f"{on['processor']}, {on['cores']} cores (load {on['load']} at the start), Python {on['python']}, "
        f"NumPy {on['numpy']}{numba}"
    )


def _speed(results: Results) -> list[Table]:
    def times(key: str) -> Callable[[Results], str | None]:
        return lambda row: row[key] and f"{number(float(row[key]))}x"

    columns = [
        Column("muvera / other", "name"),
        *(Column("muvera"), Column("other"), Column("unit"), Column("ratio", times("ratio"))),
        Column("min - max", lambda row: f"{number(float(row['least']))} - {number(float(row['greatest']))}"),
        *(Column("processor time", times("processor_ratio")), Column("target")),
    ]
    on = results["machine"]
    caption = (
        f"Median of {results['rounds']} interleaved rounds, one thread each unless stated otherwise. Jobs ran on "
        f'a processor {results["share"] or 0:.0%} of the time. "processor time" is the ratio of processor '
        f"times. {machine_text(on)}, BLAS kernel {on.get('blas_kernel') or 'unknown'}."
    )
    calls = [
        Column("call", "name"),
        Column("time", "seconds", _TWO, "s"),
        Column("target", lambda row: "under 1 s" if row["name"] == "import muvera" else None),
    ]
    checks = [[name, f"{value:.3g}"] for name, value in results["checks"].items()]
    tables = [
        Table.of("", columns, results["lines"], caption),
        Table.of("In a new process", calls, results.get("first_calls") or []),
        Table("Checked before timing", ["check", "value"], checks),
    ]
    return [table for table in tables if table.rows]


# Codec -> targets: 10-recall@10, time of float32 over its own, and the same if the best 20 are rescored.
_TOKEN_TARGETS: dict[str, tuple[float | None, float | None, float | None]] = {
    "float16": (None, 1.0, None),
    "int8": (0.99, 3.0, 2.2),
    "4bit": (0.965, None, None),
    "2bit": (0.90, 2.7, 2.0),
    "1bit": (0.79, None, None),
}


def _tokens(results: Results) -> list[Table]:
    def target(name: str, position: int) -> float | None:
        return _TOKEN_TARGETS.get(name, (None, None, None))[position]

    quality = [
        Column("collection, codec", lambda row: f"{row['collection']}, {row['codec']}"),
        Column("bytes per token", "bytes"),
        Column("10-recall@10", "recall_10", _SHARE),
        Column("@20", "recall_20", _SHARE),
        Column("@10 after rescoring 30", "rescored_30", _SHARE),
        Column("target @10", lambda row: target(row["codec"], 0), _SHARE),
        Column("squared error", "error", "{:.4f}"),
        Column("fit", "fit_seconds", _TENTH, "s"),
        Column("encode", "encode_microseconds", _TENTH, "us per token"),
    ]
    speed = [
        Column(
            "collection, codec",
            lambda row: (
                f"{row['collection']}, {row['way']}{', best 20 by float32' if row['checked'] else ''}"
            ),
        ),
        Column("time", "milliseconds", _TWO, "ms"),
        Column("float32 / this", "ratio", _TIMES),
        Column("min - max", lambda row: f"{row['least']:.2f} - {row['greatest']:.2f}"),
        Column("target", lambda row: target(row["way"], 2 if row["checked"] else 1), "{:.1f}x"),
    ]
    caption = (
        f"Processor time of one thread, median of {results['rounds']} interleaved rounds. "
        f"{machine_text(results['machine'])}."
    )
    return [
        Table.of("Recall of codecs over all documents", quality, results["quality"], caption),
        Table.of("Ranking 100 candidates in random order, one thread", speed, results["speed"]),
    ]


def _searches(results: Results) -> list[Table]:
    codecs = [
        Column("collection, tokens", lambda row: f"{row['collection']}, {row['kind']}"),
        Column("10-recall@10 of at least", "target", _TWO),
        *(
            Column("candidates"),
            Column("recall", "recall", _SHARE),
            Column("time", "milliseconds", _TWO, "ms"),
        ),
        Column("time / float32's", "share", _TIMES),
        Column(
            "target", lambda row: 0.65 if row["kind"] == "int8" and row["target"] < 0.99 else None, _TIMES
        ),
    ]
    targets = {"one thread": 1.5, "all threads": 1.7}
    ways = [
        *(Column("index", "name"), Column("way"), Column("threads")),
        Column("time of a query", "microseconds", _WHOLE, "us"),
        Column("one by one / this", "one_by_one", _TIMES),
        Column("one thread / this", "one_thread", _TIMES),
        Column("target", lambda row: targets[row["threads"]] if row["way"] == "batch" else None, _TIMES),
    ]
    caption = (
        f"Median of {results['rounds']} interleaved rounds; processor time of one thread, queries one by one. "
        f"{machine_text(results['machine'])}."
    )
    return [
        Table.of("Token codecs at equal recall", codecs, results["codecs"], caption),
        Table.of(
            "Ways to search, 100 candidates unless stated otherwise", ways, results["ways"], "Wall time."
        ),
    ]


def _dial(results: Results) -> list[Table]:
    columns = [
        Column("collection, tokens", lambda row: f"{row['collection']}, {row['kind']}"),
        Column("`recall=`", "target", _TWO),
        Column("10-recall@10", "recall", _SHARE),
        Column("time", "milliseconds", _TWO, "ms"),
        Column("fixed number with that recall", "fixed"),
        Column("time / fixed number's", "share", _TIMES),
        Column("target", lambda row: 0.85 if row["target"] > 0.95 else None, _TIMES),
        *(Column("most candidates", "cap"), Column("fixed number by windows", "by_windows")),
        Column("its recall", "recall_by_windows", _SHARE),
    ]
    caption = (
        f"`search(recall=)`, calibrated with windows of documents, compared with the fixed number of candidates that "
        f"has the same recall. The recall should be at most .005 below and .03 above the given one. Most candidates: "
        f"the limit for one query. Fixed number by windows: what the calibration gives without stopping early. Times "
        f"are processor time of whole searches on one thread, one query at a time: the median of "
        f"{results['rounds']} interleaved rounds. {machine_text(results['machine'])}."
    )
    return [Table.of("", columns, results["rows"], caption)]


def _cold(results: Results) -> list[Table]:
    tables = []
    for run in results["runs"]:
        ahead, times = run["read_ahead_kb"], run["milliseconds"]
        read_ahead = f"read-ahead of {'an unknown size' if ahead is None else f'{ahead:,} KB'}"
        # Prefetching must be faster on a cold file, by the disk's read-ahead, and cost almost nothing on a
        # warm file.
        cold_target = None if ahead is None or ahead < 128 else 10.0 if ahead >= 1024 else 3.0
        targets = {"warm, prefetched": 0.97, "cold, prefetched": cold_target}
        rows = [
            [name, ms, times[name.partition(",")[0]] / ms, targets.get(name)] for name, ms in times.items()
        ]
        columns: list[Column | str] = [
            *(f"{run['documents']:,} documents", Column("time", format=_TWO, unit="ms")),
            *(Column("speedup over plain mmap", format=_TIMES), Column("target", format="{:g}x")),
        ]
        caption = (
            f"Wall time of one query of 32 tokens on one thread: ranking 100 random documents of {run['tokens']} "
            f'float16 tokens in a file of {run["megabytes"]:,} MB. "2-bit pre-ranking" selects up to 30 candidates by '
            f"2-bit codes in memory and reads only their tokens. {machine_text(run['machine'])}."
        )
        tables.append(Table(f"R{read_ahead[1:]}", columns, rows, caption))
        if run["limited"]:
            limited = [
                *(Column("read", "way"), Column("queries")),
                *(Column(name, format=_TWO, unit="ms") for name in ("p50", "p95", "p99")),
                Column("page faults per query", "faults", "{:.0f}"),
                Column("share of the file in memory", "resident", "{:.0%}"),
            ]
            caption = (
                "Distinct queries one after another, each with 100 random candidates: 1,000 queries, or as many as "
                f"finish in 45 seconds. The process may use {run['memory']:,} MB more than before the first query, "
                "including cached pages of its files."
            )
            title = f"With {run['memory']:,} MB of memory, {read_ahead}"
            tables.append(Table.of(title, limited, run["limited"], caption))
    return tables


# Key, title, divisor, format, target at a million documents, cost per document (factor and unit).
_GROWTH: list[tuple[str, str, float, str, float | None, tuple[float, str] | None]] = [
    ("build_seconds", "build, s", 1, _WHOLE, 900, (1e6, "us")),
    ("build_processor_seconds", "build, processor s", 1, _WHOLE, None, (1e6, "us")),
    ("build_peak_bytes", "peak memory of the build, MB", 1e6, _WHOLE, 6 * 2.0**30, (1, "B")),
    ("resident_bytes", "resident memory while searching, MB", 1e6, _WHOLE, 3 * 2.0**30, (1, "B")),
    ("anonymous_bytes", "of which not backed by files, MB", 1e6, _WHOLE, None, None),
    ("disk_bytes", "on disk without exact tokens, MB", 1e6, _WHOLE, 4 * 2.0**30, (1, "B")),
    ("exact_bytes", "exact tokens on disk, MB", 1e6, _WHOLE, None, (1, "B")),
    ("load_seconds", "load, s", 1, _TWO, 2, None),
    ("load_processor_seconds", "load, processor s", 1, _TWO, None, None),
    *(
        (f"{key}_{name}", f"{search} search: {title}", 1, form, target, None)
        for key, search in (("quick", "fast"), ("thorough", "thorough"))
        for name, title, form, target in (
            ("recall", "10-recall@10", _SHARE, 0.97),
            ("p50", "p50, processor ms", _TWO, 2.5),
            ("p95", "p95, processor ms", _TWO, 5),
            ("clock_p50", "p50, wall ms", _TWO, None),
            ("clock_p95", "p95, wall ms", _TWO, None),
        )
    ),
    ("add_seconds", "add 1,000, s", 1, _TWO, 2, None),
    ("add_processor_seconds", "add 1,000, processor s", 1, _TWO, None, None),
    ("save_seconds", "save after that, s", 1, _TWO, None, None),
    ("save_bytes", "written by that save, MB", 1e6, _TENTH, None, None),
    ("reload_seconds", "second load, s", 1, _TWO, None, None),
    ("reload_processor_seconds", "second load, processor s", 1, _TWO, None, None),
]


def _growth(results: Results) -> list[Table]:
    return [table for run in results["runs"] for table in _growth_of(run)]


def _growth_of(results: Results) -> list[Table]:
    measured = results["rows"]
    sizes = [row["documents"] for row in measured]
    columns: list[Column | str] = [
        "quantity",
        *(f"{size:,}" for size in sizes),
        Column("exponent", format=_TWO),
    ]
    rows = []
    for key, title, divisor, form, target, cost in _GROWTH:
        values = [row[key] for row in measured]
        exponent = None if key.endswith(("recall", "save_bytes")) else growth_exponent(sizes, values)
        each = f"{cost[0] * values[-1] / sizes[-1]:,.0f} {cost[1]}" if cost else None
        cells = [form.format(value / divisor) for value in values]
        rows.append([title, *cells, exponent, each, target and form.format(target / divisor)])
    last, exact = measured[-1], results["keep_exact"]
    graph = results["backend"] == "hnsw"
    rescored = ", then the best {} of them by exact tokens" if exact else ""
    settings = f" (m={last['m']}, ef_construction={last['ef_construction']}, ef=1000 and 2000)" * graph
    made = "" if results["real"] else ", and generated documents of 48 to 80 tokens"
    generated = "" if results["real"] else "Build times exclude generating documents. "
    caption = (
        f"The documents of {results['collection']}{made}. Preset {results['encoder']!r}, backend "
        f"{results['backend']!r}{settings}, {results['codec']} codes {'and' if exact else 'without'} exact tokens; "
        f"one thread searches. A fast search ranks 500 candidates{rescored.format(30)}; a thorough search ranks 800 "
        f"candidates{rescored.format(50)}. {generated}Recall is over "
        f"{results['judged']} queries; 200 other queries are timed once each. A quantity grows like the number of "
        f"documents to the power of its exponent. Other jobs used the machine during builds. "
        f"{machine_text(last['build_machine'])}."
    )
    title = f"{'Real text' if results['real'] else 'Generated documents'}, backend {results['backend']}"
    table = Table(title, [*columns, "per document", "target at 1,000,000"], rows, caption)
    return [table, _outlook(measured)] if len(measured) > 1 else [table]


def _first_stage(results: Results) -> list[Table]:
    columns = [
        Column("vectors", lambda row: f"{row['documents']:,} {'real' if row['real'] else 'made'}"),
        Column("search", "search"),
        Column("build", "build_seconds", _TWO, "processor s"),
        Column("recall", "recall", _SHARE),
        Column("one query", "ms", _SHARE, "processor ms"),
        Column("query in a batch of 16", "batch_ms", _SHARE, "processor ms"),
    ]
    rows = results["rows"]
    names = ", ".join(dict.fromkeys(row["collection"] for row in rows))
    caption = (
        f"The first stage alone, on one thread: `moments` vectors of {names}. 'Made' vectors are generated: a real "
        f"vector plus half the difference of two others. Their recall is not that of real text. Recall is the share of "
        f"the best inner products among the candidates, over at most 200 queries. {machine_text(results['machine'])}."
    )
    return [
        Table.of(
            f"Exact search, a scan of codes and a graph: {count} candidates",
            columns,
            [row for row in rows if row["candidates"] == count],
            caption,
        )
        for count in dict.fromkeys(row["candidates"] for row in rows)
    ]


def _outlook(measured: list[Results]) -> Table:
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
        sizes = (count * memory / 1e9, count * disk / 1e12)
        rows.append([count, *sizes, shards, count / shards / 1e6, ms, minutes])
    columns: list[Column | str] = [
        *("documents", Column("memory", format=_WHOLE, unit="GB"), Column("disk", format=_TENTH, unit="TB")),
        *("machines", Column("documents per machine", format=_WHOLE, unit="millions")),
        Column("thorough search", format=_TENTH, unit="processor ms"),
        Column("build", format=_WHOLE, unit="minutes"),
    ]
    caption = (
        f"Extrapolated with the measured exponent of search time, for machines with {machine.memory_gb:.0f} GB and "
        f"{machine.cores} cores. Recall falls unless the candidates grow, too."
    )
    return Table("Larger collections", columns, rows, caption)


def _distractors(results: Results) -> list[Table]:
    titles = {
        "made": "Distractors generated from the real documents",
        "noise": "Distractors of random tokens",
    }
    caption = (
        f"Number of candidates needed to contain 95% of exact Chamfer's top 10, as distractors are added to "
        f"{results['collection']} ({results['queries']} queries). Encoders were fitted on the real documents. The "
        f"number grows like the number of documents to the power of the exponent. Random tokens have the mean and "
        f"covariance of the real ones."
    )
    tables: list[Table] = []
    for kind, measured in results["kinds"].items():
        sizes = sorted({row["documents"] for row in measured})
        rows = []
        for name in dict.fromkeys(row["encoder"] for row in measured):
            own = sorted(
                (row for row in measured if row["encoder"] == name), key=lambda row: row["documents"]
            )
            needed, last = [row["candidates"] for row in own], own[-1]
            exponent = growth_exponent([row["documents"] for row in own], needed)
            rows.append([name, last["floats"], *needed, exponent, last["recall"], last["distractors"]])
        columns: list[Column | str] = [
            "vectors",
            "floats",
            *(f"n={size:,}" for size in sizes),
            Column("exponent", format=_TWO),
        ]
        columns += [Column(f"recall of the first 100, n={sizes[-1]:,}", format=_SHARE)]
        columns += [Column("share of distractors in them", format=_SHARE)]
        tables.append(Table(titles.get(kind, kind), columns, rows, "" if tables else caption))
    return tables


def _pruning(results: Results) -> list[Table]:
    base = "bounds, first stage's order"
    columns = [
        Column("collection, method", lambda row: f"{row['collection']}, {row['way']}"),
        Column("time", "ms", _TWO, "ms"),
        Column(f"{base} / this", "ratio", _TIMES),
        Column("share of the exact top 10", "same", _SHARE),
        Column("share of products", "products", _TWO),
    ]
    caption = (
        "Ranking the best 10 of 200 candidates, which the mean token selects; one thread, processor time, median of "
        f"{results['rounds']} rounds. The library uses {base!r}. Alpha skips candidates whose first-stage score is "
        "more than that share below the tenth best. Col-Bandit packs each query's candidates before timing starts. "
        f"{machine_text(results['machine'])}."
    )
    return [Table.of("Skipping candidates", columns, results["rows"], caption)]


#: Name of the study and of its stored results -> title of its page, and its tables.
STUDIES: dict[str, tuple[str, Callable[[Results], list[Table]]]] = {
    "speed": ("Speed compared with other libraries", _speed),
    "tokens": ("Token codecs", _tokens),
    "searches": ("Whole searches", _searches),
    "dial": ("A recall instead of candidates", _dial),
    "cold": ("Tokens on disk", _cold),
    "growth": ("Cost of an index by number of documents", _growth),
    "first_stage": ("First stage", _first_stage),
    "distractors": ("Number of candidates needed, by number of distractors", _distractors),
    "pruning": ("Skipping candidates", _pruning),
}
