"""Whether each figure of the MUVERA paper holds here, by rules over stored results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from pathlib import Path
from statistics import median
from typing import NamedTuple

from .stored_results import RESULTS, load_results
from .stored_tables import MissingCellError, StoredTables, interval_of, number_of

YES, PART, NO, UNTESTED = "yes", "in part", "no", "not tested"

#: Differences of a recall or an nDCG up to this size count as equal.
MARGIN = 0.01

# Largest number of collections whose numbers a sentence shows.
_SHOWN = 3


class Verdict(NamedTuple):
    """Whether a claim holds here, and the sentences with the numbers."""

    #: "yes", "in part", "no" or "not tested".
    holds: str
    text: str


def verdict_of(experiment: str, results: Path = RESULTS) -> Verdict:
    """Return the verdict of the rule for an experiment's figure."""
    stored = StoredTables(load_results(experiment, results))
    return _tested(lambda: _RULES[experiment](stored, results))


def together(parts: Iterable[Verdict]) -> Verdict:
    """Join the verdicts of a claim's parts.

    Examples
    --------
    >>> together([Verdict("yes", "Smaller."), Verdict("not tested", "Speed.")])
    Verdict(holds='in part', text='Smaller. Speed.')
    """
    known = list(parts)
    kinds = {part.holds for part in known}
    return Verdict(kinds.pop() if len(kinds) == 1 else PART, " ".join(part.text for part in known))


def share(held: Sequence[bool]) -> str:
    """Return "yes" if all comparisons hold, "no" if none does, or "in part"."""
    return YES if all(held) else PART if any(held) else NO


def join(words: Sequence[str]) -> str:
    """Return words as an English list.

    Examples
    --------
    >>> join(["a"]), join(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _tested(rule: Callable[[], Verdict]) -> Verdict:
    """Return a rule's verdict, or "not tested" with what the stored result lacks."""
    try:
        return rule()
    except MissingCellError as error:
        return Verdict(UNTESTED, f"Not tested: the stored result lacks {error.args[0]}.")


def _dimension(stored: StoredTables, _: Path) -> Verdict:
    return together([_rising(stored), _best_of_sizes(stored), _tested(lambda: _k_means(stored))])


_DEEP = "10-recall@100"


def _sizes(stored: StoredTables) -> dict[tuple[int, int, int], str]:
    """Return the rows of the paper's FDEs by R, k and p."""
    found = {row: re.fullmatch(r"paper R=(\d+) k=(\d+) p=(\d+)", row) for row in stored.rows(_DEEP)}
    return {(int(one[1]), int(one[2]), int(one[3])): row for row, one in found.items() if one}


def _rising(stored: StoredTables) -> Verdict:
    """Compare FDEs with more repetitions with those of the same k and p."""
    rows, rises = _sizes(stored), []
    for pair in sorted({key[1:] for key in rows}):
        curve = [rows[key] for key in sorted(rows) if key[1:] == pair]
        for name in stored.collections(_DEEP):
            values = [stored.value(_DEEP, row, name) for row in curve]
            rises.append(values == sorted(set(values)))
    text = f"{_DEEP} rises with R in {sum(rises)} of {len(rises)} curves (each k and p, each collection)."
    return Verdict(share(rises), text)


def _best_of_sizes(stored: StoredTables) -> Verdict:
    """Compare the paper's best (R, k, p) with other FDEs of as many floats."""
    rows, best, lost = _sizes(stored), [], []
    for chosen in ((20, 3, 8), (20, 4, 8), (20, 5, 8), (20, 5, 16)):
        others = [key for key in rows if key != chosen and _floats(key) == _floats(chosen)]
        for name in stored.collections(_DEEP) if others else ():
            value = stored.value(_DEEP, rows[chosen], name)
            winner = max(others, key=lambda key: stored.value(_DEEP, rows[key], name))
            best.append(value >= stored.value(_DEEP, rows[winner], name))
            if not best[-1]:
                more, fewer = stored.shown(_DEEP, rows[winner], name), stored.shown(_DEEP, rows[chosen], name)
                lost.append(f"{_key(winner)} has {more} and {_key(chosen)} has {fewer} on {name}")
    text = f"With as many floats, the paper's choice is the best in {sum(best)} of {len(best)} comparisons"
    return Verdict(share(best), f"{text}{': ' if lost else ''}{join(lost)}.")


