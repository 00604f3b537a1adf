"""Reader of NumPy files: flat tokens with lengths or offsets beside them, padded batches, object arrays.

The usual names are those of :mod:`muvera.convert.sources.named_arrays`, such as ``tokens.npy`` with
``lengths.npy`` and ``ids.json``, or ``docs_tokens.npy`` with ``docs_lens.npy``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..damage import ReadError, ReadTypeError
from ..parsing.files import read_json
from ..parsing.pickles import load_npy_safely
from ..sources.base import Document, Reader, RowSource, Source
from ..sources.named_arrays import find, names_of, source_of

__all__ = ["READERS"]


def _matches(path: Path) -> bool:
    if path.is_file():
        return path.suffix == ".npy"
    # A folder with centroids is a quantized index.
    if not path.is_dir() or any((path / name).exists() for name in ("centroids.npy", "centroids.pt")):
        return False
    present = {file.stem for file in path.glob("*.npy")}
    return any(find(names_of(part).tokens, present) for part in ("docs", "queries"))


def _open(path: Path, *, part: str = "docs") -> Source:
    """Open a folder, or a .npy file with its lengths beside it.

    `part`, "docs" or "queries", is for a folder with both.
    """
    names = names_of(part)
    if path.is_file():
        file, files = path, _files_beside(path, part)
    else:
        files = {other.stem: other for other in sorted(path.iterdir()) if other.suffix in (".npy", ".json")}
        key = find(names.tokens, {stem for stem, other in files.items() if other.suffix == ".npy"})
        if key is None:
            raise ReadError(
                f"{path} has no token vectors under a known name: looked for {', '.join(names.tokens)} (.npy, "
                f"part={part!r}), found {', '.join(sorted(files)[:12]) or 'nothing'}."
            )
        file = path / f"{key}.npy"
    tokens = load_npy_safely(file)
    ids_key = find(names.ids, files)
    ids = None if ids_key is None else _values(files[ids_key])
    if tokens.dtype == object:
        return _objects(tokens, ids, str(path))
    if tokens.dtype == np.uint16:
        raise ReadTypeError(
            f"{file} has dtype uint16. If these are the bits of half-precision numbers, save "
            "array.view('float16') instead."
        )
    arrays: dict[str, Any] = {names.tokens[0]: tokens}
    for key in (find(names.lengths, files), find(names.offsets, files), find(names.mask, files)):
        if key is not None and files[key] != file:
            arrays[key] = _values(files[key])
    return source_of(arrays, name="npy", place=str(path), part=part, ids=ids)


def _files_beside(path: Path, part: str) -> dict[str, Path]:
    """Return the files beside a .npy file, by word: ``x_lengths.npy`` or ``lengths.npy`` for ``x.npy``."""
    names = names_of(part)
    files: dict[str, Path] = {}
    for word in (*names.lengths, *names.offsets, *names.ids, *names.mask):
        for stem in (f"{path.stem}_{word}", f"{path.stem.removesuffix('_tokens')}_{word}", word):
            for suffix in (".npy", ".json"):
                file = path.with_name(stem + suffix)
                if word not in files and file != path and file.is_file():
                    files[word] = file
    return files


def _objects(arrays: Any, ids: Any, place: str) -> Source:
    """Open an object array with one array (tokens, dimension) per document."""
    names = [None] * len(arrays) if ids is None else list(ids)
    if len(names) != len(arrays):
        raise ValueError(f"{len(names)} ids for {len(arrays)} documents")

    def documents() -> Iterator[Document]:
        for i, tokens in enumerate(arrays):
            if not isinstance(tokens, np.ndarray) or (tokens.dtype.kind != "f" and tokens.size):
                kind = tokens.dtype if isinstance(tokens, np.ndarray) else type(tokens).__name__
                raise ReadTypeError(f"{place}: document {i} is {kind}, not an array of floats.")
            yield Document(names[i], tokens, f"entry {i}")

    return RowSource(documents, name="npy", place=place, num_documents=len(arrays))


def _values(file: Path) -> Any:
    """Return lengths, ids or a mask from a .npy or .json file."""
    if file.suffix == ".npy":
        return load_npy_safely(file)
    values = read_json(file)
    if not isinstance(values, list):
        raise ValueError(f"{file.name} must hold a JSON list, got {type(values).__name__}")
    return values


READERS = (
    Reader(
        "npy",
        "a .npy file, or a folder with tokens.npy, docs_tokens.npy, documents.npy, vectors.npy, embeddings.npy or "
        "train.npy, and lengths, doclens or offsets beside it (.npy or .json)",
        _matches,
        _open,
    ),
)
