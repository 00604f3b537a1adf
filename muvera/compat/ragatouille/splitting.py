"""Split documents into passages of whole sentences, like RAGatouille's default."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...texts.hit import sentences_of

__all__ = ["split_sentences"]


def split_sentences(
    documents: Sequence[str], document_ids: Sequence[str], chunk_size: int = 256
) -> list[dict[str, Any]]:
    """Split documents into passages of consecutive sentences; neighboring passages overlap by up to a quarter.

    Parameters
    ----------
    documents, document_ids : sequence of str
    chunk_size : int
        Maximum number of tokens of a passage.  A token is estimated as 4 ASCII characters or 1 other character.

    Returns
    -------
    list of dict
        ``{"document_id", "content"}`` for each passage.

    Examples
    --------
    >>> passages = split_sentences(["One is here. Two is here. Three is here."], ["a"], chunk_size=8)
    >>> [passage["content"] for passage in passages]
    ['One is here. Two is here.', 'Three is here.']
    """
    return [
        {"document_id": name, "content": text[start:stop]}
        for text, name in zip(documents, document_ids, strict=True)
        for start, stop in _passages(text, chunk_size)
    ]


def _passages(text: str, size: int) -> Iterator[tuple[int, int]]:
    kept: list[tuple[int, int]] = []
    for sentence in sentences_of(text):
        for start, stop in _pieces(text, *sentence, size):
            if kept and _tokens(text[kept[0][0] : stop]) > size:
                yield kept[0][0], kept[-1][1]
                shared = min(size // 4, 64)
                while kept and (
                    _tokens(text[kept[0][0] : kept[-1][1]]) > shared
                    or _tokens(text[kept[0][0] : stop]) > size
                ):
                    kept.pop(0)
            kept.append((start, stop))
    if kept:
        yield kept[0][0], kept[-1][1]


def _pieces(text: str, start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield a sentence, or its halves, split until they are short enough."""
    if stop - start < 2 or _tokens(text[start:stop]) <= size:
        yield start, stop
        return
    middle = (start + stop) // 2
    space = text.rfind(" ", start + 1, middle + 1)
    middle = middle if space < 0 else space + 1
    yield from _pieces(text, start, middle, size)
    yield from _pieces(text, middle, stop, size)


def _tokens(text: str) -> float:
    ascii_characters = len(text.encode("ascii", "ignore"))
    return ascii_characters / 4 + len(text) - ascii_characters
