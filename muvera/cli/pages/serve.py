"""``muvera pages serve``: a page index over HTTP, with pictures and maps."""

from __future__ import annotations

from ..options import IndexEncoderOption
from ..serve import AllowedHostOption, HostOption, PortOption, SearchesOption, run_server, server_settings
from .search import IndexArgument, RootOption


def serve(
    index: IndexArgument,
    encoder: IndexEncoderOption = None,
    root: RootOption = None,
    host: HostOption = "127.0.0.1",
    allowed_host: AllowedHostOption = None,
    port: PortOption = 8080,
    threads: SearchesOption = None,
) -> None:
    """Serve a page index over HTTP, with maps of each word.

    The server answers /search, /picture, /info, /health, /metrics (for Prometheus) and
    /openapi.json; the page is at /. Pictures of pages are shown with --root FOLDER,
    from that folder only. Set MUVERA_READ_TOKEN to require a token for reading.

    \b
    Example:
      muvera pages serve my-pages --root reports --port 8080
      curl -s localhost:8080/search -H 'Content-Type: application/json' \\
        -d '{"query": "revenue by region", "maps": false}'
    """
    from ...pages.page_index import PageIndex

    loaded = PageIndex.load(index, encoder, root=root)
    run_server(loaded, index, "page", server_settings(host, False, threads), host, port, allowed_host)
