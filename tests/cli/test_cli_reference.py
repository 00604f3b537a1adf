"""The page of the command line: it has the help of every command as it is printed."""

import re
import runpy
from importlib.metadata import version
from typing import Any

import pytest
import typer
from builders.command_line import muvera
from builders.paths import ROOT

from muvera.cli import app

REFERENCE = runpy.run_path(str(ROOT / ".ci" / "cli_reference.py"))
PAGE = REFERENCE["PAGE"].read_text(encoding="utf-8")
#: Major and minor version.
TYPER = tuple(map(int, version("typer").split(".")[:2]))

pytestmark = pytest.mark.skipif(TYPER < (0, 29), reason="older versions of typer write help differently")

COMMANDS: list[tuple[str, ...]] = list(REFERENCE["commands"](typer.main.get_command(app)))


def parameters(path: tuple[str, ...]) -> list[Any]:
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    return list(command.params)


def test_the_page_is_written_from_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """In terminals of any width, with and without colors."""
    for columns, color in (("40", "1"), ("200", "0")):
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setenv("FORCE_COLOR", color)
        assert REFERENCE["page"]() == PAGE, "Write it with: python .ci/cli_reference.py"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_command_is_on_the_page_with_its_options(path: tuple[str, ...]) -> None:
    section = PAGE.partition(f"\n## {' '.join(('muvera', *path))}\n")[2].partition("\n## ")[0]
    assert section
    for parameter in parameters(path):
        if parameter.opts[0].startswith("-"):
            assert all(re.search(rf"{option}\b", section) for option in parameter.opts)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_argument_and_option_has_help(path: tuple[str, ...]) -> None:
    for parameter in parameters(path):
        assert parameter.help.endswith("."), parameter.name


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_has_a_summary_and_an_example(path: tuple[str, ...]) -> None:
    out = muvera(*path, "--help")[1]
    called = " ".join(("muvera", *path))
    usage, text, *_ = out.split("\n\n")
    assert (
        usage.startswith(f"Usage: {called} ") and text.endswith(".") and max(map(len, out.splitlines())) <= 80
    )
    assert out.count(called) > 1
    assert "..." not in out.partition("Commands:\n")[2]  # no summary is cut
