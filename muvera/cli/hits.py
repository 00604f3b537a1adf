"""Print texts and answers in the width of the terminal."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

from .output import columns

if TYPE_CHECKING:
    from ..texts.database import TextDocument
    from ..texts.hit import Hit, TextExplanation

__all__ = ["print_document", "print_hits", "print_list"]

# Maximum characters of a printed text, and minimum similarity of a marked word as a share of the best one.
_PASSAGE, _MARKED = 220, 0.8


def print_hits(hits: Iterable[Hit], explain: bool, labelled: Sequence[str] = ()) -> None:
    """Print each text's rank, title, score and best passage, and with `explain` the matching words.

    Answers in `labelled` are marked.
    """
    for rank, hit in enumerate(hits, 1):
        label = "  <- a labelled answer" if hit.id in labelled else ""
        title, body = _title(hit.id, hit.metadata), hit.text
        end = f"  {hit.score:.3f}{label}"
        space = max(10, columns() - 4 - len(end))
        shown = _shortened(title, space)
        typer.echo(f"{rank:2d}  {typer.style(shown + ' ' * (space - _width(shown)), bold=True)}{end}")
        if title != str(hit.id):
            typer.echo(f"    {hit.id}")
            body = body.removeprefix(title).lstrip()
        reason = hit.explanation
        if reason is not None and hit.span is None:
            best = max(reason.sentences, key=lambda sentence: sentence.score, default=None)
            if best is not None and best.stop > _PASSAGE:  # start with the best sentence
                body = f"... {reason.text[best.start :].removeprefix(title).lstrip()}"
        lines = _wrapped(textwrap.shorten(body, _PASSAGE, placeholder=" ..."))
        typer.echo(lines if reason is None else _marked(lines, reason))
        if explain and reason is not None:
            parts = " + ".join(f"{name} {value:.3f}" for name, value in hit.parts.items())
            typer.echo(_wrapped(f"score: {parts}"))
            typer.echo(_wrapped("matches: " + ", ".join(_word_pairs(reason)), hanging=True))


def _title(id: int | str, metadata: dict[str, object]) -> str:
    title = metadata.get("title")
    return title.strip() if isinstance(title, str) and title.strip() else str(id)


def _width(text: str) -> int:
    """Return the columns of a terminal that a text fills: two for a wide character, none for a combining one."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def _shortened(text: str, width: int) -> str:
    """Return a text of at most `width` columns, on one line, cut between words if possible."""
    text = " ".join(text[: 20 * width].split())
    if _width(text) <= width:
        return text
    end = min(len(text), width)
    while _width(text[:end]) > width - 4:
        end -= 1
    space = text.rfind(" ", 0, end + 1)
    return f"{text[: space if space > 0 else end]} ..."


def _wrapped(text: str, hanging: bool = False) -> str:
    # A NUL after each wide character fills its second column while textwrap counts characters.
    padded = "".join(f"{character}\0" if _width(character) == 2 else character for character in text)
    # A line may end between both, so one column stays free.
    filled = textwrap.fill(
        padded, columns() - ("\0" in padded), initial_indent="    ", subsequent_indent="      " if hanging else "    ",
        break_on_hyphens=False,
    )  # fmt: skip
    return filled.replace("\0", "")


def _marked(lines: str, reason: TextExplanation) -> str:
    """Highlight the words that matched best; click drops the colors without a terminal."""
    best = max(match.similarity for match in reason.matches)
    words = {
        reason.text[slice(*match.document)] for match in reason.matches if match.similarity > _MARKED * best
    }
    pattern = r"(?<!\w)(" + "|".join(map(re.escape, sorted(words - {""}, key=len, reverse=True))) + r")(?!\w)"
    return re.sub(
        pattern, lambda match: typer.style(match[0], fg="yellow", bold=True), lines, flags=re.IGNORECASE
    )


def _word_pairs(explanation: TextExplanation) -> list[str]:
    """Return each query word with the word of the text that it matched, and their similarity."""
    pairs = []
    for match in explanation.matches:
        word = explanation.query[slice(*match.query)]
        if word:  # a special token has no word
            matched = explanation.text[slice(*match.document)] or "(no word)"
            pairs.append(f"{word}={matched} {match.similarity:.2f}")
    return list(dict.fromkeys(pairs))


def print_document(document: TextDocument) -> None:
    """Print a text with its id and its metadata."""
    typer.echo(typer.style(str(document.id), bold=True))
    for name, value in document.metadata.items():
        typer.echo(f"    {name}: {value}")
    for line in document.text.rstrip().split("\n"):
        typer.echo(_wrapped(line))
    typer.echo()


def print_list(documents: Iterable[TextDocument]) -> None:
    """Print one line for each text: its id, and the start of its title or text."""
    for document in documents:
        title = _title(document.id, document.metadata)
        line = f"{document.id}  "
        space = max(10, columns() - _width(line))
        typer.echo(line + _shortened(document.text if title == str(document.id) else title, space))
