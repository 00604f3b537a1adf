"""Shared by all commands: help, version, errors, exit codes, progress bars."""

import atexit
import errno
import gc
import os
import re
import struct
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from builders.command_line import COMMANDS, answer, fails, muvera
from builders.paths import ROOT

from muvera import MuveraIndex, __version__, cli
from muvera.cli import printing
from muvera.cli.errors import one_line
from muvera.cli.printing import progress_bar
from muvera.convert import RULES, formats
from muvera.convert.pipeline import WRITERS
from muvera.convert.registry import READERS
from muvera.convert.writers import VECTOR_WRITERS
from muvera.fde.config import PRESETS
from muvera.utils.hints import Argument, Hint, Message
from muvera.utils.parallel import stage

#: Libraries that help must not import.
HEAVY = ("numpy", "numba", "scipy", "hnswlib", "tqdm", "filelock", "threadpoolctl", "pyarrow", "altair")


def started(*arguments: object) -> "subprocess.Popen[str]":
    environment, pipe = {**os.environ, "PYTHONPATH": str(ROOT)}, subprocess.PIPE
    command = [sys.executable, *map(str, arguments)]
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def test_help_imports_no_heavy_library() -> None:
    program = f"import sys, muvera.cli; print([name for name in {HEAVY} if name in sys.modules])"
    assert started("-c", program).communicate(timeout=60) == ("[]\n", "")


def test_as_a_program(tmp_path: Path) -> None:
    program = started("-m", "muvera", "info", tmp_path / "nothing")
    out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (2, "")
    assert err.startswith("muvera: error: ") and err.count("\n") == 1
    program = started("-m", "muvera", "--help")
    assert program.stdout is not None and program.stderr is not None
    program.stdout.close()  # a closed pipe is not an error
    assert "Traceback" not in program.stderr.read()
    program.stderr.close()
    program.wait(timeout=60)


def test_help_lists_every_command() -> None:
    code, out, err = muvera("--help")
    assert (code, err) == (0, "")
    assert all(f"\n  {name} " in out for name in (*COMMANDS, "texts"))
    assert muvera() == muvera("-h") == (0, out, "")
    assert muvera("texts") == muvera("texts", "--help")
    assert "{INDEX} [QUERY]" in muvera("texts", "search", "--help")[1]


def test_version() -> None:
    assert muvera("--version") == (0, f"muvera {__version__}\n", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_has_an_example_of_it(name: str) -> None:
    code, out, _ = muvera(name, "--help")
    assert code == 0 and muvera(name, "-h")[1] == out
    example = out[out.index("Example") :]
    assert f"muvera {name}" in example[: example.index("Options:")]
    assert "--json" in out or name in ("demo", "serve", "mcp")


def test_wrong_usage_is_one_line() -> None:
    for arguments, text, command in (
        (["serach"], "'search'", "muvera"),
        (["index", "--nothing"], "--nothing", "muvera index"),
        (["search", "a", "b", "-k", "many"], "'--k'", "muvera search"),
        (["texts", "index", "a", "b", "--tokens", "int3"], "': 'int3' is not one of", "muvera texts index"),
    ):
        line = fails(*arguments)
        assert text in line and line.endswith(f" See {command} --help.\n")


def test_errors_and_their_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = muvera("--debug", "search", "nowhere", "queries.npy")
    assert code == 2 and "Traceback" in err
    assert err.splitlines()[-1].startswith("muvera: error: ")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(MuveraIndex, "load", broken)
    code, out, err = muvera("search", "a", "b")
    assert (code, out) == (1, "")
    assert "unexpected RuntimeError: first second" in err and err.count("\n") == 1
    code, _, err = muvera("--debug", "search", "a", "b")
    assert code == 1 and "in broken" in err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError(Message(Argument("max_bytes", "9"), " is\n too few.")), "--max-bytes 9 is too few."),
        (ValueError(Message("Give ", Argument("k", ""), ".")), "Give --k."),
        (ValueError(Message("Codes, got ", Argument("k", "None"), ".")), "Codes, got no --k."),
        (ValueError(Message("Give ", Argument("k", "'all'"), ".")), "Give --k all."),
        (ValueError(Message(Argument("k"), " must be at least 1.")), "--k must be at least 1."),
        (ValueError(Message("Give ", Argument("bulk", "3"), ".")), "Give bulk=3."),
        (ValueError("A k must stay, and so must k=3."), "A k must stay, and so must k=3."),
        (ValueError(Message("threads is 0. ", Hint("omit", "Use None"), " for all cores.")),
         "threads is 0. Omit it for all cores."),
        (ValueError(Message("No. ", Hint("unknown to the command line", "Call it."))), "No. Call it."),
        (OSError(errno.ENOSPC, "No space left on device", "out/tokens.npy"),
         "out/tokens.npy: No space left on device."),
        (KeyError("id 7 is not in the index."), "id 7 is not in the index."),
        (ValueError(Message("Select one with ", Argument("column", ""), ".")), "Select one with -o column=NAME."),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", b"a.npy"),
         "a.npy: No such file or directory."),
    ],
)  # fmt: skip
def test_errors_name_options(error: Exception, line: str) -> None:
    assert one_line(error, {"max_bytes": "--max-bytes", "k": "--k", "option": "--option"}) == line


def without_width() -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return {**environment, "PYTHONPATH": str(ROOT)}


