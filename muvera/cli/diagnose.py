"""``muvera diagnose``: the geometry of token embeddings, and the recall of every encoder on them."""

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
    seed: Annotated[int, typer.Option(help="Fixes what is drawn.")] = 0,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure token embeddings and all encoders of them on a sample, and recommend one.

    --format and --option are for SOURCE; the format of --queries is found out, and of a folder
    that has documents and queries the queries are read.  The FDE of --config is measured besides
    the presets.

    \b
    Example:
      muvera diagnose docs --queries docs
    """
    from ..diagnostics.diagnose import diagnose as run
    from ..encoders.fde.config import FDEConfig
    from .settings import configuration
    from .sources import read_collections

    with progress_bar(None, "steps", "measuring", quiet) as advance:
        documents, given = read_collections(source, queries, format, part, option)
        chosen = None if config is None else configuration(documents.dimension, "fde", config, {})[0]
        if chosen is not None and not isinstance(chosen, FDEConfig):
            raise ValueError(
                f"--config must describe an FDE, and {config} describes another encoder. Leave it out: diagnose "
                "measures all kinds."
            )
        diagnosis = run(documents, given, chosen, sample=sample, seed=seed, threads=threads, progress=advance)
    if json_:
        print_json({"source": str(source), **diagnosis.to_dict()})
    else:
        typer.echo(diagnosis.text)
