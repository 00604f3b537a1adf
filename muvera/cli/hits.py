"""Print texts and answers in the width of the terminal."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from ..texts.database import TextDocument
    from ..texts.hit import Hit, TextExplanation

__all__ = ["print_document", "print_hits", "print_list"]

# Characters of a text under its title, and the share of the best word's weight that a marked word has.
_PASSAGE, _MARKED = 220, 0.4


def print_hits(hits: Iterable[Hit], explain: bool, labelled: Sequence[str] = ()) -> None:
    """Print each text's rank, title, score and best passage; to explain it, also the matching words.

    Answers in `labelled` get a mark.
    """
    for rank, hit in enumerate(hits, 1):
        label = "  <- a labelled answer" if hit.id in labelled else ""
        _print_title(f"{rank:2d}  ", hit.id, hit.metadata, f"{hit.score:.3f}", label)
        reason = hit.explanation
        passage = hit.text
        if reason is not None and hit.span is None:
            passage = _passage(reason)
        lines = _wrapped(textwrap.shorten(passage, _PASSAGE, placeholder=" ..."))
        typer.echo(lines if reason is None else _marked(lines, reason))
        if explain and reason is not None:
            typer.echo(_wrapped("matches: " + ", ".join(_word_pairs(reason)), hanging=True))


def _columns() -> int:
    return min(100, shutil.get_terminal_size((80, 24)).columns)


def _print_title(start: str, id: int | str, metadata: dict[str, object], end: str, label: str = "") -> None:
    title = metadata.get("title")
    name = f"{id}  {title}" if isinstance(title, str) and title else f"{id}"
    space = max(10, _columns() - len(start) - len(end) - len(label) - 2)
    name = textwrap.shorten(name, space, placeholder=" ...") if len(name) > space else name
    typer.echo(f"{start}{typer.style(name[:space].ljust(space), bold=True)}  {end}{label}".rstrip())


def _wrapped(text: str, hanging: bool = False) -> str:
    return textwrap.fill(
        text, _columns(), initial_indent="    ", subsequent_indent="      " if hanging else "    ",
        break_on_hyphens=False,
    )  # fmt: skip


def _passage(reason: TextExplanation) -> str:
    """Return the text from its best sentence on, or from its start if that is near."""
    best = max(reason.sentences, key=lambda sentence: sentence.score, default=None)
    if best is None or best.stop <= _PASSAGE:
        return reason.text
    return "... " + reason.text[best.start :]


def _marked(lines: str, reason: TextExplanation) -> str:
    """Emphasize the words that contributed most; without a terminal, nothing changes."""
    weights = reason.weights()
    most = max(weights.values(), default=0.0)
    words = {reason.text[slice(*span)] for span, weight in weights.items() if weight > _MARKED * most}
    if not words:
        return lines
    pattern = r"(?<!\w)(" + "|".join(map(re.escape, sorted(words, key=len, reverse=True))) + r")(?!\w)"
    return re.sub(pattern, lambda match: typer.style(match[0], fg="yellow", bold=True), lines)


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
    typer.echo(textwrap.indent(document.text.rstrip(), "    ") + "\n")


def print_list(documents: Iterable[TextDocument]) -> None:
    """Print one line for each text: its id, and the start of its title or text."""
    for document in documents:
        title = document.metadata.get("title")
        line = f"{document.id}  {title if isinstance(title, str) and title else document.text}"
        typer.echo(textwrap.shorten(line, _columns(), placeholder=" ..."))
