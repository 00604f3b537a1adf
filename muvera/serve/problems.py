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
    async def of_body(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or "the body"
        return problem(422, f"{place}: {first['msg']}.")

    @app.exception_handler(ValueError)
    @app.exception_handler(TypeError)
    async def of_value(_: Request, error: Exception) -> Response:
        return problem(422, str(error))

    @app.exception_handler(KeyError)
    async def of_key(_: Request, error: KeyError) -> Response:
        return problem(404, str(error.args[0]) if error.args else "There is no such document.")

    @app.exception_handler(ConnectionError)
    async def of_encoder(_: Request, error: ConnectionError) -> Response:
        return problem(502, "The model that encodes texts gave no answer.")

    @app.exception_handler(TimeoutError)
    async def of_time(_: Request, __: TimeoutError) -> Response:
        return problem(504, "The request took too long. Ask for fewer queries or candidates.")


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
