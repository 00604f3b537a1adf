"""``muvera pages``: index the pages of PDFs and pictures, search and serve them."""

from __future__ import annotations

import typer

from . import index, search, serve

__all__ = ["pages"]

pages = typer.Typer(rich_markup_mode=None)


@pages.callback()
def start() -> None:
    """Index the pages of PDFs and pictures, search and serve them.

    \b
    Example:
      muvera pages index REPORTS my-pages
      muvera pages search my-pages "revenue by region"
      muvera pages serve my-pages
    """


pages.command("index")(index.index)
pages.command("search")(search.search)
pages.command("serve")(serve.serve)
