"""``muvera pages add``: pages of new documents, with the encoder of the index."""

from __future__ import annotations

from ..options import IndexEncoderOption, JsonOption, ThreadsOption
from ..verbs import IndexArgument, open_pages
from .index import DocumentsArgument, encode_documents
from .search import RootOption


def add(
    index: IndexArgument,
    source: DocumentsArgument,
    encoder: IndexEncoderOption = None,
    root: RootOption = None,
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Add the pages of new documents to a page index.

    Documents must be in the folder that was indexed. Pages that the index has are not
    encoded again. If their document changed, use muvera pages update.

    \b
    Example:
      muvera pages add my-pages REPORTS/2025.pdf
    """
    with open_pages(index, encoder, root=root) as opened:
        encode_documents(source, index, opened, opened.encoder, threads, json_)
