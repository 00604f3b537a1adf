"""Write and read the folder of a text index; MuveraIndex writes its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..index.generations import Generation, journal_bytes
from ..index.id_map import IdMap
from ..index.manifest import TEXTS, IndexFolderError, read_manifest, texts_file
from ..index.muvera_index import MuveraIndex
from .database import DocumentDatabase
from .journal import Change, read_journal

__all__ = ["load_folder", "write_texts"]

# Maximum attempts to load a folder while a writer saves it.
_ATTEMPTS = 5


def write_texts(database: DocumentDatabase, ids: IdMap, path: Path) -> None:
    """Write the database to a new file; raise ValueError if its ids differ from `ids`."""
    _require_same_ids(ids, database, "The index")
    database.save(path)


def load_folder(folder: Path) -> tuple[MuveraIndex, DocumentDatabase, Sequence[Change]]:
    """Load the vectors and texts of the last save, and the later changes in the journal.

    Raises
    ------
    FileNotFoundError, IndexFolderError
        If the folder contains no index, a damaged one, or one of another format version.
    ValueError
        For an index without texts.
    """
    for _ in range(_ATTEMPTS):
        index = MuveraIndex._load(folder)
        generation = index._contents.generations[folder]
        if texts_file(folder) is None:
            raise ValueError(f"{folder} is an index of token vectors without texts. Use MuveraIndex.load.")
        size = journal_bytes(folder, generation)
        try:
            database = DocumentDatabase.open(folder / generation.folder / TEXTS)
            changes = list(read_journal(folder / generation.journal))
        except FileNotFoundError:
            if Generation.of(read_manifest(folder)) == generation:
                raise
            continue
        if Generation.of(read_manifest(folder)) == generation:  # else a save has emptied the journal
            _require_same_ids(index._contents.ids, database, str(folder))
            index._contents.generations = {folder: replace(generation, journal_bytes=size)}
            return index, database, changes
    raise IndexFolderError(f"{folder} was saved {_ATTEMPTS} times while it was loaded. Load it again.")


def _require_same_ids(ids: IdMap, database: DocumentDatabase, name: str) -> None:
    if len(database) != len(ids) or set(database.select({})) != set(ids.of(ids.live).tolist()):
        raise ValueError(
            f"{name} has {len(database)} texts and {len(ids)} sets of token vectors, and their ids must be the same: "
            "the vectors were changed without the texts. Build the index again."
        )
