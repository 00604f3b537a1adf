"""Convert the errors of readers to one sentence that names the file.

Readers call NumPy, zlib, json, SQLite, HDF5, Arrow and others, and each of these reports damage in
its own way.  :func:`naming_errors` converts all of them, so no reader has to list them.
"""

from __future__ import annotations

import errno
import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["IF_TEXTS", "ExplainedError", "ReadError", "ReadTypeError", "naming_errors"]

#: Sentence for files without token vectors.
IF_TEXTS = (
    "If it holds texts, encode them with your model first, or index them: muvera texts index FILE INDEX "
    "(in Python TextIndex.build)."
)

_FIX = "Copy or export it again."

_MAX_DETAIL_LENGTH = 240

# Error numbers caused by a file's content, such as a seek to a negative position.
_CONTENT_ERRNOS = (errno.EINVAL, errno.EOVERFLOW)

# Readers raise these with a sentence and without an error number; system errors have a number.
_PLAIN_OS_ERRORS = (FileNotFoundError, BlockingIOError)


class ExplainedError(Exception):
    """Base of errors whose message is already a sentence for the user."""


class ReadError(ExplainedError, ValueError):
    """Error for content that a reader refuses, such as a damaged or incomplete file."""


class ReadTypeError(ExplainedError, TypeError):
    """Error for numbers, ids or arguments of a type that a reader refuses."""


@contextmanager
def naming_errors(place: str, format: str) -> Iterator[None]:
    """Convert every error of the block to one sentence that names the file or folder `place`.

    Damage becomes a :class:`ReadError`, whatever a library raised for it; system errors keep their class
    and number.  ImportError passes: a missing library has nothing to do with the file.
    """
    try:
        yield
    except ImportError:
        raise
    except BaseException as error:
        # Libraries in Rust report damage as a panic, which is a BaseException.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        named = _named(error, place, format)
        if named is error:
            raise
        raise named from error


def _named(error: BaseException, place: str, format: str) -> BaseException:
    """Return the error to raise: `error` itself if its message is a sentence that names the file."""
    text = _text(error, place)
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        detail = f" ({text})" if text else ""
        return MemoryError(
            f"{place} does not fit in the available memory{detail}. Give this process more memory, or check "
            "the file: damage can also cause huge requests."
        )
    if isinstance(error, OSError) and error.errno is not None and error.strerror is not None:
        if error.errno not in _CONTENT_ERRNOS:
            file = str(error.filename or place)
            which = "" if file == place else f" ({file})"
            named = type(error)(f"{place} cannot be read: {str(error.strerror).rstrip('.')}{which}.")
            named.errno = error.errno
            return named
    elif isinstance(error, ExplainedError) or type(error) in _PLAIN_OS_ERRORS:
        if re.search(rf"(?<!\w){re.escape(place)}", str(error)):
            return error
        kind = pickle.UnpicklingError if isinstance(error, pickle.UnpicklingError) else type(error)
        return kind(f"{place}: {text}")
    plain = isinstance(error, (ValueError, TypeError, OSError)) and text
    detail = text if plain else f"{type(error).__name__}{': ' if text else ''}{text}"
    detail = detail.removesuffix(_FIX).rstrip(" .")
    return ReadError(f"{place} is damaged, or is not in the format {format!r} ({detail}). {_FIX}")


def _text(error: BaseException, place: str) -> str:
    """Return the error's message in one line; those of libraries without the place, and shortened."""
    value: Any = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = " ".join(str(value).split())
    if isinstance(error, ExplainedError):
        return text
    text = text.replace(f"{place}: ", "").replace(f"{place}{os.sep}", "")
    return f"{text[:_MAX_DETAIL_LENGTH]} ..." if len(text) > _MAX_DETAIL_LENGTH else text
