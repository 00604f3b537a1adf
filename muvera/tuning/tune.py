"""tune: search configurations on a sample, and let queries that had no say tell what was found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_multivectors
from ..index.candidates import GRAPH_FROM
from ..index.muvera_index import EXACT_TOKENS
from ..mips.product_quantizer import CENTROIDS
from .evaluate import DEPTHS, Bench, Measured, mean_recall
from .hnsw_settings import LINKS, choose_graph
from .report import render
from .result import TunedRow, Tuning, choose
from .sample import HELD_OUT, TOP, draw_sample
from .search_space import STORAGES, Arm, Storage, arms
from .successive_halving import halve

__all__ = ["tune"]

#: Fewer say nothing: documents, and queries to choose by and to hold out.
FEWEST_DOCUMENTS, FEWEST_QUERIES = 50, 2 * HELD_OUT

# A rung has at least so many documents.
_RUNG = 200

_DRAWS = 1000


def tune(
    documents: Any,
    queries: Any = None,
    *,
    target_recall: float | None = None,
    max_bytes: int | None = None,
    max_floats: int | None = None,
    candidates: int | None = None,
    sample: int = 1500,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Tuning:
    """Find the configuration that suits documents and their queries.

    FDEs of many sizes, compact FDEs and learned vectors are compared with exact Chamfer on a
    sample: all on a quarter of its documents, the better half of each kind on twice as many, and
    those that are left on all, as floats, in a byte a float and as product codes.  Two thirds of the queries
    choose; the others only tell what the choice finds.  Encoders learn from documents alone.

    Parameters
    ----------
    documents : MultiVectors or a list of arrays (tokens, dimension)
    queries : MultiVectors or a list of arrays, optional
        Of the same model; at most 300 are used, fewer where tokens are many or wide.  Default:
        windows of the documents' tokens, which stand in for them
        (``python -m experiments tune`` measures what that costs).
    target_recall : float, optional
        Choose the smallest vectors with which so much of the exact ten best is among the
        candidates.  Default: choose what finds most, as the mean of recall among the candidates
        and among half as many.
    max_bytes : int, optional
        Of a document's vector, its links in a graph included.  Maps and codebooks, once for all
        documents, come on top.
    max_floats : int, optional
        Of a document's vector, however they are kept.
    candidates : int, optional
        How many documents a search ranks exactly.  Default: 100, at most a quarter of the sample;
        with a target the fewest that reach it are told, too.
    sample : int
        Documents to measure; time grows in proportion.  Among more documents the same number of
        candidates finds less.
    seed : int
        Fixes what is drawn.  The choice depends on it and on the data alone.
    threads : int, optional
        Default: all usable cores.
    progress : callable, optional
        Called with 1 after each encoder that was measured.

    Returns
    -------
    Tuning
        ``config`` and ``settings`` for :meth:`MuveraIndex.build`, ``save`` for
        ``muvera index --config``, ``rows`` and ``text``.

    Raises
    ------
    ValueError
        For fewer than 50 documents or 30 queries with tokens, a wrong value, or a limit that
        nothing meets.

    Examples
    --------
    >>> tuning = tune(documents, queries, max_bytes=1024)  # doctest: +SKIP
    >>> index = MuveraIndex.build(documents, tuning.config, **tuning.settings)  # doctest: +SKIP
    """
    _require_values(target_recall, max_bytes, max_floats, candidates, sample, seed)
    texts, filled, asked = _texts(documents, queries)
    size = min(sample, len(filled))
    depth = min(100, size // 4) if candidates is None else int(candidates)
    if not TOP <= depth <= size // 2:
        raise ValueError(
            f"candidates must be between {TOP} and half of the {size} sampled documents, got {depth}: "
            "of more, any configuration finds nearly all. Sample more documents."
        )
    drawn = draw_sample(texts, filled, asked, size, seed, threads)
    links = min(LINKS) if len(filled) >= GRAPH_FROM else None
    storages = [one for one in STORAGES if one.backend != "pq" or len(drawn.learning) >= 2 * CENTROIDS]
    tried = _fitting(arms(texts.dimension), storages, links, max_bytes, max_floats)
    depths = sorted({depth, *(each for each in DEPTHS if each <= size // 2)})
    bench = Bench(drawn, max(depths), threads, progress or (lambda _: None))

    def recall(left: Sequence[Arm], count: int) -> list[float]:
        # The same share of the documents, so that sizes differ in a small sample as in a large one.
        return bench.recall(left, STORAGES[0], count, max(TOP, round(depth * count / size)))

    rungs = [count for count in (size // 4, size // 2) if count >= _RUNG]
    # Each kind by itself: one that is behind among few documents may be ahead among all.
    kinds = [[arm for arm in tried if arm.kind == kind] for kind in dict.fromkeys(arm.kind for arm in tried)]
    left = [arm for kind in kinds for arm in halve(kind, rungs, lambda arm: arm.floats, recall)]
    bench.forget(arm.source for arm in left)
    rows = _rows(bench, left, storages, links, (max_bytes, max_floats), depths, depth, seed)
    chosen = _chosen(bench, left, rows, depth, target_recall, seed)
    hnsw: dict[str, int] = {}
    share = None
    if links is not None and chosen.storage.backend == "auto":
        room = [m for m in LINKS if max_bytes is None or chosen.storage.size(chosen.floats, m) <= max_bytes]
        hnsw, share = _graph(bench, chosen, depth, room)
        chosen = replace(chosen, bytes=chosen.storage.size(chosen.floats, hnsw["m"]))
    reached = None if target_recall is None else chosen.recall[depth] >= target_recall
    enough = [d for d, found in chosen.recall.items() if target_recall is not None and found >= target_recall]
    found = Tuning(
        documents=len(filled),
        sampled_documents=size,
        queries=len(drawn.choosing.queries),
        held_out_queries=len(drawn.held_out.queries),
        pseudo=drawn.pseudo,
        candidates=depth,
        target_recall=target_recall,
        reached=reached,
        enough_candidates=min(enough, default=None),
        chosen=chosen,
        hnsw=hnsw,
        graph_recall=share,
        rows=rows,
        exact=texts.num_tokens <= EXACT_TOKENS,
    )
    return replace(found, text=render(found))


def _require_values(
    target_recall: float | None,
    max_bytes: int | None,
    max_floats: int | None,
    candidates: int | None,
    sample: int,
    seed: int,
) -> None:
    if max_bytes is not None and max_floats is not None:
        raise ValueError(
            f"max_bytes={max_bytes} and max_floats={max_floats} are two limits of one size. Give one of them."
        )
    if target_recall is not None and not 0 < target_recall <= 1:
        raise ValueError(f"target_recall must be above 0 and at most 1, got {target_recall}.")
    for name, value, least in (
        ("max_bytes", max_bytes, 1),
        ("max_floats", max_floats, 1),
        ("candidates", candidates, 1),
        ("sample", sample, FEWEST_DOCUMENTS),
        ("seed", seed, 0),
    ):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"{name} must be an int, got {type(value).__name__}.")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


def _texts(documents: Any, queries: Any) -> tuple[MultiVectors, NDArray[np.int64], MultiVectors | None]:
    """Return the documents, where those with tokens are, and the queries that have tokens."""
    texts = as_multivectors(documents, "documents")
    filled = _filled(texts, "documents", FEWEST_DOCUMENTS)
    if queries is None:
        return texts, filled, None
    asked = as_multivectors(queries, "queries")
    asked.require_dimension(texts.dimension, "queries", "documents")
    asked.require_finite("queries")
    kept = asked[_filled(asked, "queries", FEWEST_QUERIES)]
    return texts, filled, MultiVectors(kept.tokens, kept.offsets)


def _filled(texts: MultiVectors, name: str, least: int) -> NDArray[np.int64]:
    filled = np.flatnonzero(texts.lengths > 0)
    if len(filled) < least:
        instead = "Give more" if name == "documents" else "Give more, or none: windows of documents stand in"
        raise ValueError(f"tune needs at least {least} {name} with tokens, got {len(filled)}. {instead}.")
    return filled


def _fitting(
    found: list[Arm],
    storages: Sequence[Storage],
    links: int | None,
    max_bytes: int | None,
    max_floats: int | None,
) -> list[Arm]:
    """Return the arms that can be kept within the limits."""
    sizes = [min(storage.size(arm.floats, links) for storage in storages) for arm in found]
    if max_bytes is not None:
        kept = [arm for arm, size in zip(found, sizes, strict=True) if size <= max_bytes]
        limit, least = f"max_bytes={max_bytes}", f"{min(sizes)} bytes"
    elif max_floats is not None:
        kept = [arm for arm in found if arm.floats <= max_floats]
        limit, least = f"max_floats={max_floats}", f"{min(arm.floats for arm in found)} floats"
    else:
        return found
    if not kept:
        raise ValueError(
            f"Nothing is as small as {limit}. The smallest that is tried has {least}. Allow more."
        )
    return kept


def _rows(
    bench: Bench,
    left: Sequence[Arm],
    storages: Sequence[Storage],
    links: int | None,
    limits: tuple[int | None, int | None],
    depths: Sequence[int],
    candidates: int,
    seed: int,
) -> tuple[TunedRow, ...]:
    """Measure what is left in every storage that is within the limits."""
    rows = []
    for source in dict.fromkeys(arm.source for arm in left):
        pairs = [
            (arm, storage)
            for arm in left
            if arm.source == source
            for storage in storages
            if limits[0] is None or storage.size(arm.floats, links) <= limits[0]
        ]
        for (arm, storage), measured in zip(pairs, bench.measure(source, pairs), strict=True):
            size = storage.size(arm.floats, links)
            rows.append(_row(arm, storage, size, measured, depths, candidates, seed))
    return tuple(sorted(rows, key=lambda row: (row.bytes, row.floats, row.name)))


def _row(
    arm: Arm,
    storage: Storage,
    size: int,
    measured: Measured,
    depths: Sequence[int],
    candidates: int,
    seed: int,
) -> TunedRow:
    held_out = (measured.held_out < candidates).mean(axis=1)
    return TunedRow(
        name=arm.name,
        config=arm.config,
        storage=storage,
        bytes=size,
        recall={depth: float((measured.choosing < depth).mean()) for depth in depths},
        mean_recall=mean_recall(measured.choosing, candidates),
        by_windows=None if measured.windows is None else mean_recall(measured.windows, candidates),
        held_out=float(held_out.mean()),
        interval=_interval(held_out, seed),
        encode_seconds=measured.encode_seconds,
        query_seconds=measured.query_seconds,
    )


def _interval(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Return 95 per cent of the means of values drawn anew."""
    draws = np.random.default_rng(seed).integers(0, len(values), (_DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _chosen(
    bench: Bench,
    left: Sequence[Arm],
    rows: Sequence[TunedRow],
    candidates: int,
    target_recall: float | None,
    seed: int,
) -> TunedRow:
    """Return the row to use, measured by itself; where that misses a target, the next that does not."""
    tried = []
    target = target_recall or 0.0
    while True:
        row = choose(rows, candidates, target_recall)
        alone = _by_itself(
            bench, next(arm for arm in left if arm.config == row.config), row, candidates, seed
        )
        tried.append(alone)
        rows = [other for other in rows if other is not row]
        if alone.recall[candidates] >= target:
            return alone
        if not rows or row.recall[candidates] < target:  # no other promises it either
            return max(tried, key=lambda one: one.mean_recall)


def _by_itself(bench: Bench, arm: Arm, row: TunedRow, candidates: int, seed: int) -> TunedRow:
    """Measure what was chosen with maps of its own size, where a larger one's columns stood for it."""
    if arm.source == arm.config:
        return row
    alone = Arm(arm.name, arm.config, arm.config)
    measured = bench.measure(alone.source, [(alone, row.storage)])[0]
    return _row(alone, row.storage, row.bytes, measured, list(row.recall), candidates, seed)


def _graph(
    bench: Bench, row: TunedRow, candidates: int, links: Sequence[int]
) -> tuple[dict[str, int], float]:
    encoder, drawn = bench.encoder(row.config), bench.sample
    return choose_graph(
        encoder.encode_documents(drawn.documents, threads=bench.threads),
        encoder.encode_queries(drawn.choosing.queries, threads=bench.threads),
        candidates,
        links,
    )
