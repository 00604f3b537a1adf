"""The ASGI application: routes over one index, with searches in threads."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.base import RequestResponseEndpoint
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__
from ..diagnostics.recall_meter import RecallMeter
from ..engines.base import EngineError
from ..index.generations import IndexFolderError
from ..pages.page_index import PageIndex
from ..texts.database import TextDocument, limited_reading
from ..texts.encoders.base import score_weights
from ..texts.reranking import rerank_texts
from ..texts.text_index import TextIndex
from ..utils.hints import message_of
from . import ServerSettings
from .bodies import (
    Deletion,
    DocumentList,
    Documents,
    Explain,
    ListParameters,
    MetadataChange,
    Rerank,
    RerankAnswer,
    RerankedText,
    RerankResult,
    RerankUsage,
    Search,
    SearchAnswer,
    SearchParameters,
)
from .connections import send_in_parts, split
from .kinds import Index, served
from .metrics import CountRequests, Metrics
from .pages import WIDTHS

#: Folder of the page's files.
PAGE = Path(__file__).parent / "page"

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

# Characters of the longest integer id, with its sign; Python parses integers of
# thousands of digits slowly.
_ID_DIGITS = 20

# Seconds after which a client should repeat a change that found the server busy.
_RETRY_SECONDS = 5

# Digits of a declared Content-Length that are read, more than any limit has.
_LENGTH_DIGITS = 20

# Characters of a refused Host header that the answer repeats.
_SHOWN_HOST = 100

# Maximum product of query characters and documents of an explanation: each query word
# is matched in each document.
_MAX_EXPLAINED = 100_000

T = TypeVar("T")

# -- answers --------------------------------------------------------------------


class _InParts(Response):
    """An answer as JSON that is freed while it is sent."""

    media_type = "application/json"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer; it can be called once."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        parts = split(bytes(self.body))
        self.body = b""
        await send_in_parts(parts, scope, send)


class JSONInParts(_InParts, JSONResponse):
    """The JSON text of a value, in parts."""


# -- errors and checks of requests ---------------------------------------------

_SCHEME = HTTPBearer(
    auto_error=False, description="The token in MUVERA_TOKEN, or for reading in MUVERA_READ_TOKEN."
)

# Maximum number of values of a body.  Parsing and checking more of them would block
# other requests for more than a tenth of a second.  A number is one value.
_MAX_VALUES = 300_000

# A list or object takes the time of 10 numbers, and a string, which may be the key of a
# field, the time of 4: 2 for each quotation mark.
_CONTAINER_VALUES = 10
_QUOTE_VALUES = 2


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as ``application/problem+json`` (RFC 9457)."""
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(content, status, headers, "application/problem+json")


# Errors of requests; others get status 500 without their text.
_ANSWERED = (
    HTTPException, RequestValidationError, ValueError, TypeError, KeyError, ConnectionError, TimeoutError,
)  # fmt: skip


async def _as_problem(request: Request, error: Exception, location: str | None = None) -> Response:
    """Return `error` as a problem.

    Errors of the encoder's server, timeouts and errors of the database at `location`
    get a fixed text.
    """
    match error:
        case HTTPException():
            return _problem(error.status_code, str(error.detail), error.headers)
        case RequestValidationError():
            return _problem(422, _body_error(request, error.errors()[0]))
        case ConnectionError():
            return _problem(502, "The encoder's server did not answer. Try again, or check that server.")
        case TimeoutError():
            return _problem(504, "The request took too long. Send fewer queries or candidates.")
        case EngineError() if location is not None and str(error).startswith(location):
            logging.getLogger("muvera").error("muvera: %s", error)
            return _problem(502, "The database of the index failed. Try again, or read the server's log.")
        case _:
            detail = message_of(error).worded_for_clients(_INSTEAD)
            if location is not None:
                detail = detail.replace(location, "the index")
            return _problem(404 if isinstance(error, KeyError) else 422, detail)


# What a client does instead of an operation of Python.
_INSTEAD = {
    "calibrate": "Give candidates.",
    "check_id": "",
    "resume": "",
    "update": "Replace it with PUT /documents.",
}


