"""``muvera mcp``: an index of texts as tools for agents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from .options import TextEncoder

__all__ = ["mcp"]


def mcp(
    index: Annotated[Path, Argument(metavar="INDEX", help="Folder of an index of texts.")],
    encoder: TextEncoder = None,
    writable: Annotated[
        bool, Option("--writable", help="Also offer the tool add, which adds texts.")
    ] = False,
) -> None:
    """Serve an index of texts to agents over standard input and output (Model Context Protocol).

    The tools are search, get and explain. Answers have ids, titles and the
    best passages with their character positions. Needs the extra mcp.

    \b
    Example: on the command line, and in a client's configuration.
      muvera mcp /path/to/my-index
      {"mcpServers": {"my-texts": {
        "command": "muvera", "args": ["mcp", "/path/to/my-index"]}}}
    """
    from ..texts.text_index import TextIndex
    from ..utils.optional_imports import import_extra

    import_extra("mcp.server", "mcp", "muvera mcp")
    from ..integrations.mcp import make_server

    with TextIndex.open(index, encoder) if writable else TextIndex.load(index, encoder) as opened:
        make_server(opened, writable=writable).run()
