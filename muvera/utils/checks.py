"""Argument checks, imports of optional libraries, and parts of messages."""

from __future__ import annotations

import importlib
import json
import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray

from .hints import Argument, Message

# The beginning of a URL; pathlib turns "//" into "/".  A drive of Windows has one
# letter.
_URL = re.compile(
    r"([a-z][a-z0-9+.-]+):/|(postgres|postgresql|qdrant|qdrants|qdrant-edge|lancedb|milvus):", re.I
)


def given(value: object) -> str:
    """Return the type and shortened repr of `value`, for messages."""
    return f"{type(value).__name__} {reprlib.repr(value)}"


def as_id_list(ids: object, name: str = "ids") -> list[Any]:
    """Return a collection of ids as a list, without checking their types.

    Raise TypeError for a single id, such as a string, or anything else that is not a
    collection.
    """
    single = isinstance(ids, (str, bytes, Mapping)) or getattr(ids, "ndim", 1) == 0
    if single or not isinstance(ids, Iterable):
        kinds = {str: "the string", bytes: "the bytes", int: "the integer"}
        if type(ids) not in kinds:
            raise TypeError(f"{name} must be a list of ids, or another collection, got {given(ids)}.")
        raise TypeError(
            f"{name} must be a collection of ids, got {kinds[type(ids)]} {ids!r:.80}. Give [{ids!r:.80}]."
        )
    return [id.item() if isinstance(id, np.generic) else id for id in ids]


def url_scheme(text: str) -> str | None:
    """Return the scheme of a URL, or None if a text is a path."""
    url = _URL.match(text)
    return None if url is None else url[1] or url[2]


def as_path(path: str | os.PathLike[str], name: str = "path", kind: str = "folder") -> Path:
    """Return the path of a folder or file, which need not exist.

    Messages call the argument `name`, and what it must be `kind`.  Raise TypeError if
    `path` is not a path, and ValueError if it is empty or a URL.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name} must be a string or a Path, got {given(path)}. Give the path of a {kind}.")
    if not os.fspath(path):
        raise ValueError(f"{name} must be a {kind}, got an empty string. Give the path of a {kind}.")
    scheme = url_scheme(os.fspath(path))
    if scheme is not None:  # the URL can contain a password, so the message does not show it
        advice = f"Give the path of a {kind}."
        if kind == "folder":
            advice = (
                "Write a folder and copy it with muvera load FOLDER --to URL, or open the URL with "
                "TextIndex.open, PageIndex.open or EngineIndex."
            )
        raise ValueError(f"{name} must be a {kind}, got a URL of {scheme}. {advice}")
    return Path(path)


def has_repeats(values: NDArray[np.integer[Any]]) -> bool:
    """Return True if a number occurs twice."""
    ordered = np.sort(values, kind="stable")  # fast for labels, which are nearly in order
    return bool((ordered[1:] == ordered[:-1]).any())


def require_int(
    name: str, value: object, minimum: int | None = None, maximum: int | None = None, *, hint: str = ""
) -> int:
    """Return an int of Python or NumPy between two allowed bounds as an int.

    Raise TypeError for any other type (bools and floats included), and ValueError for a
    value out of bounds.  `hint` is the last sentence of each message: what to do.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(_refusal(name, f"be an int, got {given(value)}", hint))
    number = int(value)
    _require_within(name, number, minimum, maximum, hint)
    return number


def require_number(
    name: str, value: object, minimum: float | None = None, maximum: float | None = None, *, hint: str = ""
) -> float:
    """Return a number of Python or NumPy between two allowed bounds as a float.

    Raise TypeError for any other type (bools included), and ValueError for a value that
    is not finite or out of bounds.  `hint` is the last sentence of each message: what
    to do.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(_refusal(name, f"be a number, got {given(value)}", hint))
    try:
        number = float(value)
    except OverflowError:
        number = np.inf
    if not np.isfinite(number):
        raise ValueError(_refusal(name, f"be finite, got {number}", hint))
    _require_within(name, value, minimum, maximum, hint)
    return number


def require_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    known = list(choices)
    if value not in known:
        listed = ", ".join(choice if isinstance(choice, str) else repr(choice) for choice in known)
        raise ValueError(_refusal(name, f"be one of {listed}, got {reprlib.repr(value)}"))


def _require_within(
    name: str,
    value: float | np.integer[Any] | np.floating[Any],
    minimum: float | None,
    maximum: float | None,
    hint: str,
) -> None:
    if (minimum is None or value >= minimum) and (maximum is None or value <= maximum):
        return
    if minimum is None:
        bounds = f"at most {maximum}"
    elif maximum is None:
        bounds = f"at least {minimum}"
    else:
        bounds = f"between {minimum} and {maximum}"
    raise ValueError(_refusal(name, f"be {bounds}, got {value}", hint))


def _refusal(name: str, requirement: str, hint: str = "") -> Message:
    """Return a message: what the argument `name` must fulfil, and what to do."""
    return Message(Argument(name), f" must {requirement}.", *((" ", hint) if hint else ()))


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun, such as "1,200 documents".

    The default plural is the singular with an s.
    """
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def import_extra(module: str, extra: str, purpose: str) -> Any:
    """Import a module of an optional library, such as ``"pyarrow.parquet"``.

    If the library is missing, raise ImportError, which names the `extra` of
    ``muvera-toolkit`` and the `purpose`, such as ``"Reading Parquet"``.
    """
    with needing(module.partition(".")[0], extra, purpose):
        return importlib.import_module(module)


@contextmanager
def needing(library: str, extra: str, purpose: str) -> Iterator[None]:
    """Name the extra if the block fails to import an optional library.

    See :func:`import_extra`.
    """
    try:
        yield
    except ImportError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # compiled modules hide it
            raise KeyboardInterrupt from error
        raise missing_extra(library, extra, purpose, f"importing it fails ({error})") from error


def missing_extra(library: str, extra: str, purpose: str, reason: str) -> ImportError:
    """Return the error of a missing optional library, which names the extra.

    `reason` says what is wrong, such as ``"it is not installed"``; see
    :func:`import_extra`.
    """
    return ImportError(f"{purpose} needs {library}, but {reason}. Install it with: {install_command(extra)}")


def install_command(extra: str) -> str:
    """Return the command that installs an extra.

    An example is ``"pip install 'muvera-toolkit[minilm]'"``.  An installation from a
    checkout names its folder, as in ``"pip install '.[minilm]'"``: the package index
    may not have this version.
    """
    folder = _checkout()
    place = "muvera-toolkit" if folder is None else "." if folder == Path.cwd() else str(folder)
    return f"pip install '{place}[{extra}]'"


def _checkout() -> Path | None:
    """Return the checkout that this package was imported or installed from."""
    from importlib import metadata  # slow to import

    folders = [Path(__file__).resolve().parents[2]]
    with suppress(metadata.PackageNotFoundError, ValueError):
        installed = metadata.distribution("muvera-toolkit").read_text("direct_url.json")
        url = urlsplit(json.loads(installed or "{}").get("url", ""))
        if url.scheme == "file":
            folders.append(Path(url2pathname(url.path)))
    return next((folder for folder in folders if (folder / "pyproject.toml").is_file()), None)
