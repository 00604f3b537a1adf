"""Print: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

#: Start of a warning.
WARNING = "muvera: warning: "

# A command announces the cost of jobs of at least this many seconds.
_LONG_JOB = 10.0

# Seconds between two drawings of a bar without progress.
_REDRAW_SECONDS = 0.5

# Seconds between two lines about the progress in a log.
_NOTE_SECONDS = 60.0


def note(text: str) -> None:
    """Print a line to standard error."""
    typer.echo(text, err=True)


def warn(text: str) -> None:
    """Print a warning to standard error."""
    note(WARNING + text)


def announce(what: str, duration: float, size: Callable[[], float]) -> None:
    """Say before a long job how many bytes and about how many seconds it takes.

    `what` is how much will be done, such as "3,000 texts".  `size` is called only if
    the job is long.
    """
    if duration >= _LONG_JOB:
        note(f"{what}: this will take about {megabytes(size())} on disk, and about {clock(duration)}.")


def show(json_: bool, facts: Mapping[str, Any], text: str, *remarks: str) -> None:
    """Print the result of a command.

    With `json_`, print only `facts`.  Otherwise print `text`, unless it is empty, and
    `remarks` such as warnings and durations to standard error.
    """
    if json_:
        typer.echo(json.dumps(facts, ensure_ascii=False, indent=1))
        return
    typer.echo(text, nl=bool(text))
    for remark in remarks:
        note(remark)


@contextmanager
def progress_bar(total: int | None, unit: str, title: str) -> Iterator[Callable[[int], object]]:
    """Show progress on standard error, and yield the function that advances it.

    A terminal gets a bar whose clock also runs during a long step.  A log gets a line a
    minute.  Both name the stage, which is `title` at first, and say if code is
    compiled.  `total` is None if the number of units is unknown.
    """
    from ..utils.parallel import listening

    state = _State(total, unit, title)
    with listening(state.stages.append), _compiling(state):
        if sys.stderr.isatty():
            with _bar(state) as advance:
                yield advance
        else:
            with _repeated(_NOTE_SECONDS, lambda: note(state.line())):
                yield state.advance


class _State:
    """How far some work is."""

    def __init__(self, total: int | None, unit: str, title: str) -> None:
        self.total, self.unit, self.title = total, unit, title
        self.done = 0
        self.stages = [""]
        #: Number of functions that are being compiled: one may need others.
        self.compiling = 0
        self._begun = time.monotonic()

    def advance(self, count: int) -> None:
        self.done += count

    @property
    def complete(self) -> bool:
        return self.total is not None and self.done >= self.total > 0

    @property
    def stage(self) -> str:
        """What is done now."""
        name = self.stages[-1] or ("finishing" if self.complete else self.title)
        return f"{name}, compiling" if self.compiling else name

    def line(self) -> str:
        """Return a line for a log."""
        elapsed = time.monotonic() - self._begun
        if not self.total or self.complete or self.stages[-1]:
            return f"{self.stage}, after {clock(elapsed)}"
        line = f"{self.stage}: {self.done:,} of {self.total:,} {self.unit} ({self.done / self.total:.0%})"
        if not self.done:
            return f"{line}, after {clock(elapsed)}"
        return f"{line}, about {clock(elapsed * (self.total - self.done) / self.done)} left"


@contextmanager
def _compiling(state: _State) -> Iterator[None]:
    """Count the functions that numba compiles."""
    from numba.core import event

    class Listener(event.Listener):
        def on_start(self, _: object) -> None:
            state.compiling += 1

        def on_end(self, _: object) -> None:
            state.compiling -= 1

    with event.install_listener("numba:compile", Listener()):
        yield


@contextmanager
def _repeated(interval: float, work: Callable[[], object]) -> Iterator[None]:
    """Call `work` every `interval` seconds in another thread."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(interval):
            work()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _bar(state: _State) -> Iterator[Callable[[int], object]]:
    """Draw a bar.  The stage and the clock replace a complete one."""
    from tqdm import tqdm

    total, alone = state.total, "{desc}[{elapsed}]"
    options: dict[str, Any] = {"unit": f" {state.unit}", "unit_scale": True, "desc": f"{state.title}: "}
    with tqdm(total=total, bar_format=None if total else alone, leave=False, **options) as bar:

        def advance(count: int) -> None:
            state.advance(count)
            bar.update(count)

        def redraw() -> None:
            bar.bar_format = alone if state.complete or not (total or state.done) else None
            bar.set_description(state.stage)

        with _repeated(_REDRAW_SECONDS, redraw):
            yield advance


def columns() -> int | None:
    """Return the width of printed text: the terminal's width, at most 100.

    None without a terminal: a file or another program gets each line whole.
    """
    return min(100, shutil.get_terminal_size((80, 24)).columns) if sys.stdout.isatty() else None


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


def clock(duration: float) -> str:
    """Return a duration as "2 h 5 min", "5 min" or "40 s"."""
    if duration < 60:
        return f"{duration:.0f} s"
    hours, minutes = divmod(round(duration / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def display_width(text: str) -> int:
    """Return the columns of a terminal that a text fills.

    A wide character fills two columns, and a combining one none.
    """
    widths = (
        1 + (unicodedata.east_asian_width(each) in "WF") for each in text if not unicodedata.combining(each)
    )
    return sum(widths)


def shortened(text: str, width: int | None) -> str:
    """Return a text as one line, cut between words to at most `width` columns."""
    if width is None:
        return " ".join(text.split())
    text = " ".join(text[: 20 * width].split())
    return text if display_width(text) <= width else f"{_lines(text, width - 4)[0][: width - 4]} ..."


def wrapped(text: str, first: str = "", later: str = "  ") -> str:
    """Wrap each line of a text to at most :func:`columns`, if that is a number.

    The first of the lines that one line becomes is indented by `first`, the others by
    `later`.
    """
    width, lines = columns(), text.split("\n")
    if width is None:
        return "\n".join(first + line if line else line for line in lines)
    return "\n".join("\n".join(_lines(line, width, first, later)) for line in lines)


def _lines(text: str, width: int, first: str = "", later: str = "") -> list[str]:
    # A NUL after each wide character fills its second column while textwrap counts
    # characters.
    padded = "".join(f"{character}\0" if display_width(character) == 2 else character for character in text)
    wide = "\0" in padded
    width -= wide  # a line may end between a character and its NUL
    # Wide characters have no spaces between words; a path stays whole, so that it can
    # be copied.
    lines = textwrap.wrap(
        padded, width, initial_indent=first, subsequent_indent=later, break_long_words=wide,
        break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace("\0", "") for line in lines]
