"""Call ``muvera`` in this process, and small collections for it."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from muvera import MultiVectors
from muvera.cli import app, printing

#: Names of the commands.
COMMANDS = tuple(command.name or "" for command in app.registered_commands)


def muvera(*arguments: object, typed: str | None = None) -> tuple[int, str, str]:
    """Return the exit code, output and error output of ``muvera``.

    `typed` is its standard input.
    """
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def answer(*arguments: object) -> Any:
    """Return the JSON document that a command prints with --json, its only output."""
    code, out, err = muvera(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def fails(*arguments: object) -> str:
    """Return the one-line error of a command that refuses its input."""
    code, out, err = muvera(*arguments)
    assert (code, out) == (2, ""), (code, out, err)
    assert err.startswith("muvera: error: ") and err.count("\n") == 1, err
    return err


def set_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Make standard output a terminal of this width; standard error stays a log."""
    stdout, stderr = (SimpleNamespace(isatty=lambda answer=answer: answer) for answer in (True, False))
    monkeypatch.setattr(printing, "sys", SimpleNamespace(stdout=stdout, stderr=stderr))
    monkeypatch.setenv("COLUMNS", str(columns))


def some_texts(count: int = 30, dimension: int = 16, seed: int = 0, ids: bool = True) -> MultiVectors:
    """Return texts of 1 to 9 tokens; the fourth has none."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 10, count)
    lengths[3] = 0
    tokens = rng.normal(size=(lengths.sum(), dimension)).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return MultiVectors.from_flat(tokens, lengths, ids=[f"d{i}" for i in range(count)] if ids else None)
