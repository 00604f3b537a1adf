"""The ASGI application: routes over one index, with searches in threads."""

from __future__ import annotations

import asyncio
import logging
import reprlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from fastapi import Body, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt, StrictStr, model_validator
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException

from .. import __version__
from ..data.multivectors import MultiVectors
from ..index.muvera_index import MuveraIndex
from ..texts.database import limited_reading
from ..texts.search_options import WORDS
from ..texts.text_index import TextIndex
from . import ServerSettings
from .problems import BodyLimit, bearer_token, problem_responses, show_problems, wrong_host

__all__ = ["make_app"]

_PAGE = Path(__file__).parent / "page"
_FILES = {"": "index.html", "page.css": "page.css", "page.js": "page.js", "icon.svg": "icon.svg"}

# The page may load only its own files and run only its own script.
_SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_LOG = logging.getLogger("muvera")

# Maximum product of query characters and documents of an explanation: each query word is matched in each document.
_MAX_EXPLAINED = 100_000

T = TypeVar("T")

# -- bodies of requests and answers -------------------------------------------

Id = StrictInt | StrictStr

# Validation stops at a list's first error: an error object per item would take a thousand times the bytes of the body.
_FIRST = Field(fail_fast=True)
Ids = Annotated[list[Id], _FIRST]
Token = Annotated[list[FiniteFloat], _FIRST]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _require_known_fields(cls, body: Any) -> Any:
        known = cls.model_fields
        unknown = next((name for name in body if name not in known), None) if isinstance(body, dict) else None
        if unknown is not None:
            raise PydanticCustomError(
                "unknown_field",
                "There is no field {name}. The fields are {fields}",
                {"name": reprlib.repr(unknown), "fields": ", ".join(cls.model_fields)},
            )
        return body


class Search(_Strict):
    """A search by texts, or by token vectors of the client's own model."""

    query: str | None = Field(None, description="One text.")
    queries: list[str] | None = Field(None, fail_fast=True, description="Several texts.")
    vectors: list[Annotated[list[Token], _FIRST]] | None = Field(
        None, fail_fast=True, description="Token vectors (tokens, dimension) of each query."
    )
    k: int = Field(10, ge=1, description="Maximum number of hits per query.")
    where: dict[str, Any] | None = Field(None, description="A condition on the metadata.")
    candidates: int | None = Field(None, ge=1, description="Documents to rank exactly. Default: 100.")
    recall: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Instead of candidates: mean share of the exact best to find, such as 0.95.",
    )
    words: float | None = Field(
        None, ge=0, lt=1, description="Weight of shared words (BM25) in a search by texts. Default: 0.1."
    )
    unit: Literal["document", "sentence"] = "document"
    alpha: FiniteFloat = Field(
        1.0, description="Weight of the document's score in the score of its sentence."
    )


class DocumentModel(BaseModel):
    """One document of the index."""

    id: Id
    text: str
    metadata: dict[str, Any] = {}


class HitModel(BaseModel):
    """One hit."""

    id: Id
    score: float = Field(description="The sum of the parts; higher is better.")
    text: str | None = None
    metadata: dict[str, Any] = {}
    parts: dict[str, float] = Field(
        default={},
        description="'maxsim' (Chamfer similarity) and 'words', or for a sentence 'maxsim' and 'text'.",
    )
    span: tuple[int, int] | None = Field(
        default=None, description="Start and end of a sentence in its text, in characters."
    )


class SearchAnswer(BaseModel):
    """Hits of each query, best first."""

    results: list[list[HitModel]]
    seconds: float = Field(description="Duration of the search, without the wait for a free thread.")


class Explain(_Strict):
    """A query and documents whose word matches to return."""

    query: str
    ids: Ids = Field(description="Documents to explain.")


class Documents(_Strict):
    """Texts to add or update."""

    texts: Annotated[list[str], _FIRST]
    ids: list[Id] | None = Field(None, fail_fast=True)
    metadata: list[dict[str, Any]] | None = Field(None, fail_fast=True)


