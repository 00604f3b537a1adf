"""What commands print besides results: errors in the words of the command line, bars that move."""

import errno
import sys
import time
from pathlib import Path

import pytest
from builders.command_line import fails, some_texts

from muvera.cli import output
from muvera.cli.output import one_line, progress_bar


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("max_bytes=9 is\n too few."), "--max-bytes 9 is too few."),
        (ValueError("k must be at least 1, got 0."), "--k must be at least 1, got 0."),
        (ValueError("A k must stay, and so must bulk=3."), "A k must stay, and so must bulk=3."),
        (ValueError("patience is 0. Use None to score every candidate."),
         "patience is 0. Leave it out to score every candidate."),
        (ValueError("threads is 0. Use None for all cores."), "threads is 0. Leave it out for all cores."),
        (OSError(errno.ENOSPC, "No space left on device", "out/tokens.npy"),
         "out/tokens.npy: No space left on device."),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device."),
        (PermissionError("This file is locked."), "This file is locked."),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", b"a.npy"),
         "a.npy: No such file or directory."),
    ],
)  # fmt: skip
def test_errors_in_the_words_of_the_command_line(error: Exception, line: str) -> None:
    assert one_line(error, {"max_bytes": "--max-bytes", "k": "--k"}) == line


def test_only_options_that_were_given_are_named(tmp_path: Path) -> None:
    some_texts().save(tmp_path / "docs")
    given = ["index", tmp_path / "docs", tmp_path / "out"]
    assert "error: --num-repetitions must be" in fails(*given, "--num-repetitions", 0)
    assert "error: --num-repetitions must be" in fails(*given, "--num-repetitions=0")
    (tmp_path / "config.json").write_text('{"num_repetitions": 0}')
    assert "error: num_repetitions must be" in fails(*given, "--config", tmp_path / "config.json")


def test_a_bar_moves_while_a_step_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(output, "_REDRAW_SECONDS", 0.01)
    with progress_bar(None, "steps", "measuring") as advance:
        drawn = 0
        patience = time.monotonic() + 20
        while drawn < 5 and time.monotonic() < patience:
            drawn += capsys.readouterr().err.count("measuring")
            time.sleep(0.01)
        assert drawn >= 5
        advance(1)


def test_no_bar_in_a_log_or_when_quiet(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar(3, "steps", "measuring") as advance:
        advance(3)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar(3, "steps", "measuring", quiet=True) as advance:
        advance(3)
    assert capsys.readouterr().err == ""
