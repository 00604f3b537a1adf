"""``muvera demo``: the whole way on the bundled sample, with what it finds and what it costs."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Json, Threads
from .output import note, print_json, seconds

if TYPE_CHECKING:
    from ..data.demo_sample import DemoSample
    from ..index.muvera_index import MuveraIndex
    from ..texts.encoders.minilm import SampleEncoder
    from ..texts.text_index import TextIndex

__all__ = ["demo"]

_K, _SHOWN = 10, 3
_DEPTHS = (50, 100)
_TIMES = 5


def demo(
    queries: Annotated[int, typer.Option(min=0, help="How many of the queries to show.")] = 3,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Try everything on a bundled sample: no download, no model, a few seconds.

    The sample is docstrings of Python's standard library and a newcomer's questions, with
    token vectors of a small language model (not a ColBERT).

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
    compiling = _took(lambda: _warm_up(sample, threads))
    encoder = SampleEncoder(sample)
    build: list[TextIndex] = []

    def built() -> None:
        names = sample.documents.ids.tolist()
        # FDEs, whose making takes a second: what is learned from documents would take many of the demo's.
        index = TextIndex.build(
            sample.texts, encoder, ids=names, vectors="fde", exact_tokens=0, threads=threads
        )
        build.append(index)

    building = _took(built)
    texts, index = build[0], build[0].index
    facts = {
        "documents": len(sample.documents),
        "document_tokens": sample.documents.num_tokens,
        "queries": len(sample.queries),
        "dimension": sample.documents.dimension,
        "vector_dimension": index.config.vector_dimension,
        **_quality(sample, index, threads),
        "seconds": {"compile": compiling, "build": building, **_times(sample, index, threads)},
    }
    shown = [
        _answered(query, texts, set(sample.relevant[i]))
        for i, query in enumerate(sample.query_texts[:queries])
    ]
    facts["seconds"]["all"] = time.perf_counter() - begun
    if json_:
        print_json({**facts, "shown": shown})
        return
    for query in shown:
        typer.echo(_query_text(query))
    typer.echo(_summary(facts, EXACT_TOKENS))
    if sys.stdin.isatty() and sys.stdout.isatty():
        _converse(texts, encoder)


def _converse(texts: TextIndex, encoder: SampleEncoder) -> None:
    """Answer questions that are typed, until an empty line."""
    try:
        encoder.model  # noqa: B018 (loads the model)
    except ImportError as error:
        note(f"To type questions of your own: {error}")
        return
    note("Type a question about Python's standard library; an empty line ends.")
    while True:
        typer.echo("? ", nl=False, err=True)
        line = sys.stdin.readline().strip()
        if not line:
            return
        typer.echo(_query_text(_answered(line, texts, set())))


def _took(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _warm_up(sample: DemoSample, threads: int | None) -> None:
    """Call everything once, so that what is timed later is compiled."""
    from ..index.muvera_index import MuveraIndex
    from ..reranking.chamfer import top_k

    few = sample.documents[:8]
    small = MuveraIndex.build(few, exact_tokens=0, threads=threads)
    small.search(sample.queries[:1], k=1, candidates=2, threads=threads)
    small.explain(sample.queries[0], few.ids[0].item())
    top_k(sample.queries[:1], few, 1, threads=threads)


def _quality(sample: DemoSample, index: MuveraIndex, threads: int | None) -> dict[str, Any]:
    """Return what FDEs alone find of the exact best, and how often a labelled answer comes early."""
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
        found = [np.isin(best.ids, ids[row[:depth]]) for best, row in zip(exact, order, strict=True)]
        recall[str(depth)] = float(np.mean(found))
    rankings = index.search(sample.queries, _SHOWN, candidates=_DEPTHS[-1], threads=threads)
    answered = [
        bool(np.isin(ranking.ids, answers).any())
        for ranking, answers in zip(rankings, sample.relevant, strict=True)
    ]
    return {f"{_K}_recall_at": recall, f"answered_in_top_{_SHOWN}": int(np.sum(answered))}


def _times(sample: DemoSample, index: MuveraIndex, threads: int | None) -> dict[str, float]:
    """Return times in seconds: of all documents at once, and of a query alone (the median)."""
    import numpy as np

    from ..reranking.chamfer import top_k

    encoder = index.encoder
    assert encoder is not None
    alone = [sample.queries[i : i + 1] for i in range(len(sample.queries))]

    def a_query(work: Callable[[Any], object]) -> float:
        return float(np.median([_took(lambda: work(query)) for _ in range(_TIMES) for query in alone]))  # noqa: B023

    return {
        "encode_documents": min(
            _took(lambda: encoder.encode_documents(sample.documents, threads=threads)) for _ in range(_TIMES)
        ),
        "encode_query": a_query(lambda query: encoder.encode_queries(query, threads=threads)),
        "search_query": a_query(
            lambda query: index.search(query, _K, candidates=_DEPTHS[-1], threads=threads)
        ),
        "exact_search_query": a_query(lambda query: top_k(query, sample.documents, _K, threads=threads)),
    }


def _answered(query: str, texts: TextIndex, answers: set[str]) -> dict[str, Any]:
    """Return a query, its best texts and which words matched."""
    results = []
    for hit in texts.search(query, _SHOWN, explain=True):
        results.append(
            {
                "id": hit.id,
                "score": hit.score,
                "is_answer": hit.id in answers,
                "text": hit.text,
                "matches": [
                    {
                        "query": query[slice(*match.query)],
                        "document": hit.text[slice(*match.document)],
                        "similarity": match.similarity,
                    }
                    for match in hit.explanation.matches
                ],
            }
        )
    return {"query": query, "results": results}


def _query_text(query: dict[str, Any]) -> str:
    lines = [f"query: {query['query']}"]
    for rank, result in enumerate(query["results"], start=1):
        answer = "  <- a labelled answer" if result["is_answer"] else ""
        lines.append(f"  {rank}. score {result['score']:.2f}{answer}")
        lines.append(textwrap.fill(result["text"], 100, initial_indent=" " * 5, subsequent_indent=" " * 5))
        words = [
            f"{match['query']}={match['document'] or '(no word)'} {match['similarity']:.2f}".replace(
                " ", "\0"
            )
            for match in result["matches"]
            if match["query"]  # a special token stands for no word
        ]
        filled = textwrap.fill(
            "  ".join(words),
            100,
            initial_indent=" " * 5 + "matched: ",
            subsequent_indent=" " * 14,
            break_on_hyphens=False,
        )
        lines.append(filled.replace("\0", " "))
    return "\n".join(lines) + "\n"


def _summary(facts: dict[str, Any], exact_tokens: int) -> str:
    took, recall = facts["seconds"], facts[f"{_K}_recall_at"]
    answered = facts[f"answered_in_top_{_SHOWN}"]
    found = ", ".join(f"{recall[str(depth)]:.1%} among the first {depth}" for depth in _DEPTHS)
    rate = facts["documents"] / took["encode_documents"]
    lines = [
        f"{facts['documents']} documents of {facts['document_tokens']:,} tokens, {facts['queries']} queries; "
        f"FDEs of {facts['vector_dimension']:,} floats",
        f"FDEs alone find, of the {_K} best documents by exact Chamfer: {found}",
        f"a labelled answer is in the top {_SHOWN} of {answered} of {facts['queries']} queries",
        f"times: compile {seconds(took['compile'])}; encode {seconds(took['encode_documents'])} "
        f"({rate:,.0f} documents a second); build {seconds(took['build'])}; "
        f"search {seconds(took['search_query'])} a query, {seconds(took['encode_query'])} of it its FDE; "
        f"exact search {seconds(took['exact_search_query'])} a query; all of this {seconds(took['all'])}",
        f"So small a collection is normally searched exactly, without FDEs (up to {exact_tokens:,} tokens): "
        "here they were made to show them.",
    ]
    return "\n".join(
        textwrap.fill(line, 100, subsequent_indent="  ", break_on_hyphens=False) for line in lines
    )
