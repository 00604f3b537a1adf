"""Help is answered without loading what computes, and names what there is."""

import os
import subprocess
import sys

import pytest
from builders.command_line import COMMANDS, muvera
from builders.paths import ROOT

from muvera.convert import RULES
from muvera.convert.registry import WRITERS
from muvera.convert.writers.store_limits import LIMITS

#: What takes long to load, or is wanted by a command's work alone.
HEAVY = ("numpy", "numba", "scipy", "hnswlib", "tqdm", "filelock", "threadpoolctl", "pyarrow", "altair")

PROGRAM = f"""
import sys
from muvera.cli.app import app
for arguments in ([], *([name] for name in {COMMANDS})):
    try:
        app([*arguments, "--help"])
    except SystemExit as end:
        assert not end.code, (arguments, end.code)
print([name for name in {HEAVY} if name in sys.modules])
"""


def test_no_help_loads_a_library_that_computes() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.count("Usage: ") == 1 + len(COMMANDS)


@pytest.mark.parametrize("arguments", [(), *((name,) for name in COMMANDS)])
def test_h_is_help(arguments: tuple[str, ...]) -> None:
    assert muvera(*arguments, "-h") == muvera(*arguments, "--help")


@pytest.mark.parametrize(
    ("command", "names"), [("convert", [*WRITERS, *RULES]), ("encode", LIMITS), ("index", ["muvera formats"])]
)
def test_lists_in_help_are_complete(command: str, names: list[str]) -> None:
    """They are written out, for reading them from the tables would load these modules."""
    words = " ".join(muvera(command, "--help")[1].split()).replace("- ", "-")
    for name in names:
        assert name in words, name
