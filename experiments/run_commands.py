"""Commands of the study: ``python -m experiments encode | run | check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from threadpoolctl import threadpool_limits

from .datasets.collections import CACHE, DATA
from .datasets.embedded import DatasetPath, StudyCollection, find_places
from .datasets.encode_texts import encode_texts
from .known_names import require_known
from .report.stored_results import save_results
from .runner.check import check_run, record_run
from .runner.configuration import load_experiments
from .runner.outputs import stored_study
from .runner.run import Options, run_study
from .runner.smoke import smoke_collections, smoke_experiment

__all__ = ["add_commands"]

#: What a run without configurations runs.
ALL = "study"


def add_commands(app: typer.Typer) -> None:
    """Add the study's commands to the experiments' application."""
    app.command()(encode)
    app.command()(run)
    app.command()(check)


def encode(
    texts: Annotated[
        str,
        typer.Argument(help="Folder with corpus.jsonl, queries.jsonl and qrels/, or a name of ir_datasets."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. Default: in the cache, by the texts' checksum.")
    ] = None,
    model: Annotated[str, typer.Option(help="'minilm', or a MultiVectorEncoder checkpoint.")] = "minilm",
    dimension: Annotated[
        int, typer.Option(min=0, help="Reduce wider vectors to this by PCA. 0: do not.")
    ] = 128,
    split: Annotated[str, typer.Option(help="Judgements whose queries are embedded.")] = "test",
    cache: Annotated[Path, typer.Option(help="Where `run` looks for what is encoded.")] = CACHE,
) -> None:
    """Turn a collection's texts into token embeddings; goes on where it was interrupted."""
    try:
        folder = encode_texts(texts, out, model, dimension or None, split, cache)
    except (ValueError, OSError, ImportError) as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(str(folder))


def run(
    config: Annotated[
        list[str] | None,
        typer.Argument(help=f"Configurations, by path or name. Default: {ALL}, which is all."),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help=f"Folder of collections; may be repeated. Default: {DATA} and what `encode` made."),
    ] = None,
    collection: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. Default: in the cache folder.")] = None,
    cache: Annotated[Path, typer.Option(help="Where environments and exact answers are kept.")] = CACHE,
    threads: Annotated[
        int, typer.Option(min=1, help="For every system in this process; peers answer on one.")
    ] = 1,
    quick: Annotated[
        bool, typer.Option(help="The whole path of each experiment on two tiny collections.")
    ] = False,
    save: Annotated[bool, typer.Option("--save", help="Store the tables in results/ for `readme`.")] = False,
) -> None:
    """Run experiments: how good and how fast everything is; goes on where it was interrupted."""
    names = config or [ALL]
    try:
        experiments = load_experiments(names)
        places: list[DatasetPath | StudyCollection] = []
        if not quick:
            places += _chosen(find_places(data or [DATA], cache), collection)
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    if quick:
        experiments = [smoke_experiment(experiment, cache) for experiment in experiments]
        places += smoke_collections()
    label = f"{'quick-' if quick else ''}{'-'.join(Path(name).stem for name in names)}"
    folder = cache.expanduser() / "runs" / label if out is None else out
    options = Options(folder, cache, threads, lambda line: typer.echo(line, err=True), quick)
    try:
        with threadpool_limits(threads):
            failures = run_study(experiments, places, options)
    except RuntimeError as error:
        raise typer.BadParameter(str(error)) from error
    if save:
        save_results("study", stored_study(folder))
    typer.echo(f"{folder}: {len(experiments)} experiments, {len(failures)} failures.")
    for failure in failures:
        where = f"{failure.experiment}, {failure.collection}, {failure.system}"
        typer.echo(f"FAILED {where}: {failure.message}", err=True)
    if failures:
        raise typer.Exit(1)


def _chosen(places: dict[str, DatasetPath], names: list[str] | None) -> list[DatasetPath]:
    for name in names or ():
        require_known(name, places, "collection")
    return [place for name, place in places.items() if not names or name in names]


def check(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    expected: Annotated[
        list[Path] | None, typer.Option(help="Files of expected scores. Default: all in expected/.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Write this file of expected scores from the run instead.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="With --record.")] = 0.01,
) -> None:
    """Compare a run's scores with the expected ones: OK or FAIL a line, and how many at the end."""
    try:
        if record is not None:
            typer.echo(f"{record_run(run_folder, record, tolerance)} lines in {record}.")
            return
        lines = check_run(run_folder, expected)
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    failed = sum(line.startswith("FAIL") for line in lines)
    for line in [*lines, f"{len(lines)} expected scores: {len(lines) - failed} OK, {failed} FAIL."]:
        typer.echo(line)
    if failed:
        raise typer.Exit(1)
