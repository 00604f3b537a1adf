"""``muvera pages``: index pages of PDFs and pictures, and search them."""

from __future__ import annotations

import typer

from .. import serve
from ..verbs import register
from . import add, index, search, update

__all__ = ["pages"]

pages = typer.Typer(rich_markup_mode=None)


@pages.callback()
def start() -> None:
    """Index pages of PDFs and pictures, and search them.

    \b
    Example:
      muvera pages index REPORTS my-pages
      muvera pages search my-pages "revenue by region"
      muvera serve my-pages --root REPORTS
    """


pages.command("index")(index.index)
pages.command("add")(add.add)
pages.command("update")(update.update)
pages.command("search")(search.search)
register(pages)
pages.command("serve", hidden=True)(serve.serve)  # the same as muvera serve
