"""Change the model and keep the index: how many of a new model's best are found.

The pairs of models are two unlike ones, WordLlama's table and MiniLM, and two similar
ones: the last two layers of MiniLM.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from muvera import MultiVectors, load_text_encoder, top_k
from muvera.texts.adapt import aligned_tokens, orthogonal_map
from muvera.texts.encoders.base import CachedEncoder, TextEncoder, encode_in_batches, encode_texts
from muvera.texts.encoders.minilm import MiniLMEncoder
from muvera.utils.random_streams import random_stream

from ..datasets.discovery import CACHE
from ..datasets.encode import read_texts
from ..known_names import require_known
from ..report.table import Column, Table
from .plumbing import Cache, Data, Save, finish, paths_of, progress, usage_errors

_K = 10

# Candidates that the new model ranks for each query: the default of muvera.adapt.
_CANDIDATES = 50

_FITTED = (25, 50, 100, 200)

# Weight of the ridge: of 0.1 to 100, the best one on Cranfield.
_RIDGE = 1.0

_PAIRS = [*permutations(("static", "minilm"), 2), *permutations(("minilm, layer 5", "minilm"), 2)]

_QUERIES = 200

#: The model of an index, and the model of its queries.
Pair = tuple[str, str]


def measure(
    name: str, texts: list[str], asked: list[str], encoders: Mapping[str, TextEncoder], pairs: Sequence[Pair]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each pair of models (old, new) and number of texts of the fit."""
    encoded: dict[str, tuple[MultiVectors, MultiVectors]] = {}
    for label, encoder in encoders.items():
        progress(f"{name}: {label}, {len(texts):,} texts")
        batches = encode_in_batches(encoder.encode_documents, texts, list(range(len(texts))))
        documents = MultiVectors.concatenate(list(batches))
        encoded[label] = documents, encode_texts(encoder.encode_queries, asked)
    for old, new in pairs:
        documents_of, own_queries = encoded[old]
        best = _found(encoded[new][1], encoded[new][0], _K)
        own = _found(own_queries, documents_of, _CANDIDATES)
        for count in _FITTED:
            sample = [texts[i] for i in random_stream(1).permutation(len(texts))[:count]]
            tokens = aligned_tokens(encoders[old], encoders[new], sample)
            found = [
                _found(_mapped(encoded[new][1], matrix), documents_of, _CANDIDATES)
                for matrix in (orthogonal_map(*tokens), _ridge_map(*tokens))
            ]
            yield {
                "collection": name,
                "old": old,
                "new": new,
                "texts": count,
                "tokens": len(tokens[0]),
                "orthogonal": _share(found[0], best),
                "ridge": _share(found[1], best),
                "own": _share(own, best),
                "ten": _share(found[0][:, :_K], best),
            }


def _texts(folder: Path, most: int) -> tuple[list[str], list[str]]:
    """Return random documents that are not blank, and judged queries."""
    documents, queries = read_texts(folder, "test")
    chosen = np.sort(random_stream(0).permutation(len(documents))[:most])
    texts = [documents[i][1] for i in chosen if documents[i][1].strip()]
    return texts, [text for _, text in queries[:_QUERIES]]


class _EarlierLayer(MiniLMEncoder):
    """The token states of MiniLM's last layer but one."""

    name = "minilm, layer 5"

    def __init__(self) -> None:
        super().__init__()
        self._model.n_layers -= 1


def _encoders(cache: Path) -> Iterator[tuple[str, CachedEncoder]]:
    """Yield the encoders, which store vectors in `cache`, by label."""
    for label in dict.fromkeys(label for pair in _PAIRS for label in pair):
        encoder = _EarlierLayer() if label == _EarlierLayer.name else load_text_encoder(label)
        yield label, CachedEncoder(encoder, cache.expanduser() / "adapt" / f"{label}.sqlite")


def _models(row: dict[str, Any]) -> str:
    return f"index of {row['old']}; queries of {row['new']}"


def _mapped(queries: MultiVectors, matrix: NDArray[np.float32]) -> MultiVectors:
    return MultiVectors(np.asarray(queries.tokens, np.float32) @ matrix, queries.offsets)


def _ridge_map(new: NDArray[np.float64], old: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the least-squares map with a penalty on its entries."""
    gram = new.T @ new + _RIDGE * np.eye(new.shape[1])
    return np.linalg.solve(gram, new.T @ old).astype(np.float32)


def _found(queries: MultiVectors, documents: MultiVectors, count: int) -> NDArray[np.int64]:
    """Return the best documents of each query by exact Chamfer, (queries, count)."""
    return np.array([ranking.ids for ranking in top_k(queries, documents, count)], np.int64)


def _share(found: NDArray[np.int64], best: NDArray[np.int64]) -> float:
    return float(np.mean([np.isin(wanted, own).mean() for own, wanted in zip(found, best, strict=True)]))


def adapt(
    data: Data = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="Texts; may be repeated. Default: cranfield and cosqa.")
    ] = None,
    texts: Annotated[int, typer.Option(min=200, help="Maximum number of texts of a collection.")] = 2500,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Measure muvera.adapt between models; encodes for minutes.

    Vectors are stored in the cache, so an interrupted command continues.
    """
    folders = {path.texts.name: path.texts for path in paths_of((), data, cache) if path.texts is not None}
    rows = []
    for name in collection or ["cranfield", "cosqa"]:
        with usage_errors():
            require_known(name, folders, "collection of texts")
        encoders = dict(_encoders(cache))
        rows += list(measure(name, *_texts(folders[name], texts), encoders, _PAIRS))
        for encoder in encoders.values():
            encoder.close()
    share = "{:.3f}"
    columns = [
        *(Column("collection"), Column("models", _models)),
        *(Column("texts of the fit", "texts"), Column("pairs of tokens", "tokens")),
        Column(f"share among {_CANDIDATES}", "orthogonal", share),
        Column("by ridge", "ridge", share),
        Column("by the old model's queries", "own", share),
        Column(f"share among {_K}", "ten", share),
    ]
    caption = (
        f"Share of the new model's own ten best texts that are among the {_CANDIDATES} best of the old index. "
        "Queries are encoded by the new model and mapped by an orthogonal map (or a ridge regression), which is "
        "fitted on random texts of the collection that both models encoded. For comparison: candidates of queries "
        f"that the old model encoded. The last column is the share among the {_K} best of the old index, without a "
        f"ranking by the new model. All texts are ranked by exact Chamfer: up to {texts:,} random texts, and the "
        f"first {_QUERIES} judged queries."
    )
    title = "Candidates of an old index for another model"
    finish("adapt", "Change the model, keep the index", [Table.of(title, columns, rows, caption)], save)
