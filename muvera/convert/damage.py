"""Convert the errors of readers to one sentence that names the file.

Readers call NumPy, zlib, json, SQLite, HDF5, Arrow and others, and each of these reports damage in
its own way.  :func:`naming_errors` converts all of them, so readers neither catch them nor name their file.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

#: Sentence for files without token vectors.
IF_TEXTS = (
    "If it contains texts, encode them with your model first, or index them: muvera texts index FILE INDEX "
    "(in Python TextIndex.build)."
)

_FIX = "Copy or export it again."

_MAX_DETAIL_LENGTH = 240

# Error numbers caused by a file's content, such as a seek to a negative position.
_CONTENT_ERRNOS = (errno.EINVAL, errno.EOVERFLOW)


class ReadError(ValueError):
    """Error of a reader whose message is already a sentence for the user, perhaps without the file."""


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
    text = " ".join(str(error).split())
    number, reason = (error.errno, error.strerror) if isinstance(error, OSError) else (None, None)
    named_before = number is not None or (isinstance(error, MemoryError) and place in text)
    sentence = isinstance(error, ReadError) or type(error) is FileNotFoundError or named_before
    if sentence and reason is None:
        return error if place in text else type(error)(f"{place}: {text}")
    if len(text) > _MAX_DETAIL_LENGTH:
        text = f"{text[:_MAX_DETAIL_LENGTH]} ..."
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return MemoryError(
            f"{place} does not fit in the available memory ({text or type(error).__name__}). Give this process "
            "more memory, or check the file: a damaged file can also request too much."
        )
    if isinstance(error, OSError) and reason and number not in _CONTENT_ERRNOS:
        file = str(error.filename or place)
        which = "" if file == place else f" ({file})"
        named = type(error)(f"{place} cannot be read: {reason.rstrip('.')}{which}.")
        named.errno = number
        return named
    if not (isinstance(error, (ValueError, TypeError, OSError)) and text):
        text = f"{type(error).__name__}: {text}"
    detail = text.removesuffix(_FIX).rstrip(" .:")
    return ReadError(f"{place} is damaged, or is not in the format {format!r} ({detail}). {_FIX}")
