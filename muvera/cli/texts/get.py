"""``muvera texts get``: print texts and their metadata."""

from __future__ import annotations

from typing import Annotated

from typer import Argument

from ..hits import document_text
from ..options import IndexEncoderOption, JsonOption
from ..printing import show
from .changes import IndexArgument, open_texts, stored_ids


def get(
    index: IndexArgument,
    ids: Annotated[list[str], Argument(metavar="ID", help="Ids of texts.")],
    encoder: IndexEncoderOption = None,
    json_: JsonOption = False,
) -> None:
    """Print texts and their metadata.

    \b
    Example:
      muvera texts get my-index https://example.org/a
    """
    with open_texts(index, encoder, encodes=False) as opened:
        documents = opened.get(stored_ids(opened, ids))
    facts = {"index": index, "documents": [vars(document) for document in documents]}
    show(json_, facts, "\n".join(map(document_text, documents)))
