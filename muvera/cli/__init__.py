"""The command line ``muvera``: an error is one line on standard error.

Heavy imports are inside the commands.
"""

from __future__ import annotations

import pickle
import traceback
import warnings
from typing import Annotated, Any, cast

import typer
from typer import Option
from typer.core import TyperGroup

from .. import __version__
from .convert import convert, encode, formats, load
from .demo import demo
from .index import diagnose, index, info, mcp, search, serve, tune
from .shared import note, one_line, warn
from .texts import texts

# Errors of bad input; any other error is a bug.
_EXPECTED = (ValueError, TypeError, KeyError, OSError, ImportError, MemoryError, pickle.UnpicklingError)

# Typer uses its own copy of click or the installed one; this is the class of either.
_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])


class Commands(TyperGroup):
    """Group of the commands; it reports every error in one line."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line; a usage error exits with code 2."""
        extra["standalone_mode"] = False  # raise errors instead of printing them
        try:
            code = super().main(*args, **extra)
        except _UsageError as error:
            context = getattr(error, "ctx", None)
            path = context.command_path if context else "muvera"
            message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
            message = message.replace(": Value error, ", ": ")  # the prefix of pydantic
            end = "" if message.endswith((".", "?")) else "."
            note(f"muvera: error: {message}{end} See {path} --help.")
            code = 2
        raise SystemExit(code if isinstance(code, int) else 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Print the help if there are no arguments."""
        return super().parse_args(ctx, args or ["--help"])

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Print an error in one line, and a traceback only with --debug.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            note("muvera: interrupted; no incomplete result was left.")
            raise typer.Exit(130) from None
        except (BrokenPipeError, typer.Exit, typer.Abort, _UsageError):  # a broken pipe: head, for example
            raise
        except Exception as error:
            if ctx.find_root().params.get("debug"):
                traceback.print_exc()
            if isinstance(error, _EXPECTED):
                parameters = ctx.command.commands[ctx.invoked_subcommand].params
                options = {each.name: each.opts[0] for each in parameters if each.opts[0].startswith("-")}
                note(f"muvera: error: {one_line(error, options)}")
                raise typer.Exit(2) from None
            kind = type(error).__name__
            note(f"muvera: error: unexpected {kind}: {one_line(error)} (muvera --debug shows a traceback)")
            raise typer.Exit(1) from None


app = typer.Typer(
    name="muvera",
    cls=Commands,
    add_completion=False,
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


for command in (demo, index, search, serve, mcp, info, diagnose, tune, convert, encode, load, formats):
    app.command(command.__name__)(command)
app.add_typer(texts, name="texts", cls=Commands)


def main() -> None:
    """Run the command line."""
    warnings.showwarning = lambda message, *_, **__: warn(str(message))
    app(prog_name="muvera")
