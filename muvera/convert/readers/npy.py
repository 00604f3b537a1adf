"""Reader of NumPy files: flat tokens with lengths or offsets beside them, padded batches, chunks.

Read are our own folders (``tokens.npy``, ``lengths.npy``, ``ids.json``); ``docs_tokens.npy``
with ``docs_lens.npy`` and ``docs_ids.json``, and the same for ``queries``; kANNolo's and
TACHIOM's ``documents.npy`` or ``vectors.npy`` with ``doclens.npy``; LEMUR's ``train.npy`` with
``train_counts.npy``; and DESSERT's ``encoding{i}_float16.npy`` with ``doclens{i}.npy``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...utils.checks import require_choice
from ..parsing.index_files import read_json
from ..parsing.safe_pickle import load_npy_safely
from ..sources.arrays import Bfloat16Rows, FlatSource, JoinedSource, Rows
from ..sources.base import Source
from ..sources.documents import Document, RowSource
from ..sources.named_arrays import find, names_of, offsets_of, require_floating, source_of

__all__ = ["DESCRIPTION", "NAME", "matches", "open_source"]

NAME = "npy"
DESCRIPTION = (
    "a .npy file, or a folder with tokens.npy, docs_tokens.npy, documents.npy, vectors.npy, embeddings.npy, "
    "train.npy or encoding0_float16.npy, and lengths, doclens or offsets beside it (.npy or .json)"
)

_CHUNK = re.compile(r"encoding(\d+)_float(16|32)\.npy")
#: Either says that the folder is a quantized index, for which there are other readers.
_INDEX = ("centroids.npy", "centroids.pt")


def matches(path: Path) -> bool:
    """Return whether `path` is a .npy file, or a folder of such with known names."""
    if path.is_file():
        return path.suffix == ".npy"
    if not path.is_dir() or any((path / name).exists() for name in _INDEX):
        return False
    present = {file.stem for file in path.glob("*.npy")}
    known = any(find(names_of(part).tokens, present) for part in ("docs", "queries"))
    return known or any(_CHUNK.fullmatch(f"{stem}.npy") for stem in present)


def open_source(
    path: Path,
    *,
    part: str = "docs",
    lengths: Path | str | None = None,
    uint16: str | None = None,
) -> Source:
    """Return the source of a folder or of one file.

    Parameters
    ----------
    path : Path
        A folder; or a .npy file: padded (n, longest, dimension), or flat (n_tokens, dimension) with its
        lengths beside it.
    part : {"docs", "queries"}
        Which collection of a folder that has both.
    lengths : path, optional
        The file with lengths or offsets, where it is not found by its name.
    uint16 : {"float16", "bfloat16"}, optional
        What the bit patterns of an unsigned 16-bit array mean.  Default: float16 for
        kANNolo's ``documents.npy``, an error elsewhere.

    Raises
    ------
    ValueError
        Naming the file that is truncated, missing or does not fit the others.
    """
    path = Path(path)
    if path.is_file():
        return _file(path, part, lengths, uint16)
    files = {file.stem: file for file in sorted(path.iterdir()) if file.suffix in (".npy", ".json")}
    names = names_of(part)
    key = find(names.tokens, {stem for stem, file in files.items() if file.suffix == ".npy"})
    chunks = [match for file in path.iterdir() if (match := _CHUNK.fullmatch(file.name))]
    if key is None and chunks and part == "docs":
        return _chunks(path, sorted(chunks, key=lambda match: int(match[1])))
    if key is None:
        listed = ", ".join(sorted(file.name for file in path.iterdir())[:12]) or "nothing"
        raise ValueError(
            f"{path} has no token vectors under a known name: looked for {', '.join(names.tokens)} (.npy, "
            f"part={part!r}), found {listed}."
        )
    return _flat(path, path / f"{key}.npy", files, part, lengths, uint16)


def _file(path: Path, part: str, lengths: Path | str | None, uint16: str | None) -> Source:
    """Open one .npy file, with whatever stands beside it under its own stem or alone."""
    names = names_of(part)
    beside: dict[str, Path] = {}
    for word in (*names.lengths, *names.offsets, *names.ids, *names.mask):
        for stem in (f"{path.stem}_{word}", f"{path.stem.removesuffix('_tokens')}_{word}", word):
            for suffix in (".npy", ".json"):
                file = path.with_name(stem + suffix)
                if word not in beside and file != path and file.is_file():
                    beside[word] = file
    return _flat(path, path, beside, part, lengths, uint16)


def _flat(
    place: Path,
    file: Path,
    files: dict[str, Path],
    part: str,
    lengths: Path | str | None,
    uint16: str | None,
) -> Source:
    names = names_of(part)
    tokens = load_npy_safely(file)
    ids = None
    ids_key = find(names.ids, files)
    if ids_key is not None:
        ids = _values(files[ids_key])
    if tokens.dtype == object:
        return _objects(tokens, ids, str(place))
    if uint16 is None and file.stem == "documents":
        uint16 = "float16"
    arrays: dict[str, Rows] = {"tokens" if part == "docs" else "queries": _as_floats(tokens, file, uint16)}
    for key in (find(names.lengths, files), find(names.offsets, files), find(names.mask, files)):
        if key is not None and files[key] != file:
            arrays[key] = _values(files[key])
    if lengths is not None:
        given = Path(lengths) if Path(lengths).is_file() else place / lengths
        arrays = {key: arrays[key] for key in list(arrays)[:1]}
        arrays[names.lengths[0]] = _values(given)
    return source_of(arrays, name=NAME, place=str(place), part=part, ids=ids)


def _chunks(path: Path, chunks: list[re.Match[str]]) -> Source:
    """Open DESSERT's numbered chunks in the order of their numbers."""
    parts: list[Source] = []
    for match in chunks:
        file, doclens = path / match[0], path / f"doclens{match[1]}.npy"
        if not doclens.is_file():
            raise FileNotFoundError(f"{path} has {match[0]}, but no {doclens.name} with its lengths.")
        tokens = _as_floats(load_npy_safely(file), file, None)
        if tokens.ndim != 2:
            raise ValueError(f"{file} must have shape (tokens, dimension), got {tokens.shape}.")
        offsets = offsets_of(load_npy_safely(doclens), len(tokens), str(doclens), lengths=True)
        parts.append(FlatSource(tokens, offsets, None, name=NAME, place=str(file)))
        if parts[-1].dimension != parts[0].dimension:
            raise ValueError(
                f"{file} has {parts[-1].dimension} columns, but {chunks[0][0]} has {parts[0].dimension}."
            )
    numbers = [int(match[1]) for match in chunks]
    gaps = [i for i in range(numbers[0], numbers[-1]) if i not in numbers]
    if gaps:
        raise FileNotFoundError(f"{path} has chunks {numbers[0]} to {numbers[-1]}, but not chunk {gaps[0]}.")
    return JoinedSource(parts)


