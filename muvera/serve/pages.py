"""The ASGI application of a page index: search, maps, and pictures of pages."""

from __future__ import annotations

import time
from base64 import b64encode
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query
from fastapi.responses import Response
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat
from starlette.exceptions import HTTPException

from ..data.multivectors import MultiVectors
from ..metadata import is_utf8
from ..pages.hit import PageHit, boxes_of
from ..pages.page_index import PageIndex
from ..pages.pictures import locate, read_picture
from . import ServerSettings
from .app import PAGE, Id, JSONInParts, Strict, Vectors, Worker, base_app, problem_responses, readers_of

# Files of this page alone; it shares style and icon with the other page.
_FILES = Path(__file__).parent / "pages_page"
_SHARED_FILES = ("page.css", "icon.svg")

# Words of a query that have a map.
_MAX_WORDS = 32

# Hits with maps: each map is a byte for each patch, and a hit has up to 33.
_MAX_MAPPED = 50

# Boxes of a hit.
_BOXES = 3

# Pictures that are kept in memory, of about 100 kB each.
_PICTURES = 128

# Quality of JPEG pictures.
_QUALITY = 80

# Steps of a map from 0 to its maximum.
_STEPS = 255

# Widths of pictures in pixels: a thumbnail, and a page that fills the window.
_WIDTHS = (400, 1200)


class PageSearch(Strict):
    """A search by words, or by vectors of the client's own model."""

    query: str | None = Field(None, description="Words.")
    vectors: Vectors | None = Field(None, description="Array (tokens, dimension).")
    k: int = Field(10, ge=1, description="Maximum number of hits.")
    where: dict[str, Any] | None = Field(None, description="A condition on the metadata.")
    words: FiniteFloat | None = Field(None, ge=0, lt=1, description="Weight of shared words.")
    maps: bool = Field(True, description="Add maps and boxes to the hits.")


class PageHitModel(BaseModel):
    """A found page.

    A map has a byte for each patch in reading order, base64: 0 at the map's mean or
    below, and 255 at the highest distance from a mean among all maps of the answer.
    """

    id: Id
    document: str
    page: int = Field(description="Number of the page, from 1 on.")
    score: float
    parts: dict[str, float]
    metadata: dict[str, Any]
    grid: tuple[int, int] | None = Field(description="Rows and columns of the maps; null without maps.")
    map: str | None = Field(description="Map of the whole query.")
    word_maps: list[str] = Field(description="Map of each word.")
    boxes: list[tuple[float, float, float, float, float]] = Field(
        description="Best regions (x0, y0, x1, y1, score) in parts of the page, from its upper left corner."
    )


class PageSearchAnswer(BaseModel):
    """Hits, best first, and the words of the query that have maps."""

    words: list[str]
    results: list[PageHitModel]
    seconds: float


class PageInfo(BaseModel):
    """What the index contains."""

    name: str | None
    pages: int
    dimension: int
    encoder: str | None = Field(description="Null if only vectors can be searched.")


def make_pages_app(
    index: PageIndex,
    settings: ServerSettings | None = None,
    *,
    hosts: list[str] | None = None,
    name: str | None = None,
) -> FastAPI:
    """Return the ASGI application of a page index, which is read-only.

    Pictures are read from :attr:`muvera.PageIndex.served_root`, and from nowhere else.
    Without an encoder in `index`, only vectors can be searched.  The other arguments
    are described at :func:`muvera.serve.app.make_app`.
    """
    limits = settings or ServerSettings()
    files = [*(PAGE / file for file in _SHARED_FILES), *_FILES.iterdir()]
    server = _PageServer(index, limits, name)
    app = base_app(server, hosts, files, "Search of pages by the vectors of their patches.")
    readers = readers_of(limits)
    refused = [401] if readers else []
    for method, address, answer, summary, errors in (
        ("POST", "/search", server.search, "Search pages", (408, 413, 422, 502)),
        ("GET", "/picture", server.picture, "Picture of a page", (404, 422)),
        ("GET", "/info", server.info, "Size and encoder of the index", ()),
    ):
        app.add_api_route(
            address, answer, methods=[method], summary=summary, dependencies=readers,
            responses=problem_responses(400, *refused, *errors, 504),
        )  # fmt: skip
    return app


