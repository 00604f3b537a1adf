"""The command that measures token codecs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from threadpoolctl import threadpool_limits

from ..datasets.discovery import CACHE, DATA, find_collections
from ..datasets.loading import load_collection
from ..report.stored_results import RESULTS, save_results
from ..report.studies import study_text
from ..runner.provenance import machine
from .tokens import measure

__all__ = ["tokens"]

#: Collections whose tokens are coded.
CODED = ("lareqa-en-e5", "cranfield-minilm")


def tokens(
    data: Annotated[
        list[Path] | None,
        typer.Option(help=f"Folder of collections; may be repeated. Default: {DATA} and what `encode` made."),
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help=f"Default: {' and '.join(CODED)}; may be repeated.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1)] = 9,
    cache: Annotated[Path, typer.Option(help="Where embeddings are kept that `encode` made.")] = CACHE,
    save: Annotated[
        bool,
        typer.Option("--save", help=f"Store the tables in {RESULTS.name}/, from which `results` writes."),
    ] = False,
) -> None:
    """Measure token codecs: what they find, their bytes, and the time of ranking candidates by them."""
    try:
        paths = find_collections(data, cache, collection or list(CODED))
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    measured_on = machine()
    with threadpool_limits(1):
        found = measure((load_collection(path) for path in paths.values()), rounds)
    found |= {"machine": measured_on, "rounds": rounds}
    if save:
        save_results("tokens", found)
    typer.echo(study_text("tokens", found))
