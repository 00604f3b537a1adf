"""The recall that a RecallMeter measures: coverage, calibration, cost, and load."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import MultiVectors, MuveraIndex, RecallMeter
from muvera.data.ranking import Ranking
from muvera.diagnostics.audit import share_found
from muvera.diagnostics.metered import metered
from muvera.index.measuring import exact_scores
from muvera.utils.intervals import BETS, share_interval

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..report.table import Column, Table
from .plumbing import (
    Cache,
    Data,
    Save,
    finish,
    float_documents,
    float_queries,
    load_collections,
    measured_on,
    progress,
)

Shares = NDArray[np.float64]

#: Documents to find.
K = 10

# -- simulation -----------------------------------------------------------------------

# Mean recall of the simulated queries, and numbers of them at which widths are compared
# with those of the prototype.
_MEAN = 0.9485
_PROTOTYPE = {100: 0.097, 300: 0.042, 1000: 0.020, 3000: 0.012}

# Simulated queries of a run, and runs whose widths are averaged.
_COUNT, _WIDTHS = 3000, 100

# Numbers of queries at which an interval of plug-in bets is looked at; the others are
# looked at after each query.
_LOOKS = 60

# Capital at which a mean is left out of a 95% interval.
_ENOUGH = np.log(2 / 0.05)

# The largest plug-in bet, as a share of the capital.
_LARGEST = 0.5

_KINDS = ("constant", "falling", "bursts")


def simulated(kind: str, stream: np.random.Generator, count: int = _COUNT) -> tuple[Shares, Shares]:
    """Return the recall of queries, and the expected recall of each, both (count,).

    "falling": from .98 to .90.  "bursts": topics of 20 queries on average, each with
    its mean.
    """
    means = np.full(count, _MEAN)
    if kind == "falling":
        means = np.linspace(0.98, 0.90, count)
    elif kind == "bursts":
        topics = stream.beta(20 * _MEAN, 20 * (1 - _MEAN), count)
        means = np.repeat(topics, stream.geometric(1 / 20, count))[:count].clip(0.5, 0.998)
    return stream.binomial(K, stream.beta(9 * means, 9 * (1 - means))) / K, means


def covers(shares: Shares, truth: Shares) -> bool:
    """Return True if `share_interval` contains the truth after every share.

    `truth` (n,) is the mean after each share.  The shares are multiples of 1 / K.
    """
    occurred = np.zeros((len(shares), K + 1))
    occurred[np.arange(len(shares)), np.rint(K * shares).astype(int)] = 1
    occurred = occurred.cumsum(axis=0)
    for values, mean in ((np.arange(K + 1) / K, truth), (1 - np.arange(K + 1) / K, 1 - truth)):
        capital = np.einsum("bnv,nv->bn", np.log1p(BETS[:, None] * (values / mean[:, None] - 1)), occurred)
        if (np.logaddexp.reduce(capital) - np.log(len(BETS)) > _ENOUGH).any():
            return False
    return True


def plug_in(shares: Shares, mean: float | Shares) -> Shares:
    """Return the logarithm of the capital of predictable plug-in bets against means.

    Waudby-Smith and Ramdas, section 4.2; `mean` is a number or (m,), the result (m,).
    """
    times = np.arange(1, len(shares) + 1)
    before = (0.5 + np.cumsum(shares)) / (times + 1)
    variance = (0.25 + np.cumsum((shares - before) ** 2)) / (times + 1)
    variance = np.concatenate([[0.25], variance[:-1]])
    bets = np.sqrt(2 * _ENOUGH / (variance * times * np.log(1 + times)))
    means = np.atleast_1d(mean)[:, None]
    higher = np.log1p(np.minimum(bets, _LARGEST / means) * (shares - means)).sum(axis=1)
    lower = np.log1p(-np.minimum(bets, _LARGEST / (1 - means)) * (shares - means)).sum(axis=1)
    return np.asarray(np.maximum(higher, lower))


def simulated_rows(runs: int) -> list[dict[str, Any]]:
    """Return a row for each kind of queries and bets."""
    looks = np.unique(np.geomspace(5, _COUNT, _LOOKS).astype(int)).tolist()
    grid = np.linspace(0.0005, 0.9995, 1000)
    rows = []
    for kind in _KINDS:
        stream = np.random.default_rng(5)
        covered = {"constant, in a mixture": 0, "plug-in": 0}
        widths: dict[str, list[list[float]]] = {bets: [] for bets in covered}
        for run in range(runs):
            shares, means = simulated(kind, stream)
            truth = np.cumsum(means) / np.arange(1, len(means) + 1)
            covered["constant, in a mixture"] += covers(shares, truth)
            covered["plug-in"] += all(plug_in(shares[:look], truth[look - 1])[0] < _ENOUGH for look in looks)
            if run < _WIDTHS:
                ends = [share_interval(shares[:look]) for look in _PROTOTYPE]
                widths["constant, in a mixture"].append([high - low for low, high in ends])
                left = [int((plug_in(shares[:look], grid) < _ENOUGH).sum()) for look in _PROTOTYPE]
                widths["plug-in"].append([number / len(grid) for number in left])
        for bets, number in covered.items():
            row: dict[str, Any] = {"kind": kind, "bets": bets, "runs": runs, "covered": number / runs}
            row |= {
                f"{look}": width for look, width in zip(_PROTOTYPE, np.mean(widths[bets], 0), strict=True)
            }
            rows.append(row)
            progress(str(row))
    return rows


# -- real queries ---------------------------------------------------------------------

_COLLECTIONS = ("lotte500-colbertv2", "cosqa-minilm", "scifact-minilm", "apidocs-minilm")
_ENCODERS = ("fde", "paper")
_PROMISES = (0.90, 0.95, 0.98)

# Orders of the queries in which a part of them is sampled; shares of large and of small
# collections.
_ORDERS, _SHARE, _SHARE_OF_FEW, _MANY = 200, 0.1, 0.3, 2000

# Queries that the meter may calibrate with, and fewest others that judge the result.
_METERED, _JUDGES = 1000, 100


class Exact:
    """The exact best of some queries, and the shares of them that searches find."""

    def __init__(self, index: MuveraIndex, queries: MultiVectors) -> None:
        self._queries = queries
        self._best = []
        for number in range(len(queries)):
            self._best.append(exact_scores(index.contents, queries[number : number + 1], K))
            if number % 500 == 499:
                progress(f"{number + 1} exact searches")

    def shares(self, index: MuveraIndex, rows: NDArray[np.int64], **options: Any) -> Shares:
        """Return the share of the best that a search finds, for some queries."""
        exact = metered(index, None).exact
        found: list[Ranking] = index.search(self._queries[rows], K, **options)
        shares = [
            share_found(self._best[row], exact.scores(self._queries[row], ranking.ids.tolist()))
            for row, ranking in zip(rows.tolist(), found, strict=True)
        ]
        return np.array(shares)


def sampled_row(shares: Shares, orders: int = _ORDERS) -> dict[str, Any]:
    """Count how often the interval of a sample contains the mean of all queries."""
    part = _SHARE if len(shares) >= _MANY else _SHARE_OF_FEW
    stream = np.random.default_rng(7)
    covered, widths = 0, []
    for _ in range(orders):
        shuffled = stream.permutation(shares)
        sampled = stream.random(len(shares)) < part
        fits = True
        for look in np.unique(np.geomspace(5, len(shares), 25).astype(int)).tolist():
            low, high = share_interval(shuffled[:look][sampled[:look]])
            fits &= low - 1e-9 <= shuffled[:look].mean() <= high + 1e-9
        covered += fits
        widths.append(high - low)
    facts = {"queries": len(shares), "recall": float(shares.mean()), "sampled": part}
    return {**facts, "covered": covered / orders, "width": float(np.mean(widths))}


def calibrated_rows(index: MuveraIndex, exact: Exact, queries: MultiVectors) -> list[dict[str, Any]]:
    """Calibrate with metered queries, and search the others before and after."""
    order = np.random.default_rng(9).permutation(len(queries))
    count = min(_METERED, len(order) // 2)
    if len(order) - count < _JUDGES:
        return []
    judges = np.sort(order[count:])
    before = {promise: exact.shares(index, judges, recall=promise) for promise in _PROMISES}
    with RecallMeter(index, 1, seed=1) as meter:
        for number, row in enumerate(order[:count].tolist()):
            meter.search(queries[row : row + 1], K, recall=_PROMISES[number % len(_PROMISES)])
            meter.wait()
        told = meter.report()
        calibration = told.calibration or meter.calibrate()
    rows = []
    for promise in _PROMISES:
        after = exact.shares(index, judges, recall=promise)
        low, high = share_interval(after)
        row = {"queries": calibration.queries, "others": len(judges), "promise": promise}
        row |= {"before": float(before[promise].mean())}
        row |= {"after": {"mean": float(after.mean()), "low": low, "high": high}}
        row |= {"within": "yes" if abs(after.mean() - promise) <= 0.01 else "no"}
        rows.append(row | {"how": "by itself" if told.calibration else "called"})
    return rows


def real_tables(collections: Sequence[Collection], documents: int | None, most: int | None) -> list[Table]:
    """Return the tables of real queries."""
    sampled, calibrated, drawn = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for collection in collections:
        texts = float_documents(collection)[: documents or len(collection.documents)]
        texts = MultiVectors(texts.tokens, texts.offsets)
        queries = float_queries(collection)
        rows = np.random.default_rng(3).permutation(np.flatnonzero(queries.lengths > 0))[:most]
        queries = MultiVectors.from_arrays([np.asarray(queries[row]) for row in rows.tolist()])
        exact: Exact | None = None
        for name in _ENCODERS:
            index = MuveraIndex.build(texts, name, exact_tokens=0)
            exact = exact or Exact(index, queries)
            place = {"collection": f"{collection.name}, {name}", "documents": len(index)}
            shares = exact.shares(index, np.arange(len(queries)))
            sampled.append(place | sampled_row(shares))
            progress(str(sampled[-1]))
            if name == _ENCODERS[0] and (not drawn or len(shares) >= drawn[-1]["all"]):
                drawn = interval_rows(collection.name, shares)
            for row in calibrated_rows(index, exact, queries):
                calibrated.append(place | row)
                progress(str(calibrated[-1]))
    return [
        Table.of(
            "The interval over queries", _DRAWN, drawn,
            f"Searches of {drawn[0]['collection']} with the defaults, of which a share of {_SHARE:g} is sampled "
            f"({_SHARE_OF_FEW:g} of few queries). The truth is the mean recall of all searches so far.",
        ),
        Table.of(
            "Sampled and true recall", _SAMPLED, sampled,
            "10-recall@10 of searches with the defaults. The queries are sampled in "
            f"{_ORDERS} random orders. Covered: the share of the orders in which the interval contained the mean "
            "recall of all queries so far, at each of 25 looks.",
        ),
        Table.of(
            "Calibrated by the meter", _CALIBRATED, calibrated,
            f"Up to half of the queries and {_METERED} were metered, and calibrated as `RecallMeter` does: by "
            "itself, because a promise was broken, or because `calibrate()` was called. The others judge. "
            f"Collections with fewer than {2 * _JUDGES} queries are left out.",
        ),
    ]  # fmt: skip


def interval_rows(collection: str, shares: Shares) -> list[dict[str, Any]]:
    """Return the interval of a sample, and the truth, as queries are asked."""
    part = _SHARE if len(shares) >= _MANY else _SHARE_OF_FEW
    sampled = np.random.default_rng(11).random(len(shares)) < part
    rows = []
    for look in np.unique(np.geomspace(20, len(shares), 16).astype(int)).tolist():
        low, high = share_interval(shares[:look][sampled[:look]])
        lines = {"upper end": high, "truth so far": float(shares[:look].mean()), "lower end": low}
        facts = {"collection": collection, "queries": look, "all": len(shares)}
        rows += [{**facts, "line": line, "recall": value} for line, value in lines.items()]
    return sorted(rows, key=lambda row: str(row["line"]))


# -- cost -----------------------------------------------------------------------------

#: Numbers of documents of the exact search.
SIZES = (10_000, 100_000, 367_860)

# Queries of each size.
_TIMED = 5


def cost_rows(collection: Collection, sizes: Sequence[int] = SIZES) -> list[dict[str, Any]]:
    """Return a row for each number of documents, which are repeated to reach it."""
    texts, queries = float_documents(collection), float_queries(collection)
    texts = MultiVectors(texts.tokens.astype(np.float16), texts.offsets)
    rows = []
    for size in sizes:
        whole, rest = divmod(size, len(texts))
        part = texts[:rest]
        batches = [texts] * whole + ([MultiVectors(part.tokens, part.offsets)] if rest else [])
        index = MuveraIndex.build(iter(batches), "mean", exact_tokens=2**60, tokens="float16")
        seconds = []
        for number in range(_TIMED + 1):  # the first one compiles
            begun = time.thread_time()
            exact_scores(index.contents, queries[number : number + 1], K)
            seconds.append(time.thread_time() - begun)
        tokens = index.info().tokens
        rows.append({"documents": size, "tokens": tokens, "seconds": float(np.median(seconds[1:]))})
        progress(str(rows[-1]))
    return rows


# -- load -----------------------------------------------------------------------------

# Requests at a time, documents, and numbers of a query's vector that are sent.
_CONNECTIONS, _DIGITS = 2, 4


@contextmanager
def _served(folder: Path, *options: str) -> Iterator[int]:
    """Serve an index in another process, and yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "muvera", "serve", str(folder), "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # printed once it listens
            yield port
        finally:
            process.terminate()


