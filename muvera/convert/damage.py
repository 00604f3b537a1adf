"""The doorway of all readers: what a damaged file raises leaves as one sentence that names the file.

Readers call NumPy, zlib, json, SQLite, HDF5, Arrow and others, each of which reports damage by
errors of its own.  :func:`naming_errors` turns all of them, so that no reader has to list them.
"""

from __future__ import annotations

import errno
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..data.multivectors import MultiVectors
from .parsing.safe_pickle import RefusedPickleError
from .sources.arrays import require_finite
from .sources.base import Source

__all__ = ["NamedSource", "naming_errors"]

#: Longest detail of another library's error that is quoted.
_LONGEST_DETAIL = 240

#: Error numbers that report a file's content, not the system: seeking to before its begin.
_OF_CONTENT = (errno.EINVAL, errno.EOVERFLOW)

#: Kinds of errors that stay what they are when they carry a sentence of this library, which
#: raises them themselves; a kind derived from them is another library's.
_KINDS: tuple[type[Exception], ...] = (
    ValueError, TypeError, FileNotFoundError, BlockingIOError, RefusedPickleError,
)  # fmt: skip


@contextmanager
def naming_errors(place: str, format: str) -> Iterator[None]:
    """Turn every error of the block into one sentence that names the file.

    Parameters
    ----------
    place : str
        The file or folder that is read.
    format : str
        The name of its format.

    Raises
    ------
    ValueError
        For damage, whatever a library raised for it.
    OSError
        Where the system refused to read, with its error number; of the same class.
    MemoryError
        Where there was not enough memory.
    ImportError
        Unchanged: a library is missing, which has nothing to do with the file.
    """
    try:
        yield
    except ImportError:
        raise
    except BaseException as error:
        # A panic of a library in Rust is a BaseException, unlike an interrupt it is damage.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        named = _named(error, place, format)
        if named is error:
            raise
        raise named from error


class NamedSource:
    """A source whose errors name the file that it reads, and whose numbers are all finite.

    Parameters
    ----------
    source : Source
        What a reader opened.
    place : str
        The file or folder.

    Raises
    ------
    ValueError
        Where a token vector has no numbers.
    """

    def __init__(self, source: Source, place: str) -> None:
        if source.dimension < 1:
            raise ValueError(f"{place} has token vectors without numbers; each must have at least one.")
        self.source = source
        self.place = place
        self.name = source.name
        self.dimension = source.dimension
        self.num_documents = source.num_documents
        self.num_tokens = source.num_tokens
        self.lossy = source.lossy
        self.nbits = source.nbits

    @property
    def note(self) -> str | None:
        """What the reader wants to be known, if anything."""
        return getattr(self.source, "note", None)

    @property
    def dropped_rows(self) -> int:
        """Padding rows that the batches so far left out."""
        return int(getattr(self.source, "dropped_rows", 0))

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        """Yield the source's batches, at most `max_tokens` tokens at a time.

        Raises
        ------
        ValueError
            For damage and for numbers that are not finite, naming the file.
        OSError, MemoryError
            As :func:`naming_errors` says.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {max_tokens}.")
        count = 0
        with naming_errors(self.place, self.name):
            for batch in self.source.batches(max_tokens):
                yield require_finite(batch, self.place, count)
                count += len(batch)


def _named(error: BaseException, place: str, format: str) -> BaseException:
    """Return the error to raise, which is `error` itself where it is a sentence with the file."""
    text = _text(error)
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        detail = f" ({text})" if text else ""
        return MemoryError(
            f"{place} cannot be read in the memory there is{detail}. "
            "Give this process more memory; a damaged file may ask for too much, too."
        )
    if isinstance(error, OSError) and error.errno is not None and error.strerror is not None:
        if error.errno not in _OF_CONTENT:
            return _system_error(error, place)
    elif isinstance(error, Exception) and type(error) in _KINDS and text.endswith((".", "?")):
        if _mentions(text, place) and "\n" not in str(error):
            return error
        kind = pickle.UnpicklingError if isinstance(error, RefusedPickleError) else type(error)
        return kind(text if _mentions(text, place) else f"{place}: {text}")
    named = isinstance(error, (ValueError, OSError)) and text
    detail = text if named else f"{type(error).__name__}{': ' if text else ''}{text}"
    return ValueError(
        f"{place} is damaged, or is not in the format {format!r} ({detail.rstrip('.')}). "
        "Copy or export it again."
    )


def _system_error(error: OSError, place: str) -> OSError:
    """Return an error of the same class and number, as a sentence."""
    inside = str(error.filename) if error.filename is not None else place
    which = "" if inside == place else f" ({inside})"
    named = type(error)(f"{place} cannot be read: {str(error.strerror).rstrip('.')}{which}.")
    named.errno = error.errno
    return named


def _text(error: BaseException) -> str:
    """Return the error's message in one line, shortened."""
    value: Any = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = " ".join(str(value).split())
    shortened = len(text) > _LONGEST_DETAIL and not text.endswith((".", "?"))
    return f"{text[:_LONGEST_DETAIL]} ..." if shortened else text


def _mentions(text: str, place: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(place)}", text) is not None