class MetadataChange(_Strict):
    """Metadata to replace."""

    ids: Ids
    metadata: Annotated[list[dict[str, Any]], _FIRST]


class Deletion(_Strict):
    """Documents to delete."""

    ids: Ids
    missing: Literal["raise", "ignore"] = "raise"


# -- the application ----------------------------------------------------------


def make_app(
    index: TextIndex | MuveraIndex,
    settings: ServerSettings | None = None,
    *,
    hosts: list[str] | None = None,
) -> FastAPI:
    """Return the ASGI application of an index.

    Parameters
    ----------
    index : TextIndex or MuveraIndex
        A MuveraIndex answers only searches by vectors.  An answered change is durable if the index is from
        :meth:`muvera.TextIndex.open`; close the index after the server.
    settings : ServerSettings, optional
    hosts : list of str, optional
        Names that Host headers may contain, which prevents DNS rebinding.  By default, or if "*" is one of
        them, any name is accepted.

    Returns
    -------
    FastAPI
    """
    limits = ServerSettings() if settings is None else settings
    server = _Server(index, limits)

    app = FastAPI(
        title="muvera", version=__version__, docs_url=None, redoc_url=None,
        description="Late-interaction search: candidates by inner product, ranked by exact Chamfer similarity.",
    )  # fmt: skip
    show_problems(app)
    app.add_middleware(BodyLimit, settings=limits)
    names = None if not hosts or "*" in hosts else {host.lower().strip("[]") for host in hosts}

    @app.middleware("http")
    async def secure(request: Request, call_next: Any) -> Response:
        refusal = None if names is None else wrong_host(request, names)
        response: Response = refusal or await call_next(request)
        response.headers.update(_SECURITY)
        return response

    _add_reading(app, server)
    if limits.writable:
        _add_writing(app, server)
    else:
        for address in ("/documents", "/save"):
            methods = ["POST", "PUT", "PATCH", "DELETE"]
            app.add_api_route(address, _refuse_writing, methods=methods, include_in_schema=False)
    for address, name in _FILES.items():
        app.add_api_route(f"/{address}", _file(name), include_in_schema=False)
    return app


