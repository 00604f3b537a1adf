"""Reader of NumPy files: flat tokens with lengths or offsets beside them, padded batches, object arrays.

The usual names are those of :mod:`muvera.convert.sources.named_arrays`, such as ``tokens.npy`` with
``lengths.npy`` and ``ids.json``, or ``docs_tokens.npy`` with ``docs_lens.npy``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..parsing.files import read_json
from ..parsing.pickles import load_npy_safely
from ..sources.base import Reader, Source
from ..sources.named_arrays import find, missing_tokens, names_of, source_of

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
        files = {**_files_beside(path, part), names.tokens[0]: path}
    else:
        files = {other.stem: other for other in sorted(path.iterdir()) if other.suffix in (".npy", ".json")}
    key = find(names.tokens, files)
    if key is None:
        raise missing_tokens(part, files, str(path))
    known = (key, *(find(kind, files) for kind in (names.lengths, names.offsets, names.ids, names.mask)))
    arrays = {name: _values(files[name]) for name in known if name is not None}
    return source_of(arrays, name="npy", place=str(path), part=part)


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
