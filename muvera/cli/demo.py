"""``muvera demo``: index and search the bundled sample of texts, and explain the answers."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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

# A page for one question; `to_html` of an explanation shades the words that matched.
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{query}</title>
<style>body {{ font: 17px/1.6 system-ui, "DejaVu Sans", sans-serif; max-width: 44rem;
margin: 1.5rem auto; padding: 0 1rem; color: #1a1c20; background: #fff }} h1 {{ font-size: 1.35rem; margin: 0 0 .6rem }}
article {{ border-top: 1px solid #d9dde3; padding: .6rem 0 }} p {{ margin: 0 }}
mark {{ border-radius: .2rem; padding: 0 .1em }} small {{ float: right; color: #5b616b }}</style>
<h1>{query}</h1>
{answers}
</html>
"""


def demo(
    queries: Annotated[int, Option(min=0, help="Number of questions to show.")] = 3,
    html_: Annotated[
        Path | None, Option("--html", help="Also write a page with the first question and its answers.")
    ] = None,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Search a bundled sample of texts: no download, no model, a few seconds.

    The sample contains docstrings of Python's standard library, a beginner's questions, and token vectors of
    a small language model (not a ColBERT model).

    \b
    Example:
      muvera demo --queries 5 --html demo.html
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
    if html_ is not None and shown:
        query, hits = shown[0]
        answers = "\n".join(f"<article>{hit._repr_html_()}</article>" for hit in hits)
        html_.write_text(_PAGE.format(query=html.escape(query), answers=answers), encoding="utf-8")
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
    """Show on a terminal which function numba compiles; yield a listener that has the duration."""
    from numba.core import event

    begun = time.perf_counter()

    class Listener(event.TimingListener):
        def on_start(self, started: Any) -> None:
            super().on_start(started)
            function = started.data["dispatcher"].py_func
            if sys.stderr.isatty() and function.__module__.startswith("muvera."):
                spent = time.perf_counter() - begun
                text = f"Compiling, only the first time ({spent:.0f} s): {function.__name__}"
                typer.echo(f"\r\033[K{text}", nl=False, err=True)

    listener = Listener()
    with event.install_listener("numba:compile", listener):
        yield listener
    if listener.done and sys.stderr.isatty():
        typer.echo("\r\033[K", nl=False, err=True)
