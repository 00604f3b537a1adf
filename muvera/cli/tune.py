"""``muvera tune``: the encoder that suits documents and their queries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Format, Json, Part, QueryEmbeddings, Quiet, ReaderOption, Source, Threads
from .output import note, print_json, progress_bar

__all__ = ["tune"]


def tune(
    source: Source,
    queries: QueryEmbeddings = None,
    format: Format = None,
    part: Part = None,
    option: ReaderOption = None,
    target_recall: Annotated[
        float | None,
        typer.Option(help="Select the smallest vectors with this recall. Default: the highest recall."),
    ] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Limit of a document's vector in bytes.")] = None,
    max_floats: Annotated[int | None, typer.Option(help="Limit of a document's vector in floats.")] = None,
    candidates: Annotated[
        int | None, typer.Option(help="Documents that a search will rank exactly. Default: 100.")
    ] = None,
    sample: Annotated[int, typer.Option(help="Documents to measure; time grows in proportion.")] = 1500,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Write the configuration here, for muvera index --config.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Plot recall over bytes to a .svg or .png file; needs the extra 'plot'."),
    ] = None,
    threads: Threads = None,
    json_: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare encoders on a sample; held-out queries estimate the recall of the choice.

    Takes some minutes.  --format and --option apply to SOURCE.  The format of --queries is detected; from a
    folder with documents and queries, the queries are read.

    \b
    Example:
      muvera tune docs --queries queries --max-bytes 1024 --out tuned.json
      muvera index docs docs.index --config tuned.json
    """
    from ..tuning.plot import plot_tuning, require_plot
    from ..tuning.tune import tune as run
    from .sources import read_collections

    # Checked before the tuning, which takes minutes.
    for path in (out, plot):
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into. Make it.")
    if plot is not None:
        require_plot(plot)
    with progress_bar(None, "steps", "measuring", quiet) as advance:
        documents, given = read_collections(source, queries, format, part, option)
        tuning = run(
            documents,
            given,
            target_recall=target_recall,
            max_bytes=max_bytes,
            max_floats=max_floats,
            candidates=candidates,
            sample=sample,
            seed=seed,
            threads=threads,
            progress=advance,
        )
    if out is not None:
        tuning.save(out)
    if plot is not None:
        plot_tuning(tuning, plot)
    if json_:
        print_json({"source": str(source), **tuning.to_dict()})
        return
    typer.echo(tuning.text)
    if out is not None and not quiet:
        note(f"wrote {out}, for: muvera index {source} INDEX --config {out}")
