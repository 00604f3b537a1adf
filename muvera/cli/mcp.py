"""``muvera mcp``: a text index for agents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

import muvera

from .options import IndexEncoderOption


def mcp(
    index: Annotated[Path, Argument(metavar="INDEX", help="Folder of a text index.")],
    encoder: IndexEncoderOption = None,
    writable: Annotated[bool, Option("--writable", help="Also offer the tool add.")] = False,
) -> None:
    """Serve a text index to agents (Model Context Protocol).

    Agents call the tools over standard input and output. The tools are search, get and
    explain. Answers have ids, titles and the best passages with their character
    positions. Needs the extra mcp.

    \b
    Example: on the command line, and in a client's configuration.
      muvera mcp /path/to/my-index
      {"mcpServers": {"my-texts": {
        "command": "muvera", "args": ["mcp", "/path/to/my-index"]}}}
    """
    from ..utils.checks import import_extra

    import_extra("mcp.server", "mcp", "muvera mcp")
    from ..integrations.mcp import make_server

    with (muvera.TextIndex.open if writable else muvera.TextIndex.load)(index, encoder) as opened:
        make_server(opened, writable=writable).run()
