"""Report every error in one line, in the terms of the command line."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Mapping
from typing import Any, cast

import typer
from typer.core import TyperGroup

from ..utils.hints import Argument, Hint, message_of
from .printing import note

# Errors of bad input; any other error is a bug.
_EXPECTED = (ValueError, TypeError, KeyError, OSError, ImportError, MemoryError, pickle.UnpicklingError)

# Typer uses its own copy of click or the installed one; this is the class of either.
_UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])

# The quotation mark of values in Python.
_QUOTE = "'"

# Phrases of pydantic, in our words.
_OF_PYDANTIC = {
    ": Value error, ": ": ",
    "Input should be a valid integer, unable to parse string as an integer": "it must be an integer",
    "Input should be a valid number, unable to parse string as a number": "it must be a number",
    "Input should be ": "it must be ",
    " greater than or equal to ": " at least ",
    " less than or equal to ": " at most ",
}

# What a user of the command line does in place of an operation of Python.
_INSTEAD = {
    "adapt": "",
    "build_from_tokens": "Omit --keep-codes.",
    "calibrate": "Give --candidates, or call EngineIndex(URL).calibrate() in Python.",
    "check_id": "",
    "from_plaid": "--keep-codes",
    "give_ids": "Name their column with --id.",
    "list_formats": "muvera formats",
    "load_vectors": "Use muvera search.",
    "omit": "Omit it",
    "raise_limits": "raise --time-limit and --memory-limit",
    "rank": "Give --rerank none, or load the documents again with --tokens.",
    "resume": "",
    "set_token": "Set MUVERA_TOKEN.",
    "store_no_tokens": "give --no-tokens",
    "update": "Use muvera texts update to replace it.",
}


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
            for pydantic, words in _OF_PYDANTIC.items():
                message = message.replace(pydantic, words)
            end = "" if message.endswith((".", "?")) else "."
            note(f"muvera: error: {message}{end} See {path} --help.")
            code = 2
        raise SystemExit(code if isinstance(code, int) else 0)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Print the help if there are no arguments."""
        return super().parse_args(ctx, args or ["--help"])

    def invoke(self, ctx: Any) -> Any:
        """Run a command; print an error in one line, with --debug after a traceback."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            note(f"muvera: interrupted; {error or 'no incomplete result was left'}.")
            raise typer.Exit(130) from None
        except (BrokenPipeError, typer.Exit, typer.Abort, _UsageError):  # a broken pipe: head, for example
            raise
        except Exception as error:
            if ctx.find_root().params.get("debug"):
                traceback.print_exc()
            if isinstance(error, _EXPECTED):
                options = _options_of(ctx.command.commands[ctx.invoked_subcommand])
                note(f"muvera: error: {one_line(error, options)}")
                raise typer.Exit(2) from None
            kind = type(error).__name__
            note(f"muvera: error: unexpected {kind}: {one_line(error)} (muvera --debug shows a traceback)")
            raise typer.Exit(1) from None


def _options_of(command: Any) -> dict[str, str]:
    """Return a command's options by their Python names, such as ``{"k": "--k"}``."""
    return {each.name: each.opts[0] for each in command.params if each.opts[0].startswith("-")}


def one_line(error: BaseException, options: Mapping[str, str] | None = None) -> str:
    """Return an error's message for the command line, without line breaks.

    `options` are the command's options by their Python names, such as ``{"max_bytes":
    "--max-bytes"}``.
    """
    if isinstance(error, OSError) and error.strerror is not None:
        text = f"{error.strerror.rstrip('.')}."
        if error.filename is not None:
            text = f"{os.fsdecode(error.filename)}: {text}"
    else:
        text = message_of(error).worded(lambda part: _worded(part, options or {}))
    return " ".join(text.split()) or type(error).__name__


def _worded(part: Argument | Hint, options: Mapping[str, str]) -> str:
    """Return the words for an argument or a hint, for a command with these options."""
    if isinstance(part, Hint):
        return _INSTEAD.get(part.operation, part.words)
    if part.name in options:
        option = options[part.name]
        if part.value == "None":
            return f"no {option}"
        value = (part.value or "").strip(_QUOTE)
        return option if value in ("", "True") else f"{option} {value}"
    if "option" in options and part.name in _reader_options():
        return f"-o {part.name}={(part.value or '').strip(_QUOTE) or 'NAME'}"
    return str(part)


def _reader_options() -> set[str]:
    """Return the names of the options that are given with -o."""
    from ..convert.registry import READERS

    return {name for reader in READERS.values() for name in reader.options}
