"""Errors as ``application/problem+json`` (RFC 9457), and the limits that are checked before anything is read."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

__all__ = ["PROBLEM", "BodyLimit", "problem", "require_token", "show_problems"]

PROBLEM = "application/problem+json"

# What a message of the library says in Python, as it is said to a client.
_OVER_HTTP = {
    " Look for it with `id in index`.": "",
    "Use update to replace it": "Replace it with PUT /documents",
}

_Message = MutableMapping[str, Any]


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error as problem+json."""
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(content, status, headers, PROBLEM)


def show_problems(app: FastAPI) -> None:
    """Answer every error of `app` as problem+json; only errors of the request say what was wrong."""

    @app.exception_handler(HTTPException)
    async def of_http(_: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def of_body(request: Request, error: RequestValidationError) -> Response:
        return problem(422, _fault_of_body(request, error.errors()[0]))

    @app.exception_handler(ValueError)
    @app.exception_handler(TypeError)
    async def of_value(_: Request, error: Exception) -> Response:
        return problem(422, _over_http(str(error)))

    @app.exception_handler(KeyError)
    async def of_key(_: Request, error: KeyError) -> Response:
        return problem(404, _over_http(str(error.args[0])) if error.args else "There is no such document.")

    @app.exception_handler(ConnectionError)
    async def of_encoder(_: Request, error: ConnectionError) -> Response:
        return problem(502, "The model that encodes texts gave no answer.")

    @app.exception_handler(TimeoutError)
    async def of_time(_: Request, __: TimeoutError) -> Response:
        return problem(504, "The request took too long. Ask for fewer queries or candidates.")


def _over_http(message: str) -> str:
    for words, replacement in _OVER_HTTP.items():
        message = message.replace(words, replacement)
    return message


def _fault_of_body(request: Request, fault: dict[str, Any]) -> str:
    """Return what is wrong with a request's body, in a sentence."""
    kind, place = fault["type"], fault["loc"][1:]
    if kind == "json_invalid":
        return f"The body is not JSON: {fault['ctx']['error']}, at character {place[0]}."
    if kind == "unknown_field":
        return f"{fault['msg']}."
    if not place:
        if "json" not in request.headers.get("content-type", ""):
            return "The body must be JSON. Say so with the header Content-Type: application/json."
        return 'The body must be a JSON object, such as {"query": "red apple"} for a search.'
    message = f"{'.'.join(map(str, place))}: {fault['msg']}."
    if kind == "string_type" and place[0] in ("query", "queries") and isinstance(fault["input"], list):
        message += " Give token vectors as vectors, for each query a list of them."
    return message


def require_token(request: Request, token: str | None) -> None:
    """Raise unless the request carries the token; comparing takes the same time whatever it carries."""
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    if (
        token is None
        or kind.lower() != "bearer"
        or not secrets.compare_digest(given.encode(), token.encode())
    ):
        raise HTTPException(
            401, "Changing documents needs the server's token: Authorization: Bearer TOKEN.",
            {"WWW-Authenticate": "Bearer"},
        )  # fmt: skip


class BodyLimit:
    """Refuse bodies above a size, declared or not, before they are held in memory."""

    def __init__(self, app: Any, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        """Pass the request on, or answer 413."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        refusal = problem(
            413, f"A request may have {self._limit:,} bytes. Send fewer queries or documents at a time."
        )
        if not declared.isdigit() or int(declared) > self._limit:
            await refusal(scope, receive, send)
            return
        parts: list[_Message] = []
        size = 0
        while True:
            message = await receive()
            parts.append(message)
            size += len(message.get("body", b""))
            if size > self._limit:
                await refusal(scope, receive, send)
                return
            if not message.get("more_body", False):
                break

        async def replay() -> _Message:
            return parts.pop(0) if parts else await receive()

        await self._app(scope, replay, send)
