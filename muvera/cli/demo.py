"""``muvera demo``: a text search on a bundled sample, and the steps of MUVERA."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

import muvera

from .hits import hits_text
from .printing import megabytes, note, progress_bar, seconds, wrapped

if TYPE_CHECKING:
    from ..data.demo_sample import DemoSample

# Answers per question that are shown.
_SHOWN = 3

# Questions that are shown.  Each has a labelled answer first; the number of all
# questions with an answer follows them.
_QUESTIONS = ("q05", "q21", "q10")

# Documents that the vectors propose.
_CANDIDATES = 20

# Exact best documents to find.
_BEST = 10

# Searches per question whose median time is printed.
_ROUNDS = 3

# Ways to search: the name, the preset of the FDE if there is one, and what is done
# before the row is printed.
_WAYS = (
    ("exact Chamfer", None, "ranking all texts by their tokens"),
    ("FDE of the paper", "paper", "encoding with the FDE of the paper"),
    ("FDE, the default", "fde", "fitting the default FDE"),
)


class _Way(NamedTuple):
    """One way to search, and what came of it."""

    name: str
    #: Floats per document that are searched for candidates; 0 without such a search.
    floats: int
    candidates: int
    #: For each question, the names of the best documents.
    best: list[list[str]]
    #: Median time of one search.
    duration: float

    def answered(self, sample: DemoSample) -> int:
        """Return the number of questions with a labelled answer among the first."""
        pairs = zip(self.best, sample.relevant, strict=True)
        return sum(any(name in labelled for name in names[:_SHOWN]) for names, labelled in pairs)

    def share(self, exact: _Way) -> float:
        """Return the share of the exact best documents that were found."""
        pairs = zip(self.best, exact.best, strict=True)
        return sum(len(set(names) & set(wanted)) for names, wanted in pairs) / _BEST / len(self.best)


def demo(
    fdes: Annotated[
        bool, typer.Option("--fdes", help="Also compare exact search with the paper's FDE and the default.")
    ] = False,
) -> None:
    """Search a bundled sample.

    No download and no model is needed.  The sample contains docstrings of Python's
    standard library and a beginner's questions.  Their token vectors come from a small
    language model, not from a ColBERT model.

    \b
    Examples:
      muvera demo
      muvera demo --fdes
    """
    begun = time.perf_counter()
    # Before the imports and before compiling, which takes seconds the first time.
    note("Indexing docstrings of Python's standard library. The first time, loops are compiled.")
    from ..data.demo_sample import load_demo_sample
    from ..texts.encoders.minilm import SampleEncoder

    sample = load_demo_sample()
    names = sample.documents.ids.tolist()
    questions = [sample.query_texts[sample.queries.ids.tolist().index(id)] for id in _QUESTIONS]
    with progress_bar(None, "texts", "compiling, only the first time"):
        built = muvera.TextIndex.build(sample.texts, SampleEncoder(sample), ids=names)
        shown = built.search(questions, _SHOWN, explain=True)
    for i, (question, hits) in enumerate(zip(questions, shown, strict=True)):
        typer.echo(f"\n{typer.style(question, bold=True)}")
        typer.echo(hits_text(hits, i == 0, strong=True))
    duration = _median_time(lambda i: built.search(sample.query_texts[i], _SHOWN), len(sample.queries))
    answered = sum(
        any(hit.id in labelled for hit in hits)
        for hits, labelled in zip(built.search(sample.query_texts, _SHOWN), sample.relevant, strict=True)
    )
    typer.echo(
        f"\n{len(built)} texts, {megabytes(built.index.info().bytes_per_document)} each. "
        f"A search takes {seconds(duration)}.\n"
        f"{answered} of {len(sample.queries)} questions have a labelled answer among the first {_SHOWN}."
    )
    if fdes:
        _compare(sample)
    typer.echo(
        f"\nEverything took {seconds(time.perf_counter() - begun)}. The first time includes compiling."
    )
    if not fdes:
        typer.echo("muvera demo --fdes also compares exact search with the paper's FDE and the default.")


def _compare(sample: DemoSample) -> None:
    """Print a table of the ways to search, each row as soon as it is measured."""
    note("\nComparing exact search with two FDEs. The first run also compiles code for each.")
    typer.echo(
        wrapped(
            "\nMUVERA: token vectors -> FDE, one vector per text -> search -> candidates -> exact Chamfer "
            "-> ranking."
        )
    )
    typer.echo(wrapped(f"The same {len(sample.queries)} questions, ranked by Chamfer similarity:"))
    typer.echo(f"\n{'':18}{'floats':>8}{'candidates':>12}{'answered':>10}{'exact top 10':>14}{'time':>11}")
    ways: list[_Way] = []
    for name, preset, step in _WAYS:
        with progress_bar(None, "texts", step):
            ways.append(_searched(name, sample, preset))
        typer.echo(_row(ways[-1], ways[0], sample))
    first = sample.queries.ids.tolist().index(_QUESTIONS[0])
    typer.echo(f"\n{sample.query_texts[first]}")
    for way in ways:
        typer.echo(wrapped(f"{way.name:20}{', '.join(way.best[first][:_SHOWN])}", "  ", " " * 22))


def _searched(name: str, sample: DemoSample, preset: str | None) -> _Way:
    """Search with FDEs of a preset, or through all tokens for None."""
    documents = sample.documents
    candidates = _CANDIDATES
    if preset is None:
        index, candidates = muvera.MuveraIndex.build(documents, exact_tokens=10**9), len(documents)
    else:
        # A build would leave out windows of some documents, to calibrate `recall=`.
        encoder = muvera.FDEEncoder.preset(preset, documents.dimension).fit(documents)
        index = muvera.MuveraIndex.build(documents, encoder, exact_tokens=0)
    rankings = index.search(sample.queries, _BEST, candidates=candidates)
    best = [ranking.ids.tolist() for ranking in rankings]
    duration = _median_time(
        lambda i: index.search(sample.queries[i : i + 1], _BEST, candidates=candidates), len(sample.queries)
    )
    return _Way(name, 0 if preset is None else index.config.vector_dimension, candidates, best, duration)


def _median_time(search: Callable[[int], object], count: int) -> float:
    """Return the median time of searches for each of `count` questions."""
    times = []
    for i in list(range(count)) * _ROUNDS:
        start = time.perf_counter()
        search(i)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def _row(way: _Way, exact: _Way, sample: DemoSample) -> str:
    """Return a row of the table."""
    floats = f"{way.floats:,}" if way.floats else "-"
    found = f"{way.share(exact):.0%}"
    return (
        f"{way.name:18}{floats:>8}{way.candidates:>12}{way.answered(sample):>10}{found:>14}"
        f"{seconds(way.duration):>11}"
    )