def _floats(key: tuple[int, int, int]) -> int:
    return int(key[0] * 2 ** key[1] * key[2])


def _key(key: tuple[int, int, int]) -> str:
    return f"({','.join(map(str, key))})"


def _k_means(stored: StoredTables) -> Verdict:
    """Compare rows such as "paper k-means R=20 k=5 p=16" with those of SimHash."""
    rows = [row for row in stored.rows(_DEEP) if "k-means" in row]
    if not rows:
        raise MissingCellError("a row with k-means cells")
    names, held, shown = stored.collections(_DEEP), list[bool](), list[str]()
    for row in rows:
        simhash = row.replace("k-means ", "")
        pairs = [[stored.shown(_DEEP, one, name) for one in (row, simhash)] for name in names]
        held += [number_of(ours) <= number_of(theirs) + MARGIN for ours, theirs in pairs]
        shown = [
            f"{ours} against {theirs} ({name})" for (ours, theirs), name in zip(pairs, names, strict=True)
        ]
    text = (
        f"K-means cells are no better than SimHash in {sum(held)} of {len(held)} comparisons of as many floats; "
        f"with{rows[-1].removeprefix('paper k-means')}: {', '.join(shown)}."
    )
    return Verdict(share(held), text)


def _nearest(stored: StoredTables, _: Path) -> Verdict:
    """Compare the paper's 95% at 75 candidates, and the mean token vector."""
    row, mean, title = "paper R=20 k=5 p=8", "mean token vector", "1-recall@75"
    names = stored.collections(title)
    held = [stored.value(title, row, name) >= 0.95 for name in names]
    shown = [f"{stored.shown(title, row, name)} ({name})" for name in names]
    text = f"Among 75 candidates of 5,120 floats, the nearest neighbor is found for {join(shown)} of the queries."
    depths = [f"1-recall@{depth}" for depth in (10, 25, 50, 75)]
    ahead = [
        f"{stored.shown('1-recall@25', mean, name)} against {stored.shown('1-recall@25', row, name)} ({name})"
        for name in names
        if all(stored.value(depth, mean, name) > stored.value(depth, row, name) for depth in depths)
    ]
    if ahead:
        text += (
            f" The mean token vector alone finds more at every N from 10 to 75; at N=25, {', '.join(ahead)}."
        )
    return Verdict(share(held), text)


def _heuristic(stored: StoredTables, _: Path) -> Verdict:
    """Compare numbers of candidates for a recall of .80 and .95."""
    title, fde, tokens = "candidates that reach", "paper (40,6,128) to 10240", "single vectors"
    fewer, halved, shown = [], [], []
    names = stored.collections(title)
    for recall in (".80", ".95"):
        ours = [stored.shown(title, [fde, recall], name) for name in names]
        theirs = [stored.shown(title, [tokens, recall], name) for name in names]
        twice = [stored.shown(title, [f"{tokens} without deduplication", recall], name) for name in names]
        fewer.append([number_of(a) < number_of(b) for a, b in zip(ours, theirs, strict=True)])
        halved += [2 * number_of(a) <= number_of(b) for a, b in zip(ours, theirs, strict=True)]
        shown.append(
            f"for a recall of {recall}, 10,240 floats take {'/'.join(ours)} candidates, the heuristic takes "
            f"{'/'.join(theirs)}, and {'/'.join(twice)} without deduplication"
        )
    by_name = [all(column) for column in zip(*fewer, strict=True)]
    winners = [name for name, held in zip(names, by_name, strict=True) if held]
    where = f"FDEs need fewer candidates than the heuristic on {join(winners) or 'no collection'}"
    half = f"at most half as many in {sum(halved)} of {len(halved)} comparisons"
    text = f"{where} ({len(winners)} of {len(names)}), {half}: {'; '.join(shown)} ({', '.join(names)})."
    return Verdict(share(by_name), text)


