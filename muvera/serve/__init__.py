"""HTTP server of one index: search, explanations, documents, and a page."""

from __future__ import annotations

import errno
import gc
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from threading import current_thread, main_thread

from ..diagnostics.recall_meter import RecallMeter
from ..fde.linear_algebra import one_blas_thread
from ..index.muvera_index import MuveraIndex
from ..pages.page_index import PageIndex
from ..texts.text_index import TextIndex
from ..utils.checks import import_extra, require_int, require_number
from ..utils.hints import Argument, Hint, Message
from .connections import protocol as protocol

#: Names of this machine that no other machine reaches.
LOCAL = ("127.0.0.1", "localhost", "::1")

# Seconds that running requests have to end after a signal; also the default timeout of
# a search.
_GRACE_SECONDS = 30

# Connections that may wait to be accepted, such as while the kernels are compiled.
_BACKLOG = 2048

# New objects until a collection of garbage, and collections until an older generation
# is collected.  With Python's 700 objects, it would collect many times during one body.
_GARBAGE_THRESHOLDS = (50_000, 20, 100)

# Seconds after which another thread may run; Python's default is 0.005.
_SWITCH_SECONDS = 1e-4


@dataclass(frozen=True)
class ServerSettings:
    """Limits and rights of a server.

    Parameters
    ----------
    token : str, optional
        Bearer token that changes need.
    read_token : str, optional
        Bearer token that searches and documents need; `token` is also accepted.
        Default: anyone may read.
    writable : bool
        Allow documents to be added, updated and deleted; needs a token.
    threads : int
        Concurrent searches.
    timeout : float
        Seconds after which a search gets status 504, and a change that has not begun
        gets 503.
    body_timeout : float
        Seconds after which a connection without a complete request is closed.
    max_body_bytes, max_search_bytes : int
        Bytes of a request with `token`, and of any other.
    max_connections : int
        If there are more, the connection is closed that has waited longest for its
        client.
    max_queries : int
        Maximum number of queries of a search, or of documents of an explanation.
    max_k : int
        Maximum number of hits for each query.
    max_hits : int
        Maximum number of hits of one search: `k` times the number of queries.
    max_candidates : int
        Largest `candidates` of a search.  A search takes longer in proportion to it.
    max_documents : int
        Maximum number of documents of one change or one reranking.
    max_text_characters : int
        Maximum number of characters of a query, or of a document to write.
    max_tokens : int
        Maximum number of token vectors of one search by vectors, for all queries.
    max_read_characters : int
        Maximum total number of characters of the documents that one request reads.
    """

    token: str | None = None
    read_token: str | None = None
    writable: bool = False
    threads: int = 2
    timeout: float = 30.0
    body_timeout: float = 20.0
    max_body_bytes: int = 16 << 20
    max_search_bytes: int = 1 << 20
    max_connections: int = 512
    max_queries: int = 64
    max_k: int = 1000
    max_hits: int = 10_000
    max_candidates: int = 10_000
    max_documents: int = 1000
    max_text_characters: int = 1_000_000
    max_tokens: int = 65_536
    max_read_characters: int = 16_000_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name == "threads" or name.startswith("max_"):
                require_int(name, value, 1)
        require_number("timeout", self.timeout, 0.001)
        require_number("body_timeout", self.body_timeout, 0.001)
        if self.writable and not self.token:
            raise ValueError(
                Message(
                    "A writable server needs a token, or anyone who reaches it could change the index. ",
                    Hint("set_token", "Give token=."),
                )
            )


def serve(
    index: TextIndex | MuveraIndex | PageIndex,
    settings: ServerSettings,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    allowed_hosts: Sequence[str] | None = None,
    name: str | None = None,
    meter: RecallMeter | None = None,
    announce: Callable[[], None] = lambda: None,
) -> None:
    """Serve an index until SIGINT, SIGTERM or SIGHUP, and then answer running requests.

    The caller closes the index afterwards.  Requests may use the names of this machine
    and `allowed_hosts` as host names; "*" allows any, and the default is `host`.
    `name` is for the title and the heading of the page.  `meter` measures the recall of
    searches; the caller closes it, too.  `announce` is called once the server has the
    port.

    Raises
    ------
    ImportError
        If uvicorn or FastAPI is missing.
    OSError
        If `host` is not an address of this machine, or `port` is in use.
    """
    uvicorn = import_extra("uvicorn", "serve", "The server")
    import_extra("fastapi", "serve", "The server")
    from .app import make_app
    from .kinds import served

    hosts = [*LOCAL, *([host] if allowed_hosts is None else allowed_hosts)]
    app = make_app(index, settings, hosts=hosts, name=name, meter=meter)
    # Searches run in parallel, one per core: BLAS threads would only compete with them.
    with one_blas_thread(), listen(host, port) as listening, ExitStack() as handlers:
        announce()
        served(index).warm_up()
        # A collection of garbage while a body is parsed would look at all objects again
        # and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GARBAGE_THRESHOLDS)
        # SQLite releases the lock of the interpreter for microseconds at each row, and
        # takes it back before the event loop wakes up. After this interval Python makes
        # such a thread wait.
        sys.setswitchinterval(_SWITCH_SECONDS)
        config = uvicorn.Config(
            app, log_level="warning",
            timeout_graceful_shutdown=_GRACE_SECONDS, server_header=False,
            # The protocol limits connections.  uvicorn also counts those that are being
            # closed, and would answer 503.
            limit_concurrency=settings.max_connections + 2 * _BACKLOG,
            http=protocol(settings), ws="none",
        )  # fmt: skip
        server = uvicorn.Server(config)
        stops = ("SIGTERM", "SIGHUP") if current_thread() is main_thread() else ()
        for number in signal.Signals:
            if number.name in stops and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                handlers.callback(signal.signal, number, signal.signal(number, server.handle_exit))
        # uvicorn raises the signal again after it has stopped: SIGINT as a
        # KeyboardInterrupt.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])


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
        listening = socket.create_server(address, family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OSError(
                Message(f"Port {port} of {host} is in use. Give another ", Argument("port"), ".")
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise OSError(f"{host} is not an address of this machine. Give one of its addresses.") from error
        raise
    # Accepted sockets inherit it. Without it, each answer waits 40 ms for the client to
    # acknowledge its head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
