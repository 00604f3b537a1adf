"""Candidates that each kind of vector needs as a collection grows by distractors.

Dense vectors return more unrelated documents as an index grows, most with few floats (Reimers and Gurevych,
arXiv 2012.14210).  Here the queries and real documents stay the same and distractors are added.  The result
is the smallest number of candidates by inner product that contain 95% of exact Chamfer's ten best documents.
Encoders are fitted on the real documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import MultiVectors, chamfer_matrix
from muvera.data.ranking import best_first
from muvera.encoders.base import Encoder
from muvera.encoders.registry import make_encoder, preset_config

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..known_names import require_known
from ..runner.provenance import machine
from .grown_documents import GrownDocuments
from .plumbing import Cache, Data, Save, finish, load_collections, progress

__all__ = [
    "ENCODERS",
    "KINDS",
    "Kind",
    "distractors",
    "documents_of",
    "fitted_encoders",
    "measure",
    "needed_rank",
]

Kind = Literal["made", "noise"]

#: Distractors generated from the real documents, or random tokens with their mean and covariance.
KINDS: tuple[Kind, ...] = ("made", "noise")

#: Encoders by their names in the table: preset, and changes to it.
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("mean", {}),
    "FDE, 640 + d + 1": (
        "fde",
        {"num_repetitions": 10, "num_simhash_projections": 3, "projection_dimension": 8},
    ),
    "fde": ("fde", {}),
    "moments": ("moments", {}),
    "learned, 256": ("learned", {"vector_dimension": 256}),
    "learned": ("learned", {}),
}

_K, _SHARE, _FIRST = 10, 0.95, 100

# Number of documents per batch of noise.
_BATCH = 2048


def documents_of(
    real: MultiVectors, kind: Kind, start: int, stop: int, seed: int = 0
) -> Iterator[MultiVectors]:
    """Yield the documents start..stop: the real ones first, then distractors.

    Noise must start at 0 or after the real documents; it does not depend on the number of documents.
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
        counts = stream.choice(lengths, _BATCH)[: min(_BATCH, stop - first)]
        drawn = mean + stream.normal(size=(int(counts.sum()), real.dimension)) @ spread.T
        drawn /= np.maximum(np.linalg.norm(drawn, axis=1, keepdims=True), 1e-12)
        noise = MultiVectors.from_flat(drawn.astype(np.float16), counts.tolist())
        yield noise.with_ids(np.arange(first, first + len(counts)))


def fitted_encoders(real: MultiVectors, names: Sequence[str] = tuple(ENCODERS)) -> dict[str, Encoder]:
    """Return encoders of ENCODERS by name, fitted on the real documents."""
    encoders = {}
    for name in names:
        require_known(name, ENCODERS, "encoder")
        preset, changes = ENCODERS[name]
        encoders[name] = make_encoder(preset_config(preset, real.dimension, **changes))
    for encoder in encoders.values():
        if encoder.needs_fit:
            encoder.fit(real)
    return encoders


def measure(
    collection: Collection,
    sizes: Sequence[int],
    encoders: Mapping[str, Encoder],
    kind: Kind = "made",
    *,
    queries: int = 100,
) -> list[dict[str, Any]]:
    """Return a row for each encoder and number of documents, the real ones included.

    Each has ``encoder``, ``floats``, ``documents``, ``candidates`` (the smallest number that contains 95% of
    the exact ten best), ``recall`` (their share among the first hundred) and ``distractors`` (the share of
    the first hundred).
    """
    real = collection.documents
    ordered = sorted(set(sizes))
    if not ordered or ordered[0] < len(real):
        raise ValueError(
            f"Every size must be at least {len(real)}, the number of documents of {collection.name}, got "
            f"{', '.join(map(str, sizes)) or 'none'}."
        )
    asked = collection.queries[: min(queries, len(collection.queries))]

    def over_all(scores_of: Any) -> NDArray[np.float32]:
        batches = documents_of(real, kind, 0, ordered[-1])
        return np.concatenate([scores_of(batch) for batch in batches], axis=1)

    exact = over_all(lambda batch: chamfer_matrix(asked, batch))
    rows = []
    for name, encoder in encoders.items():
        vectors = encoder.encode_queries(asked)
        products = over_all(lambda batch, e=encoder, v=vectors: v @ e.encode_documents(batch).T)
        for size in ordered:
            best = np.stack([best_first(row[:size], _K) for row in exact])
            ranks = _ranks(products[:, :size], best)
            first = np.argpartition(-products[:, :size], _FIRST - 1, axis=1)[:, :_FIRST]
            row: dict[str, Any] = {"encoder": name, "floats": encoder.config.vector_dimension}
            row |= {"documents": size, "candidates": needed_rank(ranks, _SHARE)}
            row |= {
                "recall": float((ranks <= _FIRST).mean()),
                "distractors": float((first >= len(real)).mean()),
            }
            rows.append(row)
    return rows


def _ranks(products: NDArray[np.float32], best: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank, from 1, of each exact best document by its inner product."""
    own = np.take_along_axis(products, best, 1)
    return np.stack([(products[i] > own[i][:, np.newaxis]).sum(axis=1) + 1 for i in range(len(own))])


def needed_rank(ranks: NDArray[np.int64], share: float) -> int:
    """Return the smallest number of candidates that contain a share of the best documents, given their ranks.

    Examples
    --------
    >>> needed_rank(np.array([[1, 2], [7, 30]]), 0.75)
    7
    """
    ordered = np.sort(ranks, axis=None)
    return int(ordered[max(0, int(np.ceil(share * ordered.size - 1e-9)) - 1)])


def distractors(
    size: Annotated[list[int] | None, typer.Option(help="Number of documents; may be repeated.")] = None,
    collection: Annotated[str, typer.Option()] = "cranfield-minilm",
    data: Data = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help=f"One of {'; '.join(ENCODERS)}. May be repeated. Default: all.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Maximum number of queries.")] = 100,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Count the candidates that each kind of vector needs as distractors are added to a collection."""
    (loaded,) = load_collections([collection], data, cache)
    sizes = size or [len(loaded.documents), 3000, 10_000, 30_000]
    if min(sizes) < len(loaded.documents):  # before anything is fitted
        raise typer.BadParameter(
            f"{collection} has {len(loaded.documents)} documents: every --size must be at least that."
        )
    try:
        encoders = fitted_encoders(loaded.documents, encoder or tuple(ENCODERS))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    kinds = {}
    for kind in KINDS:
        progress(f"distractors: {kind}")
        kinds[kind] = measure(loaded, sizes, encoders, kind, queries=queries)
    results = {"collection": collection, "queries": min(queries, len(loaded.queries)), "machine": machine()}
    finish("distractors", {**results, "kinds": kinds}, save)
