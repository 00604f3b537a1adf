"""Options that the measuring commands share, and the collections that they name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .datasets.collections import CACHE, DATA, known_collections
from .known_names import require_known
from .report.stored_results import RESULTS

__all__ = ["Cache", "Data", "Json", "Named", "Save", "Seeds", "Threads", "chosen_collections"]

Data = Annotated[
    list[Path] | None,
    typer.Option(
        "--data", help=f"Folder of collections; may be repeated. Default: {DATA} and what `encode` made."
    ),
]
Named = Annotated[list[str] | None, typer.Option("--collection", help="Only this one; may be repeated.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="How many.")]
Cache = Annotated[Path, typer.Option(help="Where environments, embeddings and exact answers are kept.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of tables.")]
Save = Annotated[bool, typer.Option("--save", help=f"Store the results in {RESULTS.name}/ for `readme`.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Default: all usable cores.")]


def chosen_collections(
    data: list[Path] | None, names: list[str] | None, cache: Path = CACHE
) -> dict[str, Path]:
    """Return the collections to measure: all that are known, or those that are named."""
    try:
        paths = known_collections(data, cache)
        for name in names or ():
            require_known(name, paths, "collection")
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    return {name: paths[name] for name in names or paths}
