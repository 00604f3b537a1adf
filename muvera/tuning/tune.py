"""tune: compare encoders on a sample; held-out queries estimate the recall of the choice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_multivectors
from ..diagnostics.sample import K
from ..index.settings import EXACT_TOKENS
from ..utils.checks import require_int
from .evaluate import MIN_HELD_OUT, Evaluator, draw_sample, vector_bytes
from .result import TunedRow, Tuning, select_row
from .search_space import EncoderCandidate, encoder_candidates, halve

__all__ = ["MIN_DOCUMENTS", "MIN_QUERIES", "tune"]

#: Smallest number of documents, and of given queries.
MIN_DOCUMENTS, MIN_QUERIES = 50, 2 * MIN_HELD_OUT

# Numbers of candidates at which recall is measured.
_CUTOFFS = (10, 20, 50, 100, 200, 500, 1000)

# Smallest number of documents to compare encoders on.
_MIN_RUNG = 200


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
    """Find the encoder that suits documents and their queries.

    Mean tokens, moments, learned vectors and FDEs of many sizes are compared with exact Chamfer on a
    sample: all on a quarter of its documents, the better half of each kind on half of them, and the rest on
    all.  Two thirds of the queries select; the others estimate the recall of the choice.  Encoders are
    fitted to documents only.

    Parameters
    ----------
    documents : MultiVectors or a list of arrays (tokens, dimension)
    queries : MultiVectors or a list of arrays, optional
        Queries of the same model; at most 300 are used, fewer if tokens are many or wide.  Default: windows
        of the documents' tokens (``python -m experiments run tuned`` measures the difference).
    target_recall : float, optional
        Select the smallest vectors for which this share of the exact ten best is among the candidates.
        Default: select the highest mean of recall among the candidates and among half as many.
    max_bytes : int, optional
        Limit of a document's vector in bytes.
    max_floats : int, optional
        Limit of a document's vector in floats.
    candidates : int, optional
        Documents that a search ranks exactly.  Default: 100, at most a quarter of the sample.
    sample : int
        Documents to measure; time grows in proportion.  In a larger collection the same number of
        candidates finds less.
    seed : int
        Seed of the random draws.  The choice depends only on the seed and the data.
    threads : int, optional
        Default: all usable cores.
    progress : callable, optional
        Called with 1 after each step.

    Returns
    -------
    Tuning
        ``config`` for :meth:`MuveraIndex.build`, ``save`` for ``muvera index --config``,
        ``rows`` and ``text``.

    Raises
    ------
    TypeError
        If a number is not an int.
    ValueError
        If fewer than 50 documents or 30 queries have tokens, a value is out of range, or no encoder is
        within the limit.

    Examples
    --------
    >>> tuning = tune(documents, queries, max_bytes=1024)  # doctest: +SKIP
    >>> index = MuveraIndex.build(documents, tuning.config)  # doctest: +SKIP
    """
    if max_bytes is not None and max_floats is not None:
        raise ValueError(f"Give max_bytes={max_bytes} or max_floats={max_floats}, not both.")
    if target_recall is not None and not 0 < target_recall <= 1:
        raise ValueError(f"target_recall must be above 0 and at most 1, got {target_recall}.")
    limits = {"max_bytes": max_bytes, "max_floats": max_floats, "candidates": candidates}
    for name, value in limits.items():
        if value is not None:
            require_int(name, value, 1)
    require_int("sample", sample, MIN_DOCUMENTS)
    require_int("seed", seed, 0)
    texts = as_multivectors(documents, "documents")
    filled = _with_tokens(texts, "documents", MIN_DOCUMENTS)
    real = None if queries is None else _checked_queries(queries, texts.dimension)
    size = min(sample, len(filled))
    candidates = min(100, size // 4) if candidates is None else int(candidates)
    if not K <= candidates <= size // 2:
        raise ValueError(
            f"candidates must be between {K} and half of the {size} sampled documents, got {candidates}: among more, "
            "every encoder finds nearly everything. Sample more documents."
        )
    encoders = [
        each
        for each in encoder_candidates(texts.dimension)
        if (max_bytes is None or vector_bytes(each.floats, len(filled)) <= max_bytes)
        and (max_floats is None or each.floats <= max_floats)
    ]
    if not encoders:
        least = min(each.floats for each in encoder_candidates(texts.dimension))
        raise ValueError(
            f"No encoder is within max_bytes={max_bytes}, max_floats={max_floats}: the smallest has "
            f"{vector_bytes(least, len(filled))} bytes, {least} floats. Raise the limit."
        )
    advance = progress or (lambda _: None)
    drawn = draw_sample(texts, filled, real, size, seed, threads)
    advance(1)
    cutoffs = sorted({candidates, *(cutoff for cutoff in _CUTOFFS if cutoff <= size // 2)})
    evaluator = Evaluator(drawn, cutoffs, candidates, len(filled), seed, threads, advance)
    left = _better(evaluator, encoders)
    evaluator.keep({each.source for each in left})
    table = evaluator.rows(left)
    choice = _choose(evaluator, left, table, target_recall)
    return Tuning(
        documents=len(filled),
        sampled_documents=size,
        queries=len(drawn.selection.queries),
        held_out_queries=len(drawn.held_out.queries),
        pseudo_queries=queries is None,
        candidates=candidates,
        target_recall=target_recall,
        choice=choice,
        rows=table,
        exact_search=texts.num_tokens <= EXACT_TOKENS,
    )


def _checked_queries(queries: Any, dimension: int) -> MultiVectors:
    texts = as_multivectors(queries, "queries")
    texts.require_dimension(dimension, "queries", "documents")
    texts.require_finite("queries")
    texts = texts[_with_tokens(texts, "queries", MIN_QUERIES)]
    return MultiVectors(texts.tokens, texts.offsets)


def _with_tokens(texts: MultiVectors, name: str, minimum: int) -> NDArray[np.int64]:
    filled = np.flatnonzero(texts.lengths > 0)
    if len(filled) < minimum:
        instead = "Give more" if name == "documents" else "Give more, or none to use windows of documents"
        raise ValueError(f"tune needs at least {minimum} {name} with tokens, got {len(filled)}. {instead}.")
    return filled


def _better(evaluator: Evaluator, encoders: Sequence[EncoderCandidate]) -> list[EncoderCandidate]:
    """Return the encoders left after successive halving.

    Each kind is halved on its own: the worse one among few documents may be the better one among all.
    """
    size = len(evaluator.sample.documents)
    rungs = [count for count in (size // 4, size // 2) if count >= _MIN_RUNG]
    left: list[EncoderCandidate] = []
    for kind in dict.fromkeys(each.kind for each in encoders):
        own = [each for each in encoders if each.kind == kind]
        left += halve(own, rungs, lambda each: each.floats, evaluator.recall)
    return left


def _choose(
    evaluator: Evaluator,
    encoders: Sequence[EncoderCandidate],
    table: Sequence[TunedRow],
    target_recall: float | None,
) -> TunedRow:
    """Return the row to use, measured with a fit at the encoder's own size.

    This fit may have lower recall than the leading columns of a larger one.  If the row then misses the
    target, or another row exceeds it, that row is measured next.
    """
    measured: list[TunedRow] = []
    left = list(table)
    # If no row reaches the target, the highest recall is chosen.
    for target in (target_recall, None):
        while left:
            row = select_row(left, evaluator.candidates, target)
            if target is not None:
                promising = row.recall[evaluator.candidates] >= target
            else:
                promising = all(row.mean_recall > other.mean_recall for other in measured)
            if not promising:
                break
            alone = evaluator.alone(next(each for each in encoders if each.config == row.config), row)
            measured.append(alone)
            left.remove(row)
            if target is not None and alone.recall[evaluator.candidates] >= target:
                return alone
    return max(measured, key=lambda row: row.mean_recall)
