"""diagnose: what a model's token vectors look like, and which FDEs suit them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_multivectors
from ..data.sampling import pseudo_queries
from ..encoders.fde.config import FDEConfig
from ..encoders.fde.encoder import FDEEncoder
from ..index.muvera_index import EXACT_TOKENS
from .diagnosis import Diagnosis, MaxSimSpread, MeasuredRecall
from .geometry import cell_use, token_geometry
from .recall import RecallEvaluator
from .report import render

__all__ = ["diagnose"]

#: Numbers of candidates that recall is measured at.
DEPTHS = (10, 50, 100)

#: Above these mean cosines a model's tokens share a direction, or little else than one.
WIDE_CONE, NARROW_CONE = 0.3, 0.5

#: A smaller FDE is as good where it loses no more of recall at 50 candidates.
_AS_GOOD = 0.02

# Queries, tokens of a pseudo-query (ColBERT's queries have 32), and multiplications of exact
# Chamfer, some seconds' worth: longer or wider tokens mean fewer queries, never under 20.
_QUERIES, _WINDOW, _PRODUCTS, _FEWEST = 200, 32, 2 * 10**11, 20

# Tokens for geometry and cells, and their float64 numbers: more would not change what is printed.
_TOKENS, _ENTRIES = 50_000, 1 << 24


def diagnose(
    documents: Any,
    queries: Any = None,
    config: FDEConfig | None = None,
    *,
    sample: int = 1000,
    seed: int = 0,
    threads: int | None = None,
) -> Diagnosis:
    """Measure token vectors and FDEs of them on a sample, and say what to do.

    Parameters
    ----------
    documents : MultiVectors, one array (tokens, dimension) or a list of such arrays
        At least 2 with tokens; recall needs 20, and says something from some hundred on.
    queries : the same, optional
        Real queries of the same model; up to 200 are used.  Without them windows of 32
        document tokens stand in, each with its own document left out.  On three collections
        they found between .02 less and .05 more than real queries at 50 candidates.
    config : FDEConfig, optional
        A configuration to look at besides the presets.  Default: the default one.
    sample : int
        Documents to measure.  Time grows in proportion.  More are nearer to the truth: in a
        larger collection the same number of candidates finds less.
    seed : int
        Fixes which documents, tokens and queries are drawn.
    threads : int, optional
        For scoring and encoding.  Default: all usable cores.

    Returns
    -------
    Diagnosis

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> tokens = rng.normal(size=(60, 9, 32)) + 2  # all share the direction (1, 1, ...)
    >>> diagnosis = diagnose(tokens)
    >>> diagnosis.kind, diagnosis.geometry.unit
    ('narrow cone', False)
    """
    texts = as_multivectors(documents, "documents")
    config = FDEConfig(dimension=texts.dimension) if config is None else config
    if not isinstance(config, FDEConfig):
        raise TypeError(f"config must be an FDEConfig, got {type(config).__name__}.")
    texts.require_dimension(config.dimension, "documents", "config")
    _require_int("sample", sample, 2)
    _require_int("seed", seed, 0)
    filled = np.flatnonzero(texts.lengths > 0)
    if len(filled) < 2:
        raise ValueError(f"diagnose needs at least 2 documents with tokens, got {len(filled)}.")
    which, some, asked = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(3))
    picked = texts[np.sort(which.permutation(filled)[:sample])]
    picked.require_finite("sample of documents")

    given = None if queries is None else _real_queries(queries, config)
    chosen, own = _queries(picked, given, asked)
    task = RecallEvaluator(picked, chosen, own, k=min(10, len(picked) - (own is not None)), threads=threads)
    part = _with_tokens(picked, some)
    geometry = token_geometry(part.tokens)
    encoders = {
        name: FDEEncoder(each).fit(picked, threads=threads) for name, each in _candidates(config).items()
    }
    rows = tuple(_measure(name, encoder, task) for name, encoder in encoders.items())
    own_encoder = next(encoder for encoder in encoders.values() if encoder.config == config)
    planes = own_encoder.matrices.dense_hyperplanes[:, : config.dimension]
    center = part.tokens.astype(np.float64).mean(axis=0)
    lengths = texts.lengths[filled]
    found = Diagnosis(
        documents=len(texts),
        empty_documents=len(texts) - len(filled),
        sampled_documents=len(picked),
        tokens=texts.num_tokens,
        tokens_per_document={
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "p95": float(np.percentile(lengths, 95)),
            "max": int(lengths.max()),
        },
        queries=len(chosen),
        query_tokens=float(np.median(chosen.lengths)),
        pseudo=given is None,
        kind=_kind(geometry.mean_cosine),
        geometry=geometry,
        query_cosine=None if given is None else _mean_cosine(chosen.tokens, part.tokens),
        maxsim=_spread(task.scores, chosen.lengths),
        config=config,
        cells=cell_use(part, planes, config.num_repetitions),
        centered_cells=cell_use(part, planes, config.num_repetitions, center),
        recall=rows,
        recommended=_recommended(rows[1], rows[2]),
        exact=texts.num_tokens <= EXACT_TOKENS,
    )
    return replace(found, text=render(found))


def _require_int(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an int, got {type(value).__name__}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")


def _real_queries(queries: Any, config: FDEConfig) -> MultiVectors:
    texts = as_multivectors(queries, "queries")
    texts.require_dimension(config.dimension, "queries", "config")
    texts.require_finite("queries")
    filled = np.flatnonzero(texts.lengths > 0)
    if not len(filled):
        raise ValueError("queries have no tokens at all. Leave them out, and windows of documents stand in.")
    return texts[filled]


def _queries(
    documents: MultiVectors, given: MultiVectors | None, rng: np.random.Generator
) -> tuple[MultiVectors, NDArray[np.int64] | None]:
    """Return as many queries as exact scores have time for, and the documents they were cut from."""
    length = _WINDOW if given is None else max(1, given.num_tokens // len(given))
    products = documents.num_tokens * documents.dimension * length
    count = min(_QUERIES, max(_FEWEST, _PRODUCTS // products))
    if given is None:
        return pseudo_queries(documents, min(count, len(documents)), _WINDOW, rng)
    return given[np.sort(rng.permutation(len(given))[:count])], None


def _with_tokens(documents: MultiVectors, rng: np.random.Generator) -> MultiVectors:
    """Return whole documents of about as many tokens as geometry takes, at least two."""
    order = rng.permutation(len(documents))
    tokens = min(_TOKENS, _ENTRIES // documents.dimension)
    most = int(np.searchsorted(np.cumsum(documents.lengths[order]), tokens, side="right"))
    return documents[np.sort(order[: max(2, most)])]


def _candidates(config: FDEConfig) -> dict[str, FDEConfig]:
    """Return what is measured, by name: the paper's, the default small and large, the caller's."""
    small = FDEConfig(dimension=config.dimension, num_simhash_projections=3)
    large = FDEConfig(dimension=config.dimension)
    paper = FDEConfig.preset("paper", config.dimension)
    named = {
        "paper": paper,
        f"default at {small.vector_dimension:,}": small,
        f"default at {large.vector_dimension:,}": large,
    }
    return named if config in named.values() else {**named, "yours": config}


def _measure(name: str, encoder: FDEEncoder, task: RecallEvaluator) -> MeasuredRecall:
    depths = [depth for depth in DEPTHS if 2 * depth <= len(task.documents)]
    found = dict(zip(depths, task.recall(encoder, depths), strict=True)) if depths else {}
    return MeasuredRecall(name, encoder.config, {depth: found.get(depth) for depth in DEPTHS})


def _recommended(small: MeasuredRecall, large: MeasuredRecall) -> MeasuredRecall:
    less, more = small.recall[50], large.recall[50]
    return large if less is None or more is None or less < more - _AS_GOOD else small


def _kind(mean_cosine: float) -> str:
    if mean_cosine <= WIDE_CONE:
        return "ordinary"
    return "wide cone" if mean_cosine <= NARROW_CONE else "narrow cone"


def _mean_cosine(left: NDArray[np.floating], right: NDArray[np.floating]) -> float:
    """Return the mean cosine over all pairs of one vector from each side."""
    means = []
    for rows in (left.astype(np.float64), right.astype(np.float64)):
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        means.append((rows / np.where(norms > 0, norms, 1)).mean(axis=0))
    return float(means[0] @ means[1])


def _spread(scores: NDArray[np.float32], lengths: NDArray[np.int64]) -> MaxSimSpread:
    best, tenth, median = [], [], []
    for row, length in zip(scores, lengths, strict=True):
        ordered = np.sort(row[row > -np.inf])[::-1].astype(np.float64) / length
        best.append(ordered[0])
        tenth.append(ordered[min(9, len(ordered) - 1)])
        median.append(np.median(ordered))
    return MaxSimSpread(float(np.mean(best)), float(np.mean(tenth)), float(np.mean(median)))
