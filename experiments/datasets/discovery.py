"""Find collections: folders of token vectors, and folders of their texts.

A folder of data holds token vectors in three layouts:
``{docs,queries}_{tokens,lens}.npy`` as :mod:`experiments.datasets.encode` writes them,
PLAID indexes with a ``query_embedding.npy``, and ``documents`` with ``queries``, each a
file or folder of any format that :mod:`muvera.convert` reads.  Texts are in BEIR's
layout.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..known_names import require_known

#: Default folder of collections.
DATA = Path(os.path.relpath(Path(__file__).parents[3] / "shared" / "data"))

#: Folder of files that can be generated again.
CACHE = Path("~/.cache/muvera-experiments")

#: The file of queries beside a PLAID index.
PLAID_QUERIES = "query_embedding.npy"


@dataclass(frozen=True)
class DatasetPath:
    """Paths of a collection; `embeddings` is None if only texts exist."""

    name: str
    embeddings: Path | None
    texts: Path | None


def find_collections(
    folders: Sequence[Path] | None, cache: Path, names: Sequence[str] | None = None
) -> dict[str, DatasetPath]:
    """Return the collections in `folders` by name.

    They are embeddings with their texts, and texts without embeddings.

    Each of `folders` is a collection of embeddings, or a folder of texts in BEIR's
    layout, or contains such folders, also under ``embeddings`` and ``beir``.  The
    default is DATA, if it exists or nothing was encoded.  Texts that ``python -m
    experiments get`` wrote into `cache` are large, so they are found only by name.
    Embeddings that ``encode`` wrote there belong to their texts.  `names` selects
    collections by name.
    """
    encoded = encoded_collections(cache)
    if not folders:
        folders = [DATA] if DATA.is_dir() or not encoded else []
    texts = _text_folders(texts_in(cache)) if names else {}
    embeddings: dict[str, Path] = {}
    for folder in folders:
        own_embeddings, own_texts = _embedding_folders(folder), _text_folders(folder)
        if not own_embeddings and not own_texts:
            raise FileNotFoundError(
                f"{folder} holds no collection: neither docs_tokens.npy with queries_tokens.npy, nor a PLAID "
                f"index with {PLAID_QUERIES}, nor documents with queries. Give another folder with --data."
            )
        texts |= own_texts
        embeddings |= own_embeddings
    embeddings = {name: path for name, path in encoded.items() if _texts_of(name, texts)} | embeddings
    paths = {
        name: DatasetPath(name, path, _texts_of(name, texts) or _own_texts(path))
        for name, path in embeddings.items()
    }
    used = {path.texts for path in paths.values()}
    paths |= {name: DatasetPath(name, None, path) for name, path in texts.items() if path not in used}
    for name in names or ():
        require_known(name, paths, "collection")
    return {name: path for name, path in paths.items() if not names or name in names}


def texts_in(cache: Path) -> Path:
    """Return the folder of the texts that ``python -m experiments get`` writes."""
    return cache.expanduser() / "texts"


def encoded_collections(cache: Path) -> dict[str, Path]:
    """Return the embeddings in the cache by name.

    Of several with one name the newest.
    """
    folders = [path for path in (cache.expanduser() / "embeddings").glob("*/*") if _has_embeddings(path)]
    return {path.name: path for path in sorted(folders, key=lambda path: path.stat().st_mtime)}


def files_of_side(path: Path, side: str) -> list[Path]:
    """Return the entries called `side`, "documents" or "queries", in any format."""
    return [child for child in _entries(path) if child.name.partition(".")[0] == side]


def _embedding_folders(folder: Path) -> dict[str, Path]:
    candidates = [folder, *_entries(folder), *_entries(folder / "embeddings")]
    return {path.resolve().name: path for path in candidates if _has_embeddings(path)}


def _has_embeddings(path: Path) -> bool:
    plain = (path / "docs_tokens.npy").exists() and (path / "queries_tokens.npy").exists()
    index = (path / PLAID_QUERIES).exists() and (path / "metadata.json").exists()
    return plain or index or all(files_of_side(path, side) for side in ("documents", "queries"))


def _text_folders(folder: Path) -> dict[str, Path]:
    candidates = [folder, *_entries(folder), *_entries(folder / "beir")]
    names = ("corpus.jsonl", "queries.jsonl")
    return {path.resolve().name: path for path in candidates if all((path / name).exists() for name in names)}


def _entries(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else []


def _texts_of(name: str, texts: dict[str, Path]) -> Path | None:
    """Return the texts of embeddings called NAME-MODEL.

    Of several texts, the ones with the longest matching name are taken.
    """
    fitting = [text for text in texts if name == text or name.startswith(f"{text}-")]
    return texts[max(fitting, key=len)] if fitting else None


def _own_texts(path: Path) -> Path | None:
    return path if (path / "qrels").is_dir() or (path / "corpus.jsonl").exists() else None
