"""tune: compare encoders on a sample; held-out queries estimate the recall of the choice."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_multivectors
from ..diagnostics.sample import K, Sample, checked_queries, draw_sample, with_tokens
from ..encoders.base import EncoderConfig
from ..encoders.fde.config import FDEConfig
from ..encoders.learned.config import LearnedConfig
from ..encoders.moments import MomentsConfig
from ..encoders.registry import make_encoder
from ..index.candidates import SCAN_FROM
from ..index.settings import EXACT_TOKENS
from ..mips.exact import bytes_in_memory
from ..mips.scan import scan_bytes
from ..utils.checks import require_int
from .result import TunedRow, Tuning, select_row

__all__ = ["MIN_DOCUMENTS", "MIN_QUERIES", "encoder_configs", "tune"]

#: Smallest number of documents, and of given queries.
MIN_DOCUMENTS, MIN_QUERIES = 50, 30

# Largest number of queries; fewer are measured if tokens are many or wide.
_QUERIES = 300

# Samples of the bootstrap.
_DRAWS = 1000

# Floats of moments and learned vectors.
_MOMENTS_SIZES = (128, 256, 512)
_LEARNED_SIZES = (128, 256, 512, 1024, 2048)

# (num_repetitions, num_simhash_projections, projection_dimension) of FDEs: sketches of 640 to 20,480 floats.
_FDE_SHAPES = ((20, 2, 8), (20, 3, 8), (40, 3, 8), (40, 3, 16), (40, 4, 16), (40, 5, 16))

# Floats of an FDE with 8 cells, no projection and as many repetitions as fit.
_IDENTITY_FLOATS = 10240


def tune(
    documents: Any,
    queries: Any = None,
    *,
    target_recall: float | None = None,
    max_bytes: int | None = None,
    candidates: int | None = None,
    sample: int = 1500,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Tuning:
    """Find the encoder that suits documents and their queries.

    Mean tokens, moments, learned vectors and FDEs of many sizes are compared with exact Chamfer on a
    sample.  Two thirds of the queries select; the others estimate the recall of the choice.  Encoders are
    fitted to documents only.

    Parameters
    ----------
    documents : MultiVectors or a list of arrays (tokens, dimension)
    queries : MultiVectors or a list of arrays, optional
        Queries of the same model; at most 300 are used, fewer if tokens are many or wide.  Default: windows
        of the documents' tokens.
    target_recall : float, optional
        Select the smallest vectors for which this share of the exact ten best is among the candidates.
        Default: select the highest mean of recall among the candidates and among half as many.
    max_bytes : int, optional
        Limit of a document's vector in bytes.
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
        Called with 1 after the exact scores and after each encoder.

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
    if target_recall is not None and not 0 < target_recall <= 1:
        raise ValueError(f"target_recall must be above 0 and at most 1, got {target_recall}.")
    for name, value in {"max_bytes": max_bytes, "candidates": candidates}.items():
        if value is not None:
            require_int(name, value, 1)
    require_int("sample", sample, MIN_DOCUMENTS)
    require_int("seed", seed, 0)
    texts = as_multivectors(documents, "documents")
    filled = with_tokens(texts, "documents", MIN_DOCUMENTS)
    real = checked_queries(queries, texts.dimension, MIN_QUERIES)
    size = min(sample, len(filled))
    candidates = min(100, size // 4) if candidates is None else int(candidates)
    if not K <= candidates <= size // 2:
        raise ValueError(
            f"candidates must be between {K} and half of the {size} sampled documents, got {candidates}: among more, "
            "every encoder finds nearly everything. Sample more documents."
        )
    sizes = {
        name: (config, _vector_bytes(config, len(filled)))
        for name, config in encoder_configs(texts.dimension).items()
    }
    encoders = {name: both for name, both in sizes.items() if max_bytes is None or both[1] <= max_bytes}
    if not encoders:
        least = min(count for _, count in sizes.values())
        raise ValueError(f"No encoder is within max_bytes={max_bytes}: the smallest has {least} bytes.")
    advance = progress or (lambda _: None)
    drawn = draw_sample(
        texts, filled, real, size=size, most_queries=_QUERIES, min_fitting=0, seed=seed, threads=threads
    )
    advance(1)
    order = np.random.default_rng([seed, 1]).permutation(len(drawn.queries))
    held_out, selection = np.split(order, [round(len(order) / 3)])
    rows = []
    for name, (config, count) in encoders.items():
        ranks, seconds = _measured(config, drawn, threads)
        shares = (ranks[held_out] < candidates).mean(axis=1)
        recall = float((ranks[selection] < candidates).mean())
        # If all encoders have a recall of nearly 1 among the candidates, half as many still separate them.
        half = float((ranks[selection] < max(K, candidates // 2)).mean())
        rows.append(
            TunedRow(
                name=name,
                config=config,
                bytes=count,
                recall=recall,
                mean_recall=(recall + half) / 2,
                held_out=float(shares.mean()),
                interval=_interval(shares, seed),
                encode_seconds=seconds[0],
                query_seconds=seconds[1],
            )
        )
        advance(1)
    rows.sort(key=lambda row: (row.bytes, row.floats))
    return Tuning(
        documents=len(filled),
        sampled_documents=size,
        queries=len(selection),
        held_out_queries=len(held_out),
        pseudo_queries=queries is None,
        candidates=candidates,
        target_recall=target_recall,
        choice=select_row(rows, target_recall),
        rows=tuple(rows),
        exact_search=texts.num_tokens <= EXACT_TOKENS,
    )


def encoder_configs(dimension: int) -> dict[str, EncoderConfig]:
    """Return the configurations to try for tokens of `dimension` columns; a name begins with the encoder's kind."""
    mean = MomentsConfig(dimension=dimension, covariance=False, compact_dimension=None)
    moments = [MomentsConfig(dimension=dimension, compact_dimension=size) for size in (*_MOMENTS_SIZES, None)]
    learned = [LearnedConfig(dimension=dimension, vector_dimension=size) for size in _LEARNED_SIZES]
    fdes = {
        (repetitions, planes, min(width, dimension)): FDEConfig(
            dimension=dimension, num_repetitions=repetitions, num_simhash_projections=planes,
            projection_dimension=min(width, dimension),
        )
        for repetitions, planes, width in _FDE_SHAPES
    }  # fmt: skip
    repetitions = max(1, _IDENTITY_FLOATS // (8 * dimension))
    identity = FDEConfig(dimension=dimension, num_repetitions=repetitions, projection="identity")
    named: dict[str, EncoderConfig] = {f"mean {mean.vector_dimension:,}": mean}
    named |= {f"moments {config.vector_dimension:,}": config for config in moments}
    named |= {f"learned {config.vector_dimension:,}": config for config in learned}
    named |= {f"FDE R={r} k={k} p={p}": config for (r, k, p), config in fdes.items()}
    named[f"FDE R={repetitions} k={identity.num_simhash_projections} identity"] = identity
    return named


def _vector_bytes(config: EncoderConfig, documents: int) -> int:
    """Return the bytes of a vector in an index of this many documents."""
    floats = config.vector_dimension
    return scan_bytes(floats) if documents >= SCAN_FROM else bytes_in_memory(floats)


def _measured(
    config: EncoderConfig, drawn: Sample, threads: int | None
) -> tuple[NDArray[np.int64], tuple[float, float]]:
    """Return the ranks of the exact best, and the seconds to encode a document and a query."""
    encoder = make_encoder(config).fit(drawn.documents[drawn.fitting], threads=threads)

    def timed(encode: Any, texts: MultiVectors) -> tuple[NDArray[np.float32], float]:
        encode(texts[:1], threads=threads)  # compile before the clock starts
        begun = time.perf_counter()
        vectors = encode(texts, threads=threads)
        return vectors, (time.perf_counter() - begun) / len(texts)

    documents, document_seconds = timed(encoder.encode_documents, drawn.documents)
    queries, query_seconds = timed(encoder.encode_queries, drawn.queries)
    return drawn.ranks(documents, queries), (document_seconds, query_seconds)


def _interval(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Return the bootstrap's 95 per cent confidence interval of the mean."""
    draws = np.random.default_rng(seed).integers(0, len(values), (_DRAWS, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)