class _PageServer(Worker):
    """Handlers of all routes, with the index and the pictures that were read last."""

    def __init__(self, index: PageIndex, settings: ServerSettings, name: str | None) -> None:
        super().__init__(settings, index)
        self.index = index
        self.name = name
        self.root = None if index.served_root is None else index.served_root.resolve()
        self._jpeg = lru_cache(_PICTURES)(self._read_jpeg)

    async def search(self, body: PageSearch) -> PageSearchAnswer:
        """Search pages."""
        limits = self.settings
        if (body.query is None) == (body.vectors is None):
            raise HTTPException(422, "Give one of query and vectors.")
        self.require("k", body.k, min(limits.max_k, limits.max_hits))
        if body.maps and body.k > _MAX_MAPPED:
            raise HTTPException(422, f'k may be at most {_MAX_MAPPED} with maps. Give "maps": false.')
        if body.query is not None:
            self.require_texts([body.query], 1, "queries")
            if not is_utf8(body.query):
                raise HTTPException(422, "The query has a lone surrogate. Decode it again.")
            if not body.query.strip():
                raise HTTPException(422, "The query is blank. Give at least a word.")
        self.require("The number of vectors", len(body.vectors or []), limits.max_tokens)
        options: dict[str, Any] = {"where": body.where, "words": body.words, "threads": 1}

        def work() -> JSONInParts:
            begun = time.perf_counter()
            if body.query is not None:
                hits = self.index.search(body.query, body.k, **options)
            else:
                vectors = MultiVectors.from_arrays(
                    [body.vectors or []], dimension=self.index.dimension, dtype=np.float32, name="vectors"
                )
                hits = self.index.search(vectors, body.k, **options)[0]
            maps = []
            for hit in hits:
                if time.perf_counter() - begun > limits.timeout:  # the client has got its 504
                    raise TimeoutError
                mapped = body.maps and hit.source.facts.grid is not None
                maps.append(hit.heatmaps(_MAX_WORDS) if mapped else None)
            above = [None if heat is None else heat - heat.mean(axis=(1, 2), keepdims=True) for heat in maps]
            most = max((float(heat.max()) for heat in above if heat is not None), default=1.0)
            results = [_result(*each, most) for each in zip(hits, maps, above, strict=True)]
            words = hits[0].words[:_MAX_WORDS] if hits else []
            answer = PageSearchAnswer(words=words, results=results, seconds=time.perf_counter() - begun)
            return JSONInParts(answer.model_dump())

        response: Any = await self.run(work)  # is sent as it is
        return response  # type: ignore[no-any-return]

    async def picture(
        self,
        id: Annotated[str, Query(description="Id of the page.", max_length=4096)],
        width: Annotated[int, Query(description="Width in pixels: 400 or 1200.")] = _WIDTHS[0],
    ) -> Response:
        """Return the picture of a page as JPEG."""
        if width not in _WIDTHS:
            raise HTTPException(422, f"width must be {_WIDTHS[0]} or {_WIDTHS[1]}, got {width}.")
        content = await self.run(lambda: self._jpeg(id, width))
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    def _read_jpeg(self, id: str, width: int) -> bytes:
        """Read the picture of a page from the folder of documents."""
        if self.root is None:
            raise HTTPException(404, "Pictures are shown only from a folder that --root or root= names.")
        page = self.index.page(int(id) if id not in self.index and id.isdecimal() else id)
        path = locate(page[0], self.root).resolve()
        if not path.is_relative_to(self.root):
            raise HTTPException(404, "The document of this page is outside the folder of documents.")
        file = BytesIO()
        try:
            read_picture(str(path), page[1], None, width).save(file, "JPEG", quality=_QUALITY)
        except (ValueError, OSError) as error:
            message = str(error).replace(str(path), page[0])  # clients need not know the server's folders
            raise HTTPException(404, message) from error
        return file.getvalue()

    async def info(self) -> PageInfo:
        """Return the size and the encoder of the index."""
        encoder = self.index.encoder_name
        return PageInfo(
            name=self.name, pages=len(self.index), dimension=self.index.dimension, encoder=encoder
        )  # fmt: skip


def _result(
    hit: PageHit, maps: NDArray[np.float32] | None, above: NDArray[np.float32] | None, most: float
) -> PageHitModel:
    """Return a hit with its maps, and these maps minus their means."""
    coded: list[str] = []
    boxes: list[tuple[float, float, float, float, float]] = []
    if maps is not None and above is not None:
        steps = (_STEPS * above.clip(0, most) / max(most, 1e-9)).astype(np.uint8)
        coded = [b64encode(step.tobytes()).decode() for step in steps]
        boxes = boxes_of(maps[0], hit.source.facts.lines, _BOXES)
    return PageHitModel(
        id=hit.id, document=hit.page[0], page=hit.page[1], score=hit.score, parts=hit.parts,
        metadata=hit.metadata, grid=None if maps is None else hit.source.facts.grid,
        map=coded[0] if coded else None, word_maps=coded[1:], boxes=boxes,
    )  # fmt: skip
