"""``muvera demo``: index and search the bundled sample of texts, and explain the answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from .hits import print_hits
from .options import Json, Threads
from .output import megabytes, note, print_json, seconds

if TYPE_CHECKING:
    from ..texts.hit import Hit

__all__ = ["demo"]

_SHOWN, _REPEATS = 3, 3


def demo(
    queries: Annotated[int, Option(min=0, help="Number of questions to show.")] = 3,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Search a bundled sample of texts: no download, no model, a few seconds.

    The sample contains docstrings of Python's standard library, a beginner's questions, and token vectors of
    a small language model (not a ColBERT model).

    \b
    Example:
      muvera demo --queries 5
    """
    begun = time.perf_counter()
    from ..data.demo_sample import load_demo_sample
    from ..texts.encoders.minilm import SampleEncoder
    from ..texts.text_index import TextIndex

    sample = load_demo_sample()
    names = sample.documents.ids.tolist()
    if not json_:
        note(f"Indexing {len(names)} docstrings of Python's standard library.")
    with _compilation() as compiling:
        texts = TextIndex.build(sample.texts, SampleEncoder(sample), ids=names, threads=threads)
        shown: list[tuple[str, list[Hit]]] = [
            (text, texts.search(text, _SHOWN, explain=True, threads=threads))
            for text in sample.query_texts[:queries]
        ]
    times = []
    for text in sample.query_texts * _REPEATS:
        start = time.perf_counter()
        texts.search(text, _SHOWN, threads=threads)
        times.append(time.perf_counter() - start)
    rankings = texts.search(sample.query_texts, _SHOWN, threads=threads)
    answered = sum(
        any(hit.id in labelled for hit in hits)
        for hits, labelled in zip(rankings, sample.relevant, strict=True)
    )
    info = texts.index.info()
    facts: dict[str, Any] = {
        "documents": len(texts),
        "document_tokens": sample.documents.num_tokens,
        "bytes_per_document": info.bytes_per_document,
        "queries": len(sample.queries),
        f"answered_in_top_{_SHOWN}": answered,
        "seconds": {
            "compile": compiling.duration if compiling.done else 0.0,
            "search_query": sorted(times)[len(times) // 2],
            "all": time.perf_counter() - begun,
        },
    }
    if json_:
        examples = [{"query": text, "hits": [hit.to_dict() for hit in hits]} for text, hits in shown]
        print_json({**facts, "shown": examples})
        return
    for i, (text, hits) in enumerate(shown):
        typer.echo(f"\n{typer.style(text, bold=True)}")
        print_hits(hits, i == 0, sample.relevant[i])
    took = facts["seconds"]
    typer.echo(
        f"\n{facts['documents']} texts, {megabytes(info.bytes_per_document)} each. "
        f"A search takes {seconds(took['search_query'])}.\n"
        f"{answered} of {facts['queries']} questions have a labelled answer among the first {_SHOWN}.\n"
        f"Everything took {seconds(took['all'])}, of which {seconds(took['compile'])} to compile (the first time only)."
    )


@contextmanager
def _compilation() -> Iterator[Any]:
    """Show on a terminal which function numba compiles; yield a listener that records the duration."""
    from numba.core import event

    begun = time.perf_counter()

    class Listener(event.TimingListener):
        def on_start(self, started: Any) -> None:
            super().on_start(started)  # type: ignore[no-untyped-call]
            function = started.data["dispatcher"].py_func
            if sys.stderr.isatty() and function.__module__.startswith("muvera."):
                spent = time.perf_counter() - begun
                text = f"Compiling, only the first time ({spent:.0f} s): {function.__name__}"
                typer.echo(f"\r\033[K{text}", nl=False, err=True)

    listener = Listener()  # type: ignore[no-untyped-call]
    with event.install_listener("numba:compile", listener):
        yield listener
    if listener.done and sys.stderr.isatty():
        typer.echo("\r\033[K", nl=False, err=True)
