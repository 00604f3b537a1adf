"""The folder of a page index: one index with texts, whose database names it.

docs/index-format.md describes it, and the folder of former versions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..index.contents import IndexContents
from ..index.generations import MANIFEST, IndexFolderError, texts_file
from ..index.muvera_index import MuveraIndex
from ..index.settings import IndexSettings
from ..index.token_store import DocumentTokens, TokenStore
from ..metadata import encode_metadata
from ..texts.database import DocumentDatabase, Row, read_fact
from ..texts.journal import TextChange
from ..texts.store import read_folder
from ..utils.atomic_files import read_json, recover_folder
from .page import FACTS, PageFacts

#: Facts of the database: the kind of the index, and the folder of the documents.
KIND, PAGES, ROOT = "kind", "pages", "root"

# A former version has a file of facts, a folder of pooled vectors with the texts, and
# one of all vectors.
_FORMER, _FORMER_POOLED, _FORMER_PATCHES, _FORMER_VERSION = "pages.json", "pages", "patches", 1


class StoredPages(NamedTuple):
    """What the folder of a page index contains."""

    vectors: MuveraIndex
    database: DocumentDatabase
    changes: list[TextChange]


def is_former(path: Path) -> bool:
    """Return True if a former version wrote the page index in a folder."""
    return (path / _FORMER).is_file()


def is_page_index(path: Path) -> bool:
    """Return True if a folder contains a page index."""
    if is_former(path):
        return True
    try:
        texts = texts_file(path)
    except (OSError, ValueError):
        return False
    return texts is not None and read_fact(texts, KIND) == PAGES


def read_pages(folder: Path) -> StoredPages:
    """Load a page index with the changes in its journal, and check its pages.

    Raise as :meth:`muvera.PageIndex.load`.
    """
    recover_folder(folder)
    if is_former(folder):
        stored = _read_former(folder)
    else:
        stored = StoredPages(*_read(folder))
    contents = stored.vectors.contents
    for document in stored.database.documents():
        try:
            [row] = contents.ids.rows([document.id])
            facts = PageFacts.of(document.metadata)
            if contents.tokens.table is None:
                facts.require_vectors(int(contents.lengths[row]))
        except ValueError as error:
            raise _damaged(folder, document.id, error) from error
    return stored


def _damaged(folder: Path, id: int | str, error: ValueError) -> IndexFolderError:
    return IndexFolderError(f"{folder} is damaged: page {id!r} {error}. Restore the folder from a copy.")


def _read(folder: Path) -> tuple[MuveraIndex, DocumentDatabase, list[TextChange]]:
    missing = f"{folder} contains no page index. Build one with muvera pages index."
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(missing)
    vectors, database, changes = read_folder(folder)
    if database.fact(KIND) != PAGES:
        raise FileNotFoundError(missing)
    return vectors, database, changes


# -- former versions ----------------------------------------------------------


def _read_former(folder: Path) -> StoredPages:
    """Read the two indexes of a former version as one."""
    factor, root = _former_facts(folder)
    patches = MuveraIndex.load(folder / _FORMER_PATCHES).contents
    pooled, database, _ = read_folder(folder / _FORMER_POOLED)
    rows, changed = [], []
    for document in database.documents():
        try:
            (number, *numbers), *others = document.metadata[FACTS]
            [row] = patches.ids.rows([number])
        except (ValueError, TypeError, KeyError) as error:
            raise _damaged(folder, document.id, ValueError(f"has damaged facts ({error})")) from error
        rows.append((document.id, row))
        metadata = {**document.metadata, FACTS: [numbers, *others]}
        changed.append(Row(document.id, document.text, encode_metadata(metadata, document.id)))
    facts = {KIND: PAGES} if root is None else {KIND: PAGES, ROOT: root}
    database.change([], changed, facts=facts)
    return StoredPages(MuveraIndex.of(_joined(pooled.contents, patches, factor, dict(rows))), database, [])


def _former_facts(folder: Path) -> tuple[float, str | None]:
    file = folder / _FORMER
    try:
        content = read_json(file)
        version, root, factor = content["version"], content["root"], float(content["factor"])
    except (ValueError, KeyError, TypeError) as error:
        raise IndexFolderError(f"{file} is damaged ({error}). Restore it from a copy.") from error
    if version != _FORMER_VERSION:
        raise IndexFolderError(
            f"{folder} has version {version} of the folder, but this muvera reads version {_FORMER_VERSION}. "
            "Use the muvera that wrote it, or build the index again."
        )
    return factor, None if root is None else str(root)


def _joined(
    pooled: IndexContents, patches: IndexContents, factor: float, rows: dict[Any, int]
) -> IndexContents:
    """Return the contents of both indexes as two levels.

    `rows` are the rows of the pages' patches, by the ids of the pages.
    """
    settings = IndexSettings.of(pooled.settings, tokens=patches.settings.tokens, pool=factor)
    codecs = patches.tokens.codec, pooled.tokens.codec
    tokens = DocumentTokens(settings, pooled.config.dimension, *codecs)
    means = tokens.means
    if means is not None:
        _take(means, pooled.tokens.fine)
    own = np.array([rows[id] for id in pooled.ids.of(pooled.ids.live).tolist()], np.int64)
    if len(patches.tokens) == pooled.ids.num_rows and np.array_equal(own, pooled.ids.live):
        _take(tokens.fine, patches.tokens.fine)
    else:
        _copy(tokens, patches.tokens, pooled, dict(zip(pooled.ids.live.tolist(), own.tolist(), strict=True)))
    return replace(pooled, settings=settings, tokens=tokens, generations={})


def _take(store: TokenStore[Any], other: TokenStore[Any]) -> None:
    store.segments = list(other.segments)


def _copy(
    tokens: DocumentTokens, patches: DocumentTokens, pooled: IndexContents, rows: dict[int, int]
) -> None:
    """Copy the patches to the rows of their pages; deleted pages get any patches."""
    some = next(iter(rows.values()), 0)
    for row in range(pooled.ids.num_rows):
        texts = patches.fine.rows(np.array([rows.get(row, some)], np.int64))
        tokens.fine.append(texts)  # type: ignore[arg-type]
