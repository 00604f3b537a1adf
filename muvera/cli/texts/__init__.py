"""``muvera texts``: index texts, change them and search them."""

from __future__ import annotations

import typer

from ..verbs import register
from . import add, index, search, update

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
texts.command("search")(search.search)
register(texts)
