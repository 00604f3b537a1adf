"""Limits on connections: their number, their pace, and their unread answers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import Scope, Send

    from . import ServerSettings

#: Key of the connection in the state of a request.
CONNECTION = "muvera.connection"

# Bytes of an answer that are passed on at a time.  Blocks of megabytes, allocated and
# freed in turn, would fragment the memory, which then grows.
_PART = 1 << 16

# Seconds in which a new connection can send its request before it may be closed for
# lack of room.  A crowd that arrives at once would otherwise push out a client whose
# request is on its way.  Meanwhile there may be twice as many connections.
_GRACE = 0.25

# Bytes of answers that wait in memory, over all connections.  If there are more, the
# slowest readers are cut off.
_MAX_UNSENT = 64 << 20

# Bytes per second that a reader must accept.  The system's buffers count as read, so a
# fast client's short pauses do not matter.
_MIN_RATE = 16 << 10


def protocol(settings: ServerSettings) -> Any:
    """Return uvicorn's protocol class, with limits that it lacks.

    It closes connections with slow headers or slow readers, connections that wait for
    their clients if there are too many, and the slowest readers if too many bytes are
    unsent.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    return type("Protocol", (_Limited, AutoHTTPProtocol), {"peers": _Connections(settings)})


class _Connections:
    """The open connections of a server."""

    def __init__(self, settings: ServerSettings) -> None:
        self.most = settings.max_connections
        self.timeout = settings.body_timeout
        self.open: dict[Any, None] = {}  # the connection that was used last comes last

    def cut_off(self, connection: _Limited) -> None:
        # Remove it now: `connection_lost` is called only later, after other connections
        # were made.
        self.open.pop(connection, None)
        connection.transport.abort()
        connection.rest.clear()

    def limit(self, most: int, age: float) -> None:
        """Cut off connections that have waited for their clients, oldest first.

        Stop when `most` are left, or if the others wait for less than `age` seconds.
        """
        before = time.monotonic() - age
        waiting = [each for each in self.open if each.waits and each.since <= before]
        for each in waiting[: max(0, len(self.open) - most)]:
            self.cut_off(each)

    def make_room(self, reader: _Limited) -> None:
        """Cut off the slowest readers but this one while too many bytes are unsent."""
        unsent = {each: each.unsent for each in self.open}
        total = sum(unsent.values())
        others = [each for each, waiting in unsent.items() if waiting and each is not reader]
        others.sort(key=lambda each: each.rate, reverse=True)
        while others and total > _MAX_UNSENT:
            total -= unsent[others[-1]]
            self.cut_off(others.pop())


_UvicornProtocol: Any = object  # uvicorn's class is imported only when a server starts


class _Limited(_UvicornProtocol):  # type: ignore[misc]
    """A connection whose client must send and read fast enough."""

    peers: _Connections
    _before: Any = None
    _begun = 0.0  # when the answer began
    _sent_before = 0  # bytes that were sent until then

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(_CountingTransport(transport))
        self.rest: list[bytes] = []  # parts of the answer that the transport does not have
        self.app_state: dict[str, Any] = {**self.app_state, CONNECTION: self}
        self.since = time.monotonic()  # the connection was made or used last
        peers = self.peers
        peers.open[self] = None
        if len(peers.open) > peers.most:
            self.loop.call_later(_GRACE, peers.limit, peers.most, _GRACE)
        if len(peers.open) > 2 * peers.most:
            peers.limit(2 * peers.most, 0)
        if len(peers.open) > 2 * peers.most:  # all others have running requests
            peers.cut_off(self)
        self._check()

    def connection_lost(self, exc: Exception | None) -> None:
        self.peers.open.pop(self, None)
        self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        if self in self.peers.open:
            self.peers.open.pop(self)
            self.peers.open[self] = None
            self.since = time.monotonic()
        super().on_response_complete()

    @property
    def is_idle(self) -> bool:
        """True if all complete requests were answered."""
        return self.cycle is None or bool(self.cycle.response_complete)

    @property
    def waits(self) -> bool:
        """True if the next step is the client's: to send or to read more."""
        return self.is_idle or bool(self.cycle.more_body or self.unsent)

    @property
    def unsent(self) -> int:
        """Bytes that wait in memory."""
        return sum(map(len, self.rest)) + int(self.transport.unsent)

    @property
    def rate(self) -> float:
        """Bytes per second that the client has read since the answer began."""
        return float(self.transport.sent - self._sent_before) / (time.monotonic() - self._begun + 1e-3)

    def begin(self, answer: list[bytes]) -> None:
        """Begin to send an answer in parts."""
        self.rest = answer
        self._begun = time.monotonic()
        self._sent_before = self.transport.sent
        self.peers.make_room(self)

    def _check(self) -> None:
        """Cut off a client that has been idle or slow since the last check."""
        now = self.cycle, self.is_idle, self.transport.sent
        if self._before is not None:
            *_, sent, unsent = self._before
            slow = unsent and self.unsent
            slow = slow and self.transport.sent - sent < _MIN_RATE * self.peers.timeout
            if slow or (self.is_idle and now == self._before[:3]):
                self.peers.cut_off(self)
        self._before = *now, self.unsent
        self._timer = self.loop.call_later(self.peers.timeout, self._check)


class _CountingTransport:
    """A transport that counts the bytes that its client has read."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._written = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    @property
    def unsent(self) -> int:
        """Bytes that wait in the transport's buffer."""
        return int(self._transport.get_write_buffer_size())

    @property
    def sent(self) -> int:
        """Bytes that the system has accepted so far."""
        return self._written - self.unsent

    def write(self, data: bytes) -> None:
        self._written += len(data)
        self._transport.write(data)


async def send_in_parts(body: list[bytes], scope: Scope, send: Send) -> None:
    """Send the parts of a body, each once the client has read enough of the others.

    `body` is a list from :func:`split`.  It is emptied: parts are freed when they are
    sent, and if the connection is cut off.  `scope` and `send` are ASGI's; the
    connection is known if it has this protocol.
    """
    body.reverse()
    connection = scope.get("state", {}).get(CONNECTION)
    if connection is not None:
        connection.begin(body)
    left = sum(map(len, body))
    while body:
        part = body.pop()
        left -= len(part)
        await send({"type": "http.response.body", "body": part, "more_body": left > 0})
    if left:  # uvicorn hears that the connection is lost before this call returns
        await asyncio.sleep(0)


def split(body: bytes) -> list[bytes]:
    """Return the parts of a body, at least one."""
    return [body[start : start + _PART] for start in range(0, len(body), _PART)] or [b""]
