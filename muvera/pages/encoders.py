"""The public names of page encoders, which are registered with those of texts."""

from __future__ import annotations

from ..texts.encoders.pages import EncodedPage, PageEncoder
from ..texts.encoders.registry import load_page_encoder

__all__ = ["EncodedPage", "PageEncoder", "load_page_encoder"]
