"""Collections of token embeddings to measure with, and their exact top ten.

A folder of data holds collections in three layouts: ``{docs,queries}_{tokens,lens}.npy`` as
:mod:`experiments.datasets.embed_collection` writes them, PLAID indexes with a ``query_embedding.npy``
beside, and ``documents`` with ``queries``, each a file or a folder of any format that
:mod:`muvera.convert` reads.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, top_k
from muvera.convert import read

__all__ = [
    "CACHE",
    "DATA",
    "Collection",
    "encoded_collections",
    "exact_top",
    "find_collections",
    "known_collections",
    "load_collection",
]

#: Where collections are looked for when no folder is given.
DATA = Path(os.path.relpath(Path(__file__).parents[3] / "shared" / "data"))

#: Where everything goes that is made again when it is missing.
CACHE = Path("~/.cache/muvera-experiments")

_QUERIES_OF_PLAID = "query_embedding.npy"


@dataclass(frozen=True, eq=False)
class Collection:
    """Documents and queries of one model.

    Parameters
    ----------
    name : str
        Its folder's name.
    documents : MultiVectors
        Those that have tokens, in the folder's order, known by position.
    queries : MultiVectors
        Those that have tokens.
    checksum : str
        Of all tokens and lengths: sixteen hexadecimal digits.
    document_ids, query_ids : list, optional
        Names of the texts where the layout keeps them with the tokens.
    """

    name: str
    documents: MultiVectors
    queries: MultiVectors
    checksum: str
    document_ids: list[int | str] | None = None
    query_ids: list[int | str] | None = None


def find_collections(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the collections in `folders` by name.

    Parameters
    ----------
    folders : sequence of Path
        Each a collection, or a folder of collections, or one whose ``embeddings`` are.

    Raises
    ------
    FileNotFoundError
        For a folder without any.
    """
    found: dict[str, Path] = {}
    for folder in folders:
        places = [folder, *_children(folder), *_children(folder / "embeddings")]
        here = {place.resolve().name: place for place in places if _is_collection(place)}
        if not here:
            raise FileNotFoundError(
                f"{folder} holds no collection: neither docs_tokens.npy with queries_tokens.npy, nor a PLAID "
                f"index with {_QUERIES_OF_PLAID}, nor documents with queries. Give another folder with "
                "--data."
            )
        found |= here
    return found


def encoded_collections(cache: Path) -> dict[str, Path]:
    """Return what ``python -m experiments encode`` has put into the cache, by name.

    Of several with one name, whose texts have changed, the one that was made last.
    """
    places = (cache.expanduser() / "embeddings").glob("*/*")
    found = [place for place in places if _is_collection(place)]
    return {place.name: place for place in sorted(found, key=lambda place: place.stat().st_mtime)}


def known_collections(folders: Sequence[Path] | None, cache: Path) -> dict[str, Path]:
    """Return the collections in `folders`; without any those in DATA and those that were encoded.

    Raises
    ------
    FileNotFoundError
        Where there are none.
    """
    if folders:
        return find_collections(folders)
    encoded = encoded_collections(cache)
    if encoded and not DATA.is_dir():
        return encoded
    return encoded | find_collections([DATA])


def load_collection(path: Path) -> Collection:
    """Load one collection into memory."""
    if (path / _QUERIES_OF_PLAID).exists():
        documents = read(path, format="plaid")
        queries = MultiVectors.from_arrays(np.load(path / _QUERIES_OF_PLAID, allow_pickle=False))
    elif (path / "docs_tokens.npy").exists():
        documents, queries = _load_side(path, "docs"), _load_side(path, "queries")
    else:
        documents, queries = (read(_part(path, side)) for side in ("documents", "queries"))
    names = [_names(texts) for texts in (documents, queries)]
    documents, queries = _with_tokens(documents), _with_tokens(queries)
    digest = hashlib.sha256()
    for texts in (documents, queries):
        for array in (texts.tokens, texts.offsets):
            digest.update(array.tobytes())
    return Collection(path.resolve().name, documents, queries, digest.hexdigest()[:16], *names)


def exact_top(collection: Collection, k: int, cache: Path = CACHE) -> NDArray[np.int64]:
    """Return the positions of each query's `k` best documents by exact Chamfer.

    Parameters
    ----------
    collection : Collection
    k : int
    cache : Path
        Where the answer is kept, under the collection's checksum.

    Returns
    -------
    int64 (n_queries, k)
    """
    path = cache.expanduser() / f"top{k}-{collection.checksum}.npy"
    if path.exists():
        return np.asarray(np.load(path, allow_pickle=False), np.int64)
    rankings = top_k(collection.queries, collection.documents, k)
    best = np.stack([ranking.ids for ranking in rankings]).astype(np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written beside and renamed: another run may read it at any time.
    beside = path.with_name(f"{path.stem}.{os.getpid()}.npy")
    np.save(beside, best)
    beside.replace(path)
    return best


def _children(folder: Path) -> list[Path]:
    return [child for child in _entries(folder) if child.is_dir()]


def _is_collection(path: Path) -> bool:
    plain = (path / "docs_tokens.npy").exists() and (path / "queries_tokens.npy").exists()
    index = (path / _QUERIES_OF_PLAID).exists() and (path / "metadata.json").exists()
    return plain or index or all(_parts(path, side) for side in ("documents", "queries"))


def _parts(path: Path, side: str) -> list[Path]:
    """Return what is called `side`, whatever its format."""
    return [child for child in _entries(path) if child.name.partition(".")[0] == side]


def _part(path: Path, side: str) -> Path:
    found = _parts(path, side)
    if len(found) > 1:
        raise ValueError(f"{path} has both {found[0].name} and {found[1].name}. Leave one of them there.")
    return found[0]


def _entries(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else []


def _names(texts: MultiVectors) -> list[int | str] | None:
    """Return the ids of the texts with tokens, where they have any."""
    return texts.ids[texts.lengths > 0].tolist() if texts.has_ids else None


def _load_side(path: Path, side: str) -> MultiVectors:
    tokens = np.load(path / f"{side}_tokens.npy", allow_pickle=False)
    return MultiVectors.from_flat(tokens, np.load(path / f"{side}_lens.npy", allow_pickle=False))


def _with_tokens(texts: MultiVectors) -> MultiVectors:
    """Leave out texts without tokens, as a search does, and let positions be the ids."""
    filled = texts[texts.lengths > 0]
    return MultiVectors(filled.tokens, filled.offsets)
