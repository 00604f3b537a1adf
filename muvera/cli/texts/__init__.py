"""``muvera texts``: index texts, change them and search them."""

from __future__ import annotations

import typer

from . import add, delete, get, index, list, search, update

__all__ = ["texts"]

texts = typer.Typer(rich_markup_mode=None)


@texts.callback()
def start() -> None:
    """Index texts, change them and search them.

    \b
    Example:
      muvera texts index pages.csv my-index --text title,body --id url
      muvera texts search my-index "a question"
    """


texts.command("index")(index.index)
texts.command("add")(add.add)
texts.command("update")(update.update)
texts.command("delete")(delete.delete)
texts.command("get")(get.get)
texts.command("list")(list.list_)
texts.command("search")(search.search)
