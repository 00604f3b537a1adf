"""``muvera diagnose``: the geometry of token embeddings, and the recall of every preset on them."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import (
    ConfigFile,
    Format,
    Json,
    Part,
    QueryEmbeddings,
    Quiet,
    ReaderOption,
    Source,
    Threads,
)
from .output import print_json, progress_bar

__all__ = ["diagnose"]


def diagnose(
    source: Source,
    queries: QueryEmbeddings = None,
    format: Format = None,
    part: Part = None,
    option: ReaderOption = None,
    config: ConfigFile = None,
    sample: Annotated[int, typer.Option(help="Documents to measure; time grows in proportion.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure token embeddings and the presets on a sample, and recommend one preset.

    --format and --option apply to SOURCE.  The format of --queries is detected; from a folder with documents
    and queries, the queries are read.  The encoder of --config is measured in addition to the presets.

    \b
    Example:
      muvera diagnose docs --queries docs
    """
    from ..diagnostics.diagnose import diagnose as run
    from .settings import configuration
    from .sources import read_collections

    with progress_bar(None, "steps", "measuring", quiet) as advance:
        documents, given = read_collections(source, queries, format, part, option)
        encoder = None if config is None else configuration(documents.dimension, "moments", config, {})[0]
        diagnosis = run(
            documents, given, encoder, sample=sample, seed=seed, threads=threads, progress=advance
        )
    if json_:
        print_json({"source": str(source), **diagnosis.to_dict()})
    else:
        typer.echo(diagnosis.text)
