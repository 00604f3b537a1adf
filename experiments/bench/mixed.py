"""Recall of encoders that were fitted on one collection while another one is added."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import FDEConfig, MultiVectors, top_k
from muvera.encoders.base import Encoder, EncoderConfig
from muvera.encoders.registry import make_encoder, preset_config

from ..datasets.collection import Collection
from ..datasets.discovery import CACHE
from ..evaluation.metrics import recall
from ..report.stored_results import default_encoders, save_results
from ..report.table import Table, text
from ..runner.provenance import machine
from .plumbing import Cache, Data, Save, load_collections, progress

__all__ = ["measure", "mixed", "mixed_encoders", "mixed_results"]

# Number of candidates for the recall of the ten best, and maximum number of queries.
_CANDIDATES, _QUERIES, _BEST = 50, 100, 10

_TITLE = "Adding documents of another kind"

_CAPTION = (
    "10-recall@50 of the added collection's queries over both collections. Before: encoders fitted on the first "
    "collection alone. Rebuilt: fitted on both, as `rebuild()` does."
)


def mixed_encoders(dimension: int) -> dict[str, EncoderConfig]:
    """Return the compared encoders by name."""
    small = FDEConfig(dimension=dimension, num_repetitions=20, num_simhash_projections=1)
    names = ("mean", "fde", "moments", "learned")
    return {"small FDE": small, **{name: preset_config(name, dimension) for name in names}}


def measure(
    first: Collection,
    second: Collection,
    encoders: dict[str, EncoderConfig],
    report: Callable[[str], object] = lambda _: None,
) -> tuple[list[str], list[list[str]]]:
    """Fit on each of two collections, add the other, and compare with fitting on both.

    Returns
    -------
    header : list of str
    rows : list of list of str
        One for each encoder.
    """
    plain = [MultiVectors(one.documents.tokens, one.documents.offsets) for one in (first, second)]
    both = MultiVectors.concatenate(plain)
    ways = [(first, second), (second, first)]
    queries = [added.queries[:_QUERIES] for _, added in ways]
    best = [np.array([r.ids for r in top_k(asked, both, _BEST)], np.int64) for asked in queries]
    header = ["encoder", "floats"]
    for fitted, added in ways:
        header += [f"{fitted.name}, then {added.name}: before", "rebuilt"]
    rows = []
    for name, config in encoders.items():
        rebuilt = make_encoder(config).fit(both)
        cells = [name, f"{config.vector_dimension:,}"]
        for (fitted, _), asked, wanted in zip(ways, queries, best, strict=True):
            before = make_encoder(config).fit(fitted.documents)
            cells += [f"{_recall(encoder, both, asked, wanted):.3f}" for encoder in (before, rebuilt)]
        rows.append(cells)
        report(name)
    return header, rows


def _recall(
    encoder: Encoder, documents: MultiVectors, queries: MultiVectors, best: NDArray[np.int64]
) -> float:
    scores = encoder.encode_queries(queries) @ encoder.encode_documents(documents).T
    return float(recall(np.argsort(-scores, axis=1, kind="stable")[:, :_CANDIDATES], best).mean())


def mixed_results(header: list[str], rows: list[list[str]]) -> dict[str, Any]:
    """Return the results for `--save`, in the format of an experiment."""
    title = f"{_TITLE}: 10-recall@{_CANDIDATES}"
    return {
        "experiment": "mixed_streams",
        "configuration": {"title": _TITLE, "caption": _CAPTION},
        "note": f"The first {_QUERIES} queries of each collection, exact inner products.",
        "defaults": default_encoders(),
        "machine": machine(),
        "threads": "all cores",
        "tables": [{"title": title, "caption": _CAPTION, "header": header, "rows": rows}],
    }


def mixed(
    first: Annotated[str, typer.Argument(help="Name of a collection.")] = "cisi-e5",
    second: Annotated[str, typer.Argument(help="Another collection of the same model.")] = "lareqa-en-e5",
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Fit every encoder on one collection, add the other, and compare with fitting on both."""
    one, other = load_collections([first, second], data, cache)
    header, rows = measure(one, other, mixed_encoders(one.documents.dimension), progress)
    typer.echo(text(Table(_TITLE, header, rows, _CAPTION)))
    if save:
        save_results("mixed_streams", mixed_results(header, rows))
