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

    All pages of SOURCE are encoded, and replace those of the index. Metadata that was
    added to a page stays. At the end, pages that a document no longer has are deleted.
    A document or page that cannot be read gets a warning, and the index keeps what it
    has. Pages of documents whose file is gone stay, too: use muvera pages delete.

    If the command is interrupted, the pages encoded so far are replaced. Run it again:
    it encodes all pages again.

    \b
    Example:
      muvera pages update my-pages REPORTS/2025.pdf
    """
    with open_pages(index, encoder, root=root) as opened:
        encode_documents(source, index, opened, opened.encoder, threads, json_, update=True)
