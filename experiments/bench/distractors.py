"""Candidates that each kind of vector needs as a collection grows by distractors.

Reimers and Gurevych (arXiv 2012.14210) show that dense vectors return more documents that have nothing to do with
a query as an index grows, the more so the fewer floats they have.  Here the queries and the real documents stay,
distractors are added, and it is counted how many of the documents with the greatest inner products hold 95%
of exact Chamfer's ten best.  Encoders are fitted on the real documents, as those of an index that grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, chamfer_matrix
from muvera.data.ranking import best_first
from muvera.encoders.base import Encoder
from muvera.encoders.registry import PRESETS, config_from_dict, make_encoder

from ..datasets.collection import Collection
from ..known_names import require_known
from .grown_documents import GrownDocuments

__all__ = [
    "ENCODERS",
    "KINDS",
    "Kind",
    "Needed",
    "documents_of",
    "fitted_encoders",
    "measure",
    "needed_rank",
]

Kind = Literal["made", "noise"]

#: Distractors: made of the real documents, or tokens with their mean and covariance alone.
KINDS: tuple[Kind, ...] = ("made", "noise")

#: Encoders by their names in the table.
ENCODERS: dict[str, dict[str, Any]] = {
    "mean": PRESETS["mean"],
    "FDE, 640 + d + 1": {"num_repetitions": 10, "num_simhash_projections": 3, "projection_dimension": 8},
    "FDE, default": PRESETS["default"],
    "compact covariance": PRESETS["compact_covariance"],
    "learned, 256": {**PRESETS["learned"], "vector_dimension": 256},
    "learned": PRESETS["learned"],
}

K, SHARE, FIRST = 10, 0.95, 100

# Documents of a batch of noise.
_BATCH = 2048


@dataclass(frozen=True)
class Needed:
    """What one encoder needs at one size.

    Parameters
    ----------
    encoder : str
    floats : int
        Of a vector.
    documents : int
    candidates : int
        Least number of candidates that hold 95% of the exact ten best.
    recall : float
        Share of the exact ten best among the first hundred.
    distractors : float
        Share of the first hundred that are distractors.
    """

    encoder: str
    floats: int
    documents: int
    candidates: int
    recall: float
    distractors: float


def documents_of(
    real: MultiVectors, kind: Kind, start: int, stop: int, seed: int = 0
) -> Iterator[MultiVectors]:
    """Yield the documents start..stop: the real ones first, then distractors.

    Noise of a number is the same however many there are, and from wherever it is begun at a whole batch.

    Raises
    ------
    ValueError
        For a start of noise that is neither 0 nor the number of real documents.
    """
    if kind == "made":
        yield from GrownDocuments(real, seed).batches(stop, start)
        return
    if start not in (0, len(real)):
        raise ValueError(f"start must be 0 or {len(real)}, the number of real documents, got {start}.")
    if start == 0:
        yield real[: min(stop, len(real))]
    tokens = np.asarray(real.tokens, np.float64)
    mean = tokens.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(tokens.T))
    spread = axes * np.sqrt(np.maximum(values, 0))
    lengths = real.lengths[real.lengths > 0]
    for first in range(len(real), stop, _BATCH):
        stream = np.random.default_rng([seed, first])
        own = stream.choice(lengths, _BATCH)[: min(_BATCH, stop - first)]
        drawn = mean + stream.normal(size=(int(own.sum()), real.dimension)) @ spread.T
        drawn /= np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), 1e-12)
        made = MultiVectors.from_flat(drawn.astype(np.float16), own.tolist())
        yield made.with_ids(np.arange(first, first + len(own)))


def fitted_encoders(
    real: MultiVectors, names: Sequence[str] = tuple(ENCODERS), threads: int | None = None
) -> dict[str, Encoder]:
    """Return encoders of ENCODERS by name, fitted on the real documents.

    Raises
    ------
    ValueError
        For an unknown name, with the nearest.
    """
    made = {}
    for name in names:
        require_known(name, ENCODERS, "encoder")
        made[name] = make_encoder(config_from_dict({**ENCODERS[name], "dimension": real.dimension}))
    for encoder in made.values():
        if encoder.needs_fit:
            encoder.fit(real, threads=threads)
    return made


def measure(
    collection: Collection,
    sizes: Sequence[int],
    encoders: Mapping[str, Encoder],
    kind: Kind = "made",
    *,
    queries: int = 100,
    threads: int | None = None,
) -> list[Needed]:
    """Count candidates at growing numbers of documents.

    Parameters
    ----------
    collection : Collection
    sizes : sequence of int
        Numbers of documents, the real ones among them.
    encoders : dict
        By name, fitted.
    kind : {"made", "noise"}
    queries : int
        At most so many.
    threads : int, optional

    Raises
    ------
    ValueError
        For a size below the number of real documents.
    """
    real = collection.documents
    ordered = sorted(set(sizes))
    if not ordered or ordered[0] < len(real):
        raise ValueError(
            f"Every size must be at least {len(real)}, the number of documents of {collection.name}, got "
            f"{', '.join(map(str, sizes)) or 'none'}."
        )
    asked = collection.queries[: min(queries, len(collection.queries))]
    scores = _scores(asked, real, kind, ordered[-1])
    best = {size: np.stack([best_first(row[:size], K) for row in scores]) for size in ordered}
    found = []
    for name, encoder in encoders.items():
        asked_vectors = encoder.encode_queries(asked, threads=threads)
        products = np.concatenate(
            [
                asked_vectors @ encoder.encode_documents(batch, threads=threads).T
                for batch in documents_of(real, kind, 0, ordered[-1])
            ],
            axis=1,
        )
        for size in ordered:
            ranks = _ranks(products[:, :size], best[size])
            first = np.argpartition(-products[:, :size], FIRST - 1, axis=1)[:, :FIRST]
            found.append(
                Needed(
                    name,
                    encoder.config.vector_dimension,
                    size,
                    needed_rank(ranks, SHARE),
                    float((ranks <= FIRST).mean()),
                    float((first >= len(real)).mean()),
                )
            )
    return found


def _scores(queries: MultiVectors, real: MultiVectors, kind: Kind, size: int) -> NDArray[np.float32]:
    """Return exact Chamfer of all queries and documents."""
    return np.concatenate(
        [chamfer_matrix(queries, batch) for batch in documents_of(real, kind, 0, size)], axis=1
    )


def _ranks(products: NDArray[np.float32], best: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank, from 1, of each exact best document by its inner product."""
    own = np.take_along_axis(products, best, 1)
    return np.stack([(products[i] > own[i][:, np.newaxis]).sum(axis=1) + 1 for i in range(len(own))])


def needed_rank(ranks: NDArray[np.int64], share: float) -> int:
    """Return the least number of candidates that hold a share of the best documents, by their ranks.

    Examples
    --------
    >>> needed_rank(np.array([[1, 2], [7, 30]]), 0.75)
    7
    """
    ordered = np.sort(ranks, axis=None)
    return int(ordered[max(0, int(np.ceil(share * ordered.size - 1e-9)) - 1)])
