"""The command that measures ways of leaving candidates unscored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..datasets.discovery import CACHE, find_collections
from ..datasets.loading import load_collection
from ..report.stored_results import RESULTS, save_results
from ..report.studies import study_text
from ..runner.provenance import machine
from .pruning import measure

__all__ = ["pruning"]


def pruning(
    data: Annotated[list[Path] | None, typer.Option(help="Folder of collections; may be repeated.")] = None,
    collection: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    peers: Annotated[bool, typer.Option(help="Col-Bandit, too, in an environment of its own.")] = True,
    cache: Annotated[Path, typer.Option(help="Where embeddings and environments are kept.")] = CACHE,
    save: Annotated[
        bool,
        typer.Option("--save", help=f"Store the table in {RESULTS.name}/, from which `results` writes."),
    ] = False,
) -> None:
    """Rank the same candidates in ways that leave some of them unscored."""
    names = collection or ["lareqa-en-e5", "cranfield-minilm", "plaid-colbertv2-lotte500"]
    try:
        paths = find_collections(data, cache, names)
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    on = machine()
    collections = (load_collection(path) for path in paths.values())
    found = {"machine": on, "rounds": rounds, "rows": measure(collections, rounds, cache if peers else None)}
    if save:
        save_results("pruning", found)
    typer.echo(study_text("pruning", found))
