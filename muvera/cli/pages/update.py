"""``muvera pages update``: encode documents again, with the encoder of the index."""

from __future__ import annotations

from ..options import IndexEncoderOption, JsonOption, ThreadsOption
from ..verbs import IndexArgument, open_pages
from .index import DocumentsArgument, encode_documents
from .search import RootOption


def update(
    index: IndexArgument,
    source: DocumentsArgument,
    encoder: IndexEncoderOption = None,
    root: RootOption = None,
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Encode changed documents again, and add new ones.

    All pages of SOURCE are encoded, and replace those of the index. They keep metadata
    that was added to them. At the end, pages that a document no longer has are deleted.
    A document that cannot be read keeps its pages. If its file is gone, use muvera
    pages delete. An interrupted command keeps the pages that it has encoded; the next
    one begins with the first page.

    \b
    Example:
      muvera pages update my-pages REPORTS/2025.pdf
    """
    with open_pages(index, encoder, root=root) as opened:
        encode_documents(source, index, opened, opened.encoder, threads, json_, update=True)
