"""What the commands print: results to the output, all else to the error output."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

__all__ = ["megabytes", "note", "one_line", "print_json", "progress_bar", "seconds", "warn"]

# What a message of the library says in Python, as it is said here.
_ON_COMMAND_LINE = {
    "overwrite=True": "--overwrite",
    "half=True": "--half",
    "give the format": "give --format",
    "muvera.convert.formats()": "muvera formats",
    "needs token_ids and vocabulary": "needs --token-ids and --vocabulary",
    "Use None": "Leave it out",
    "Give another port": "Give another --port",
}

#: Options of readers, which are given with -o, and of FDEs, which have their own names.
_OF_READERS = re.compile(
    r"\b(column|id_column|table|collection|vector|id_field|field|group|lengths)=('?)(\w*)\2"
)
_OF_FDES = re.compile(r"\b(num_repetitions|num_simhash_projections|projection_dimension)=(\d+)")

# Seconds between two drawings of a bar that nothing advances.
_REDRAW_SECONDS = 0.5


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


def one_line(error: BaseException, options: dict[str, str] | None = None) -> str:
    """Return an error's message without line breaks, in the words of the command line.

    Parameters
    ----------
    error : Exception
    options : dict of str to str, optional
        Options that were given, by their Python names, such as ``{"max_bytes": "--max-bytes"}``.

    Examples
    --------
    >>> one_line(KeyError("id 7 is not in the index."))
    'id 7 is not in the index.'
    >>> one_line(ValueError())
    'ValueError'
    >>> one_line(ValueError("max_bytes=9 is too few."), {"max_bytes": "--max-bytes"})
    '--max-bytes 9 is too few.'
    >>> one_line(FileNotFoundError(2, "No such file or directory", "a.npy"))
    'a.npy: No such file or directory.'
    >>> one_line(ValueError("docs.h5 has the groups a, b. Say which with group=."))
    'docs.h5 has the groups a, b. Say which with -o group=NAME.'
    >>> one_line(ValueError("Encode with num_repetitions=7, or half=True."))
    'Encode with --num-repetitions 7, or --half.'
    """
    if isinstance(error, OSError) and error.strerror is not None:
        text = f"{error.strerror.rstrip('.')}."
        if error.filename is not None:
            text = f"{os.fsdecode(error.filename)}: {text}"
    else:
        # str(KeyError) is the repr of its message.
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    for words, replacement in _ON_COMMAND_LINE.items():
        text = text.replace(words, replacement)
    for name, option in (options or {}).items():
        # Elsewhere it may be a word, or a parameter in Python.
        text = re.sub(rf"^{name} must\b", f"{option} must", re.sub(rf"\b{name}=", f"{option} ", text))
    text = _OF_READERS.sub(lambda match: f"-o {match[1]}={match[3].lower() or 'NAME'}", text)
    text = _OF_FDES.sub(lambda match: f"--{match[1].replace('_', '-')} {match[2]}", text)
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def progress_bar(
    total: int | None, unit: str, title: str, quiet: bool = False
) -> Iterator[Callable[[int], object]]:
    """Show a bar on the error output and give what advances it.

    Only on a terminal: in a log, every step of a bar is a line.  The seconds move also where a
    step takes long.
    """
    from tqdm import tqdm

    hidden = quiet or not sys.stderr.isatty()
    with tqdm(total=total, unit=f" {unit}", unit_scale=True, desc=title, disable=hidden, leave=False) as bar:
        if hidden:
            yield bar.update
            return
        ended = threading.Event()

        def redraw() -> None:
            while not ended.wait(_REDRAW_SECONDS):
                bar.refresh()

        thread = threading.Thread(target=redraw, daemon=True)
        thread.start()
        try:
            yield bar.update
        finally:
            ended.set()
            thread.join()


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
