"""Reading the small files of an index, so that what is wrong with one becomes one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.offsets import as_lengths

__all__ = ["chunk_count", "chunk_lengths", "read_json", "read_npy"]


def read_json(path: Path) -> Any:
    """Read a JSON file; what is wrong with it becomes one sentence."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing. Copy the whole folder again.") from None
    except ValueError as error:
        raise ValueError(f"{path} is damaged or truncated ({error}). Copy it again.") from error


def read_npy(path: Path) -> NDArray[Any]:
    """Memory-map a ``.npy`` of numbers; what is wrong with it becomes one sentence."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing. Copy the whole folder again.") from None
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged or truncated ({error}). Copy it again.") from error


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


def chunk_count(path: Path, metadata: Any) -> int:
    """Return ``num_chunks`` of the metadata of the index at `path`."""
    value = metadata.get("num_chunks") if isinstance(metadata, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(
            f"{path / 'metadata.json'} has num_chunks={value!r}; a whole number is needed. Copy it again."
        )
    return value
