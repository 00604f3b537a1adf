"""Running the server until it is asked to stop."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from ..index.muvera_index import MuveraIndex
from ..numerics.matmul import one_blas_thread
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

    Raises
    ------
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
    with one_blas_thread():
        _warm_up(index)
        uvicorn.run(
            make_app(index, settings, save=save, hosts=hosts), host=host, port=port, log_level="warning",
            timeout_graceful_shutdown=GRACE, server_header=False,
        )  # fmt: skip


def _warm_up(index: TextIndex | MuveraIndex) -> None:
    """Search once, so that the first request does not wait for kernels to be loaded or compiled."""
    vectors = index.index if isinstance(index, TextIndex) else index
    vectors.search(np.ones((1, vectors.config.dimension), np.float32), 1, threads=1)
