"""The ASGI application: routes over one index, with searches in threads."""

from __future__ import annotations

import asyncio
import logging
import reprlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from fastapi import APIRouter, Body, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, StrictInt, StrictStr, model_validator
from pydantic_core import PydanticCustomError
from starlette.exceptions import HTTPException

from .. import __version__
from ..data.multivectors import MultiVectors
from ..index.muvera_index import MuveraIndex
from ..texts.database import TextDocument, limited_reading
from ..texts.hit import WORDS
from ..texts.text_index import TextIndex
from . import ServerSettings
from .problems import BodyLimit, bearer_token, problem_responses, show_problems, wrong_host

_PAGE = Path(__file__).parent / "page"

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

# Methods that a read-only server refuses, before it reads a body.
_CHANGING = ["POST", "PUT", "PATCH", "DELETE"]

_LOG = logging.getLogger("muvera")

# Maximum product of query characters and documents of an explanation: each query word is matched in each document.
_MAX_EXPLAINED = 100_000

T = TypeVar("T")

# -- bodies of requests and answers -------------------------------------------

Id = StrictInt | StrictStr

# Validation stops at a list's first error: an error object per item would take a thousand times the bytes of the body.
_FIRST = Field(fail_fast=True)
Ids = Annotated[list[Id], _FIRST]
Vectors = Annotated[list[Annotated[list[FiniteFloat], _FIRST]], _FIRST]


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
    vectors: list[Vectors] | None = Field(None, fail_fast=True, description="Token vectors of each query.")
    k: int = Field(10, ge=1, description="Maximum number of hits per query.")
    where: dict[str, Any] | None = Field(None, description="A condition on the metadata.")
    candidates: int | None = Field(None, ge=1, description="Default: 200 for texts, 100 for vectors.")
    recall: float | None = Field(None, gt=0, lt=1, description="Instead of candidates, such as 0.95.")
    words: FiniteFloat | None = Field(None, ge=0, lt=1, description="Weight of BM25. Default: 0.1.")
    unit: Literal["document", "sentence"] = "document"
    alpha: FiniteFloat = Field(1.0, description="Weight of a document's score for its sentences.")


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
    """A query, and the documents in which to find its word matches."""

    query: str
    ids: Ids = Field(description="Documents to explain.")


class Documents(_Strict):
    """Texts to add or update."""

    texts: Annotated[list[str], _FIRST]
    ids: list[Id] | None = Field(None, fail_fast=True)
    metadata: list[dict[str, Any]] | None = Field(None, fail_fast=True)


class MetadataChange(_Strict):
    """Metadata fields to change; null removes a field, and other fields are kept."""

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
    _add_writing(app, server)
    for file in _PAGE.iterdir():
        app.add_route("/" if file.name == "index.html" else f"/{file.name}", partial(_send, file))
    return app


def _add_reading(app: FastAPI, server: _Server) -> None:
    settings = server.settings
    readers = [] if settings.read_token is None else [bearer_token(settings.read_token, settings.token)]
    refused = [401] if readers else []
    for method, address, answer, summary, model, errors in (
        ("POST", "/search", server.search, "Search by texts or by vectors", SearchAnswer, (408, 413, 422, 502)),
        ("POST", "/explain", server.explain, "Word matches", dict[str, Any], (404, 408, 413, 422, 502)),
        ("GET", "/documents/{identity:path}", server.document, "One document", TextDocument, (404, 422)),
        ("GET", "/info", server.info, "Sizes and settings of the index", dict[str, Any], ()),
    ):  # fmt: skip
        app.add_api_route(
            address, answer, methods=[method], summary=summary, response_model=model,
            dependencies=readers, responses=problem_responses(400, *refused, *errors, 504),
        )  # fmt: skip
    app.add_api_route("/health", server.health, summary="Health check")


