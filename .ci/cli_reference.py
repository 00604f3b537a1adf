"""Write docs/reference/cli.md from the help of the commands.

Call it as ``python .ci/cli_reference.py``.  A test compares the page with the help.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import typer
from typer.testing import CliRunner

from muvera.cli import app

PAGE = ROOT / "docs" / "reference" / "cli.md"

# Help has 80 columns and no colors, in any terminal.
TERMINAL = {"COLUMNS": "80", "NO_COLOR": "1", "FORCE_COLOR": None, "TERM": "dumb"}

INTRODUCTION = """\
# Command line

<!-- Written by: python .ci/cli_reference.py -->

A command prints its result to standard output, and everything else to standard error. With `--json` the result is one
JSON document. `muvera COMMAND --help` prints the texts of this page.

| exit status | meaning |
|---|---|
| 0 | the command succeeded |
| 1 | a bug, or `muvera serve` could not save the index; `muvera --debug COMMAND` prints a traceback |
| 2 | wrong usage or input; the [error message](../errors.md) says how to fix it |
| 130 | interrupted, with Ctrl-C for example; no incomplete result is left, and `muvera load` can continue |
"""


def commands(command: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield the words that call a command, then those of its visible commands."""
    yield path
    for name, part in getattr(command, "commands", {}).items():
        if not part.hidden:
            yield from commands(part, *path, name)


def help_text(*path: str) -> str:
    """Return the help of a command."""
    return CliRunner().invoke(app, [*path, "--help"], prog_name="muvera", env=TERMINAL).stdout


def page() -> str:
    """Return the page: a section for each command."""
    sections = [
        f"## {' '.join(('muvera', *path))}\n\n```text\n{help_text(*path)}```\n"
        for path in commands(typer.main.get_command(app))
    ]
    return "\n".join([INTRODUCTION, *sections])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
