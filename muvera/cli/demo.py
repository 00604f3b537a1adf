"""``muvera demo``: build and search an index of the bundled sample, and print recall and times."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from .hits import print_hits
from .options import Json, Threads
from .output import note, print_json, seconds

if TYPE_CHECKING:
    from ..data.demo_sample import DemoSample
    from ..index.muvera_index import MuveraIndex

__all__ = ["demo"]

_K, _SHOWN = 10, 3
_DEPTHS = (50, 100)
_REPEATS = 5

# Fitting "moments", the default, takes several seconds.
_VECTORS = "fde"


def demo(
    queries: Annotated[int, Option(min=0, help="Number of queries to show.")] = 3,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Try everything on a bundled sample: no download, no model, a few seconds.

    The sample contains docstrings of Python's standard library, a beginner's questions, and token vectors of
    a small language model (not a ColBERT model).

    \b
    Example:
      muvera demo --queries 5
    """
    begun = time.perf_counter()
    from ..data.demo_sample import load_demo_sample
    from ..index.settings import EXACT_TOKENS
    from ..texts.encoders.minilm import SampleEncoder
    from ..texts.text_index import TextIndex

    sample = load_demo_sample()
    if not json_:
        note("Compiling (only the first time after an installation) ...")
    compiling = _time(lambda: _warm_up(sample, threads))
    start = time.perf_counter()
    names = sample.documents.ids.tolist()
    texts = TextIndex.build(
        sample.texts, SampleEncoder(sample), vectors=_VECTORS, ids=names, exact_tokens=0, threads=threads
    )
    building = time.perf_counter() - start
    index = texts.index
    facts = {
        "documents": len(sample.documents),
        "document_tokens": sample.documents.num_tokens,
        "queries": len(sample.queries),
        "dimension": sample.documents.dimension,
        "vector_dimension": index.config.vector_dimension,
        **_quality(sample, index, threads),
        "seconds": {"compile": compiling, "build": building, **_times(sample, index, threads)},
    }
    shown = [(text, texts.search(text, _SHOWN, explain=True)) for text in sample.query_texts[:queries]]
    facts["seconds"]["all"] = time.perf_counter() - begun
    if json_:
        examples = [{"query": text, "hits": [hit.to_dict() for hit in hits]} for text, hits in shown]
        print_json({**facts, "shown": examples})
        return
    for (text, hits), answers in zip(shown, sample.relevant, strict=False):
        typer.echo(f"query: {text}")
        print_hits(hits, True, answers)
    _print_summary(facts, EXACT_TOKENS)


def _time(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _warm_up(sample: DemoSample, threads: int | None) -> None:
    """Call everything once, so that the times exclude compilation."""
    from ..index.muvera_index import MuveraIndex
    from ..reranking.chamfer import top_k

    documents = sample.documents[:8]
    small = MuveraIndex.build(documents, _VECTORS, exact_tokens=0, threads=threads)
    small.search(sample.queries[:1], k=1, candidates=2, threads=threads)
    small.explain(sample.queries[0], documents.ids[0].item())
    top_k(sample.queries[:1], documents, 1, threads=threads)


def _quality(sample: DemoSample, index: MuveraIndex, threads: int | None) -> dict[str, Any]:
    """Return the recall of the vectors alone, and how many queries have a labelled answer in the top `_SHOWN`."""
    import numpy as np

    from ..reranking.chamfer import top_k

    encoder = index.encoder
    assert encoder is not None  # the index was built with exact_tokens=0
    exact = top_k(sample.queries, sample.documents, _K, threads=threads)
    documents = encoder.encode_documents(sample.documents, threads=threads)
    scores = encoder.encode_queries(sample.queries, threads=threads) @ documents.T
    order = np.argsort(-scores, axis=1, kind="stable")
    ids, recall = sample.documents.ids, {}
    for depth in _DEPTHS:
        shares = [np.isin(best.ids, ids[row[:depth]]) for best, row in zip(exact, order, strict=True)]
        recall[str(depth)] = float(np.mean(shares))
    rankings = index.search(sample.queries, _SHOWN, candidates=_DEPTHS[-1], threads=threads)
    answered = [
        bool(np.isin(ranking.ids, answers).any())
        for ranking, answers in zip(rankings, sample.relevant, strict=True)
    ]
    return {f"{_K}_recall_at": recall, f"answered_in_top_{_SHOWN}": int(np.sum(answered))}


def _times(sample: DemoSample, index: MuveraIndex, threads: int | None) -> dict[str, float]:
    """Return seconds for all documents together, and for a single query (the median)."""
    import numpy as np

    from ..reranking.chamfer import top_k

    encoder = index.encoder
    assert encoder is not None
    single = [sample.queries[i : i + 1] for i in range(len(sample.queries))]

    def per_query(work: Callable[[Any], object]) -> float:
        return float(np.median([_time(lambda: work(query)) for _ in range(_REPEATS) for query in single]))  # noqa: B023

    return {
        "encode_documents": min(
            _time(lambda: encoder.encode_documents(sample.documents, threads=threads))
            for _ in range(_REPEATS)
        ),
        "encode_query": per_query(lambda query: encoder.encode_queries(query, threads=threads)),
        "search_query": per_query(
            lambda query: index.search(query, _K, candidates=_DEPTHS[-1], threads=threads)
        ),
        "exact_search_query": per_query(lambda query: top_k(query, sample.documents, _K, threads=threads)),
    }


def _print_summary(facts: dict[str, Any], exact_tokens: int) -> None:
    took, recall = facts["seconds"], facts[f"{_K}_recall_at"]
    shares = ", ".join(f"{recall[str(depth)]:.1%} among the first {depth}" for depth in _DEPTHS)
    rate = facts["documents"] / took["encode_documents"]
    for line in (
        f"{facts['documents']} documents of {facts['document_tokens']:,} tokens, {facts['queries']} queries; "
        f"FDEs of {facts['vector_dimension']:,} floats",
        f"the vectors alone find, of the {_K} best documents by exact Chamfer: {shares}",
        f"{facts[f'answered_in_top_{_SHOWN}']} of {facts['queries']} queries have a labelled answer in the "
        f"top {_SHOWN}",
        f"times: compile {seconds(took['compile'])}; encode {seconds(took['encode_documents'])} "
        f"({rate:,.0f} documents per second); build {seconds(took['build'])}; "
        f"search {seconds(took['search_query'])} per query, of which {seconds(took['encode_query'])} to encode it; "
        f"exact search {seconds(took['exact_search_query'])} per query; in total {seconds(took['all'])}",
        f"A collection this small is normally searched exactly, without vectors (up to {exact_tokens:,} tokens); "
        "the vectors were made to show them.",
    ):
        typer.echo(textwrap.fill(line, 100, subsequent_indent="  ", break_on_hyphens=False))
