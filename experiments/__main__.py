"""Measure this library, baselines and other libraries."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from muvera.cli import errors

from .bench.adapt import adapt
from .bench.cold import cold
from .bench.explanations import explanations
from .bench.first_stage import first_stage
from .bench.growth import grow
from .bench.landmarks import landmarks
from .bench.long_texts import long_texts
from .bench.meter import meter
from .bench.onnx_files import onnx
from .bench.pages import pages
from .bench.pipeline import pipeline
from .bench.recall_dial import recall_dial
from .bench.scale import scale
from .bench.searches import dial, searches
from .bench.server import server
from .bench.size import size
from .bench.speed import speed
from .bench.static_texts import static
from .bench.tokens import tokens
from .bench.vectors import vectors
from .bench.words import words
from .commands import check, encode, get, machines, page, passages, quick, recompute, results, run


class Commands(errors.Commands):
    """Print a usage error in one line, as ``muvera`` does."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        return TyperGroup.invoke(self, ctx)


app = typer.Typer(
    name="experiments", cls=Commands, no_args_is_help=True, add_completion=False, rich_markup_mode=None,
    pretty_exceptions_enable=False, help=__doc__,
)  # fmt: skip
for command in (get, encode, passages, run, quick, check, recompute, page, results, machines):
    app.command()(command)
for bench in (
    speed,
    tokens,
    searches,
    dial,
    recall_dial,
    meter,
    pipeline,
    vectors,
    landmarks,
    size,
    words,
    static,
    explanations,
    long_texts,
    first_stage,
    grow,
    pages,
    scale,
    adapt,
    cold,
    server,
    onnx,
):
    app.command()(bench)


if __name__ == "__main__":
    app()