class _Server:
    """State that all routes share: the index, its limits and the threads."""

    def __init__(self, index: TextIndex | MuveraIndex, settings: ServerSettings) -> None:
        self.settings = settings
        self.readers = (
            [] if settings.read_token is None else [bearer_token(settings.read_token, settings.token)]
        )
        self.text_index = index if isinstance(index, TextIndex) else None
        self.vectors = index.index if isinstance(index, TextIndex) else index
        # Changes wait for each other and for saves, so they have one thread and leave the others to searches.
        self._searches, self._changes = ThreadPoolExecutor(settings.threads), ThreadPoolExecutor(1)

    @property
    def texts(self) -> TextIndex:
        if self.text_index is None:
            raise HTTPException(422, "This index has no texts. Search it by vectors.")
        return self.text_index

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread; raise TimeoutError after the timeout, although the thread may continue."""

        def limited() -> T:
            with limited_reading(self.settings.max_read_characters):
                return work()

        answer, begun = await self._started(limited, self._searches)
        if begun and answer.done():
            return answer.result()
        raise TimeoutError

    async def change(self, work: Callable[[], T]) -> T:
        """Run a change to its end; answer 503, without a change, if no thread is free before the timeout."""
        answer, begun = await self._started(work, self._changes)
        if not begun:
            raise HTTPException(
                503, "Nothing was changed: the server was busy. Send the request again.", {"Retry-After": "5"}
            )
        try:
            return await asyncio.shield(answer)
        except (ConnectionError, TimeoutError):
            raise
        except OSError as error:
            _LOG.error("muvera: %s", error)
            raise HTTPException(
                507,
                "The server could not write to its disk. The change was not made, or the index was not saved.",
            ) from error

    async def _started(
        self, work: Callable[[], T], threads: ThreadPoolExecutor
    ) -> tuple[asyncio.Future[T], bool]:
        """Submit `work`, and wait until it ends or the timeout passes.

        Return its future, and whether a thread has begun it.  Work that has not begun by then is cancelled; other work
        keeps its thread until it ends.
        """
        future = threads.submit(work)
        answer = asyncio.wrap_future(future)
        # asyncio logs an exception that no code retrieves, and after a timeout no code awaits the future.
        answer.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.wait({answer}, timeout=self.settings.timeout)
        return answer, not future.cancel()

    def require(self, name: str, value: int, most: int) -> None:
        if value > most:
            raise HTTPException(422, f"{name} may be at most {most:,} in one request, got {value:,}.")

    def require_texts(self, texts: list[str], most: int, name: str) -> None:
        self.require(f"The number of {name}", len(texts), most)
        longest = max(map(len, texts), default=0)
        self.require("The characters of a text", longest, self.settings.max_text_characters)


def _add_reading(app: FastAPI, server: _Server) -> None:
    limits = server.settings

    def errors(*statuses: int) -> dict[str, Any]:
        refused = (401,) if server.readers else ()
        return {"dependencies": server.readers, "responses": problem_responses(400, *refused, *statuses, 504)}

    @app.post(
        "/search", summary="Search by texts or by vectors", response_model=SearchAnswer,
        **errors(408, 413, 422, 502),
    )  # fmt: skip
    async def search(body: Search) -> Response:
        if [body.query, body.queries, body.vectors].count(None) != 2:
            raise HTTPException(422, "Give one of query, queries and vectors.")
        server.require("k", body.k, limits.max_k)
        server.require("candidates", body.candidates or 0, limits.max_candidates)
        queries = [body.query] if body.query is not None else body.queries or []
        server.require_texts(queries, limits.max_queries, "queries")
        server.require("The number of queries", len(body.vectors or []), limits.max_queries)
        hits = body.k * max(len(queries), len(body.vectors or []))
        server.require("The number of hits (k times queries)", hits, limits.max_hits)

        def work() -> Response:
            begun = time.perf_counter()
            by_vectors = body.vectors is not None
            results = _by_vectors(server, body) if by_vectors else _by_texts(server.texts, body, queries)
            answer = SearchAnswer(results=results, seconds=time.perf_counter() - begun)
            return Response(answer.model_dump_json(), media_type="application/json")

        return await server.run(work)

    @app.post(
        "/explain", summary="Word matches", response_model=dict[str, Any], **errors(404, 408, 413, 422, 502)
    )
    async def explain(body: Explain) -> Response:
        texts = server.texts
        server.require("The number of documents", len(body.ids), limits.max_queries)
        server.require_texts([body.query], 1, "queries")
        characters = len(body.query) * len(body.ids)
        server.require("The characters of the query times the documents", characters, _MAX_EXPLAINED)

        def work() -> Response:
            explanations = [explanation.to_dict() for explanation in texts.explain_all(body.query, body.ids)]
            return JSONResponse({"explanations": explanations})

        return await server.run(work)

    @app.get("/documents/{identity:path}", summary="One document", **errors(404, 422))
    async def document(identity: str) -> DocumentModel:
        texts, name = server.texts, _as_id(server.texts, identity)
        stored = (await server.run(lambda: texts.get([name])))[0]
        return DocumentModel.model_validate(stored, from_attributes=True)

    @app.get("/health", summary="Health check")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/info", summary="Sizes and settings of the index", **errors())
    async def info() -> dict[str, Any]:
        facts = await server.run(lambda: server.vectors.info().to_dict())
        encoder = None if server.text_index is None else server.texts.encoder.name
        return {"text_encoder": encoder, "writable": limits.writable, **facts}


def _as_id(texts: TextIndex, text: str) -> int | str:
    """Return the id in a path: an integer if `text` is one as Python prints it, unless a document has the id `text`."""
    if text in texts or not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
        return text
    return int(text) if str(int(text)) == text else text


def _limits(body: Search) -> dict[str, Any]:
    """Return the limits of a search as arguments."""
    candidates = None if body.candidates is None else max(body.candidates, body.k)
    return {"candidates": candidates, "recall": body.recall, "threads": 1}


def _by_texts(texts: TextIndex, body: Search, queries: list[str]) -> list[list[HitModel]]:
    options: dict[str, Any] = {"where": body.where, **_limits(body)}
    options["words"] = WORDS if body.words is None else body.words
    if body.unit == "document":
        found = texts.search(queries, body.k, **options)
    else:
        found = texts.search_sentences(queries, body.k, alpha=body.alpha, **options)
    return [[HitModel.model_validate(hit, from_attributes=True) for hit in hits] for hits in found]


def _by_vectors(server: _Server, body: Search) -> list[list[HitModel]]:
    if body.where is not None or body.words or body.unit != "document":
        raise HTTPException(422, "where, words and unit need texts as queries.")
    vectors = body.vectors or []
    server.require("The number of token vectors", sum(map(len, vectors)), server.settings.max_tokens)
    dimension = server.vectors.config.dimension
    queries = MultiVectors.from_arrays(vectors, dimension=dimension, dtype=np.float32, name="vectors")
    rankings = server.vectors.search(queries, body.k, **_limits(body))
    return [[HitModel(id=id, score=score) for id, score in ranking] for ranking in rankings]


def _add_writing(app: FastAPI, server: _Server) -> None:
    limits = server.settings
    assert limits.token is not None
    responses = problem_responses(400, 401, 404, 408, 413, 422, 502, 503, 507)
    writing: dict[str, Any] = {"dependencies": [bearer_token(limits.token)], "responses": responses}

    def limited(ids: Ids) -> Ids:
        server.require("The number of documents", len(ids), limits.max_documents)
        return ids

    @app.post("/documents", summary="Add documents", status_code=201, **writing)
    async def add(body: Documents) -> dict[str, Any]:
        texts = server.texts
        server.require_texts(body.texts, limits.max_documents, "documents")
        new: dict[str, Any] = {"ids": body.ids, "metadata": body.metadata, "threads": 1}
        return {"ids": await server.change(lambda: texts.add(body.texts, **new))}

    @app.put("/documents", summary="Add or replace documents", **writing)
    async def update(body: Documents) -> dict[str, Any]:
        texts, ids = server.texts, body.ids
        if ids is None:
            raise HTTPException(422, "PUT needs ids of the documents to replace. Give one for each text.")
        server.require_texts(body.texts, limits.max_documents, "documents")
        await server.change(lambda: texts.update(body.texts, ids=ids, metadata=body.metadata, threads=1))
        return {"ids": ids}

    @app.patch("/documents", summary="Replace metadata", **writing)
    async def describe(body: MetadataChange) -> dict[str, Any]:
        texts, ids = server.texts, limited(body.ids)
        await server.change(lambda: texts.update(ids=ids, metadata=body.metadata))
        return {"ids": ids}

    @app.delete("/documents", summary="Delete documents", **writing)
    async def delete(body: Annotated[Deletion, Body()]) -> dict[str, Any]:
        texts, ids = server.texts, limited(body.ids)
        await server.change(lambda: texts.delete(ids, missing=body.missing))
        return {"ids": ids}

    @app.post("/save", summary="Save the index", **writing)
    async def save() -> dict[str, Any]:
        texts = server.texts
        await server.change(texts.save)
        return {"documents": len(texts)}


async def _refuse_writing() -> None:
    raise HTTPException(403, "This server is read-only. Start it with --writable and a token.")


def _file(name: str) -> Callable[[], Any]:
    async def send() -> FileResponse:
        return FileResponse(_PAGE / name)

    return send
