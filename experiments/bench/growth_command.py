"""The command that measures an index at growing numbers of documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from muvera.index.default_preset import MANY

from ..datasets.discovery import CACHE, find_collections
from ..report.stored_results import RESULTS, save_results
from ..report.studies import study_text
from .growth import GrowthSettings, measure_size

__all__ = ["grow"]


def grow(
    size: Annotated[list[int] | None, typer.Option(min=1000, help="Documents; may be repeated.")] = None,
    collection: Annotated[
        str, typer.Option(help="Its documents are the first, the others are made of them.")
    ] = ("lareqa-en-e5"),
    data: Annotated[list[Path] | None, typer.Option(help="Folder of collections.")] = None,
    encoder: Annotated[str, typer.Option(help="Preset of the vectors.")] = MANY,
    backend: Annotated[str, typer.Option(help="hnsw, usearch, int8, ...")] = "hnsw",
    codec: Annotated[str, typer.Option(help="How tokens are kept beside the exact ones.")] = "2bit",
    keep_exact: Annotated[
        bool,
        typer.Option(
            "--exact/--codes-alone", help="Whether exact tokens are kept, and order the best by codes."
        ),
    ] = True,
    queries: Annotated[int, typer.Option(min=1, help="Those whose exact best documents are found.")] = 50,
    cache: Annotated[Path, typer.Option(help="Where indexes and what was measured are kept.")] = CACHE,
    save: Annotated[
        bool,
        typer.Option("--save", help=f"Store the table in {RESULTS.name}/, from which `results` writes."),
    ] = False,
) -> None:
    """Build, search and change indexes of more and more documents; goes on where it was interrupted."""
    try:
        path = find_collections(data, cache, [collection])[collection]
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    folder = cache.expanduser() / "growth"
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "collection": collection,
        "encoder": encoder,
        "backend": backend,
        "codec": codec,
        "keep_exact": keep_exact,
        "judged": queries,
    }
    try:
        rows = [
            measure_size(path, GrowthSettings(**settings), count, folder)
            for count in sorted(set(size or [10_000, 100_000, 300_000]))
        ]
    except RuntimeError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    found = {**settings, "rows": rows}
    if save:
        save_results("growth", found)
    typer.echo(study_text("growth", found))
