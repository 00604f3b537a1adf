"""Commands that measure: encode, run, check, results, speed, graphs, engines; and machines, which computes."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from threadpoolctl import threadpool_limits

from muvera.engines import open_engine

from .bench import speed as speeds
from .bench.distributed import COLUMNS as DISTRIBUTED_COLUMNS
from .bench.distributed import ENGINES, encode_distributed
from .bench.engines import COLUMNS as ENGINE_COLUMNS
from .bench.engines import compare_engines
from .bench.first_calls import first_calls
from .bench.graphs import COLUMNS, compare_graphs
from .bench.mixed_streams import measure_mixed_streams, mixed_encoders, mixed_results
from .datasets.collection import Collection
from .datasets.discovery import CACHE, DATA, DatasetPath, find_collections
from .datasets.encode_texts import encode_texts
from .datasets.loading import load_collection
from .report.figures import write_figures
from .report.machines import Machine, machine_table, search_costs
from .report.results_pages import write_pages
from .report.stored_results import RESULTS, save_results, save_run
from .report.studies import study_text
from .report.table import Table, markdown
from .runner.check import check_run, record_run
from .runner.configuration import load_experiments
from .runner.provenance import machine
from .runner.run import Options, run_experiments
from .runner.smoke import smoke_collections, smoke_experiment

__all__ = ["add_commands"]

#: What a run without configurations runs.
ALL = "study"

#: The collection whose documents are pooled in the speed table.
POOLED = "cranfield-minilm"

Data = Annotated[
    list[Path] | None,
    typer.Option(help=f"Folder of collections; may be repeated. Default: {DATA} and what `encode` made."),
]
Cache = Annotated[Path, typer.Option(help="Where environments, embeddings and exact answers are kept.")]
Save = Annotated[
    bool, typer.Option("--save", help=f"Store the tables in {RESULTS.name}/, from which `results` writes.")
]


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the experiments' application."""
    for command in (
        encode,
        run,
        check,
        results,
        speed,
        graphs,
        engines,
        distributed,
        mixed,
        machines,
        load,
        texts,
    ):
        app.command()(command)


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
    data: Data = None,
    collection: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run. Default: in the cache folder.")] = None,
    cache: Cache = CACHE,
    threads: Annotated[
        int, typer.Option(min=1, help="For every system in this process; peers answer on one.")
    ] = 1,
    smoke: Annotated[
        bool, typer.Option("--quick", help="The whole path of each experiment on two tiny collections.")
    ] = False,
    save: Save = False,
) -> None:
    """Run experiments: how good and how fast everything is; goes on where it was interrupted."""
    names = config or [ALL]
    try:
        experiments = load_experiments(names)
        collections: list[DatasetPath | Collection] = []
        if not smoke:
            collections += find_collections(data, cache, collection).values()
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    if smoke:
        experiments = [smoke_experiment(experiment, cache) for experiment in experiments]
        collections += smoke_collections()
    label = f"{'quick-' if smoke else ''}{'-'.join(Path(name).stem for name in names)}"
    folder = cache.expanduser() / "runs" / label if out is None else out
    options = Options(folder, cache, threads, lambda line: typer.echo(line, err=True), smoke)
    try:
        with threadpool_limits(threads):
            failures = run_experiments(experiments, collections, options)
    except RuntimeError as error:
        raise typer.BadParameter(str(error)) from error
    if save:
        save_run(folder)
    typer.echo(f"{folder}: {len(experiments)} experiments, {len(failures)} failures.")
    for failure in failures:
        where = f"{failure.experiment}, {failure.collection}, {failure.system}"
        typer.echo(f"FAILED {where}: {failure.message}", err=True)
    if failures:
        raise typer.Exit(1)


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


def results(
    out: Annotated[Path | None, typer.Option(help="Folder of the pages. Default: docs/results.")] = None,
) -> None:
    """Write the stored results as Markdown pages with figures."""
    root = Path(__file__).parents[1]
    folder = out or root / "docs" / "results"
    for path in [*write_pages(folder, RESULTS), *write_figures(folder / "figures", RESULTS)]:
        typer.echo(str(path))


