"""Printing: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

__all__ = ["columns", "megabytes", "note", "one_line", "print_json", "progress_bar", "seconds", "warn"]

# Phrases of the library's messages, and the corresponding phrases of the command line.
_ON_COMMAND_LINE = {
    "overwrite=True": "--overwrite",
    "encoder='moments'": "--encoder moments",
    "give the format": "give --format",
    "muvera.convert.formats()": "muvera formats",
    "Use None": "Leave it out",
    "Give another port": "Give another --port",
    "Use MuveraIndex.load": "Use muvera search",
    "Use MuveraIndex.build": "Leave out --keep-codes",
    " Check with `id in index`.": "",
}

# Options of readers, which are given with -o.
_READER_OPTIONS = re.compile(r"\b(column|id_column|table|collection|vector|id_field|field|group)=('?)(\w*)\2")

# Seconds between two drawings of a bar without progress.
_REDRAW_SECONDS = 0.5


def note(text: str) -> None:
    """Print a line to standard error."""
    typer.echo(text, err=True)


def warn(*texts: str) -> None:
    """Print warnings to standard error, one line each."""
    for text in texts:
        note(f"muvera: warning: {text}")


def print_json(value: Any) -> None:
    """Print one JSON document as the only output."""
    typer.echo(json.dumps(value, ensure_ascii=False, indent=1))


def one_line(error: BaseException, options: dict[str, str] | None = None) -> str:
    """Return an error's message without line breaks.

    `options` are the command's options by their Python names, such as ``{"max_bytes": "--max-bytes"}``,
    which replace these names.
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
        # Elsewhere the name may be an ordinary word.
        text = re.sub(rf"^{name} must\b", f"{option} must", re.sub(rf"\b{name}=", f"{option} ", text))
    text = _READER_OPTIONS.sub(lambda match: f"-o {match[1]}={match[3].lower() or 'NAME'}", text)
    return " ".join(text.split()) or type(error).__name__


@contextmanager
def progress_bar(total: int | None, unit: str, title: str) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on standard error, and yield the function that advances it.

    The bar appears only on a terminal, because in a log every step would be a line.  Its clock also runs during
    a long step.  Its title is the name of the stage; a complete bar gives way to this name and the clock.
    """
    from tqdm import tqdm

    from ..utils.stages import listening

    hidden = not sys.stderr.isatty()
    with tqdm(total=total, unit=f" {unit}", unit_scale=True, desc=title, disable=hidden, leave=False) as bar:
        stages, ended = [""], threading.Event()

        def redraw() -> None:
            while not ended.wait(_REDRAW_SECONDS):
                complete = total is not None and bar.n >= total > 0
                bar.bar_format = "{desc}[{elapsed}]" if complete or not (total or bar.n) else None
                bar.set_description(stages[-1] or ("finishing" if complete else title))

        thread = threading.Thread(target=redraw, daemon=True)
        if not hidden:
            thread.start()
        try:
            with listening(stages.append):
                yield bar.update
        finally:
            ended.set()
            if not hidden:
                thread.join()


def columns() -> int:
    """Return the width of printed text: that of the terminal, at most 100."""
    return min(100, shutil.get_terminal_size((80, 24)).columns)


def megabytes(size: float) -> str:
    """Return a number of bytes with its unit: 1.4 kB, 57.3 MB or 3.2 GB."""
    for factor, unit in ((1e9, "GB"), (1e6, "MB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"


def seconds(duration: float) -> str:
    """Return a duration with its unit: 3.2 s, 2.1 ms or 0.04 ms."""
    if duration >= 1:
        return f"{duration:.1f} s"
    return f"{1e3 * duration:.1f} ms" if duration >= 1e-3 else f"{1e3 * duration:.2f} ms"
