"""The command that measures ranking of candidates whose tokens are on the disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ..report.stored_results import RESULTS, load_results, save_results
from ..report.studies import study_text
from ..runner.provenance import machine
from .cold_reads import measure
from .disk_settings import read_ahead_of
from .limited_memory import under_limit

__all__ = ["cold"]


def cold(
    folder: Annotated[
        Path | None, typer.Option(help="On the disk that is measured. Default: for temporary files.")
    ] = None,
    megabytes: Annotated[int, typer.Option(min=16)] = 512,
    tokens: Annotated[int, typer.Option(min=1, help="Of a document.")] = 150,
    rounds: Annotated[int, typer.Option(min=1)] = 9,
    read_ahead_kb: Annotated[
        int | None, typer.Option(min=0, help="Set the disk's read-ahead while it runs (as root).")
    ] = None,
    memory: Annotated[
        int,
        typer.Option(
            min=0, help="Also 1,000 queries while so many MB of the file fit into memory (as root)."
        ),
    ] = 0,
    save: Annotated[
        bool,
        typer.Option("--save", help=f"Store the table in {RESULTS.name}/, from which `results` writes."),
    ] = False,
) -> None:
    """Rank 100 candidates whose tokens are on the disk; fails where pages stay in memory."""
    on = machine()
    try:
        with tempfile.TemporaryDirectory(dir=folder) as name, read_ahead_of(Path(name), read_ahead_kb) as kb:
            place = Path(name)
            measured = measure(place, megabytes, tokens, rounds)
            limited = under_limit(place, megabytes, tokens, memory) if memory else []
    except (RuntimeError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    found = {
        **measured,
        "megabytes": megabytes,
        "tokens": tokens,
        "read_ahead_kb": kb,
        "memory": memory,
        "limited": limited,
        "machine": on,
    }
    if save:
        stored = load_results("cold")
        kept = [one for one in stored.get("runs", []) if one["read_ahead_kb"] != kb]
        save_results("cold", {"runs": [*kept, found]})
    typer.echo(study_text("cold", {"runs": [found]}))
