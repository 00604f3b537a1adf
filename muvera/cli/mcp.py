"""``muvera mcp``: a text index for agents."""

from __future__ import annotations

from typing import Annotated

from typer import Option

from .options import IndexEncoderOption
from .texts.changes import open_texts
from .verbs import IndexArgument


def mcp(
    index: IndexArgument,
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

    with open_texts(index, encoder, change=writable) as opened:
        make_server(opened, writable=writable).run()
