"""Calling ``muvera`` in this process, and small collections to call it on."""

import json
from typing import Any

import numpy as np
from typer.testing import CliRunner

from muvera import MultiVectors
from muvera.cli import app

#: Every command's name.
COMMANDS = tuple(command.name or "" for command in app.registered_commands)


def muvera(*arguments: object) -> tuple[int, str, str]:
    """Exit code, output and error output of ``muvera`` with these arguments."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def answer(*arguments: object) -> Any:
    """The JSON document that a command prints with --json, which must be all of its output."""
    code, out, err = muvera(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def fails(*arguments: object) -> str:
    """The one line of a command that refuses its input."""
    code, out, err = muvera(*arguments)
    assert (code, out) == (2, ""), (code, out, err)
    assert err.startswith("muvera: error: ") and err.count("\n") == 1, err
    return err


def some_texts(count: int = 30, dimension: int = 16, seed: int = 0, ids: bool = True) -> MultiVectors:
    """Texts of 1 to 9 tokens, the fourth without any."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 10, count)
    lengths[3] = 0
    tokens = rng.normal(size=(lengths.sum(), dimension)).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return MultiVectors.from_flat(tokens, lengths, ids=[f"d{i}" for i in range(count)] if ids else None)