def _body_error(request: Request, error: dict[str, Any]) -> str:
    """Describe an invalid body in a sentence."""
    kind, place = error["type"], error["loc"][1:]
    if kind == "json_invalid":
        return f"The body is not JSON: {error['ctx']['error']}, at character {place[0]}."
    if kind == "unknown_field":
        return f"{error['msg']}."
    if not place:
        if "json" not in request.headers.get("content-type", ""):
            return "The body must be JSON. Send the header Content-Type: application/json."
        return 'The body must be a JSON object, such as {"query": "red apple"} for a search.'
    message = f"{'.'.join(map(str, place))}: {error['msg']}."
    if kind == "string_type" and place[0] in ("query", "queries") and isinstance(error["input"], list):
        message += ' Give token vectors in "vectors", one list per query.'
    return message


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI description of errors."""
    kinds = {"type": "string", "title": "string", "status": "integer", "detail": "string"}
    schema = {"type": "object", "properties": {name: {"type": kind} for name, kind in kinds.items()}}
    content = {"application/problem+json": {"schema": {**schema, "required": list(kinds)}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def _bearer_token(*tokens: str | None) -> Any:
    """Return a dependency that raises 401 unless a request has one of the tokens."""

    def require(given: Annotated[HTTPAuthorizationCredentials | None, Security(_SCHEME)]) -> None:
        if given is None or not any(_is_token(given.credentials, token) for token in tokens):
            raise HTTPException(
                401,
                "This request needs the server's token. Send the header Authorization: Bearer TOKEN.",
                {"WWW-Authenticate": "Bearer"},
            )

    return Depends(require)


def _is_token(given: str, token: str | None) -> bool:
    """Compare in constant time."""
    return token is not None and secrets.compare_digest(given.encode(), token.encode())


def _wrong_host(request: Request, hosts: Collection[str]) -> Response | None:
    """Return an error if the Host header is not in `hosts`.

    A page that uses DNS rebinding sends its own name.
    """
    host = request.headers.get("host", "").lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name in hosts:
        return None
    return _problem(
        400,
        f"The Host header names {name[:_SHOWN_HOST]!r}, which this server does not allow. Start it with "
        "--allowed-host NAME.",
    )


class _BodyLimit:
    """Middleware that answers 413 to large bodies and 408 to slow ones."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; an error is raised when its body is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        kind, _, given = headers.get(b"authorization", b"").decode("latin1").partition(" ")
        trusted = kind.lower() == "bearer" and _is_token(given, self._settings.token)
        limit = self._settings.max_body_bytes if trusted else self._settings.max_search_bytes
        declared = headers.get(b"content-length", b"0")
        deadline = time.monotonic() + self._settings.body_timeout
        size = values = 0
        complete = False

        async def limited() -> Message:
            nonlocal size, values, complete
            if complete:
                return await receive()
            if not declared.isdigit() or int(declared[:_LENGTH_DIGITS]) > limit:
                raise _too_large(f"{limit:,} bytes")
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except asyncio.TimeoutError:  # not the built-in TimeoutError before Python 3.11
                late = f"The body took more than {self._settings.body_timeout:g} seconds."
                raise HTTPException(408, f"{late} Send the request again.", {"Connection": "close"}) from None
            body = message.get("body", b"")
            size += len(body)
            values += _count_values(body)
            if size > limit:
                raise _too_large(f"{limit:,} bytes")
            if values > _MAX_VALUES:
                raise _too_large(
                    f"{_MAX_VALUES:,} values, of which a list or object counts as {_CONTAINER_VALUES} and a "
                    f"string as {2 * _QUOTE_VALUES}"
                )
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, limited, send)


def _count_values(body: bytes) -> int:
    """Return the number of values in a part of a body, at least half of it."""
    containers = body.count(b"[") + body.count(b"{")
    quotes = body.count(b'"') - body.count(b'\\"')  # a text's own quotation marks are escaped
    return body.count(b",") + _CONTAINER_VALUES * containers + _QUOTE_VALUES * quotes


def _too_large(limit: str) -> HTTPException:
    detail = f"A request may have at most {limit}. Send fewer queries or documents at a time."
    return HTTPException(413, detail, {"Connection": "close"})


# -- the application ----------------------------------------------------------


