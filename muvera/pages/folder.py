"""The folder of a page index: pooled vectors with the database, patches, and facts."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..index.generations import Generation, IndexFolderError, read_manifest
from ..index.muvera_index import MuveraIndex
from ..metadata import TextDocument
from ..texts.store import TextStore, read_folder
from ..utils.atomic_files import read_json, recover_folder, write_json
from .page import PageFacts

#: Folder of the pooled vectors, with the texts and metadata.
POOLED = "pages"

#: Folder of the codes of all patches.
PATCHES = "patches"

#: File of what never changes.
FACTS = "pages.json"

# Version of the folder.
_VERSION = 1

# Attempts to read a folder while another process saves.
_ATTEMPTS = 5


class Facts(NamedTuple):
    """What the file of facts contains besides the version."""

    factor: float
    root: str | None

    def write(self, folder: Path) -> None:
        """Write the file."""
        write_json(folder / FACTS, {"version": _VERSION, **self._asdict()})

    @classmethod
    def read(cls, folder: Path) -> Facts:
        """Read the file; raise as :meth:`muvera.PageIndex.load`."""
        recover_folder(folder)
        file = folder / FACTS
        if not file.is_file():
            raise FileNotFoundError(
                f"{folder} contains no page index: it has no {FACTS}. Build one with muvera pages index."
            )
        try:
            content = read_json(file)
            version, root = content["version"], content["root"]
            facts = cls(float(content["factor"]), None if root is None else str(root))
        except (ValueError, KeyError, TypeError) as error:
            raise IndexFolderError(f"{file} is damaged ({error}). Restore it from a copy.") from error
        if version != _VERSION:
            raise IndexFolderError(
                f"{folder} has version {version} of the folder, but this muvera reads version {_VERSION}. "
                "Use the muvera that wrote it, or build the index again."
            )
        return facts


def is_page_index(path: Path) -> bool:
    """Return True if a folder contains a page index."""
    return (path / FACTS).is_file()


def read_parts(folder: Path) -> tuple[TextStore, MuveraIndex]:
    """Load the pooled vectors with the database, and the patches that it names.

    Another process may save meanwhile, or replace the folder: then read both again.
    """
    place = (folder / PATCHES).resolve()
    for _ in range(_ATTEMPTS):
        patches = MuveraIndex.load(place)
        pooled, database, _ = read_folder(folder / POOLED)
        if Generation.of(read_manifest(place)) != patches.contents.generations[place]:
            continue
        store = TextStore(pooled, database)
        numbers = (_facts(folder, document).patches_id for document in store)
        if not all(number in patches for number in numbers):
            raise IndexFolderError(f"{folder} has pages without patches. Restore the folder from a copy.")
        return store, patches
    raise IndexFolderError(f"{folder} was saved again and again while it was loaded. Load it again.")


def _facts(folder: Path, document: TextDocument) -> PageFacts:
    try:
        return PageFacts.of(document.metadata)
    except ValueError as error:
        raise IndexFolderError(
            f"{folder} is damaged: page {document.id!r} {error}. Restore the folder from a copy."
        ) from error
