"""What the commands print: results to the output, all else to the error output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

__all__ = ["megabytes", "note", "one_line", "print_json", "progress_bar", "seconds", "warn"]

# What a message of the library calls by its Python name, as it is called here.
_AS_OPTIONS = {"overwrite=True": "--overwrite", "half=True": "--half"}


def note(text: str) -> None:
    """Print a line for people, apart from the results."""
    typer.echo(text, err=True)


def warn(texts: list[str]) -> None:
    """Print warnings, a line each, apart from the results."""
    for text in texts:
        note(f"muvera: warning: {text}")


def print_json(value: Any) -> None:
    """Print one JSON document as the only output."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))


def one_line(error: BaseException) -> str:
    """Return an error's message without line breaks.

    Examples
    --------
    >>> one_line(KeyError("id 7 is not in the index."))
    'id 7 is not in the index.'
    >>> one_line(ValueError())
    'ValueError'
    """
    # str(KeyError) is the repr of its message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    for name, option in _AS_OPTIONS.items():
        text = text.replace(name, option)
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def progress_bar(
    total: int | None, unit: str, title: str, quiet: bool = False
) -> Iterator[Callable[[int], object]]:
    """Show a bar on the error output and give what advances it.

    Only on a terminal: in a log, every step of a bar is a line.
    """
    from tqdm import tqdm

    hidden = quiet or not sys.stderr.isatty()
    with tqdm(total=total, unit=f" {unit}", unit_scale=True, desc=title, disable=hidden, leave=False) as bar:
        yield bar.update


def megabytes(size: float) -> str:
    """Return a number of bytes in words.

    Examples
    --------
    >>> megabytes(1_400), megabytes(57_344_000), megabytes(3.2e9)
    ('1.4 kB', '57.3 MB', '3.2 GB')
    """
    for factor, unit in ((1e9, "GB"), (1e6, "MB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"


def seconds(duration: float) -> str:
    """Return a duration in words.

    Examples
    --------
    >>> seconds(0.00213), seconds(3.21), seconds(0.00004)
    ('2.1 ms', '3.2 s', '0.04 ms')
    """
    if duration >= 1:
        return f"{duration:.1f} s"
    return f"{1e3 * duration:.1f} ms" if duration >= 1e-3 else f"{1e3 * duration:.2f} ms"
