"""``get``: print texts or pages with their metadata."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from ..hits import document_text
from ..options import IndexEncoderOption, JsonOption
from ..printing import show
from . import NAMES, IndexArgument, named, open_index


def get(
    index: IndexArgument,
    names: Annotated[list[str], Argument(metavar="ID", help=NAMES)],
    encoder: IndexEncoderOption = None,
    json_: JsonOption = False,
) -> None:
    """Print texts, or the text layers of pages, and their metadata.

    \b
    Example:
      muvera texts get my-index https://example.org/a
      muvera pages get my-pages 2024.pdf:3
    """
    with open_index(index, encoder, encodes=False) as opened:
        documents = opened.get(named(opened, names))
    facts = {"index": index, "documents": [vars(document) for document in documents]}
    show(json_, facts, "\n".join(map(document_text, documents)))
