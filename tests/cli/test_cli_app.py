"""What all commands share: help, version, errors in one line, exit codes."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from builders.command_line import COMMANDS, fails, muvera, some_texts
from builders.paths import ROOT
from typer.testing import CliRunner

from muvera import MuveraIndex, __version__
from muvera.cli import app
from muvera.cli.options import PRESETS_TO_START_FROM
from muvera.encoders.registry import PRESETS

FOLDER = ROOT


def program(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "muvera.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(FOLDER), "COLUMNS": "120"}


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        program(*arguments), capture_output=True, text=True, env=environment(), timeout=120, check=False
    )


def test_help_names_every_command() -> None:
    code, out, err = muvera("--help")
    assert (code, err) == (0, "")
    for name in COMMANDS:
        assert f"\n  {name} " in out
    assert "muvera demo" in out
    assert muvera() == (0, out, "")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "convert"])
def test_every_command_has_help_with_an_example(name: str) -> None:
    code, out, _ = muvera(name, "--help")
    assert code == 0
    example = out[out.index("Example") :]
    assert f"muvera {name}" in example[: example.index("Options:")]
    assert "--json" in out or name == "serve"


def test_help_names_every_preset() -> None:
    assert set(PRESETS_TO_START_FROM.replace(" or ", ", ").split(", ")) == set(PRESETS)


def test_help_of_the_commands_of_texts_begins_with_a_sentence() -> None:
    assert "Encode texts, build an index of them" in muvera("texts", "--help")[1]


def test_version() -> None:
    assert muvera("--version") == (0, f"muvera {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "sentence", "help"),
    [
        (["serach"], "No such command 'serach'. Did you mean 'search'?", "muvera"),
        (["index", "--nothing"], "No such option: --nothing", "muvera index"),
        (["index", "a"], "Missing argument", "muvera index"),
        (["--nothing"], "No such option: --nothing", "muvera"),
        (["search", "a", "b", "-k", "many"], "Invalid value for '--k'", "muvera search"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], sentence: str, help: str) -> None:
    line = fails(*arguments)
    assert sentence in line
    assert line.endswith(f" See {help} --help.\n")


def test_unexpected_errors_are_one_line_and_another_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(MuveraIndex, "load", broken)
    code, out, err = muvera("search", "a", "b")
    assert (code, out) == (1, "")
    assert err == "muvera: error: unexpected RuntimeError: first second (muvera --debug shows where)\n"
    code, _, err = muvera("--debug", "search", "a", "b")
    assert code == 1
    assert "Traceback" in err and "in broken" in err


def test_expected_errors_show_their_traceback_with_debug() -> None:
    code, _, err = muvera("--debug", "search", "nowhere", "queries.npy")
    assert code == 2
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("muvera: error: ")


def test_usage_errors_pass_through_click_without_standing_alone() -> None:
    result = CliRunner().invoke(app, ["--version"], standalone_mode=False)
    assert result.exit_code == 0


def test_as_a_program(tmp_path: Path) -> None:
    version = run("--version")
    assert (version.returncode, version.stdout, version.stderr) == (0, f"muvera {__version__}\n", "")
    wrong = run("info", tmp_path / "nothing")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("muvera: error: ") and wrong.stderr.count("\n") == 1


def test_a_reader_that_leaves_a_pipe_is_no_error(tmp_path: Path) -> None:
    process = subprocess.Popen(
        program("--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait(timeout=60)


def _spooling(folder: Path) -> bool:
    """Whether an index that is being built has begun to write its tokens beside the target."""
    return any(path.is_file() and path.stat().st_size > 1 << 20 for path in folder.glob(".out.*/*"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to another process")
def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    # A sparse file: hundreds of megabytes to read, none on the disk.
    docs = tmp_path / "docs"
    docs.mkdir()
    shape = (6_000_000, 32)
    np.lib.format.open_memmap(docs / "tokens.npy", mode="w+", dtype=np.float16, shape=shape)
    np.save(docs / "lengths.npy", np.full(6000, 1000))
    small = ["--num-repetitions", 2, "--num-simhash-projections", 2, "--exact-tokens", 0, "--threads", 1]
    process = subprocess.Popen(
        program("index", docs, tmp_path / "out", *small),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        # A shell starts its background jobs with the signal ignored, and so would the child be.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    while not _spooling(tmp_path) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, ""), err
    assert err == "muvera: interrupted; nothing incomplete was left under its final name.\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs"]


@pytest.mark.parametrize("command", ["index", "encode"])
def test_an_interrupt_in_the_middle_leaves_nothing(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_texts().save(tmp_path / "docs")
    real = some_texts()

    def interrupted(*_: object) -> object:
        yield real[:10]
        raise KeyboardInterrupt

    monkeypatch.setattr("muvera.cli.sources.stream", interrupted)
    extra = ["--preset", "paper", "--num-repetitions", 2] if command == "encode" else ["--exact-tokens", 0]
    code, out, err = muvera(command, tmp_path / "docs", tmp_path / "out", *extra)
    assert (code, out) == (130, "")
    assert "interrupted" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs"]
