"""Maps and pictures of found pages."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException

from ..pages.hit import PageHit, boxes_of
from ..pages.page_index import PageIndex
from ..pages.pictures import locate, read_picture
from .bodies import HitModel, Maps, PageModel, WordMap

#: Hits with maps: each map is a byte for each patch, and a hit has up to 33.
MAX_MAPPED = 50

#: Widths of pictures in pixels: a thumbnail, and a page that fills the window.
WIDTHS = (400, 1200)

# Words of a query that have a map.
_MAX_WORDS = 32

# Boxes of a hit.
_BOXES = 3

# Pictures that are kept in memory, of about 100 kB each.
_PICTURES = 128

# Quality of JPEG pictures.
_QUALITY = 80

# Steps of a map from 0 to its maximum.
_STEPS = 255


def page_hits(found: Sequence[Sequence[PageHit]], maps: bool, deadline: float) -> list[list[HitModel]]:
    """Return the hits of each query, with maps on one scale.

    Raise TimeoutError after `deadline`, when the client has got its 504.
    """
    heats: dict[int, NDArray[np.float32]] = {}
    for hit in (hit for hits in found for hit in hits):
        if time.perf_counter() > deadline:
            raise TimeoutError
        if maps and hit.source.facts.grid is not None:
            heats[id(hit)] = hit.heatmaps(_MAX_WORDS)
    most = max((float(_above(heat).max()) for heat in heats.values()), default=1.0)
    return [[_model(hit, heats.get(id(hit)), most) for hit in hits] for hits in found]


def _above(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return maps minus their means."""
    return np.asarray(heat - heat.mean(axis=(1, 2), keepdims=True))


def _model(hit: PageHit, heat: NDArray[np.float32] | None, most: float) -> HitModel:
    maps, facts = None, hit.source.facts
    if heat is not None and facts.grid is not None:
        steps = (_STEPS * _above(heat).clip(0, most) / max(most, 1e-9)).astype(np.uint8)
        query, *words = (b64encode(step.tobytes()).decode() for step in steps)
        maps = Maps(
            grid=facts.grid, query=query,
            words=[WordMap(word=word, map=map) for word, map in zip(hit.words, words, strict=False)],
            boxes=boxes_of(heat[0], facts.lines, _BOXES),
        )  # fmt: skip
    return HitModel(
        id=hit.id, score=hit.score, text=hit.text, metadata=hit.metadata, parts=hit.parts,
        page=PageModel(document=hit.page[0], number=hit.page[1], maps=maps),
    )  # fmt: skip


class Pictures:
    """The pictures of an index's pages, of which the last ones are kept."""

    def __init__(self, index: PageIndex) -> None:
        self._index = index
        self._root = None if index.served_root is None else index.served_root.resolve()
        self._jpeg = lru_cache(_PICTURES)(self._read)

    def read(self, id: str, width: int) -> bytes:
        """Return the picture of a page as JPEG; HTTPException if there is none."""
        return self._jpeg(
            self._index.page(int(id) if id not in self._index and id.isdecimal() else id), width
        )

    def _read(self, page: tuple[str, int], width: int) -> bytes:
        if self._root is None:
            raise HTTPException(404, "Pictures are shown only from a folder that --root or root= names.")
        path = locate(page[0], self._root).resolve()
        if not path.is_relative_to(self._root):
            raise HTTPException(404, "The document of this page is outside the folder of documents.")
        file = BytesIO()
        try:
            read_picture(str(path), page[1], None, width).save(file, "JPEG", quality=_QUALITY)
        except (ValueError, OSError) as error:
            message = str(error).replace(str(path), page[0])  # clients need not know the server's folders
            raise HTTPException(404, message) from error
        return file.getvalue()
