"""tune: compare encoders and storages on a sample; held-out queries estimate the recall of the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..index.settings import EXACT_TOKENS
from .arguments import require_values, texts_with_tokens, within_limits
from .evaluate import CUTOFFS, Evaluator, Measurement, mean_recall
from .hnsw_settings import M_VALUES, select_hnsw_settings
from .report import render
from .result import TunedRow, Tuning, select_row
from .sample import K, draw_sample
from .search_space import STORAGES, EncoderCandidate, Storage, encoder_candidates
from .successive_halving import halve

__all__ = ["tune"]

# Smallest number of documents to compare encoders on.
_MIN_RUNG = 200

# Samples of the bootstrap.
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
    """Find the encoder and the storage that suit documents and their queries.

    The mean token, moments, FDEs and learned vectors of many sizes are compared
    with exact Chamfer on a sample: all on a quarter of its documents, the better half of each kind
    on twice as many, and those that are left on all, as floats, in a byte per float and as product
    codes.  Two thirds of the queries select; the others estimate the recall of the choice.
    Encoders are fitted on documents alone.

    Parameters
    ----------
    documents : MultiVectors or a list of arrays (tokens, dimension)
    queries : MultiVectors or a list of arrays, optional
        Of the same model; at most 300 are used, fewer where tokens are many or wide.  Default:
        windows of the documents' tokens, which stand in for them
        (``python -m experiments run tuned`` measures what that costs).
    target_recall : float, optional
        Select the smallest vectors with which this share of the exact ten best is among the
        candidates.  Default: select the highest mean of recall among the candidates and among
        half as many.
    max_bytes : int, optional
        Of a document's vector, its links in a graph included.  Maps and codebooks, once for all
        documents, are not counted.
    max_floats : int, optional
        Of a document's vector, in any storage.
    candidates : int, optional
        Documents that a search ranks exactly.  Default: 100, at most a quarter of the sample.
    sample : int
        Documents to measure; time grows in proportion.  Among more documents the same number of
        candidates finds less.
    seed : int
        Fixes what is drawn.  The choice depends on it and on the data alone.
    threads : int, optional
        Default: all usable cores.
    progress : callable, optional
        Called with 1 after each step, the first of them the exact scores.

    Returns
    -------
    Tuning
        ``config`` and ``settings`` for :meth:`MuveraIndex.build`, ``save`` for
        ``muvera index --config``, ``rows`` and ``text``.

    Raises
    ------
    TypeError
        For a value that is no int.
    ValueError
        For fewer than 50 documents or 30 queries with tokens, a wrong value, or a limit that
        nothing meets.

    Examples
    --------
    >>> tuning = tune(documents, queries, max_bytes=1024)  # doctest: +SKIP
    >>> index = MuveraIndex.build(documents, tuning.config, **tuning.settings)  # doctest: +SKIP
    """
    require_values(target_recall, max_bytes, max_floats, candidates, sample, seed)
    texts, filled, given = texts_with_tokens(documents, queries)
    size = min(sample, len(filled))
    candidates = min(100, size // 4) if candidates is None else int(candidates)
    if not K <= candidates <= size // 2:
        raise ValueError(
            f"candidates must be between {K} and half of the {size} sampled documents, got {candidates}: "
            "among more, every configuration finds nearly everything. Sample more documents."
        )
    advance = progress or (lambda _: None)
    drawn = draw_sample(texts, filled, given, size, seed, threads)
    advance(1)
    storages = STORAGES
    encoders = within_limits(
        encoder_candidates(texts.dimension), storages, len(filled), max_bytes, max_floats
    )
    cutoffs = sorted({candidates, *(cutoff for cutoff in CUTOFFS if cutoff <= size // 2)})
    evaluator = Evaluator(drawn, max(cutoffs), threads, advance)
    left = _better(evaluator, encoders, candidates, size)
    evaluator.keep(each.source for each in left)
    rows = _Rows(evaluator, cutoffs, candidates, seed)
    table = rows.measure(left, storages, len(filled), max_bytes)
    choice = _choose(rows, left, table, target_recall)
    hnsw: dict[str, int] = {}
    graph_recall = None
    if choice.storage.has_graph(choice.floats, len(filled)):
        allowed = [
            each
            for each in M_VALUES
            if max_bytes is None
            or choice.storage.bytes_per_vector(choice.floats, len(filled), each) <= max_bytes
        ]
        hnsw, graph_recall = _tune_graph(evaluator, choice, candidates, allowed)
        choice = replace(choice, bytes=choice.storage.bytes_per_vector(choice.floats, len(filled), hnsw["m"]))
    found = Tuning(
        documents=len(filled),
        sampled_documents=size,
        queries=len(drawn.selection.queries),
        held_out_queries=len(drawn.held_out.queries),
        pseudo_queries=given is None,
        candidates=candidates,
        target_recall=target_recall,
        target_reached=None if target_recall is None else choice.recall[candidates] >= target_recall,
        min_candidates=_min_candidates(choice, target_recall),
        choice=choice,
        hnsw=hnsw,
        graph_recall=graph_recall,
        rows=table,
        exact_search=texts.num_tokens <= EXACT_TOKENS,
    )
    return replace(found, text=render(found))


def _better(
    evaluator: Evaluator, encoders: Sequence[EncoderCandidate], candidates: int, size: int
) -> list[EncoderCandidate]:
    """Return the encoders that are left after successive halving on parts of the sample.

    Each kind is halved by itself: one that is behind among few documents may be ahead among all.
    """

    def recall(left: Sequence[EncoderCandidate], count: int) -> list[float]:
        # The same share of the documents, so that sizes differ in a small sample as in a large one.
        return evaluator.recall(left, STORAGES[0], count, max(K, round(candidates * count / size)))

    rungs = [count for count in (size // 4, size // 2) if count >= _MIN_RUNG]
    kinds = dict.fromkeys(each.kind for each in encoders)
    return [
        each
        for kind in kinds
        for each in halve(
            [one for one in encoders if one.kind == kind], rungs, lambda one: one.floats, recall
        )
    ]


@dataclass(frozen=True)
class _Rows:
    """Makes rows of measurements: what all of them share."""

    evaluator: Evaluator
    cutoffs: Sequence[int]
    candidates: int
    seed: int

    def measure(
        self,
        encoders: Sequence[EncoderCandidate],
        storages: Sequence[Storage],
        documents: int,
        max_bytes: int | None,
    ) -> tuple[TunedRow, ...]:
        """Return a row for each encoder in each storage that is within the limit, by bytes."""
        rows = []
        for source in dict.fromkeys(each.source for each in encoders):
            pairs = [
                (each, storage)
                for each in encoders
                if each.source == source
                for storage in storages
                if max_bytes is None or storage.bytes_per_vector(each.floats, documents) <= max_bytes
            ]
            measurements = self.evaluator.measure(source, pairs)
            for (each, storage), measurement in zip(pairs, measurements, strict=True):
                size = storage.bytes_per_vector(each.floats, documents)
                rows.append(self._row(each, storage, size, measurement))
        return tuple(sorted(rows, key=lambda row: (row.bytes, row.floats, row.name)))

    def alone(self, encoder: EncoderCandidate, row: TunedRow) -> TunedRow:
        """Return a row measured with maps of its own size, where a larger one's columns stood for it."""
        if encoder.source == encoder.config:
            return row
        alone = EncoderCandidate(encoder.name, encoder.config, encoder.config)
        measurement = self.evaluator.measure(alone.source, [(alone, row.storage)])[0]
        return self._row(alone, row.storage, row.bytes, measurement)

    def _row(
        self, encoder: EncoderCandidate, storage: Storage, size: int, measurement: Measurement
    ) -> TunedRow:
        held_out = (measurement.held_out < self.candidates).mean(axis=1)
        pseudo = measurement.pseudo_queries
        return TunedRow(
            name=encoder.name,
            config=encoder.config,
            storage=storage,
            bytes=size,
            recall={cutoff: float((measurement.selection < cutoff).mean()) for cutoff in self.cutoffs},
            mean_recall=mean_recall(measurement.selection, self.candidates),
            pseudo_query_recall=None if pseudo is None else mean_recall(pseudo, self.candidates),
            held_out=float(held_out.mean()),
            interval=_interval(held_out, self.seed),
            encode_seconds=measurement.encode_seconds,
            query_seconds=measurement.query_seconds,
        )


