"""Measurements of this library, baselines and peers: ``python -m experiments --help``."""

from __future__ import annotations

from collections.abc import Callable

import typer

from .bench.cold import cold
from .bench.dial import dial
from .bench.distractors import distractors
from .bench.first_stage import first_stage
from .bench.growth import grow
from .bench.load_test import load
from .bench.mixed import mixed
from .bench.pruning import pruning
from .bench.searches import searches
from .bench.speed import speed
from .bench.text_speed import texts
from .bench.tokens import tokens
from .bench.vectors import vectors
from .commands import check, encode, machines, passages, quick, results, run
from .report.page import page

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
COMMANDS: tuple[Callable[..., None], ...] = (
    *(encode, passages, run, quick, check, page, results, machines),
    *(
        speed,
        tokens,
        searches,
        dial,
        pruning,
        cold,
        distractors,
        mixed,
        vectors,
        first_stage,
        grow,
        load,
        texts,
    ),
)
for command in COMMANDS:
    app.command()(command)


if __name__ == "__main__":
    app()
