"""``list``: texts or pages in the order in which they were added."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from ..conditions import warn_of_unmatched
from ..hits import document_line
from ..options import IndexEncoderOption, JsonOption, WhereOption
from ..printing import show
from . import IndexArgument, noun, open_index


def list_(
    index: IndexArgument,
    where: WhereOption = None,
    limit: Annotated[int, Option("--limit", "-k", min=1, help="Number of documents to print.")] = 20,
    offset: Annotated[int, Option(min=0, help="Number of documents to skip.")] = 0,
    encoder: IndexEncoderOption = None,
    json_: JsonOption = False,
) -> None:
    """List texts or pages in the order of their addition.

    For a URL, they are in the order of their ids.

    \b
    Example:
      muvera texts list my-index --where '{"year": {"$gte": 2000}}'
      muvera pages list my-pages --where '{"document": "2024.pdf"}'
    """
    from ...utils.checks import counted

    with open_index(index, encoder, encodes=False) as opened:
        ids = opened.select(where or {})
        documents = opened.get(ids[offset : offset + limit])
        if not ids:
            warn_of_unmatched(where, opened.select)
    facts = {"index": index, "found": len(ids), "documents": [vars(document) for document in documents]}
    shown = f"{offset + 1:,} to {offset + len(documents):,}" if documents else "0"
    lines = "\n".join(map(document_line, documents))
    show(json_, facts, lines, f"{shown} of {counted(len(ids), noun(opened))}")