def speed(
    data: Data = None,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    documents: Annotated[int, typer.Option(min=1, help="Documents to encode.")] = 200,
    only: Annotated[str, typer.Option(help="Only lines with this in their name or group.")] = "",
    cache: Cache = CACHE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    save: Save = False,
) -> None:
    """Time muvera and the peers, interleaved in one run, one thread each; makes new environments at first."""
    sizes = speeds.Sizes(documents=documents, rounds=rounds)
    lines = [line for line in speeds.LINES if only in line.name or only == line.group]
    pooled = _documents_to_pool(data, cache) if any(line.group == "pooling" for line in lines) else None
    if pooled is None:
        lines = [line for line in lines if line.group != "pooling"]
    measured_on = machine()
    with tempfile.TemporaryDirectory() as folder:
        speeds.write_inputs(Path(folder), sizes, pooled)
        found = speeds.run(lines, Path(folder), sizes, cache, lambda text: typer.echo(text, err=True))
    found |= {"machine": measured_on, "rounds": rounds}
    if not only or only == "first calls":
        typer.echo("first calls in new processes", err=True)
        found["first_calls"] = first_calls()
    if save:
        save_results("speed", found)
    typer.echo(json.dumps(found) if as_json else study_text("speed", found))


def graphs(
    collection: Annotated[str, typer.Option(help="Whose learned vectors.")] = "lareqa-en-minilm",
    dimension: Annotated[list[int] | None, typer.Option(help="Floats. Default: 512 and 1024.")] = None,
    size: Annotated[list[int] | None, typer.Option(help="Vectors. Default: 6000 and 30000.")] = None,
    data: Data = None,
    cache: Cache = CACHE,
) -> None:
    """Compare the graphs of hnswlib and usearch, in processor time of one thread."""
    try:
        loaded = load_collection(find_collections(data, cache, [collection])[collection])
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    with threadpool_limits(1):
        found = []
        for row in compare_graphs(loaded, dimension or [512, 1024], size or [6_000, 30_000]):
            found.append(
                [f"{row[name]:.3g}" if isinstance(row[name], float) else str(row[name]) for name in COLUMNS]
            )
            typer.echo(" ".join(found[-1]), err=True)
    typer.echo(markdown(Table("", list(COLUMNS.values()), found)))


