"""Cost of filters and spans: a condition on many documents, and scores of sentences compared with plain ranking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import typer
from threadpoolctl import threadpool_limits

from muvera import MultiVectors, TextIndex, rerank
from muvera.reranking.spans import rank_spans, windows

from .plumbing import interleaved, timed

__all__ = ["text_speed", "texts"]

_DIMENSION, _GROUPS = 16, 100


def text_speed(documents: int = 100_000, rounds: int = 20) -> dict[str, float]:
    """Return milliseconds of this thread's processor by name; a filter keeps one of a hundred documents."""
    rng = np.random.default_rng(0)
    texts = [f"text number {i}" for i in range(documents)]
    groups = rng.permutation(documents) % _GROUPS
    metadata: list[Any] = [{"group": int(group), "year": 1900 + i % 120} for i, group in enumerate(groups)]
    how: dict[str, Any] = {"vectors": "mean", "backend": "exact"}
    index = TextIndex.build(texts, _RandomEncoder(), metadata=metadata, **how)
    condition: Any = {"group": 17}

    def unit(rows: Any) -> Any:
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    tokens = MultiVectors.from_arrays([unit(rng.normal(size=(120, 128))) for _ in range(100)])
    query = unit(rng.normal(size=(32, 128)))
    queries, every = MultiVectors.from_arrays([query]), [np.arange(100)]
    spans, known = [windows(120, 20, 20)] * 100, np.zeros(100)
    jobs = {
        "filter that keeps 1%: select": lambda: index.select(condition),
        "search without a filter": lambda: index.search("a", 10, threads=1),
        "search with the filter": lambda: index.search("a", 10, where=condition, threads=1),
        "100 documents of 120 tokens, plain ranking": lambda: rerank(queries, tokens, every, 10, threads=1),
        "the same by spans of 20 tokens": lambda: rank_spans(query, tokens, spans, 10),
        "by spans with known scores of documents": lambda: rank_spans(
            query, tokens, spans, 10, document_scores=known
        ),
    }
    seconds = interleaved({name: timed(job) for name, job in jobs.items()}, rounds)
    return {name: 1000 * float(np.median(times)) for name, (_, times) in seconds.items()}


class _RandomEncoder:
    """An encoder of random vectors, whose time does not count."""

    name = "random"

    def encode_documents(self, texts: Sequence[str]) -> MultiVectors:
        tokens = np.random.default_rng(len(texts)).normal(size=(2 * len(texts), _DIMENSION))
        return MultiVectors.from_flat(tokens.astype(np.float32), np.full(len(texts), 2))

    encode_queries = encode_documents

    def token_spans(self, text: str, side: Any) -> None:
        return None


def texts(
    documents: Annotated[int, typer.Option(min=100, help="Documents; a filter keeps 1% of them.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1)] = 20,
) -> None:
    """Time a filter on many documents, and ranking by spans compared with plain ranking."""
    with threadpool_limits(1):
        for name, milliseconds in text_speed(documents, rounds).items():
            typer.echo(f"{name}: {milliseconds:.2f} ms")
