"""Recognizing texts that are still to be encoded, which beginners give in place of token vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["holds_texts"]

# Bytes that are looked at.
_BYTES = 1 << 16

# Usual names of fields with texts.
_TEXT_FIELDS = ("text", "contents", "content", "body", "passage", "document", "title", "sentence")

# Texts have at least this share of letters and spaces; rows of numbers have less.
_LETTERS = 0.6


def holds_texts(path: Path) -> bool:
    """Whether a file holds texts: prose, a table of texts, or JSON without any list of numbers."""
    try:
        with path.open("rb") as file:
            start = file.read(_BYTES)
        # The last character may be cut in two.
        text = start.decode("utf-8", errors="strict" if len(start) < _BYTES else "ignore").strip()
    except (OSError, UnicodeDecodeError):
        return False
    if not text or "\0" in text:
        return False
    if text[0] in "{[":
        return _holds_no_numbers(text)
    return sum(letter.isalpha() or letter.isspace() for letter in text) >= _LETTERS * len(text)


def _holds_no_numbers(text: str) -> bool:
    """Whether the first JSON value is a string, or has strings and no list."""
    try:
        value: Any = json.JSONDecoder().raw_decode(text)[0]
    except (ValueError, RecursionError):
        return False
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, dict):
        values = first.values()
        return any(map(_is_text, first, values)) and not any(map(_may_be_vectors, values))
    return isinstance(first, str)


def _is_text(name: str, value: Any) -> bool:
    """Whether a field holds a text: by its name, or by its words, of which ids have one."""
    return isinstance(value, str) and (name in _TEXT_FIELDS or " " in value)


def _may_be_vectors(value: Any) -> bool:
    """Whether a field can be token vectors, or those of a document without any; pgvector's are strings."""
    return (
        value is None
        or isinstance(value, (list, dict))
        or (isinstance(value, str) and value[:1] in ("[", "{"))
    )