def make_app(
    index: Index,
    settings: ServerSettings | None = None,
    *,
    hosts: list[str] | None = None,
    name: str | None = None,
    meter: RecallMeter | None = None,
) -> FastAPI:
    """Return the ASGI application of an index.

    Parameters
    ----------
    index : TextIndex, PageIndex or MuveraIndex
        A MuveraIndex answers only searches by vectors.  Pictures of pages are read from
        :attr:`muvera.PageIndex.served_root` and from nowhere else.  An answered change
        is durable if the index is from :meth:`muvera.TextIndex.open` or
        :meth:`muvera.PageIndex.open`; close the index after the server.
    settings : ServerSettings, optional
        Limits and rights.  By default, the server is read-only and needs no token.
    hosts : list of str, optional
        Names that Host headers may contain, which prevents DNS rebinding.  By default,
        or if "*" is one of them, any name is accepted.
    name : str, optional
        The index's name, for the title and the heading of the page.  Default: neutral
        ones.
    meter : RecallMeter, optional
        The meter of `index`: searches for documents go through it, and ``/metrics``,
        ``/info`` and the page show its report.  Close it after the server.

    Returns
    -------
    FastAPI
    """
    server = _Server(index, settings or ServerSettings(), name, meter)
    app = FastAPI(
        title="muvera", version=__version__, docs_url=None, redoc_url=None,
        default_response_class=JSONInParts,
        exception_handlers=dict.fromkeys(_ANSWERED, partial(_as_problem, location=server.served.location)),
        description="Late-interaction search: candidates by inner product, ranked by exact Chamfer similarity.",
    )  # fmt: skip
    app.add_middleware(_BodyLimit, settings=server.settings)
    names = None if not hosts or "*" in hosts else {host.lower().strip("[]") for host in hosts}

    @app.middleware("http")
    async def secure(request: Request, call_next: RequestResponseEndpoint) -> Response:
        refusal = None if names is None else _wrong_host(request, names)
        response: Response = refusal or await call_next(request)
        response.headers.update(_SECURITY)
        return response

    app.add_middleware(CountRequests, metrics=server.metrics)  # the outermost, so it counts refusals too
    for file in PAGE.iterdir():
        app.add_route("/" if file.name == "index.html" else f"/{file.name}", partial(_send, file))
    _add_routes(app, server)
    return app


def _add_routes(app: FastAPI, server: _Server) -> None:
    app.add_api_route("/health", server.health, summary="Health check")
    app.add_api_route(
        "/metrics", server.answer_metrics, summary="Metrics for Prometheus", response_class=PlainTextResponse
    )
    settings = server.settings
    read_tokens = (settings.read_token, settings.token)
    readers = [] if settings.read_token is None else [_bearer_token(*read_tokens)]
    refused = [401] if readers else []
    of_bodies = (408, 413, 422, 502)
    for method, address, answer, summary, model, errors in (
        ("POST", "/search", server.search, "Search by texts or by vectors", SearchAnswer, of_bodies),
        ("GET", "/search", server.search_by_address, "Search by one text", SearchAnswer, (422, 502)),
        ("GET", "/documents", server.documents, "List documents", DocumentList, (422,)),
        ("POST", "/explain", server.explain, "Word matches", dict[str, Any], (404, *of_bodies)),
        ("POST", "/v1/rerank", server.rerank, "Rank given texts", RerankAnswer, of_bodies),
        ("GET", "/documents/{identity:path}", server.document, "One document", TextDocument, (404, 422)),
        ("GET", "/picture", server.picture, "Picture of a page", None, (404, 422)),
        ("GET", "/info", server.info, "Sizes and settings of the index", dict[str, Any], ()),
    ):  # fmt: skip
        app.add_api_route(
            address, answer, methods=[method], summary=summary, response_model=model,
            dependencies=readers, responses=problem_responses(400, *refused, *errors, 504),
        )  # fmt: skip
    if not settings.writable:
        for address in ("/documents", "/documents/{identity:path}", "/save"):
            methods = ["POST", "PUT", "PATCH", "DELETE"]  # refused before their bodies are read
            app.add_api_route(address, _refuse_change, methods=methods, include_in_schema=False)
        return
    failures = problem_responses(400, 401, 404, 408, 413, 422, 500, 502, 503, 507)
    writing = APIRouter(dependencies=[_bearer_token(settings.token)], responses=failures)
    writing.post("/documents", status_code=201, summary="Add documents")(server.add)
    writing.put("/documents", summary="Add or replace documents")(server.update)
    writing.patch("/documents", summary="Change fields of metadata")(server.describe)
    writing.delete("/documents", summary="Delete documents")(server.delete)
    writing.post("/save", summary="Save the index")(server.save)
    app.include_router(writing)


