"""Readers of an index's small files, whose damage becomes one sentence that names the file."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.offsets import as_lengths
from ...utils.checks import require_int
from .json_values import parse_json
from .unpacking import open_gzip

__all__ = ["chunk_count", "chunk_lengths", "read_json", "read_json_object"]


def read_json(path: Path) -> Any:
    """Read a JSON file, which may be packed by gzip.

    Raises
    ------
    FileNotFoundError
        Where it is missing.
    ValueError
        Where it is damaged, names a key of an object twice, or unpacks to too much.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Copy the whole folder again.")
    try:
        with open_gzip(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return parse_json(stream.read())
    except (ValueError, RecursionError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path} is damaged or truncated ({str(error).rstrip('.')}). Copy it again."
        ) from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`read_json`, and where it holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(value).__name__}. Copy it again.")
    return value


def chunk_lengths(path: Path) -> NDArray[np.int64]:
    """Read a JSON list of lengths; whole numbers written as floats are taken.

    Raises
    ------
    FileNotFoundError
        Where it is missing.
    ValueError
        Where it is no list of lengths, for the reasons of :func:`~muvera.data.offsets.as_lengths`.
    """
    values = read_json(path)
    if not isinstance(values, list):
        raise ValueError(
            f"{path} must be a list of whole numbers, got {type(values).__name__}. Copy it again."
        )
    try:
        return as_lengths(values, str(path))
    except TypeError as error:
        raise ValueError(str(error)) from None


def chunk_count(path: Path, metadata: dict[str, Any]) -> int:
    """Return ``num_chunks`` of the metadata of the index at `path`.

    Raises
    ------
    ValueError
        Where it is no whole number.
    """
    try:
        return require_int("num_chunks", metadata.get("num_chunks"), 0, hint="Copy it again.")
    except TypeError as error:
        raise ValueError(f"{path / 'metadata.json'}: {error}") from None
