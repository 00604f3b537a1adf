"""Print the texts that a search found, and single texts."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from ..metadata import title_of
from .printing import columns, display_width, shortened, wrapped

if TYPE_CHECKING:
    from ..texts.database import TextDocument
    from ..texts.hit import Hit, TextExplanation

# Maximum characters of a printed text: three lines of 80 columns.
_PASSAGE = 220

# Minimum weight of a marked word, as a share of the largest one.
_MARKED = 0.6

# Before the lines of a text, below its title.
_INDENT = "    "


def hits_text(hits: Iterable[Hit], explain: bool, strong: bool = False) -> str:
    """Return the rank, title and score of each text, and its best passage.

    Without a terminal, return the whole text in place of the passage.

    With `explain`, also return the parts of the score and the matches of the words; if
    `strong`, only matches of marked words.
    """
    lines, width = [], columns()
    for rank, hit in enumerate(hits, 1):
        # A sentence is shown below the title of its text.
        title = title_of(hit.text if hit.span is None else "", hit.metadata) or str(hit.id)
        body = hit.text
        end = f"  {hit.score:.3f}"
        space = None if width is None else max(10, width - 4 - len(end))
        shown = shortened(title, space)
        padding = " " * (0 if space is None else space - display_width(shown))
        reason = hit.explanation
        if title != str(hit.id) and (space is None or display_width(title) <= space):
            body = body.lstrip().removeprefix(title).lstrip()
        heading = typer.style(shown, bold=True) if body or reason is None else _marked(shown, reason)
        lines.append(f"{rank:2d}  {heading}{padding}{end}")
        if title != str(hit.id):
            lines.append(f"    {hit.id}")
        if width is not None and reason is not None and hit.span is None:
            best = max(reason.sentences, key=lambda sentence: sentence.score, default=None)
            if best is not None and best.stop > _PASSAGE:  # start with the best sentence
                body = f"... {reason.text[best.start :].removeprefix(title).lstrip()}"
        if width is not None:
            body = textwrap.shorten(body, _PASSAGE, placeholder=" ...")
        if body := body.rstrip():
            passage = wrapped(body, _INDENT, _INDENT)
            lines.append(passage if reason is None else _marked(passage, reason))
        if explain and reason is not None:
            parts = " + ".join(f"{name} {value:.3f}" for name, value in hit.parts.items())
            lines.append(wrapped(f"score: {parts}", _INDENT, _INDENT))
            pairs: dict[str, float] = {}  # parts of a word may match separately
            for word, match, similarity in (_strong(reason) if strong else reason).words():
                pair = f"{word}={match or '(no word)'}"
                pairs[pair] = max(similarity, pairs.get(pair, similarity))
            matches = ", ".join(f"{pair} {similarity:.2f}" for pair, similarity in pairs.items())
            lines.append(wrapped(f"matches: {matches}", _INDENT, 2 * _INDENT))
    return "\n".join(lines)


def _strong(reason: TextExplanation) -> TextExplanation:
    """Return an explanation with only the matches that are marked."""
    least = _MARKED * max(reason.weights().values(), default=0.0)
    matches = [
        match for match in reason.matches if match.weight > least and match.document[0] < match.document[1]
    ]
    return replace(reason, matches=matches)


def _marked(lines: str, reason: TextExplanation) -> str:
    """Highlight the words that matched best.

    click removes the colors if the output is not a terminal.
    """
    from ..texts.words import UNSPACED

    places: list[list[int]] = []
    for start, stop in sorted({match.document for match in _strong(reason).matches}):
        if places and places[-1][1] == start:  # neighboring characters of a script without spaces
            places[-1][1] = stop
        else:
            places.append([start, stop])
    words = {reason.text[start:stop] for start, stop in places}
    if not words:
        return lines
    # A script without spaces has no ends of words.
    letter = rf"[^\W{UNSPACED}]"
    patterns = [
        re.escape(word) if re.search(f"[{UNSPACED}]", word) else f"(?<!{letter}){re.escape(word)}(?!{letter})"
        for word in sorted(words, key=len, reverse=True)
    ]
    return re.sub(
        "|".join(patterns),
        lambda match: typer.style(match[0], fg="yellow", bold=True),
        lines,
        flags=re.IGNORECASE,
    )


def document_text(document: TextDocument) -> str:
    """Return a text with its id and its metadata."""
    lines = [typer.style(str(document.id), bold=True)]
    lines += [wrapped(f"{name}: {value}", _INDENT, 2 * _INDENT) for name, value in document.metadata.items()]
    return "\n".join([*lines, wrapped(document.text.rstrip(), _INDENT, _INDENT), ""])


def document_line(document: TextDocument) -> str:
    """Return the id of a text, and its title or text, on one line."""
    title, start = title_of("", document.metadata) or document.text, f"{document.id}  "
    width = columns()
    space = None if width is None else max(10, width - display_width(start))
    return start + shortened(title, space)