def load(
    seconds: Annotated[float, typer.Option(min=1)] = 60,
    connections: Annotated[int, typer.Option(min=1, help="That search at the same time.")] = 64,
    writes: Annotated[float, typer.Option(min=0.01, help="Requests a second that change documents.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Searches at a time in the server.")] = 2,
    encoder: Annotated[str, typer.Option(help="Text encoder.")] = "minilm-demo",
    copies: Annotated[int, typer.Option(min=1, help="How often the demo's texts are indexed.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Load `muvera serve` with searches by wrk and writes beside; fails where one errs or gets lost."""
    from .bench.load_test import load_test

    found = load_test(
        seconds, connections=connections, writes_per_second=writes, threads=threads, encoder=encoder,
        copies=copies,
    )  # fmt: skip
    typer.echo(json.dumps(found.to_dict()) if as_json else found.text)
    if found.errors or found.failed_writes or found.lost_writes:
        raise typer.Exit(1)


def engines(
    url: Annotated[
        list[str] | None,
        typer.Argument(help="Engines by URL, as muvera load takes them. Default: those without a server."),
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="Default: lareqa-en-minilm and cranfield-minilm.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Of each collection, at most.")] = 100,
    data: Data = None,
    cache: Cache = CACHE,
) -> None:
    """Compare vector databases as the first stage with muvera's own index."""
    names = collection or ["lareqa-en-minilm", "cranfield-minilm"]
    try:
        paths = find_collections(data, cache, names)
        loaded = [load_collection(paths[name]) for name in names]
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    found = []
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        urls = url or [f"lancedb:{folder}/lance", f"qdrant-edge:{folder}/qdrant"]
        opened = {
            one.partition(":")[0]: partial(open_engine, f"{one.partition('#')[0]}#measured") for one in urls
        }
        for one in loaded:
            for row in compare_engines(one, opened, queries=queries):
                cells = ["" if (value := row[name]) is None else value for name in ENGINE_COLUMNS]
                found.append([f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells])
                typer.echo(" ".join(found[-1]), err=True)
    typer.echo(markdown(Table("", list(ENGINE_COLUMNS.values()), found)))


def mixed(
    first: Annotated[str, typer.Argument(help="Name of a collection.")] = "cisi-e5",
    second: Annotated[str, typer.Argument(help="Another one of the same model.")] = "lareqa-en-e5",
    data: Data = None,
    cache: Cache = CACHE,
    save: Save = False,
) -> None:
    """Let every encoder learn from one collection, add the other, and compare with having learned from both."""
    try:
        paths = find_collections(data, cache, [first, second])
        one, other = (load_collection(paths[name]) for name in (first, second))
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    encoders = mixed_encoders(one.documents.dimension)
    header, rows = measure_mixed_streams(one, other, encoders, partial(typer.echo, err=True))
    typer.echo(markdown(Table("", header, rows)))
    if save:
        save_results("mixed_streams", mixed_results(header, rows))


def distributed(
    engine: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(ENGINES)}. Default: those that are installed.")
    ] = None,
    collection: Annotated[str, typer.Option(help="Whose documents.")] = "lareqa-en-minilm",
    data: Data = None,
    cache: Cache = CACHE,
) -> None:
    """Encode a collection on engines for data frames, and compare bits with one process."""
    modules = {"ray": "ray", "daft": "daft", "spark": "pyspark"}
    names = engine or [name for name in ENGINES if find_spec(modules[name]) is not None]
    unknown = [name for name in names if name not in ENGINES]
    if unknown:
        raise typer.BadParameter(f"There is no engine {unknown[0]!r}. There are: {', '.join(ENGINES)}.")
    try:
        loaded = load_collection(find_collections(data, cache, [collection])[collection])
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    rows: list[list[str]] = []
    for row in encode_distributed(loaded, names):
        rows.append([f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row.values()])
        typer.echo(" ".join(rows[-1]), err=True)
    typer.echo(markdown(Table("", list(DISTRIBUTED_COLUMNS.values()), rows)))


def machines(
    documents: Annotated[
        list[int] | None,
        typer.Argument(min=1, help="Sizes of collections. Default: 100 million, 10 billion."),
    ] = None,
    memory: Annotated[float, typer.Option(min=1, help="GB of a machine.")] = Machine.memory_gb,
    cores: Annotated[int, typer.Option(min=1, help="Of a machine.")] = Machine.cores,
    rate: Annotated[
        float, typer.Option(min=1, help="Queries a second that all shall answer.")
    ] = Machine.rate,
) -> None:
    """Compute machines and queries a second of large collections from the stored results."""
    sizes = documents or [100_000_000, 10_000_000_000]
    typer.echo(markdown(machine_table(sizes, Machine(memory, cores, rate))))
    for cost in search_costs():
        typer.echo(
            f"{cost.name}: measured to {cost.documents:,} documents, time as their power {cost.exponent:.2f}"
        )


def texts(
    documents: Annotated[int, typer.Option(min=100, help="That a filter keeps 1% of.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1)] = 20,
) -> None:
    """Time a filter on many documents, and ranking by spans beside plain ranking."""
    from .bench.text_speed import text_speed

    with threadpool_limits(1):
        for name, value in text_speed(documents, rounds):
            typer.echo(f"{name}: {value:.2f}")


def _documents_to_pool(data: list[Path] | None, cache: Path) -> list[Any] | None:
    try:
        path = find_collections(data, cache, [POOLED])[POOLED]
    except (ValueError, FileNotFoundError):
        typer.echo(f"There is no {POOLED}, so that pooling is left out.", err=True)
        return None
    return [np.asarray(document, np.float32) for document in load_collection(path).documents]
