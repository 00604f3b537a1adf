"""The command line ``muvera``: an error is one line on standard error.

Heavy imports are inside the commands.
"""

from __future__ import annotations

import atexit
import gc
import warnings
from typing import Annotated

import typer
from typer import Option

from .. import __version__
from . import (
    audit,
    convert,
    demo,
    diagnose,
    encode,
    formats,
    index,
    info,
    load,
    mcp,
    onnx,
    pages,
    search,
    serve,
    texts,
    tune,
)
from .errors import Commands
from .printing import warn

__all__ = ["app", "main"]

app = typer.Typer(
    name="muvera",
    cls=Commands,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def start(
    ctx: typer.Context,
    version: Annotated[bool, Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, Option("--debug", help="Print a traceback with every error.")] = False,
) -> None:
    """Search texts, or token embeddings of ColBERT-style models (MUVERA).

    \b
    Try it without a download or a model:
      muvera demo
    With your own texts (CSV, JSON lines, one text per line, ...):
      muvera texts index TEXTS MY_INDEX
      muvera texts search MY_INDEX "a question"
    With your own embeddings (an index, .npy, Parquet, a vector store, ...):
      muvera index EMBEDDINGS MY_INDEX
      muvera search MY_INDEX QUERIES
    """
    if version:
        typer.echo(f"muvera {__version__}")
    elif ctx.invoked_subcommand is None:  # --debug alone
        typer.echo(ctx.get_help())


for _command in (
    demo.demo, index.index, search.search, serve.serve, mcp.mcp, info.info, diagnose.diagnose, tune.tune,
    audit.audit, convert.convert, encode.encode, onnx.onnx, load.load, formats.formats,
):  # fmt: skip
    app.command(_command.__name__)(_command)
app.add_typer(texts.texts, name="texts", cls=Commands)
app.add_typer(pages.pages, name="pages", cls=Commands)


def main() -> None:
    """Run the command line."""
    warnings.showwarning = lambda message, *_, **__: warn(str(message))
    # Imports make many objects that stay.  Python would look for garbage among them
    # after every 700 to 2,000 new objects, and again at exit, which takes longer than
    # most searches.
    gc.set_threshold(10_000)
    atexit.register(gc.freeze)
    app(prog_name="muvera")
