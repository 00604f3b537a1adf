"""Whether a compact FDE and a learned vector side by side find more than either alone at equal size.

Both are learned from a random quarter of the documents.  The parts are weighed by least squares onto
exact Chamfer of windows of those documents.  10-recall@50, as in :mod:`experiments.compact`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from muvera import (
    FDEConfig,
    FDEEncoder,
    LearnedConfig,
    LearnedEncoder,
    MultiVectors,
    chamfer_matrix,
)
from muvera.data.sampling import pseudo_queries

from .datasets.collections import Collection
from .learned import quarter
from .measuring import recall_of_scores, share
from .report.stored_results import markdown_table, text_table

__all__ = ["PAIRS", "markdown", "measure", "table"]

#: Floats of the compact part and of the learned part; those of equal sum stand together.
PAIRS = ((512, 0), (256, 256), (128, 384), (0, 512), (1024, 0), (512, 512), (256, 768), (0, 1024))

# Windows by which the parts are weighed, and their tokens.
_WINDOWS, _TOKENS = 200, 32


def measure(collection: Collection, seed: int, threads: int | None = None) -> dict[str, float]:
    """Return the recall of each of PAIRS, as "compact+learned", for one quarter of the documents."""
    documents, queries = collection.documents, collection.queries
    seen = documents[quarter(len(documents), seed)]
    most = [max(pair[part] for pair in PAIRS) for part in (0, 1)]
    compact = FDEConfig(dimension=documents.dimension, compact_dimension=most[0], seed=seed)
    learned = LearnedConfig(dimension=documents.dimension, vector_dimension=most[1], seed=seed)
    encoders = (
        FDEEncoder(compact).fit(seen, threads=threads),
        LearnedEncoder(learned).fit(seen, threads=threads),
    )

    def encoded(asked: MultiVectors, texts: MultiVectors) -> list[tuple[NDArray[np.float32], ...]]:
        return [
            (
                one.encode_queries(asked, threads=threads),
                one.encode_documents(texts, threads=threads),
            )
            for one in encoders
        ]

    windows, _ = pseudo_queries(seen, min(_WINDOWS, len(seen)), _TOKENS, np.random.default_rng(seed))
    wanted = _without_means(chamfer_matrix(windows, seen, threads=threads))
    weighing, asked = encoded(windows, seen), encoded(queries, documents)
    exact = chamfer_matrix(queries, documents, threads=threads)
    found = {}
    for pair in PAIRS:
        used = [(part, size) for part, size in enumerate(pair) if size]
        parts = [_without_means(_scores(weighing[part], size)).ravel() for part, size in used]
        weights = np.linalg.lstsq(np.stack(parts, axis=1), wanted.ravel(), rcond=None)[0]
        terms = [w * _scores(asked[part], size) for w, (part, size) in zip(weights, used, strict=True)]
        total = terms[0] if len(terms) == 1 else terms[0] + terms[1]
        found["+".join(map(str, pair))] = recall_of_scores(exact, total)
    return found


def _scores(sides: tuple[NDArray[np.float32], ...], size: int) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = sides[0][:, :size] @ sides[1][:, :size].T
    return scores


def _without_means(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Subtract each query's mean, which changes no ranking."""
    centered: NDArray[np.float32] = scores - scores.mean(axis=1, keepdims=True)
    return centered


def table(results: dict[str, Any]) -> str:
    """Return the table for the terminal."""
    return text_table(*_table(results))


def markdown(results: dict[str, Any]) -> str:
    """Return the table as Markdown."""
    return (
        "10-recall@50 of vectors of which one part is a compact FDE and one is learned, the parts weighed "
        "by least squares onto exact Chamfer; both learned from one random quarter of the documents.\n\n"
        + markdown_table(*_table(results))
    )


def _table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    collections = results["collections"]
    header = ["compact + learned floats", *(name.removeprefix("plaid-") for name in collections)]
    rows = [[f"{a:,} + {b:,}", *(share([one[f"{a}+{b}"]]) for one in collections.values())] for a, b in PAIRS]
    return header, rows
