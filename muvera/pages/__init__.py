"""Page pictures: index them by patch vectors, search them, and show what matched."""

from __future__ import annotations

from .hit import PageHit
from .page import Page
from .page_index import PageIndex

__all__ = ["Page", "PageHit", "PageIndex"]