def _add_writing(app: FastAPI, server: _Server) -> None:
    if not server.settings.writable:
        for address in ("/documents", "/documents/{identity:path}", "/save"):
            app.add_api_route(address, _refuse_change, methods=_CHANGING, include_in_schema=False)
        return
    errors = problem_responses(400, 401, 404, 408, 413, 422, 502, 503, 507)
    writing = APIRouter(dependencies=[bearer_token(server.settings.token)], responses=errors)
    writing.post("/documents", status_code=201, summary="Add documents")(server.add)
    writing.put("/documents", summary="Add or replace documents")(server.update)
    writing.patch("/documents", summary="Change fields of metadata")(server.describe)
    writing.delete("/documents", summary="Delete documents")(server.delete)
    writing.post("/save", summary="Save the index")(server.save)
    app.include_router(writing)


class _Server:
    """Handlers of all routes, with the index, the limits and the thread pools."""

    def __init__(self, index: TextIndex | MuveraIndex, settings: ServerSettings) -> None:
        self.settings = settings
        self.text_index = index if isinstance(index, TextIndex) else None
        self.vectors = index.index if isinstance(index, TextIndex) else index
        # Changes wait for each other and for saves.  They have a thread of their own, so they do not block searches.
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

        answer = await self._begun(limited, self._searches)
        if answer is None or not answer.done():
            raise TimeoutError
        return answer.result()

    async def change(self, work: Callable[[], T]) -> T:
        """Run a change to its end; answer 503, without a change, if no thread is free before the timeout."""
        answer = await self._begun(work, self._changes)
        if answer is None:
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

    async def _begun(self, work: Callable[[], T], threads: ThreadPoolExecutor) -> asyncio.Future[T] | None:
        """Submit `work`, wait until it ends or the timeout passes, and return its future.

        If no thread has begun it by then, cancel it and return None; other work keeps its thread until it ends.
        """
        future = threads.submit(work)
        answer = asyncio.wrap_future(future)
        # asyncio logs an exception that no code retrieves, and after a timeout no code awaits the future.
        answer.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.wait({answer}, timeout=self.settings.timeout)
        return None if future.cancel() else answer

    def require(self, name: str, value: int, most: int) -> None:
        if value > most:
            raise HTTPException(422, f"{name} may be at most {most:,} in one request, got {value:,}.")

    def require_texts(self, texts: list[str], most: int, name: str) -> None:
        self.require(f"The number of {name}", len(texts), most)
        longest = max(map(len, texts), default=0)
        self.require("The characters of a text", longest, self.settings.max_text_characters)

    # -- reading ----------------------------------------------------------------

    async def search(self, body: Search) -> Response:
        limits = self.settings
        if [body.query, body.queries, body.vectors].count(None) != 2:
            raise HTTPException(422, "Give one of query, queries and vectors.")
        self.require("k", body.k, limits.max_k)
        self.require("candidates", body.candidates or 0, limits.max_candidates)
        queries = [body.query] if body.query is not None else body.queries or []
        self.require_texts(queries, limits.max_queries, "queries")
        self.require("The number of queries", len(body.vectors or []), limits.max_queries)
        hits = body.k * max(len(queries), len(body.vectors or []))
        self.require("The number of hits (k times queries)", hits, limits.max_hits)
        candidates = None if body.candidates is None else max(body.candidates, body.k)
        options: dict[str, Any] = {"candidates": candidates, "recall": body.recall, "threads": 1}

        def work() -> Response:
            begun = time.perf_counter()
            by_vectors = body.vectors is not None
            found = self._by_vectors(body, options) if by_vectors else self._by_texts(body, queries, options)
            answer = SearchAnswer(results=found, seconds=time.perf_counter() - begun)
            return Response(answer.model_dump_json(), media_type="application/json")

        return await self.run(work)

    def _by_texts(self, body: Search, queries: list[str], options: dict[str, Any]) -> list[list[HitModel]]:
        options |= {"where": body.where, "words": WORDS if body.words is None else body.words}
        if body.unit == "document":
            found = self.texts.search(queries, body.k, **options)
        else:
            found = self.texts.search_sentences(queries, body.k, alpha=body.alpha, **options)
        return [[HitModel.model_validate(hit, from_attributes=True) for hit in hits] for hits in found]

    def _by_vectors(self, body: Search, options: dict[str, Any]) -> list[list[HitModel]]:
        if body.where is not None or body.words or body.unit != "document":
            raise HTTPException(422, "where, words and unit need texts as queries.")
        vectors = body.vectors or []
        self.require("The number of token vectors", sum(map(len, vectors)), self.settings.max_tokens)
        dimension = self.vectors.config.dimension
        queries = MultiVectors.from_arrays(vectors, dimension=dimension, dtype=np.float32, name="vectors")
        rankings = self.vectors.search(queries, body.k, **options)
        return [[HitModel(id=id, score=score) for id, score in ranking] for ranking in rankings]

    async def explain(self, body: Explain) -> Response:
        texts = self.texts
        self.require("The number of documents", len(body.ids), self.settings.max_queries)
        self.require_texts([body.query], 1, "queries")
        characters = len(body.query) * len(body.ids)
        self.require("The query's length times the number of documents", characters, _MAX_EXPLAINED)

        def work() -> Response:
            explanations = [explanation.to_dict() for explanation in texts.explain_all(body.query, body.ids)]
            return JSONResponse({"explanations": explanations})

        return await self.run(work)

    async def document(self, identity: str) -> TextDocument:
        texts, name = self.texts, _as_id(self.texts, identity)
        return (await self.run(lambda: texts.get([name])))[0]

    async def health(self) -> dict[str, str]:
        return {"status": "ok"}

    async def info(self) -> dict[str, Any]:
        facts = await self.run(lambda: self.vectors.info().to_dict())
        encoder = None if self.text_index is None else self.texts.encoder.name
        return {"text_encoder": encoder, "writable": self.settings.writable, **facts}

    # -- writing ----------------------------------------------------------------

    async def add(self, body: Documents) -> dict[str, Any]:
        texts = self.texts
        self.require_texts(body.texts, self.settings.max_documents, "documents")
        new: dict[str, Any] = {"ids": body.ids, "metadata": body.metadata, "threads": 1}
        return {"ids": await self.change(lambda: texts.add(body.texts, **new))}

    async def update(self, body: Documents) -> dict[str, Any]:
        texts, ids = self.texts, body.ids
        if ids is None:
            raise HTTPException(422, "PUT needs ids of the documents to replace. Give one for each text.")
        self.require_texts(body.texts, self.settings.max_documents, "documents")
        await self.change(lambda: texts.update(body.texts, ids=ids, metadata=body.metadata, threads=1))
        return {"ids": ids}

    async def describe(self, body: MetadataChange) -> dict[str, Any]:
        texts = self.texts
        self.require("The number of documents", len(body.ids), self.settings.max_documents)
        await self.change(lambda: texts.update(ids=body.ids, metadata=body.metadata))
        return {"ids": body.ids}

    async def delete(self, body: Annotated[Deletion, Body()]) -> dict[str, Any]:
        texts = self.texts
        self.require("The number of documents", len(body.ids), self.settings.max_documents)
        await self.change(lambda: texts.delete(body.ids, missing=body.missing))
        return {"ids": body.ids}

    async def save(self) -> dict[str, Any]:
        texts = self.texts
        await self.change(texts.save)
        return {"documents": len(texts)}


def _as_id(texts: TextIndex, text: str) -> int | str:
    """Return the id in a path: an integer if `text` is one as Python prints it, unless a document has the id `text`."""
    if text in texts or not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 20:
        return text
    return int(text) if str(int(text)) == text else text


async def _refuse_change() -> None:
    raise HTTPException(403, "This server is read-only. Start it with --writable and a token.")


async def _send(file: Path, _: Request) -> Response:
    return FileResponse(file)
