"""``muvera texts search``: answer a question."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer
from typer import Argument, Option

from ..conditions import warn_of_unmatched
from ..hits import hits_text
from ..options import GroupByOption, IndexEncoderOption, JsonOption, RecallOption, WhereOption, WordsOption
from ..printing import seconds, show
from ..verbs import IndexArgument
from .changes import open_texts

_NOT_UTF8 = "The question must be UTF-8, got {}. Set the terminal to UTF-8, or convert the text with iconv."

# Characters of a refused question that the message repeats.
_SHOWN = 80


def search(
    index: IndexArgument,
    query: Annotated[str | None, Argument(metavar="QUERY", help="A question (default: a prompt).")] = None,
    k: Annotated[int, Option("--k", "-k", min=1, help="Number of answers.")] = 10,
    where: WhereOption = None,
    unit: Annotated[Literal["document", "sentence"], Option(help="What to search.")] = "document",
    words: WordsOption = None,
    candidates: Annotated[int | None, Option(min=1, help="Texts to rank (default: 200; URL: 100).")] = None,
    recall: RecallOption = None,
    group_by: GroupByOption = None,
    explain: Annotated[bool, Option("--explain", help="Print which words matched, and how well.")] = False,
    encoder: IndexEncoderOption = None,
    json_: JsonOption = False,
) -> None:
    """Search a text index with a question.

    A terminal shows the best passage of each text, a file or another program gets the
    whole text.

    \b
    Example:
      muvera texts search my-index "a question" -k 3 --explain
    """
    from ...metadata import is_utf8
    from ...utils.checks import counted

    if query is not None and not query.strip():
        raise ValueError("The question is blank. Give one, or omit it and type it at the prompt.")
    with open_texts(index, encoder) as loaded:
        find: Callable[..., Any] = loaded.search if unit == "document" else loaded.search_sentences
        for question in iter(_typed_line, "") if query is None else [query]:
            if not is_utf8(question):  # Python keeps such bytes as lone surrogates
                raise ValueError(_NOT_UTF8.format(ascii(question)[:_SHOWN]))
            # The printed passage of a text is the one whose words match best, which the
            # explanation contains.
            explained = explain or (not json_ and loaded.encoder.token_spans(question, "query") is not None)
            begun = time.perf_counter()
            hits = find(
                question, k, where=where, words=words, recall=recall, group_by=group_by, explain=explained,
                candidates=None if candidates is None else max(candidates, k),
            )  # fmt: skip
            duration = time.perf_counter() - begun
            if not hits:
                # A database would read the ids of all texts for `select`.
                warn_of_unmatched(where, lambda probe: loaded.search("a", 1, where=probe, words=0))
            facts = {"index": index, "query": question, "seconds": round(duration, 4)}
            facts["hits"] = [hit.to_dict() for hit in hits]
            remark = f"{len(hits):,} of {counted(len(loaded), 'text')} in {seconds(duration)}"
            show(json_, facts, "" if json_ else hits_text(hits, explain), remark)


def _typed_line() -> str:
    if sys.stdin.isatty():
        typer.echo("? ", nl=False, err=True)
    try:
        return sys.stdin.readline().strip()
    except UnicodeDecodeError as error:
        raise ValueError(_NOT_UTF8.format(error.object[:_SHOWN])) from None
