"""Table of the formats: the module of each, imported when it is needed, and the format of a path."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, cast

from ..data.multivectors import MultiVectors
from .damage import NamedSource, naming_errors
from .isolation import IsolatedSource, IsolationLimits
from .parsing.plain_text import holds_texts
from .readers.in_memory import open_object
from .sources.base import Source

__all__ = [
    "READERS",
    "WRITERS",
    "find_reader",
    "formats",
    "open_source",
    "reader",
    "writer",
    "writer_options",
]

#: Name to module, in the order of detection: folders that hold another format's files as well
#: come before it, and a folder of plain arrays comes after every kind of index.
READERS = {
    "pylate": "pylate",
    "warp": "warp",
    "plaid": "plaid",
    "fast_plaid": "fast_plaid",
    "byaldi": "byaldi",
    "qdrant": "qdrant",
    "lancedb": "lancedb",
    "zarr": "zarr",
    "npz": "npz",
    "safetensors": "safetensors",
    "hdf5": "hdf5",
    "jsonl": "jsonl",
    "npy": "npy",
    "parquet": "parquet",
    "arrow": "arrow_ipc",
}

WRITERS = {
    "npy": "npy",
    "npz": "npz",
    "safetensors": "safetensors",
    "parquet": "parquet",
    "plaid": "plaid",
}


class Reader(Protocol):
    """Interface of the module that reads a format."""

    NAME: str
    DESCRIPTION: str

    def matches(self, path: Path) -> bool:
        """Say, cheaply and without raising, whether `path` is in this format."""

    def open_source(self, path: Path, **options: Any) -> Source:
        """Return the source."""


class Writer(Protocol):
    """Interface of the module that writes a format."""

    NAME: str

    def write(
        self, batches: Iterator[MultiVectors], target: Path, *, overwrite: bool, place: str = ...
    ) -> None:
        """Write the batches in one format.

        Parameters
        ----------
        batches : iterator of MultiVectors
            In order; only one at a time is in memory.
        target : Path
            The file or folder, which appears when it is complete.
        overwrite : bool
            Replace an existing file or folder.
        place : str
            Where the batches are from, for messages.

        Raises
        ------
        FileExistsError
            Where `target` exists and `overwrite` is False, or it holds something else.
        ValueError, TypeError
            Where the batches do not fit each other: other dimensions, kinds of ids, an id twice.
        OSError
            Where the target cannot be written, such as on a full disk; the message names it.
        """


def _module(package: str, table: dict[str, str], name: str, parameter: str) -> Any:
    key = name.lower().replace("-", "_")
    if key not in table:
        raise ValueError(f"{parameter} must be one of {', '.join(table)}, got {name!r}.")
    return importlib.import_module(f"{package}.{table[key]}")


def reader(name: str) -> Reader:
    """Return the module that reads the format `name`.

    Raises
    ------
    ValueError
        Where there is no such format, naming those there are.
    """
    return cast(Reader, _module(f"{__package__}.readers", READERS, name, "format"))


def writer(name: str) -> Writer:
    """Return the module that writes the format `name`.

    Raises
    ------
    ValueError
        Where nothing writes it, naming what is written.
    """
    return cast(Writer, _module(f"{__package__}.writers", WRITERS, name, "to"))


def writer_options(module: Writer) -> list[str]:
    """Return the names of what a writer takes besides the parameters of all."""
    known = inspect.signature(module.write).parameters.values()
    names = [parameter.name for parameter in known if parameter.kind is parameter.KEYWORD_ONLY]
    return [name for name in names if name not in inspect.signature(Writer.write).parameters]


def formats() -> dict[str, str]:
    """Return the name of every format that can be read, with what its reader looks for."""
    return {name: reader(name).DESCRIPTION for name in READERS}


def find_reader(path: Path) -> Reader:
    """Return the module of the format that `path` is in.

    Raises
    ------
    FileNotFoundError
        Where nothing is there.
    ValueError
        Where it is in no known format, or holds texts in place of token vectors.
    """
    _require_there(path)
    if path.is_file() and holds_texts(path):
        raise ValueError(
            f"{path} holds texts, not token vectors. Encode it with your model first, and give the vectors; or index "
            f"the texts: muvera texts index {path} INDEX (in Python TextIndex.build)."
        )
    for name in READERS:
        module = reader(name)
        if module.matches(path):
            return module
    found = ""
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir()) or ["nothing"]
        found = f" It has {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}."
    raise ValueError(
        f"{path} is in no known format.{found} muvera.convert.formats() lists the known ones. Where only the "
        "files' names differ, give the format."
    )


def open_source(
    path_or_object: Any,
    format: str | None = None,
    *,
    isolated: bool | IsolationLimits = False,
    **options: Any,
) -> Source:
    """Return the source of a path, or of embeddings in memory.

    Parameters
    ----------
    path_or_object : path or object
        A str is a path.  A :class:`Source` is returned as it is.
    format : str, optional
        A key of :data:`READERS`.  Default: the first that detects the path.
    isolated : bool or IsolationLimits
        Read in a child process with limits, as files from strangers should be: whatever ends,
        hangs or fills that process is one error here.  True stands for the default limits.
    **options
        For the format's reader, see its ``open_source``.

    Raises
    ------
    TypeError
        For an option that the reader does not have, naming those it has.
    FileNotFoundError, ValueError, OSError, MemoryError, pickle.UnpicklingError
        For what is missing, damaged or in no known format, in a sentence that names it.
    ImportError
        Where the format's library is missing.
    ChildProcessError
        Where the isolated process was ended.
    """
    if isinstance(path_or_object, (str, os.PathLike)):
        path = Path(path_or_object).expanduser()
        if isolated:
            limits = IsolationLimits() if isolated is True else isolated
            return IsolatedSource(path, format, options, limits)
        module = find_reader(path) if format is None else reader(format)
        _require_there(path)
        _check(module.open_source, module.NAME, options)
        with naming_errors(str(path), module.NAME):
            return NamedSource(module.open_source(path, **options), str(path))
    if isolated:
        raise TypeError(
            f"isolated=True belongs to a path, but got {type(path_or_object).__name__}, which is in memory."
        )
    if isinstance(path_or_object, Source):
        _check(_as_it_is, path_or_object.name, options)
        return path_or_object
    if format is not None:
        raise TypeError(f"format={format!r} belongs to a path, but got {type(path_or_object).__name__}.")
    _check(open_object, "memory", options)
    return open_object(path_or_object, **options)


def _require_there(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist. Give a file or folder of embeddings; a text is encoded with your model first."
        )


def _as_it_is() -> None:
    """Take no options: the source was opened with its own."""


def _check(function: Any, name: str, options: dict[str, Any]) -> None:
    known = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return
    names = [key for key, parameter in known.items() if parameter.kind is parameter.KEYWORD_ONLY]
    for option in options:
        if option not in names:
            has = f"it has {', '.join(names)}" if names else "it has none"
            raise TypeError(f"The {name} reader has no option {option!r}; {has}.")
