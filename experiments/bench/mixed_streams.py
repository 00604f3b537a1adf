"""Encoders that learned from one collection while another one is added: what they find of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import FDEConfig, MultiVectors, top_k
from muvera.encoders.base import Encoder, EncoderConfig
from muvera.encoders.registry import make_encoder, preset_config
from muvera.index.sample_profile import SampleProfile

from ..datasets.collection import Collection
from ..evaluation.metrics import recall
from ..report.stored_results import default_encoders
from ..runner.provenance import machine

__all__ = ["CANDIDATES", "measure_mixed_streams", "mixed_encoders", "mixed_results"]

#: Candidates among which the ten best are looked for, and queries, at most.
CANDIDATES, QUERIES = 50, 100

_BEST = 10

_TITLE = "Adding documents of another kind"

_CAPTION = (
    "10-recall@50 of the added collection's queries over both collections. Before: encoders fitted on the first "
    "collection alone. Rebuilt: fitted on both, as `rebuild()` does. The last row is the distance in "
    "`info().drift`, from 0 (alike) to 1 (nothing in common)."
)


def mixed_encoders(dimension: int) -> dict[str, EncoderConfig]:
    """Return what is compared, by name: all kinds, and an FDE of about as many floats as learned vectors."""
    small = FDEConfig(dimension=dimension, num_repetitions=20, num_simhash_projections=1)
    return {
        "mean": preset_config("mean", dimension),
        "small FDE": small,
        "default FDE": FDEConfig(dimension=dimension),
        "covariance": preset_config("covariance", dimension),
        "compact covariance": preset_config("compact_covariance", dimension),
        "compact FDE": preset_config("compact", dimension),
        "learned": preset_config("learned", dimension),
        "learned, mean kept": preset_config("learned", dimension, split_mean=True),
    }


def measure_mixed_streams(
    first: Collection,
    second: Collection,
    encoders: dict[str, EncoderConfig],
    progress: Callable[[str], object] = lambda _: None,
) -> tuple[list[str], list[list[str]]]:
    """Learn from each of two collections, add the other, and compare with what both together teach.

    Parameters
    ----------
    first, second : Collection
        Of one model's tokens.
    encoders : dict
        Configurations by name.
    progress : callable
        Called with the name of each encoder that was measured.

    Returns
    -------
    header : list of str
    rows : list of list of str
        A row for each encoder, and the distance of the distributions.
    """
    both = MultiVectors.concatenate([_plain(first), _plain(second)])
    ways = [(first, second), (second, first)]
    queries = [added.queries[:QUERIES] for _, added in ways]
    best = [_best_of(each, both) for each in queries]
    header = ["encoder", "floats"]
    for learned, added in ways:
        header += [f"{learned.name}, then {added.name}: before", "rebuilt"]
    rows = []
    for name, config in encoders.items():
        rebuilt = make_encoder(config).fit(both)
        cells = [name, f"{config.vector_dimension:,}"]
        for (learned, _), asked, wanted in zip(ways, queries, best, strict=True):
            before = make_encoder(config).fit(learned.documents)
            cells += [f"{found:.3f}" for found in _found([before, rebuilt], both, asked, wanted)]
        rows.append(cells)
        progress(name)
    distances = ["distance", ""]
    for learned, added in ways:
        profile = SampleProfile.of(learned.documents)
        profile.count(added.documents)
        distances += ["" if profile.distance is None else f"{profile.distance:.2f}", ""]
    return header, [*rows, distances]


def mixed_results(header: list[str], rows: list[list[str]]) -> dict[str, Any]:
    """Return what `--save` stores."""
    table = {
        "title": f"{_TITLE}: 10-recall@{CANDIDATES}",
        "caption": _CAPTION,
        "header": header,
        "rows": rows,
    }
    return {
        "experiment": "mixed_streams",
        "configuration": {"title": _TITLE, "caption": _CAPTION},
        "note": f"The first {QUERIES} queries of each collection, exact inner products.",
        "defaults": default_encoders(),
        "machine": machine(),
        "threads": "all cores",
        "tables": [table],
    }


def _plain(collection: Collection) -> MultiVectors:
    return MultiVectors(collection.documents.tokens, collection.documents.offsets)


def _best_of(queries: MultiVectors, documents: MultiVectors) -> NDArray[np.int64]:
    return np.array([ranking.ids for ranking in top_k(queries, documents, _BEST)], np.int64)


def _found(
    encoders: list[Encoder], documents: MultiVectors, queries: MultiVectors, best: NDArray[np.int64]
) -> Iterator[float]:
    for encoder in encoders:
        scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
        first = np.argsort(-scores, axis=1, kind="stable")[:, :CANDIDATES]
        yield float(recall(first, best).mean())
