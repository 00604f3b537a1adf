"""Pages in a vector database: a collection of EngineTexts with the facts of pages."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..engines.base import Engine, EngineError
from ..engines.engine_index import EngineIndex
from ..texts.encoders.base import TableEncoder
from ..texts.encoders.pages import PageEncoder
from ..texts.encoders.registry import as_page_encoder, required_page_encoder
from ..texts.engine_texts import EngineTexts


class EnginePages(NamedTuple):
    """An opened collection of pages."""

    pages: EngineTexts
    #: None if only vectors can be searched.
    encoder: PageEncoder | None
    #: Name of the encoder that made the vectors, or "".
    made_by: str
    #: Folder of the documents, or "".
    root: str


def open_engine_pages(
    engine: Engine | str, encoder: PageEncoder | TableEncoder | str | None, root: Path | None
) -> EnginePages:
    """Open a collection of pages, or an empty one.

    `engine` can be the collection's URL.  A new collection stores the name of `encoder`
    and `root`.  Raise EngineError and ValueError as :meth:`muvera.PageIndex.open`.
    """
    index = EngineIndex(engine)
    stored, location = index.engine.description, index.engine.location
    try:
        keeps_tokens = index.engine.keeps_tokens if stored is None else stored.tokens
        if not keeps_tokens:
            raise EngineError(f"{location} stores no tokens, so it cannot rank pages. Use another engine.")
        if stored is None:
            if encoder is None:
                raise EngineError(
                    f"{location} does not exist. Load pages with muvera load, or give an encoder to create it."
                )
            model = as_page_encoder(encoder)
            # The first pages create the collection.
            made_by, known = model.name, str(root or "")
            index = EngineIndex(index.engine, text_encoder=made_by, pages=known)
            return EnginePages(EngineTexts(index), model, made_by, known)
        if stored.pages is None:
            raise EngineError(f"{location} has no pages. Load a page index with muvera load.")
        made_by = stored.text_encoder or ""
        loaded = required_page_encoder(made_by, encoder, location)
        return EnginePages(EngineTexts(index), loaded, made_by, stored.pages)
    except BaseException:
        if isinstance(engine, str):
            index.close()
        raise
