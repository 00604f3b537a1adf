"""``muvera tune``: choose the encoder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from typer import Option

import muvera

from .options import (
    FormatOption,
    JsonOption,
    QueriesOption,
    ReaderOptions,
    SampleOption,
    SourceArgument,
    ThreadsOption,
)
from .printing import progress_bar, show, wrapped


def tune(
    source: SourceArgument,
    queries: QueriesOption = None,
    format: FormatOption = None,
    option: ReaderOptions = None,
    target_recall: Annotated[
        float | None, Option(help="Choose the smallest vectors with this recall.")
    ] = None,
    max_bytes: Annotated[int | None, Option(help="Maximum bytes of a document's vector.")] = None,
    candidates: Annotated[int | None, Option(help="Documents to rank (default: 100, or fewer).")] = None,
    sample: SampleOption = 1500,
    out: Annotated[Path | None, Option(help="A file for muvera index --config.")] = None,
    threads: ThreadsOption = None,
    json_: JsonOption = False,
) -> None:
    """Choose the encoder for your documents and queries.

    Many encoders are compared on a sample, which takes a few minutes.  Held-out queries
    estimate the recall of the choice.

    \b
    Example:
      muvera tune docs --queries queries --max-bytes 1024 --out tuned.json
      muvera index docs docs.index --config tuned.json
    """
    from ..tuning.tune import encoder_configs
    from ..utils.checks import as_path
    from .sources import read_documents_and_queries

    if out is not None and not as_path(out, "--out", "file").parent.is_dir():  # before the work
        raise FileNotFoundError(f"The folder {out.parent} of {out.name} does not exist. Create it first.")
    if out is not None and not os.access(out.parent, os.W_OK):
        raise PermissionError(f"The folder {out.parent} of {out.name} cannot be written. Give another one.")
    documents, query_vectors = read_documents_and_queries(source, queries, format, option)
    steps = 1 + len(encoder_configs(documents.dimension))  # fewer with --max-bytes
    with progress_bar(steps, "steps", "measuring") as advance:
        tuning = muvera.tune(
            documents, query_vectors, target_recall=target_recall, max_bytes=max_bytes, candidates=candidates,
            sample=sample, threads=threads, progress=advance,
        )  # fmt: skip
    remarks = []
    if out is not None:
        tuning.save(out)
        remarks = [f"wrote {out}, for: muvera index {source} INDEX --config {out}"]
    show(json_, {"source": str(source), **tuning.to_dict()}, wrapped(tuning.text), *remarks)
