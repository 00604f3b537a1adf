"""Numbers in sentences, with nouns and verbs that agree with them."""

from __future__ import annotations

__all__ = ["counted", "verb"]


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun.

    Parameters
    ----------
    number : int
    singular : str
    plural : str, optional
        Default: the singular with an s.

    Examples
    --------
    >>> counted(1, "document"), counted(1_200, "document"), counted(0, "query", "queries")
    ('1 document', '1,200 documents', '0 queries')
    """
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def verb(number: int, singular: str, plural: str) -> str:
    """Return the form of a verb, or of another word, that agrees with a number.

    Examples
    --------
    >>> verb(1, "has", "have"), verb(3, "has", "have")
    ('has', 'have')
    """
    return singular if number == 1 else plural