def _carving(stored: StoredTables, _: Path) -> Verdict:
    """Judge quality at tau = .7 by nDCG, and the time by the paired ratio."""
    title, pair = "paired differences", "carving, tau=0.7 {} carving, tau=None"
    names = stored.collections(title)
    gains = [stored.cell(title, [pair.format("minus"), "nDCG@10"], name) for name in names]
    times = [stored.cell(title, [pair.format("over"), "median latency"], name) for name in names]
    flat = [interval_of(cell)[1] >= 0 for cell in gains]
    faster = [interval_of(cell)[1] < 1 for cell in times]
    quality = f"Quality: at tau = .7, nDCG@10 changes by {_each(gains, names)}."
    speed = f"Speed: the time of a whole query, relative to no carving, is {_each(times, names)}."
    speed += f" {_tested(lambda: _carving_in_a_search(stored, names)).text}"
    return together([Verdict(share(flat), quality), Verdict(share(faster), speed)])


def _carving_in_a_search(stored: StoredTables, names: Sequence[str]) -> Verdict:
    """Compare carving with exact ranking of fewer candidates, which also saves time.

    Carving helps if it answers faster than without, and no smaller number of candidates
    is as fast with as much recall.
    """
    title, recall, to = "paired differences", "10-recall@10", "carving, tau=None"
    systems = [row.partition(" minus ")[0] for row in stored.rows(title) if " minus " in row]
    fewer = [system for system in dict.fromkeys(systems) if system.startswith("no carving")]
    carved = [system for system in dict.fromkeys(systems) if system not in fewer]
    if not fewer:
        raise MissingCellError("a row that ranks fewer candidates")
    helped, shown = list[str](), ""
    for name in names:
        change = {one: stored.value(title, [f"{one} minus {to}", recall], name) for one in systems}
        times = {
            one: stored.cell(title, [f"{one} over {to}", "median latency"], name)
            for one in dict.fromkeys(systems)
        }
        for one in carved:
            if interval_of(times[one])[1] >= 1:
                continue
            better = [
                other
                for other in fewer
                if number_of(times[other]) <= number_of(times[one]) and change[other] >= change[one]
            ]
            if not better:
                helped.append(f"{one.removeprefix('carving, ')} on {name}")
            elif not shown:
                pair = [
                    f"{which.rpartition(', ')[2]} takes {times[which].partition(' ')[0]} and changes it by "
                    f"{change[which]:+.3f}"
                    for which in (better[0], one)
                ]
                shown = f": {'; '.join(pair)} ({name})"
    if helped:
        return Verdict(PART, f"No smaller number of candidates is as good as {join(helped)}.")
    text = (
        "An option of a search would help nowhere: to rank fewer candidates exactly is at least as fast and loses "
        f"no more {recall}{shown}."
    )
    return Verdict(NO, text)


def _each(cells: Sequence[str], names: Sequence[str]) -> str:
    return join([f"{cell.partition(' ')[0]} ({name})" for cell, name in zip(cells, names, strict=True)])


