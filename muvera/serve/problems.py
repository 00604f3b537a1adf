"""Errors as problem+json, and the checks of hosts, bodies and tokens."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException

from . import ServerSettings

_SCHEME = HTTPBearer(
    auto_error=False, description="The token in MUVERA_TOKEN, or for reading in MUVERA_READ_TOKEN."
)

# Commas and brackets of a body.  Parsing more of them would block other requests for more than a tenth of a second.
_MAX_VALUES = 300_000

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an error as ``application/problem+json`` (RFC 9457), without advice for Python."""
    detail = detail.replace("Use update to replace it", "Replace it with PUT /documents")
    detail = detail.removesuffix(" Check with `id in index`.")
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(content, status, headers, "application/problem+json")


def show_problems(app: FastAPI) -> None:
    """Answer errors of `app` as problem+json."""
    of_requests = (HTTPException, RequestValidationError)
    of_work = (ValueError, TypeError, KeyError, ConnectionError, TimeoutError)
    for kind in (*of_requests, *of_work):
        app.add_exception_handler(kind, _as_problem)


async def _as_problem(request: Request, error: Exception) -> Response:
    """Return `error` as a problem; errors of the encoder's server and timeouts get a fixed text."""
    match error:
        case HTTPException():
            return problem(error.status_code, str(error.detail), error.headers)
        case RequestValidationError():
            return problem(422, _body_error(request, error.errors()[0]))
        case ConnectionError():
            return problem(502, "The text encoder's server did not answer. Try again, or check that server.")
        case TimeoutError():
            return problem(504, "The request took too long. Send fewer queries or candidates.")
        case KeyError():
            return problem(404, str(error.args[0]))
        case _:
            return problem(422, str(error))


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


def bearer_token(*tokens: str | None) -> Any:
    """Return a dependency that raises 401 unless the request carries one of the tokens."""

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


def wrong_host(request: Request, hosts: Collection[str]) -> Response | None:
    """Return an error if the Host header is not in `hosts`: a page that uses DNS rebinding sends its own name."""
    host = request.headers.get("host", "").lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name in hosts:
        return None
    return problem(
        400,
        f"The Host header names {name[:100]!r}, which this server does not allow. Start it with --allowed-host NAME.",
    )


class BodyLimit:
    """Middleware that answers 413 to bodies above a size, declared or not, and 408 to slow ones."""

    def __init__(self, app: Any, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
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

        async def limited() -> _Message:
            nonlocal size, values, complete
            if complete:
                return await receive()
            if not declared.isdigit() or int(declared[:20]) > limit:
                raise _too_large(f"{limit:,} bytes")
            try:
                message = await asyncio.wait_for(receive(), deadline - time.monotonic())
            except asyncio.TimeoutError:  # not the built-in TimeoutError before Python 3.11
                late = f"The body took more than {self._settings.body_timeout:g} seconds. Send the request again."
                raise HTTPException(408, late, {"Connection": "close"}) from None
            body = message.get("body", b"")
            size, values = size + len(body), values + sum(map(body.count, (b",", b"[", b"{")))
            if size > limit:
                raise _too_large(f"{limit:,} bytes")
            if values > _MAX_VALUES:
                raise _too_large(f"{_MAX_VALUES:,} values")
            complete = not message.get("more_body", False)
            return message

        await self._app(scope, limited, send)


def _too_large(limit: str) -> HTTPException:
    detail = f"A request may have at most {limit}. Send fewer queries or documents at a time."
    return HTTPException(413, detail, {"Connection": "close"})
