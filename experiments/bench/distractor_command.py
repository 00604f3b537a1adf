"""The command that counts candidates as distractors are added."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..datasets.discovery import CACHE, DATA, find_collections
from ..datasets.loading import load_collection
from ..report.stored_results import RESULTS, save_results
from ..report.studies import study_text
from ..runner.provenance import machine
from .distractors import ENCODERS, KINDS, fitted_encoders, measure

__all__ = ["distractors"]


def distractors(
    size: Annotated[list[int] | None, typer.Option(help="Documents; may be repeated.")] = None,
    collection: Annotated[str, typer.Option()] = "cranfield-minilm",
    data: Annotated[
        list[Path] | None,
        typer.Option(help=f"Folder of collections. Default: {DATA} and what `encode` made."),
    ] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help=f"May be repeated: {'; '.join(ENCODERS)}. Default: all.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    cache: Annotated[Path, typer.Option(help="Where embeddings are kept that `encode` made.")] = CACHE,
    save: Annotated[
        bool,
        typer.Option("--save", help=f"Store the counts in {RESULTS.name}/, from which `results` writes."),
    ] = False,
) -> None:
    """Count the candidates that each kind of vector needs as distractors are added to a collection."""
    try:
        read = load_collection(find_collections(data, cache, [collection])[collection])
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    sizes = size or [len(read.documents), 3000, 10_000, 30_000]
    if min(sizes) < len(read.documents):  # before anything is fitted
        raise typer.BadParameter(f"{collection} has {len(read.documents)} documents: give no --size below.")
    try:
        encoders = fitted_encoders(read.documents, encoder or tuple(ENCODERS))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    kinds = {
        kind: [asdict(one) for one in measure(read, sizes, encoders, kind, queries=queries)] for kind in KINDS
    }
    count = min(queries, len(read.queries))
    values = {"collection": collection, "queries": count, "machine": machine(), "kinds": kinds}
    if save:
        save_results("distractors", values)
    typer.echo(study_text("distractors", values))
