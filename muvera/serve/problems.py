"""Errors as ``application/problem+json`` (RFC 9457), the body limit and the token check."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

__all__ = ["BodyLimit", "require_token", "show_problems"]

_Message = MutableMapping[str, Any]


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    detail = detail.replace("Use update to replace it", "Replace it with PUT /documents")
    content = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(content, status, headers, "application/problem+json")


def show_problems(app: FastAPI) -> None:
    """Answer errors of `app` as problem+json.  Only errors of the request name their cause."""

    @app.exception_handler(HTTPException)
    async def of_http(_: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def of_body(request: Request, error: RequestValidationError) -> Response:
        return _problem(422, _body_error(request, error.errors()[0]))

    @app.exception_handler(ValueError)
    @app.exception_handler(TypeError)
    async def of_value(_: Request, error: Exception) -> Response:
        return _problem(422, str(error))

    @app.exception_handler(KeyError)
    async def of_key(_: Request, error: KeyError) -> Response:
        return _problem(404, str(error.args[0]) if error.args else "There is no such document.")

    @app.exception_handler(ConnectionError)
    async def of_encoder(_: Request, error: ConnectionError) -> Response:
        return _problem(502, "The text encoder's server did not answer.")

    @app.exception_handler(TimeoutError)
    async def of_time(_: Request, __: TimeoutError) -> Response:
        return _problem(504, "The request took too long. Send fewer queries or candidates.")


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
        message += " Give token vectors as vectors, a list for each query."
    return message


def require_token(request: Request, token: str | None) -> None:
    """Raise 401 unless the request carries the token; compares in constant time."""
    kind, _, credentials = request.headers.get("authorization", "").partition(" ")
    if (
        token is None
        or kind.lower() != "bearer"
        or not secrets.compare_digest(credentials.encode(), token.encode())
    ):
        raise HTTPException(
            401, "Changing documents needs the server's token: Authorization: Bearer TOKEN.",
            {"WWW-Authenticate": "Bearer"},
        )  # fmt: skip


class BodyLimit:
    """Middleware that answers 413 to bodies above a size, declared or not, before they fill memory."""

    def __init__(self, app: Any, limit: int) -> None:
        self._app, self._limit = app, limit

    async def __call__(
        self,
        scope: _Message,
        receive: Callable[[], Awaitable[_Message]],
        send: Callable[[_Message], Awaitable[None]],
    ) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = _problem(
            413,
            f"A request may have at most {self._limit:,} bytes. Send fewer queries or documents at a time.",
        )
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._limit:
            await refusal(scope, receive, send)
            return
        messages: list[_Message] = []
        size, more = 0, True
        while more:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > self._limit:
                await refusal(scope, receive, send)
                return
            more = message.get("more_body", False)

        async def replay() -> _Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)
