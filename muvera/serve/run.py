"""Run the server until a signal stops it."""

from __future__ import annotations

import errno
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import numpy as np

from ..encoders.matmul import one_blas_thread
from ..index.muvera_index import MuveraIndex
from ..texts.text_index import TextIndex
from ..utils.checks import import_extra
from . import ServerSettings

# Seconds that running requests may take after a stop.
_GRACE = 30

#: Names of this machine that no other machine reaches.
LOCAL = ("127.0.0.1", "localhost", "::1")


def serve(
    index: TextIndex | MuveraIndex,
    settings: ServerSettings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    allowed_hosts: Sequence[str] | None = None,
    announce: Callable[[], None] | None = None,
) -> None:
    """Serve an index until SIGINT, SIGTERM or SIGHUP, and then answer the running requests.

    Parameters
    ----------
    index : TextIndex or MuveraIndex
        Answered changes are durable if it is from :meth:`muvera.TextIndex.open`.  The caller must close it.
    settings : ServerSettings, optional
    host : str
        Address to listen on.  Any other than 127.0.0.1 admits other machines.
    port : int
    allowed_hosts : sequence of str, optional
        Host names that requests may use, in addition to those of this machine.  Another Host header comes
        from a foreign page (DNS rebinding).  Default: `host`.  "*": any.
    announce : callable, optional
        Called once the server has the port.

    Raises
    ------
    OSError
        For an address that is not of this machine, or a port in use.
    ImportError
        Without the extra "serve".
    """
    uvicorn = import_extra("uvicorn", "serve", "The server")
    import_extra("fastapi", "serve", "The server")
    from .app import make_app

    settings = ServerSettings() if settings is None else settings
    hosts = [*LOCAL, *([host] if allowed_hosts is None else allowed_hosts)]
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # Searches run in parallel, one per core: BLAS threads would only compete with them.
    with one_blas_thread(), listen(host, port) as listening:
        if announce is not None:
            announce()
        vectors = index.index if isinstance(index, TextIndex) else index
        vectors.search(np.ones((1, vectors.config.dimension), np.float32), 1, threads=1)  # compile kernels
        # A collection of garbage while a body is parsed would look at all objects again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        # SQLite releases the lock of the interpreter for microseconds at each row, and takes it back before the event
        # loop wakes up. After this interval Python makes such a thread wait.
        sys.setswitchinterval(1e-4)
        config = uvicorn.Config(
            make_app(index, settings, hosts=hosts), log_level="warning",
            timeout_graceful_shutdown=_GRACE, server_header=False,
            limit_concurrency=settings.max_connections + 1, http=protocol(settings), ws="none",
        )  # fmt: skip
        server = uvicorn.Server(config)
        # uvicorn raises the signal again after it has stopped: SIGINT as a KeyboardInterrupt.
        with _stopping(server.handle_exit), suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


@contextmanager
def _stopping(stop: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `stop` on SIGTERM and SIGHUP during a block, except for ignored signals (nohup)."""
    names = ("SIGTERM", "SIGHUP") if current_thread() is main_thread() else ()
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {
        number: signal.signal(number, stop)
        for number in numbers
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def protocol(settings: ServerSettings) -> Any:
    """Return uvicorn's protocol with limits that it lacks: for slow headers, slow readers and idle connections."""
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    connections: dict[Any, None] = {}  # oldest first

    class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _before: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            connections[self] = None
            if len(connections) > settings.max_connections:
                idle = next((other for other in connections if other.is_idle), self)
                idle.transport.abort()
            self._check()

        def connection_lost(self, exc: Exception | None) -> None:
            connections.pop(self, None)
            self._timer.cancel()
            super().connection_lost(exc)

        @property
        def is_idle(self) -> bool:
            """True if all complete requests were answered."""
            return self.cycle is None or bool(self.cycle.response_complete)

        def _check(self) -> None:
            """Abort if neither the client nor the server has done anything since the last check."""
            unread = self.transport.get_write_buffer_size()
            now = self.cycle, self.is_idle, unread
            if now == self._before and (self.is_idle or unread):
                self.transport.abort()
            self._before = now
            self._timer = self.loop.call_later(settings.body_timeout, self._check)

    return Protocol


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; early connections wait in its backlog."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(f"There is no host {host!r}. Give an address of this machine.") from error
    # Prefer IPv4: clients that try IPv6 first fall back to it.
    family, *_, address = min(addresses, key=lambda entry: entry[0] != socket.AF_INET)
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(address, family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"Port {port} of {host} is in use. Give another port.") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise OSError(f"{host} is not an address of this machine. Give one of its addresses.") from error
        raise