def on_terminal(program: str, columns: int) -> str:
    """Return what a program writes to a terminal of this width."""
    import fcntl
    import pty
    import termios

    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-c", program]
    shown = b""
    with subprocess.Popen(command, stdout=writer, stderr=writer, env=without_width()) as process:
        os.close(writer)
        with suppress(OSError):  # at the end
            while part := os.read(reader, 4096):
                shown += part
    os.close(reader)
    assert process.returncode == 0, shown
    return shown.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_output_fits_the_terminal_and_is_whole_in_a_pipe() -> None:
    program = "from muvera.cli.printing import wrapped; print(wrapped('word ' * 40))"
    shown = on_terminal(program, 60).split("\r\n")
    assert len(shown) > 3 and max(map(len, shown)) <= 60
    command = [sys.executable, "-c", program]
    environment = {**without_width(), "COLUMNS": "60"}
    piped = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
    assert piped.stdout.decode().count("\n") == 1


def test_a_progress_bar_moves_during_a_long_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(printing, "_REDRAW_SECONDS", 0.01)
    with progress_bar(3, "steps", "hidden in a log") as advance:
        advance(3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    def drawn(title: str) -> bool:
        deadline, count = time.monotonic() + 20, 0
        while count < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
            count += capsys.readouterr().err.count(title)
        return count >= 5

    with progress_bar(3, "texts", "encoding") as advance:
        assert drawn("encoding")
        advance(3)
        assert drawn("finishing")
        with stage("learning"):
            assert drawn("learning")


def test_a_log_gets_a_line_each_interval(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(printing, "_NOTE_SECONDS", 0.05)

    def logged(pattern: str) -> bool:
        capsys.readouterr()
        deadline, found = time.monotonic() + 20, None
        while found is None and time.monotonic() < deadline:
            time.sleep(0.02)
            found = re.search(pattern, capsys.readouterr().err, re.MULTILINE)
        return found is not None

    with progress_bar(4000, "texts", "encoding") as advance:
        assert logged(r"^encoding: 0 of 4,000 texts \(0%\), after \d+ s$")
        advance(1000)
        assert logged(r"^encoding: 1,000 of 4,000 texts \(25%\), about \d+ s left$")
        advance(3000)
        assert logged(r"^finishing, after \d+ s$")


def test_compiling_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    import numba

    monkeypatch.setattr(printing, "_NOTE_SECONDS", 0.001)
    with progress_bar(None, "texts", "encoding"):
        numba.njit(lambda number: number + 1)(1)
        while "encoding, compiling, after" not in capsys.readouterr().err:
            numba.njit(lambda number: number + 1)(1)
        capsys.readouterr()
        time.sleep(0.05)
        assert "encoding, after" in capsys.readouterr().err


def test_a_step_of_unknown_length_shows_its_clock_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar(None, "texts", "fitting"):
        pass
    drawn = capsys.readouterr().err
    assert "fitting: [00:00]" in drawn and "texts/s" not in drawn


def test_a_long_job_is_announced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    printing.announce("3,000 texts", 400, lambda: 57.3e6)
    expected = "3,000 texts: this will take about 57.3 MB on disk, and about 7 min.\n"
    assert capsys.readouterr().err == expected
    printing.announce("3 texts", 9, lambda: pytest.fail("the size of a short job was computed"))
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [80, 40])
def test_progress_fits_the_terminal(columns: int) -> None:
    program = """
import time
from muvera.cli import printing
from muvera.utils.parallel import share_done, stage
printing._REDRAW_SECONDS = 0.02
with printing.progress_bar(200_000, "documents", "indexing") as advance:
    advance(70_000)
    time.sleep(0.3)
    with stage("learning the projection"):
        share_done(0.3)
        time.sleep(0.3)
    advance(130_000)
    with stage("measuring recall"):
        share_done(0.45)
        time.sleep(0.3)
"""
    drawn = re.split(r"[\r\n]+", on_terminal(program, columns))
    assert max(map(len, drawn)) <= columns
    for shown in ("indexing:  35%", "learning the projection 30%", "measuring recall 45%"):
        assert any(line.startswith(shown) for line in drawn), (shown, drawn)


def test_shells_complete_commands() -> None:
    environment = {"_MUVERA_COMPLETE": "complete_bash", "COMP_WORDS": "muvera texts sea", "COMP_CWORD": "2"}
    program = "from muvera.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    assert done.stdout.split() == ["search"], done.stderr


def test_a_program_rarely_searches_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    at_end: list[object] = []
    thresholds: list[int] = []
    monkeypatch.setattr(gc, "set_threshold", thresholds.append)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(atexit, "register", at_end.append)
    monkeypatch.setattr(cli, "app", lambda prog_name: None)
    cli.main()
    assert at_end == [gc.freeze] and thresholds == [10_000]


def test_formats_and_help_list_every_name() -> None:
    """The lists of help are written out, because help must not import the tables."""
    out = muvera("formats")[1]
    words = " ".join(out.split())
    for name, description in formats().items():
        assert (
            f"\n  {name} " in out and f"{description} muvera convert {READERS[name].example} tokens" in words
        )
    examples = {name: f"muvera convert {reader.example} tokens" for name, reader in READERS.items()}
    written = {"examples": examples, "written": list(WRITERS), "vectors": list(VECTOR_WRITERS)}
    assert answer("formats") == {"read": formats(), **written}
    for command, names in (("convert", [*WRITERS, *RULES]), ("encode", [*VECTOR_WRITERS, *PRESETS])):
        words = " ".join(muvera(command, "--help")[1].split()).replace("- ", "-")
        assert [name for name in names if name not in words] == []