class _Server:
    """Handlers of all routes, with the index, the limits and the thread pools."""

    def __init__(
        self, index: Index, settings: ServerSettings, name: str | None, meter: RecallMeter | None
    ) -> None:
        self.served = served(index)
        self.served.meter = meter
        self.name = name
        self.settings = settings
        self.metrics = Metrics()
        self._searches = ThreadPoolExecutor(settings.threads)
        # Changes wait for each other and for saves.  They have a thread of their own,
        # so they do not block searches.
        self._changes = ThreadPoolExecutor(1)

    @property
    def texts(self) -> TextIndex:
        """The index, if it has texts."""
        return self.served.texts

    async def health(self) -> dict[str, str]:
        """Return that the server answers."""
        return {"status": "ok"}

    async def answer_metrics(self) -> Response:
        """Return the counts of requests, running searches, documents and the recall."""
        meter = self.served.meter
        report = None if meter is None else await asyncio.to_thread(meter.report)
        return self.metrics.answer(len(self.served.index), report)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread.

        Raise TimeoutError after the timeout, although the thread may continue.
        """
        limited = limited_reading(self.settings.max_read_characters)(work)

        def counted() -> T:
            with self.metrics.searching():
                return limited()

        answer = await self._begun(counted, self._searches)
        if answer is None or not answer.done():
            raise TimeoutError
        return answer.result()

    async def _begun(self, work: Callable[[], T], threads: ThreadPoolExecutor) -> asyncio.Future[T] | None:
        """Submit `work`, wait for its end or the timeout, and return its future.

        If no thread has begun it by then, cancel it and return None; other work keeps
        its thread until it ends.
        """
        future = threads.submit(work)
        answer = asyncio.wrap_future(future)
        # asyncio logs an exception that no code retrieves, and after a timeout no code
        # awaits the future.
        answer.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        await asyncio.wait({answer}, timeout=self.settings.timeout)
        return None if future.cancel() else answer

    def require_texts(self, texts: list[str], most: int, name: str) -> None:
        """Raise HTTPException for more texts than `most`, or too long a text."""
        self.require(f"The number of {name}", len(texts), most)
        longest = max(map(len, texts), default=0)
        self.require("The characters of a text", longest, self.settings.max_text_characters)

    def require(self, name: str, value: int, most: int) -> None:
        """Raise HTTPException for a number above a limit."""
        if value > most:
            raise HTTPException(422, f"{name} may be at most {most:,} in one request, got {value:,}.")

    async def change(self, work: Callable[[], T]) -> T:
        """Run a change to its end.

        Answer 503, without a change, if no thread is free before the timeout.
        """
        answer = await self._begun(work, self._changes)
        if answer is None:
            raise HTTPException(
                503,
                "Nothing was changed: the server was busy. Send the request again.",
                {"Retry-After": str(_RETRY_SECONDS)},
            )
        try:
            return await asyncio.shield(answer)
        except (ConnectionError, TimeoutError):
            raise
        except (OSError, IndexFolderError) as error:
            logging.getLogger("muvera").error("muvera: %s", error)
            if isinstance(error, IndexFolderError) or isinstance(error.__cause__, IndexFolderError):
                raise HTTPException(
                    500,
                    "Nothing was changed or saved: the index's folder was moved or replaced while the server "
                    "ran. Put it back, or restart the server.",
                ) from error
            raise HTTPException(
                507,
                "The server could not write to its disk. The change was not made, or the index was not "
                "saved.",
            ) from error

    # -- reading ----------------------------------------------------------------

    async def search(self, body: Search) -> Response:
        return await self._search(body, offset=0)

    async def search_by_address(self, parameters: Annotated[SearchParameters, Query()]) -> Response:
        found = parameters.k + parameters.offset
        self.require("k + offset", found, self.settings.max_k)
        body = Search.model_validate({"query": parameters.q, "k": found, "maps": False})
        return await self._search(body, parameters.offset)

    async def _search(self, body: Search, offset: int) -> Response:
        """Search, and leave out the first `offset` hits of each query."""
        limits = self.settings
        if [body.query, body.queries, body.vectors].count(None) != 2:
            raise HTTPException(422, "Give one of query, queries and vectors.")
        self.require("k", body.k, limits.max_k)
        self.require("candidates", body.candidates or 0, limits.max_candidates)
        self.require_texts(body.texts, limits.max_queries, "queries")
        self.require("The number of queries", len(body.vectors or []), limits.max_queries)
        self.require("The number of hits (k times queries)", body.k * body.count, limits.max_hits)
        self.require("The number of token vectors", sum(map(len, body.vectors or [])), limits.max_tokens)
        self.served.check(body)

        def work() -> Response:
            begun = time.perf_counter()
            found = self.served.search(body, begun + limits.timeout)
            found = [hits[offset:] for hits in found]
            answer = SearchAnswer(results=found, seconds=time.perf_counter() - begun)
            return _InParts(answer.model_dump_json())

        return await self.run(work)

    async def explain(self, body: Explain) -> Response:
        texts = self.texts
        self.require("The number of documents", len(body.ids), self.settings.max_queries)
        self.require_texts([body.query], 1, "queries")
        characters = len(body.query) * len(body.ids)
        self.require("The query's length times the number of documents", characters, _MAX_EXPLAINED)

        def work() -> Response:
            explanations = [explanation.to_dict() for explanation in texts.explain_all(body.query, body.ids)]
            return JSONInParts({"explanations": explanations})

        return await self.run(work)

    async def rerank(self, body: Rerank) -> Response:
        encoder = self.texts.encoder
        texts = [document if isinstance(document, str) else document.text for document in body.documents]
        self.require_texts([body.query], 1, "queries")
        self.require_texts(texts, self.settings.max_documents, "documents")

        def work() -> Response:
            count = len(texts) if body.top_n is None else body.top_n
            ranked = rerank_texts(encoder, body.query, texts, count, score_weights(encoder), threads=1)
            results = [
                RerankResult(
                    index=int(hit.id), relevance_score=hit.score,
                    document=RerankedText(text=hit.text) if body.return_documents else None,
                )
                for hit in ranked.hits
            ]  # fmt: skip
            usage = RerankUsage(total_tokens=ranked.tokens)
            answer = RerankAnswer(model=encoder.name, results=results, usage=usage)
            return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")

        return await self.run(work)

    async def document(self, identity: str) -> TextDocument:
        stored = self.served.documents
        name = _as_id(stored, identity)
        return (await self.run(lambda: stored.get([name])))[0]

    async def documents(self, parameters: Annotated[ListParameters, Query()]) -> DocumentList:
        stored, offset = self.served.documents, parameters.offset
        self.require("k", parameters.k, self.settings.max_k)

        def work() -> DocumentList:
            found, chosen = self.served.listed(offset, offset + parameters.k)
            return DocumentList(found=found, documents=stored.get(chosen, missing="ignore"))

        return await self.run(work)

    async def picture(
        self,
        id: Annotated[str, Query(description="Id of the page.", max_length=4096)],
        width: Annotated[int, Query(description="Width in pixels: 400 or 1200.")] = WIDTHS[0],
    ) -> Response:
        """Return the picture of a page as JPEG."""
        if width not in WIDTHS:
            raise HTTPException(422, f"width must be {WIDTHS[0]} or {WIDTHS[1]}, got {width}.")
        content = await self.run(lambda: self.served.picture(id, width))
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=3600"})

    async def info(self) -> dict[str, Any]:
        facts = await self.run(self.served.info)
        return {"name": self.name, "writable": self.settings.writable, **facts}

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
        stored = self.served.documents
        self.require("The number of documents", len(body.ids), self.settings.max_documents)
        await self.change(lambda: stored.update(ids=body.ids, metadata=body.metadata))
        return {"ids": body.ids}

    async def delete(self, body: Annotated[Deletion, Body()]) -> dict[str, Any]:
        stored = self.served.documents
        self.require("The number of documents", len(body.ids), self.settings.max_documents)
        await self.change(lambda: stored.delete(body.ids, missing=body.missing))
        return {"ids": body.ids}

    async def save(self) -> dict[str, Any]:
        stored = self.served.documents
        await self.change(stored.save)
        return {"documents": len(stored)}


def _as_id(stored: TextIndex | PageIndex, text: str) -> int | str:
    """Return the id in a path.

    It is an integer if Python prints one as `text`, unless a document has the id
    `text`.
    """
    if text in stored or not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > _ID_DIGITS:
        return text
    return int(text) if str(int(text)) == text else text


async def _refuse_change() -> None:
    raise HTTPException(403, "This server is read-only. Start it with --writable and a token.")


async def _send(file: Path, _: Request) -> Response:
    return FileResponse(file)