def _interval(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Return the bootstrap's 95 per cent confidence interval of the mean."""
    draws = np.random.default_rng(seed).integers(0, len(values), (_DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _choose(
    rows: _Rows, encoders: Sequence[EncoderCandidate], table: Sequence[TunedRow], target_recall: float | None
) -> TunedRow:
    """Return the row to use, measured with maps of its own size.

    These may find less than the leading columns of larger maps, which stood for them: where the
    row then misses the target, or another row exceeds it, that one is measured next.
    """
    measured: list[TunedRow] = []
    left = list(table)
    # Where nothing turns out to reach the target, the highest recall is chosen as without one.
    for target in (target_recall, None):
        while left:
            row = select_row(left, rows.candidates, target)
            if target is not None:
                enough = row.recall[rows.candidates] >= target
            else:
                enough = all(row.mean_recall > one.mean_recall for one in measured)
            if not enough:
                break
            alone = rows.alone(next(each for each in encoders if each.config == row.config), row)
            measured.append(alone)
            left = [other for other in left if other is not row]
            if target is not None and alone.recall[rows.candidates] >= target:
                return alone
    return max(measured, key=lambda one: one.mean_recall)


def _min_candidates(choice: TunedRow, target_recall: float | None) -> int | None:
    if target_recall is None:
        return None
    return min((cutoff for cutoff, found in choice.recall.items() if found >= target_recall), default=None)


def _tune_graph(
    evaluator: Evaluator, row: TunedRow, candidates: int, m_values: Sequence[int]
) -> tuple[dict[str, int], float]:
    encoder, drawn = evaluator.encoder(row.config), evaluator.sample
    return select_hnsw_settings(
        encoder.encode_documents(drawn.documents, threads=evaluator.threads),
        encoder.encode_queries(drawn.selection.queries, threads=evaluator.threads),
        candidates,
        m_values,
    )
