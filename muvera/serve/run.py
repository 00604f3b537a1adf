"""Running the server until it is asked to stop."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from ..encoders.matmul import one_blas_thread
from ..index.muvera_index import MuveraIndex
from ..texts.text_index import TextIndex
from ..utils.optional_imports import import_extra
from .settings import ServerSettings

__all__ = ["serve"]

#: Seconds that requests may take to end once the server was asked to stop.
GRACE = 30


def serve(
    index: TextIndex | MuveraIndex,
    settings: ServerSettings | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    save: Callable[[], None] | None = None,
    announce: Callable[[], None] | None = None,
) -> None:
    """Serve an index until SIGINT or SIGTERM; what was changed is saved then.

    Parameters
    ----------
    index : TextIndex or MuveraIndex
    settings : ServerSettings, optional
    host : str
        The address to listen on.  Another than 127.0.0.1 lets other machines in.
    port : int
    save : callable, optional
        Called after the last request where documents were changed.
    announce : callable, optional
        Called once the port is the server's own.

    Raises
    ------
    OSError
        For an address that this machine does not have, and a port that is in use.
    ImportError
        Without the extra "serve".
    """
    uvicorn = import_extra("uvicorn", "serve", "The server")
    import_extra("fastapi", "serve", "The server")
    from .app import make_app

    # A name of this machine alone: another in a request's Host comes from a page that leads here.
    hosts = ["127.0.0.1", "localhost", "[::1]"] if host in ("127.0.0.1", "localhost", "::1") else None
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    # Searches run beside each other, one a core: threads of BLAS within one only wait for each other.
    with one_blas_thread(), listen(host, port) as listening:
        if announce is not None:
            announce()
        _warm_up(index)
        config = uvicorn.Config(
            make_app(index, settings, save=save, hosts=hosts), log_level="warning",
            timeout_graceful_shutdown=GRACE, server_header=False,
        )  # fmt: skip
        with suppress(KeyboardInterrupt):  # raised again after a graceful stop
            uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; who connects already waits until requests are read.

    Raises
    ------
    OSError
        For an address that this machine does not have, and a port that is in use.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise OSError(f"There is no host {host!r}. Give an address of this machine.") from error
    # A name can have addresses of both families: programs that try IPv6 first fall back to IPv4.
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere two servers could then have one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"Port {port} of {host} is in use. Give another port.") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise OSError(f"{host} is no address of this machine. Give one of its own.") from error
        raise
    return listening


def _warm_up(index: TextIndex | MuveraIndex) -> None:
    """Search once, so that the first request does not wait for kernels to be loaded or compiled."""
    vectors = index.index if isinstance(index, TextIndex) else index
    vectors.search(np.ones((1, vectors.config.dimension), np.float32), 1, threads=1)