def _quantization(stored: StoredTables, _: Path) -> Verdict:
    """Judge bytes and recall of PQ-256-8, and the speed of a graph of its codes."""
    size, floats, codes = "bytes per document", "paper, exact", "paper, PQ-256-8"
    names = stored.collections(size)
    before, after = (stored.shown(size, row, names[0]) for row in (floats, codes))
    ratio = number_of(before) / number_of(after)
    losses = [stored.cell("paired differences", [f"{codes} minus {floats}", _DEEP], name) for name in names]
    small = f"Size: {after} bytes instead of {before}, {ratio:.0f} times fewer (exact search keeps floats and bytes)."
    lost = f"Recall: {_DEEP} changes by {_each(losses, names)}."
    parts = [
        Verdict(YES if ratio >= 32 else NO, small),
        Verdict(share([number_of(loss) >= -0.03 for loss in losses]), lost),
        _tested(lambda: _codes_in_a_graph(stored, names)),
    ]
    return together(parts)


def _codes_in_a_graph(stored: StoredTables, names: Sequence[str]) -> Verdict:
    """Compare graphs of codes and of floats with beams of the same width."""
    title, floats = "paired differences", "paper, graph, ef=100"
    codes = floats.replace("graph", "PQ-256-8, graph")
    if codes not in stored.rows("queries per second"):
        raise MissingCellError("a row that searches codes in a graph, so speed is not compared")
    times = [stored.cell(title, [f"{codes} over {floats}", "median latency"], name) for name in names]
    losses = [stored.cell(title, [f"{codes} minus {floats}", _DEEP], name) for name in names]
    text = (
        "Speed: with the same links and the same beam (ef=100), the time of a query by codes, relative to floats, "
        f"is {_each(times, names)}; its {_DEEP} changes by {_each(losses, names)}."
    )
    kinds = {YES if ratio < 0.5 else PART if ratio < 1 else NO for ratio in map(number_of, times)}
    return Verdict(kinds.pop() if len(kinds) == 1 else PART, text)


def _graph(stored: StoredTables, results: Path) -> Verdict:
    """Judge the graph's recall, and its time by the number of documents."""
    title, exact = "10-recall@50", "paper, exact"
    names = stored.collections(title)
    beams = [row for row in stored.rows(title) if row.startswith("paper, hnswlib, ef=")]
    enough = [
        row
        for row in beams
        if all(stored.value(title, row, name) >= stored.value(title, exact, name) - 0.002 for name in names)
    ]
    shown = [
        f"{stored.shown(title, (enough or beams)[0], name)} against {stored.shown(title, exact, name)} ({name})"
        for name in names
    ]
    found = (
        f"A graph finds what exact search finds: with {(enough or beams)[0].rpartition(', ')[2]}, {title} is"
    )
    parts = [Verdict(YES if enough else NO, f"{found} {', '.join(shown)}.")]
    growth = StoredTables(load_results("growth", results))
    return together([*parts, _tested(lambda: _independence(growth))])


def _independence(growth: StoredTables) -> Verdict:
    """Compare the times of the smallest and the largest collection."""
    try:
        title = "Real text, backend hnsw"
        growth.table(title)
    except MissingCellError:
        title = "Generated documents, backend hnsw"
    sizes = growth.table(title)["header"][1:]
    small, large = sizes[0], sizes[-1]
    row, recall = "quick search: p50, processor ms", "quick search: 10-recall@10"
    times = [growth.shown(title, row, size) for size in (small, large)]
    ratio = number_of(times[1]) / number_of(times[0])
    grown = number_of(large) / number_of(small)
    text = (
        f"With {large} documents a search takes {ratio:.1f} times as long as with {small} ({times[0]} and "
        f"{times[1]} ms), while its 10-recall@10 falls from {growth.shown(title, recall, small)} to "
        f"{growth.shown(title, recall, large)}."
    )
    if title.startswith("Generated"):
        text += " These documents are generated: a graph of real texts of several sizes is not tested."
    return Verdict(YES if ratio <= 2 else PART if ratio <= sqrt(grown) else NO, text)


