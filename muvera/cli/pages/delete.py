"""``muvera pages delete``: delete documents or pages from a page index."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from ..options import JsonOption
from ..printing import show, wrapped
from .search import IndexArgument


def delete(
    index: IndexArgument,
    names: Annotated[
        list[str],
        Argument(metavar="NAME", help="Documents, as 2024.pdf, or single pages, as 2024.pdf:3."),
    ],
    json_: JsonOption = False,
) -> None:
    """Delete documents, or single pages, from a page index.

    The files stay. If a document has changed, delete it and run muvera pages index
    again, which encodes its pages.

    \b
    Example:
      muvera pages delete my-pages 2024.pdf plan.pdf:2
    """
    from ...pages.page_index import PageIndex
    from ...utils.checks import counted

    loaded = PageIndex.load(index)
    ids: set[int | str] = set()
    for name in names:
        found = loaded.pages_of(name) or ([name] if name in loaded else [])
        if not found:
            raise KeyError(f"{index} has no document and no page {name!r}. `muvera pages search` names them.")
        ids.update(found)
    loaded.delete(ids)
    loaded.save()
    line = f"{index}: deleted {counted(len(ids), 'page')}, {counted(len(loaded), 'page')} left"
    show(json_, {"index": str(index), "deleted": len(ids), "pages": len(loaded)}, wrapped(line))
