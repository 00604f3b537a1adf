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
        Argument(
            metavar="NAME", help="Names of documents, such as 2024.pdf, or of pages, such as 2024.pdf:3."
        ),
    ],
    json_: JsonOption = False,
) -> None:
    """Delete documents, or single pages, from a page index.

    The source files are not deleted: the next muvera pages index adds their pages
    again. Use this to encode a changed document again. To remove a document for good,
    delete its file, too.

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
            raise KeyError(
                f"{index} has no document or page named {name!r}. Use a name as in the hits of muvera pages "
                "search, such as 2024.pdf or 2024.pdf:3."
            )
        ids.update(found)
    loaded.delete(ids)
    loaded.save()
    line = f"{index}: deleted {counted(len(ids), 'page')}, {counted(len(loaded), 'page')} left"
    show(json_, {"index": str(index), "deleted": len(ids), "pages": len(loaded)}, wrapped(line))