def _plaid(stored: StoredTables, _: Path) -> Verdict:
    """Compare the paper's FDEs in a graph with PLAID's most thorough search."""
    recall, rank, speed = "10-recall@10", "nDCG@10", "queries per second"
    names = stored.collections(recall)
    ours = [row for row in stored.rows(recall) if row.startswith("muvera paper, hnswlib")]
    theirs = [row for row in stored.rows(recall) if row.startswith("plaid, n_")]
    held, shown = [], []
    for name in names:
        best = max(theirs, key=lambda row: stored.value(recall, row, name))
        fast = [row for row in ours if stored.value(recall, row, name) > stored.value(recall, best, name)]
        row = (fast or ours)[0] if fast else ours[-1]
        times = [_milliseconds(stored.cell(speed, one, name)) for one in (row, best)]
        held.append(bool(fast) and number_of(times[0]) < number_of(times[1]))
        # Without judged questions, a collection has no nDCG.
        titles = [title for title in (recall, rank) if _has(stored, title, best, name)]
        values = [
            f"{title} {stored.shown(title, row, name)} against {stored.shown(title, best, name)}"
            for title in titles
        ]
        shown.append(f"{', '.join(values)}, {times[0]} against {times[1]} ms ({name})")
    text = (
        "The paper's FDEs in a graph find more than PLAID in less time on "
        f"{sum(held)} of {len(held)} collections: {'; '.join(shown[:_SHOWN])}"
    )
    rest = len(shown) - _SHOWN
    return Verdict(share(held), f"{text}{f'; and {rest} more' if rest > 0 else ''}.")


def _has(stored: StoredTables, title: str, row: str, collection: str) -> bool:
    """Return True if a cell is not empty."""
    return bool(stored.cell(title, row, collection, empty=True))


def _milliseconds(cell: str) -> str:
    """Return the median of a cell such as ``727 (1.32 / 1.87 / 2.12)``."""
    return cell.partition("(")[2].partition(" ")[0]


def _variance(stored: StoredTables, _: Path) -> Verdict:
    """Compare standard deviations with the paper's .0017 to .0029."""
    rows = [row for row in stored.rows(_DEEP) if row.startswith("paper")]
    cells = [stored.cell(_DEEP, row, name) for row in rows for name in stored.collections(_DEEP)]
    values = sorted(float(cell.partition("+- ")[2]) for cell in cells)
    times = median(values) / 0.0023  # the middle of the paper's values
    text = (
        f"Standard deviations of {_DEEP} are {values[0]:.4f} to {values[-1]:.4f}, {times:.1f} times the paper's: "
        "MS MARCO has 6,980 queries, these collections at most 300."
    )
    return Verdict(YES if values[-1] <= 0.0029 else PART if values[-1] <= 0.02 else NO, text)


def _projection(stored: StoredTables, _: Path) -> Verdict:
    """Compare FDEs with random projections of (40,6,128) to as many floats."""
    names, held, shown, sizes = stored.collections(_DEEP), [], [], []
    for key in ((20, 4, 8), (20, 5, 8), (20, 5, 16), (20, 5, 32)):
        projected = f"(40,6,128) to {_floats(key)} at random"
        pairs = [
            (stored.shown(_DEEP, _key(key), name), stored.shown(_DEEP, projected, name)) for name in names
        ]
        better = [number_of(after) > number_of(before) for before, after in pairs]
        held += better
        sizes += [f"{_floats(key):,}"] if all(better) else []
        shown.append(f"{_floats(key):,} floats " + ", ".join(f"{a} to {b}" for a, b in pairs))
    text = f"{_DEEP} rises on all collections only at {join(sizes) or 'no number of'} floats"
    return Verdict(share(held), f"{text}: {'; '.join(shown)} ({', '.join(names)}).")


_RULES: dict[str, Callable[[StoredTables, Path], Verdict]] = {
    "vector_dimension": _dimension,
    "nearest_neighbor": _nearest,
    "single_vector": _heuristic,
    "carving": _carving,
    "quantization": _quantization,
    "graph": _graph,
    "plaid": _plaid,
    "variance": _variance,
    "final_projection": _projection,
}
