"""Print the texts that a search found, and single texts."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from .printing import columns, display_width, shortened, wrapped

if TYPE_CHECKING:
    from ..texts.database import TextDocument
    from ..texts.hit import Hit, TextExplanation

# Maximum characters of a printed text: three lines of 80 columns.
_PASSAGE = 220

# Minimum similarity of a marked word, as a share of the best one.
_MARKED = 0.8

# Before the lines of a text, below its title.
_INDENT = "    "


def hits_text(hits: Iterable[Hit], explain: bool) -> str:
    """Return the rank, title, score and best passage of each text.

    With `explain`, also return the parts of the score and the matches of the words.
    """
    lines = []
    for rank, hit in enumerate(hits, 1):
        title, body = _title(hit.id, hit.metadata), hit.text
        end = f"  {hit.score:.3f}"
        space = max(10, columns() - 4 - len(end))
        shown = shortened(title, space)
        padding = " " * (space - display_width(shown))
        lines.append(f"{rank:2d}  {typer.style(shown + padding, bold=True)}{end}")
        if title != str(hit.id):
            lines.append(f"    {hit.id}")
            body = body.removeprefix(title).lstrip()
        reason = hit.explanation
        if reason is not None and hit.span is None:
            best = max(reason.sentences, key=lambda sentence: sentence.score, default=None)
            if best is not None and best.stop > _PASSAGE:  # start with the best sentence
                body = f"... {reason.text[best.start :].removeprefix(title).lstrip()}"
        passage = wrapped(textwrap.shorten(body, _PASSAGE, placeholder=" ..."), _INDENT, _INDENT)
        lines.append(passage if reason is None else _marked(passage, reason))
        if explain and reason is not None:
            parts = " + ".join(f"{name} {value:.3f}" for name, value in hit.parts.items())
            lines.append(wrapped(f"score: {parts}", _INDENT, _INDENT))
            pairs = (
                f"{word}={match or '(no word)'} {similarity:.2f}"
                for word, match, similarity in reason.words()
            )
            lines.append(wrapped("matches: " + ", ".join(dict.fromkeys(pairs)), _INDENT, 2 * _INDENT))
    return "\n".join(lines)


def _title(id: int | str, metadata: dict[str, object]) -> str:
    title = metadata.get("title")
    return title.strip() if isinstance(title, str) and title.strip() else str(id)


def _marked(lines: str, reason: TextExplanation) -> str:
    """Highlight the words that matched best.

    click removes the colors if the output is not a terminal.
    """
    best = max(match.similarity for match in reason.matches)
    words = {
        reason.text[slice(*match.document)] for match in reason.matches if match.similarity > _MARKED * best
    }
    pattern = r"(?<!\w)(" + "|".join(map(re.escape, sorted(words - {""}, key=len, reverse=True))) + r")(?!\w)"
    return re.sub(
        pattern, lambda match: typer.style(match[0], fg="yellow", bold=True), lines, flags=re.IGNORECASE
    )


def document_text(document: TextDocument) -> str:
    """Return a text with its id and its metadata."""
    lines = [typer.style(str(document.id), bold=True)]
    lines += [wrapped(f"{name}: {value}", _INDENT, 2 * _INDENT) for name, value in document.metadata.items()]
    return "\n".join([*lines, wrapped(document.text.rstrip(), _INDENT, _INDENT), ""])


def document_line(document: TextDocument) -> str:
    """Return the id of a text, and the start of its title or text, on one line."""
    title, start = _title(document.id, document.metadata), f"{document.id}  "
    space = max(10, columns() - display_width(start))
    return start + shortened(document.text if title == str(document.id) else title, space)
