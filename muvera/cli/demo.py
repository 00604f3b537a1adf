"""``muvera demo``: index and search the bundled sample of texts, and explain the answers."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from typer import Option

from .output import hits_text, megabytes, note, progress_bar, seconds

_SHOWN, _REPEATS = 3, 3


def demo(
    queries: Annotated[int, Option(min=0, help="Number of questions to show.")] = 3,
) -> None:
    """Search a bundled sample of texts, without a download or a model.

    The sample contains docstrings of Python's standard library and a beginner's questions.  Their token vectors
    come from a small language model, not from a ColBERT model.

    \b
    Example:
      muvera demo --queries 5
    """
    begun = time.perf_counter()
    from numba.core import event

    from ..data.demo_sample import load_demo_sample
    from ..texts.encoders.minilm import SampleEncoder
    from ..texts.text_index import TextIndex

    sample = load_demo_sample()
    names = sample.documents.ids.tolist()
    note(f"Indexing {len(names)} docstrings of Python's standard library.")
    compiled: list[float] = []
    title = "compiling, only the first time"
    with event.install_timer("numba:compile", compiled.append), progress_bar(None, "texts", title):
        texts = TextIndex.build(sample.texts, SampleEncoder(sample), ids=names)
        shown = [texts.search(text, _SHOWN, explain=True) for text in sample.query_texts[:queries]]
    times = []
    for text in sample.query_texts * _REPEATS:
        start = time.perf_counter()
        texts.search(text, _SHOWN)
        times.append(time.perf_counter() - start)
    answered = sum(
        any(hit.id in labelled for hit in hits)
        for hits, labelled in zip(texts.search(sample.query_texts, _SHOWN), sample.relevant, strict=True)
    )
    for i, hits in enumerate(shown):
        typer.echo(f"\n{typer.style(sample.query_texts[i], bold=True)}")
        typer.echo(hits_text(hits, i == 0, sample.relevant[i]))
    typer.echo(
        f"\n{len(texts)} texts, {megabytes(texts.index.info().bytes_per_document)} each. "
        f"A search takes {seconds(sorted(times)[len(times) // 2])}.\n"
        f"{answered} of {len(sample.queries)} questions have a labelled answer among the first {_SHOWN}.\n"
        f"Everything took {seconds(time.perf_counter() - begun)}, of which {seconds(sum(compiled))} to compile "
        "(the first time only)."
    )
