"""Measurements of this library, baselines and peers: ``python -m experiments --help``."""

from __future__ import annotations

import typer

from .bench.cold_command import cold
from .bench.distractor_command import distractors
from .bench.growth_command import grow
from .bench.pruning_command import pruning
from .bench.token_command import tokens
from .commands import add_commands
from .report.page import page

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
add_commands(app)
app.command()(page)
app.command()(tokens)
app.command()(cold)
app.command()(grow)
app.command()(distractors)
app.command()(pruning)


if __name__ == "__main__":
    app()
