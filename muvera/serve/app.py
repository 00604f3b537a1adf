"""The application: routes over one index, kernels in threads, errors as problem+json."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import anyio
import numpy as np
from anyio.to_thread import run_sync
from fastapi import Body, Depends, FastAPI, Request
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from .. import __version__
from ..data.multivectors import MultiVectors
from ..index.muvera_index import MuveraIndex
from ..texts.text_index import TextIndex
from .models import Deletion, DocumentModel, Documents, Explain, HitModel, Search, SearchAnswer
from .problems import BodyLimit, require_token, show_problems
from .settings import ServerSettings

__all__ = ["make_app"]

_PAGE = Path(__file__).parent / "page"
_FILES = {"": "index.html", "page.css": "page.css", "page.js": "page.js", "icon.svg": "icon.svg"}

# The page loads nothing but its own files and runs no other script.
_SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

T = TypeVar("T")


def make_app(
    index: TextIndex | MuveraIndex,
    settings: ServerSettings | None = None,
    *,
    save: Callable[[], None] | None = None,
    hosts: list[str] | None = None,
) -> FastAPI:
    """Return the ASGI application of an index.

    Parameters
    ----------
    index : TextIndex or MuveraIndex
        The second answers searches by vectors alone.
    settings : ServerSettings, optional
    save : callable, optional
        Called once after a graceful stop where documents were changed.
    hosts : list of str, optional
        Names that requests may be addressed to; another is a page of somebody else's that leads here.
        Default: any.

    Returns
    -------
    FastAPI
    """
    limits = ServerSettings() if settings is None else settings
    server = _Server(index, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        if server.changed and save is not None:
            await run_sync(save)

    app = FastAPI(
        title="muvera", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
        description="Late-interaction search: candidates by inner product, ranked by exact Chamfer similarity.",
    )  # fmt: skip
    show_problems(app)
    app.add_middleware(BodyLimit, limit=limits.max_body_bytes)
    if hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)

    @app.middleware("http")
    async def secure(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.update(_SECURITY)
        return response

    _add_reading(app, server)
    if limits.writable:
        _add_writing(app, server)
    else:
        methods = ["POST", "PUT", "DELETE"]
        app.add_api_route("/documents", _refuse_writing, methods=methods, include_in_schema=False)
    for address, name in _FILES.items():
        app.add_api_route(f"/{address}", _file(name), include_in_schema=False)
    return app


class _Server:
    """What the routes share: the index, its limits, and the threads."""

    def __init__(self, index: TextIndex | MuveraIndex, settings: ServerSettings) -> None:
        self.settings, self.changed = settings, False
        self.texts = index if isinstance(index, TextIndex) else None
        self.vectors = index.index if isinstance(index, TextIndex) else index
        self._limiter = anyio.CapacityLimiter(settings.threads)

    async def run(self, work: Callable[[], T]) -> T:
        """Do work in a thread, not more at once than there are threads for, and not for longer than allowed."""
        try:
            return await asyncio.wait_for(run_sync(work, limiter=self._limiter), self.settings.timeout)
        except asyncio.TimeoutError as error:  # another class than TimeoutError before Python 3.11
            raise TimeoutError from error

    def require_texts(self) -> TextIndex:
        if self.texts is None:
            raise HTTPException(422, "This index has no texts: it answers searches by vectors alone.")
        return self.texts

    def require(self, name: str, value: int, most: int) -> None:
        if value > most:
            raise HTTPException(422, f"{name} may be {most:,} in one request, got {value:,}.")


def _add_reading(app: FastAPI, server: _Server) -> None:
    limits = server.settings

    @app.post("/search", summary="Search by texts or by vectors")
    async def search(body: Search) -> SearchAnswer:
        given = [body.query is not None, body.queries is not None, body.vectors is not None]
        if sum(given) != 1:
            raise HTTPException(422, "Give one of query, queries and vectors.")
        server.require("k", body.k, limits.max_k)
        server.require("candidates", body.candidates, limits.max_candidates)
        server.require("words", body.words, limits.max_candidates)
        queries = [body.query] if body.query is not None else body.queries or []
        server.require("The number of queries", len(body.vectors or queries), limits.max_queries)
        for query in queries:
            server.require("The characters of a query", len(query), limits.max_text_characters)

        def work() -> SearchAnswer:
            begun = time.perf_counter()
            results = (
                _by_vectors(server, body) if body.vectors is not None else _by_texts(server, body, queries)
            )
            return SearchAnswer(results=results, seconds=time.perf_counter() - begun)

        return await server.run(work)

    @app.post("/explain", summary="Which words answered which")
    async def explain(body: Explain) -> dict[str, Any]:
        texts = server.require_texts()
        server.require("The number of documents", len(body.ids), limits.max_k)
        server.require("The characters of a query", len(body.query), limits.max_text_characters)
        found = await server.run(lambda: texts.explain_all(body.query, body.ids))
        return {"explanations": [one.to_dict() for one in found]}

    @app.get("/documents/{identity}", summary="One document")
    async def document(identity: str) -> DocumentModel:
        texts = server.require_texts()
        name: int | str = identity
        if identity not in texts and identity.lstrip("-").isdigit():
            name = int(identity)
        found = await server.run(lambda: texts.get([name])[0])
        return DocumentModel(id=found.id, text=found.text, metadata=found.metadata)

    @app.get("/health", summary="Whether the server answers")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/info", summary="Sizes and settings of the index")
    async def info() -> dict[str, Any]:
        facts = await server.run(lambda: server.vectors.info().to_dict())
        encoder = None if server.texts is None else server.texts.encoder.name
        return {"text_encoder": encoder, "writable": limits.writable, **facts}


def _by_texts(server: _Server, body: Search, queries: list[str]) -> list[list[HitModel]]:
    texts = server.require_texts()
    options: dict[str, Any] = {
        "where": body.where, "candidates": max(body.candidates, body.k), "words": body.words, "threads": 1,
    }  # fmt: skip
    if body.unit == "sentence":
        if body.weights is not None:
            raise HTTPException(422, "weights rank whole documents. Leave them out, or search documents.")
        found = texts.search_sentences(queries, body.k, alpha=body.alpha, **options)
    else:
        found = texts.search(queries, body.k, weights=body.weights, **options)
    return [
        [
            HitModel(id=hit.id, score=hit.score, text=hit.text, metadata=hit.metadata, span=hit.span)
            for hit in hits
        ]
        for hits in found
    ]


def _by_vectors(server: _Server, body: Search) -> list[list[HitModel]]:
    if body.where is not None or body.words or body.weights is not None or body.unit != "document":
        raise HTTPException(422, "where, words, weights and unit need texts as queries.")
    given = body.vectors or []
    server.require("The number of token vectors", sum(map(len, given)), server.settings.max_tokens)
    queries = MultiVectors.from_arrays(
        given, dimension=server.vectors.config.dimension, dtype=np.float32, name="vectors"
    )
    found = server.vectors.search(queries, body.k, candidates=max(body.candidates, body.k), threads=1)
    return [[HitModel(id=name, score=score) for name, score in ranking] for ranking in found]


def _add_writing(app: FastAPI, server: _Server) -> None:
    limits = server.settings

    def authorized(request: Request) -> None:
        require_token(request, limits.token)

    async def change(body: Documents, work: Callable[[TextIndex], Any]) -> Any:
        server.require("The number of documents", len(body.texts), limits.max_documents)
        for text in body.texts:
            server.require("The characters of a text", len(text), limits.max_text_characters)
        texts = server.require_texts()
        result = await server.run(lambda: work(texts))
        server.changed = True
        return result

    @app.post("/documents", summary="Add documents", dependencies=[Depends(authorized)], status_code=201)
    async def add(body: Documents) -> dict[str, Any]:
        ids = await change(
            body, lambda texts: texts.add(body.texts, ids=body.ids, metadata=body.metadata, threads=1)
        )
        return {"ids": ids}

    @app.put("/documents", summary="Add or replace documents", dependencies=[Depends(authorized)])
    async def update(body: Documents) -> dict[str, Any]:
        ids = body.ids
        if ids is None:
            raise HTTPException(422, "ids say which documents are replaced. Give one for each text.")
        await change(body, lambda texts: texts.update(body.texts, ids=ids, metadata=body.metadata, threads=1))
        return {"ids": ids}

    @app.delete("/documents", summary="Delete documents", dependencies=[Depends(authorized)])
    async def delete(body: Annotated[Deletion, Body()]) -> dict[str, Any]:
        server.require("The number of documents", len(body.ids), limits.max_documents)
        texts = server.require_texts()
        await server.run(lambda: texts.delete(body.ids, missing=body.missing))
        server.changed = True
        return {"ids": body.ids}


async def _refuse_writing() -> None:
    raise HTTPException(403, "This server changes no documents. Start it with --writable and a token.")


def _file(name: str) -> Callable[[], Any]:
    async def send() -> FileResponse:
        return FileResponse(_PAGE / name)

    return send