def _bodies(queries: MultiVectors) -> list[tuple[bytes, bytes]]:
    """Return the request of each query before and after its first number.

    Each request gets another one: a meter measures a query once.
    """
    bodies = []
    for query in queries:
        text = json.dumps({"vectors": [np.round(query, _DIGITS).tolist()], "recall": 0.95})
        start = text.index("[[[") + 3
        bodies.append((text[:start].encode(), text[text.index(",", start) :].encode()))
    return bodies


def _ask(port: int, bodies: Sequence[tuple[bytes, bytes]], seconds: float, seed: int) -> list[float]:
    """Search again and again, and return the seconds of each answer."""
    stream = np.random.default_rng(seed)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    times, end = [], time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        before, after = bodies[int(stream.integers(len(bodies)))]
        body = b"%s%.6f%s" % (before, stream.normal() / 20, after)
        connection.request("POST", "/search", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        times.append(time.perf_counter() - begun)
        assert answer.status == 200, answer.status
    connection.close()
    return times


def _load(port: int, bodies: Sequence[tuple[bytes, bytes]], seconds: float, seed: int) -> list[float]:
    """Search on several connections at a time."""
    found: list[float] = []

    def work(number: int) -> None:
        found.extend(_ask(port, bodies, seconds, 1000 * seed + number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _recall_metrics(port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    pairs = [line.split(" ") for line in lines if line.startswith("muvera_recall")]
    return {name.removeprefix("muvera_recall_"): float(value) for name, value in pairs}


def _wait_for_meter(port: int) -> None:
    """Wait until the meter has measured what waits."""
    last = -1.0
    while (done := sum(_recall_metrics(port)[name] for name in ("queries", "dropped"))) != last:
        last = done
        time.sleep(1.0)


def load_rows(
    collection: Collection, rounds: int, seconds: float, shares: Sequence[float]
) -> list[dict[str, Any]]:
    """Return a row for each metered share, compared with a server without a meter."""
    documents = float_documents(collection)
    documents = MultiVectors(documents.tokens, documents.offsets)
    bodies = _bodies(float_queries(collection)[:500])
    with tempfile.TemporaryDirectory() as place, ExitStack() as servers:
        ports = {}
        for share in (0.0, *shares):
            folder = Path(place) / f"index-{share:g}"
            MuveraIndex.build(documents, exact_tokens=0, path=folder)
            options = () if share == 0 else ("--measure", f"{share:g}")
            ports[share] = servers.enter_context(_served(folder, *options))
        times: dict[float, list[list[float]]] = {share: [] for share in ports}
        for turn in range(-1, rounds):  # the first round compiles and does not count
            first = turn % len(ports)
            for share in [*ports][first:] + [*ports][:first]:
                found = _load(ports[share], bodies, seconds, turn + 1)
                if share:
                    _wait_for_meter(ports[share])
                if turn >= 0:
                    times[share].append(found)
                    progress(f"{share:g}: {len(found) / seconds:.0f} searches/s")
        told = {share: _recall_metrics(port) for share, port in ports.items() if share}
    rows = []
    for share in shares:
        rates, latest = (
            [function(a) / function(b) for a, b in zip(times[share], times[0.0], strict=True)]
            for function in (len, lambda each: float(np.quantile(each, 0.99)))
        )
        row: dict[str, Any] = {"share": share, "documents": len(documents)}
        row |= {"rate": float(np.mean([len(each) for each in times[share]])) / seconds}
        row |= {"p99": 1e3 * float(np.quantile(np.concatenate(times[share]), 0.99))}
        row |= {"rates": _ratio(rates), "latest": _ratio(latest)}
        rows.append(row | {"queries": told[share]["queries"], "dropped": told[share]["dropped"]})
    return rows


def _ratio(ratios: Sequence[float]) -> dict[str, float]:
    """Return the median of paired ratios, and the range of half of them."""
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    return {"mean": median, "low": low, "high": high}


# -- tables ---------------------------------------------------------------------------

_SIMULATED = [
    *(Column("expected recall", "kind"), Column("bets"), Column("runs")),
    Column("covered at all looks", "covered", "{:.4f}"),
    *(Column(f"width after {look:,}", f"{look}", "{:.3f}") for look in _PROTOTYPE),
]
_DRAWN = [Column("line"), Column("queries"), Column("recall", "recall", "{:.4f}")]
_SAMPLED = [
    *(Column("collection, encoder", "collection"), Column("documents"), Column("queries")),
    *(Column("recall", "recall", "{:.4f}"), Column("sampled share", "sampled")),
    *(Column("covered", "covered", "{:.3f}"), Column("width at the end", "width", "{:.3f}")),
]
_CALIBRATED = [
    *(Column("collection, encoder", "collection"), Column("documents"), Column("calibrated by", "queries")),
    *(Column("how"), Column("other queries", "others"), Column("`recall=`", "promise", "{:.2f}")),
    *(Column("before", "before", "{:.3f}"), Column("after [95%]", "after", "{:.3f}")),
    Column("within .01", "within"),
]
_COST = [Column("documents"), Column("tokens"), Column("processor seconds", "seconds", "{:.3f}")]
_LOAD = [
    *(Column("measured share", "share"), Column("documents")),
    *(Column("searches/s", "rate", "{:.0f}"), Column("99%, ms", "p99", "{:.1f}")),
    Column("searches/s relative to no meter", "rates", "{:.3f}x"),
    Column("99% relative to no meter", "latest", "{:.3f}x"),
    *(Column("measured", "queries", "{:.0f}"), Column("dropped", "dropped", "{:.0f}")),
]


def simulated_table(runs: int) -> Table:
    """Return the table of simulated queries."""
    widths = ", ".join(f"{width} after {look:,}" for look, width in _PROTOTYPE.items())
    return Table.of(
        "Simulated queries", _SIMULATED, simulated_rows(runs),
        f"{_COUNT:,} queries in each run. Constant: the mean recall is {_MEAN}. Falling: from .98 to .90. Bursts: "
        "topics of 20 queries, each with its mean. Covered: the share of the runs in which the 95% interval "
        "contained the mean of the expected recalls so far, after each query (plug-in: at "
        f"{_LOOKS} looks). Plug-in bets become smaller with time, so early queries count more. Widths of the "
        f"prototype: {widths}.",
    )  # fmt: skip


def meter(
    part: Annotated[
        list[str] | None, typer.Argument(help="simulated, real, cost or load. Default: all.")
    ] = None,
    collection: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    documents: Annotated[int | None, typer.Option(min=300, help="Use the first documents only.")] = None,
    queries: Annotated[int | None, typer.Option(min=1, help="Use some queries only.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Simulated runs of each kind.")] = 2000,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds of the load.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds of a round with each server.")] = 15.0,
    size: Annotated[list[int] | None, typer.Option(min=300, help="Documents of the exact search.")] = None,
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Check RecallMeter: coverage, calibration by real queries, cost, and load."""
    names = collection or list(_COLLECTIONS)
    makers: dict[str, Callable[[], list[Table]]] = {
        "real": lambda: real_tables(load_collections(names, data, cache), documents, queries),
        "simulated": lambda: [simulated_table(runs)],
        "cost": lambda: [
            Table.of(
                "Cost of an exact search", _COST,
                cost_rows(load_collections(names[-1:], data, cache)[0], size or SIZES),
                f"One query on one thread; float16 tokens of {names[-1]}, repeated to reach each number of "
                f"documents. Median of {_TIMED} queries. {measured_on()}",
            )
        ],
        "load": lambda: [
            Table.of(
                "Load of a server", _LOAD,
                load_rows(load_collections(names[-1:], data, cache)[0], rounds, seconds, (0.01, 0.1)),
                f"`muvera serve` with and without `--measure`, {_CONNECTIONS} connections that search by vectors "
                f"with `recall=.95` all the time, in turn for {seconds:g} seconds, {rounds} rounds. Ratios are "
                f"medians of the rounds, with the middle half. {measured_on()}",
            )
        ],
    }  # fmt: skip
    unknown = next((one for one in part or () if one not in makers), None)
    if unknown is not None:
        raise typer.BadParameter(f"the part must be one of {', '.join(makers)}, got {unknown!r}.")
    for one in part or makers:
        finish("meter", "A recall that is measured while people search", makers[one](), save)
