"""``muvera diagnose``: what a model's token vectors look like, and which FDEs suit them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import ConfigFile, Format, Json, ReaderOption, Source, Threads
from .output import print_json

__all__ = ["diagnose"]


def diagnose(
    source: Source,
    queries: Annotated[
        Path | None,
        typer.Option(help="Query embeddings of the same model. Default: windows of documents stand in."),
    ] = None,
    format: Format = None,
    part: Annotated[
        str | None, typer.Option(help="docs (the default) or queries, where SOURCE has both.")
    ] = None,
    option: ReaderOption = None,
    config: ConfigFile = None,
    sample: Annotated[int, typer.Option(help="Documents to measure; time grows in proportion.")] = 1000,
    seed: Annotated[int, typer.Option(help="Fixes what is drawn.")] = 0,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Measure token embeddings, and say which configuration suits them and what to expect.

    --format and --option are for SOURCE; --queries finds its own, and of a folder that has
    documents and queries it takes the queries.  --config is looked at besides the presets.

    \b
    Example:
      muvera diagnose docs --queries docs
    """
    from ..convert import read
    from ..diagnostics.diagnose import diagnose as run
    from ..encoders.fde.config import FDEConfig
    from .settings import configuration
    from .sources import open_documents, open_queries

    documents = read(open_documents(source, format, part, option))
    asked = None if queries is None else read(open_queries(queries))
    chosen = None if config is None else configuration(documents.dimension, "default", config, {})[0]
    if chosen is not None and not isinstance(chosen, FDEConfig):
        raise ValueError(f"diagnose measures FDEs, but {config} describes a learned encoder. Use tune.")
    diagnosis = run(documents, asked, chosen, sample=sample, seed=seed, threads=threads)
    if json_:
        print_json({"source": str(source), **diagnosis.to_dict()})
    else:
        typer.echo(diagnosis.text)