def _objects(arrays: NDArray[Any], ids: Any, place: str) -> Source:
    """Open an object array, one (tokens, dimension) array a document."""
    listed = [None] * len(arrays) if ids is None else list(ids)
    if len(listed) != len(arrays):
        raise ValueError(f"{place}: there are {len(listed)} ids for {len(arrays)} documents.")

    def documents() -> Iterator[Document]:
        for i, array in enumerate(arrays):
            if not isinstance(array, np.ndarray):
                raise ValueError(f"{place}: document {i} is a {type(array).__name__}, not an array.")
            tokens = array
            if tokens.dtype.kind != "f" and tokens.size:
                raise TypeError(f"{place}: document {i} has dtype {tokens.dtype}, not floating point.")
            yield Document(listed[i], tokens, f"entry {i}")

    return RowSource(documents, name=NAME, place=place, num_documents=len(arrays))


def _as_floats(array: NDArray[Any], file: Path, uint16: str | None) -> Any:
    """Return `array`, bit patterns in unsigned 16-bit integers seen as the floats they are."""
    require_choice("uint16", uint16, (None, "float16", "bfloat16"))
    if array.dtype == np.uint16:
        if uint16 is None:
            raise TypeError(
                f"{file} has dtype uint16. If these are the bit patterns of half-precision numbers, give "
                "uint16='float16' (or 'bfloat16')."
            )
        return array.view(np.float16) if uint16 == "float16" else Bfloat16Rows(array)
    require_floating(array.dtype, str(file))
    return array


def _values(file: Path) -> Any:
    """Return lengths, ids or a mask from a .npy or .json file."""
    if file.suffix == ".npy":
        return load_npy_safely(file)
    values = read_json(file)
    if not isinstance(values, list):
        raise ValueError(f"{file} must hold a JSON list, got {type(values).__name__}. Export it again.")
    return values
