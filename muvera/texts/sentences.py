"""Sentences and words of a text, as ranges of characters."""

from __future__ import annotations

import re

__all__ = ["sentences_of", "words_of"]

# The end of a sentence: its mark and closing quotes before a space, or an empty line, or a mark of languages
# that write no spaces.
_END = re.compile(
    "(?<=[.!?\u2026])[\"'\u201d\u2019)\\]]*(?=\\s+[^\\sa-z])|(?<=[\u3002\uff01\uff1f])|\\n\\s*\\n"
)
_WORD = re.compile("\\w+(?:['\u2019-]\\w+)*")

# After these a point ends no sentence.
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|cf|vs|etc|Dr|Mr|Mrs|Ms|Prof|Fig|Eq|No|St)|\b[A-Z])\.$")


def sentences_of(text: str) -> list[tuple[int, int]]:
    """Return the sentences of a text, (start, stop) without the space around them.

    Examples
    --------
    >>> text = "Dr. No came, e.g. by boat. Did he? Yes."
    >>> [text[a:b] for a, b in sentences_of(text)]
    ['Dr. No came, e.g. by boat.', 'Did he?', 'Yes.']
    """
    found, start = [], 0
    for match in _END.finditer(text):
        if _ABBREVIATION.search(text[start : match.end()]):
            continue
        found.append((start, match.end()))
        start = match.end()
    found.append((start, len(text)))
    trimmed = []
    for a, b in found:
        part = text[a:b]
        kept = part.strip()
        if kept:
            a += len(part) - len(part.lstrip())
            trimmed.append((a, a + len(kept)))
    return trimmed


def words_of(text: str) -> list[tuple[int, int]]:
    """Return the words of a text, (start, stop).

    Examples
    --------
    >>> words_of("It's a well-known fact.")
    [(0, 4), (5, 6), (7, 17), (18, 22)]
    """
    return [match.span() for match in _WORD.finditer(text)]
