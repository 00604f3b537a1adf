"""Commands that texts and pages share: list, get and delete."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Typer

import muvera

if TYPE_CHECKING:
    #: An index whose documents have ids, texts and metadata.
    Index = muvera.TextIndex | muvera.PageIndex

IndexArgument = Annotated[str, Argument(metavar="INDEX", help="Folder of an index, or an engine's URL.")]

NAMES = "Ids; of pages also names of documents, such as 2024.pdf."


def register(group: Typer) -> None:
    """Add the commands to a group."""
    from . import delete, get, listing

    group.command("list")(listing.list_)
    group.command("get")(get.get)
    group.command("delete")(delete.delete)


def open_index(
    index: str,
    encoder: str | None,
    *,
    change: bool = False,
    encodes: bool = True,
    root: Path | None = None,
) -> Index:
    """Open an index: a folder of texts or pages, or the URL of an engine.

    With `change`, changes are durable.  Without `encodes`, the command encodes nothing,
    so that it needs no encoder.  Default encoder: the stored one.  `root` is the folder
    of the documents of pages.
    """
    from ...engines import open_engine
    from ...pages.folder import is_page_index
    from ...texts.encoders.base import NoEncoder
    from ...utils.checks import url_scheme

    model = NoEncoder() if encoder is None and not encodes else encoder
    if url_scheme(index):
        engine = open_engine(index)
        try:
            stored = engine.describe()
            if stored is not None and stored.pages is not None:
                return muvera.PageIndex.open(engine, encoder, root=root)
            return muvera.TextIndex.open(engine, model)
        except BaseException:
            engine.close()
            raise
    if is_page_index(Path(index)):
        return (muvera.PageIndex.open if change else muvera.PageIndex.load)(index, encoder, root=root)
    return (muvera.TextIndex.open if change else muvera.TextIndex.load)(index, model)


def open_pages(
    index: str, encoder: str | None, *, change: bool = False, root: Path | None = None
) -> muvera.PageIndex:
    """Open a page index as :func:`open_index`, with the folder `root`; refuse texts."""
    from ...pages.folder import is_page_index
    from ...utils.checks import url_scheme

    if not url_scheme(index) and not is_page_index(Path(index)):
        return muvera.PageIndex.load(index, encoder)  # raises
    opened = open_index(index, encoder, change=change, root=root)
    if isinstance(opened, muvera.TextIndex):
        opened.close()
        raise ValueError(f"{index} has texts, but this command needs pages. Use muvera texts.")
    return opened


def noun(index: Index) -> str:
    """Return what the documents of an index are: "text" or "page"."""
    return "page" if isinstance(index, muvera.PageIndex) else "text"


def named(index: Index, names: list[Any]) -> list[int | str]:
    """Return the stored ids of what a user named.

    Ids from CSV or the command line become integers if the index has them, and the name
    of a document becomes the ids of its pages.  Raise KeyError for an unknown name.
    """
    if isinstance(index, muvera.TextIndex):
        ids = stored_ids(index, names)
    else:
        ids = [id for name in names for id in (index.pages_of(name) or [name])]
    # `get` names an unknown id as it was typed.
    return [document.id for document in index.get(list(dict.fromkeys(ids)))]


def stored_ids(index: muvera.TextIndex, ids: list[Any]) -> list[int | str]:
    """Convert ids from CSV or the command line to integers if the index has them."""
    numbers = {id: int(id) for id in ids if isinstance(id, str) and id.isdecimal() and len(id) < 19}
    documents = index.get([*numbers, *numbers.values()], missing="ignore") if numbers else []
    known = {document.id for document in documents}
    return [numbers[id] if numbers.get(id) in known and id not in known else id for id in ids]
