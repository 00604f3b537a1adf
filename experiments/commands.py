"""Commands of the runner and of stored results; each bench has its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from threadpoolctl import threadpool_limits

from muvera.utils.atomic_files import write_bytes

from .bench.plumbing import Cache, Data, Save, paths_of, progress, usage_errors
from .bench.size import recomputed as recomputed_sizes
from .datasets.apidocs import download_wheels, write_apidocs
from .datasets.collection import Collection
from .datasets.discovery import CACHE, DatasetPath, texts_in
from .datasets.encode import encode_texts
from .datasets.passages import write_passages
from .report.machines import Disks, Machine, disk_table, machine_table
from .report.page import page_of
from .report.papers import papers_page
from .report.results_pages import update_fde_table, update_readme, write_pages
from .report.run_folder import load_run
from .report.stored_ids import recomputed
from .report.stored_results import IDS, RESULTS, save_run
from .report.table import markdown
from .runner.check import EXPECTED, check_run, record_run
from .runner.configuration import Experiment, load_experiments
from .runner.quick import quick_collections, quick_experiment
from .runner.raw_store import Session
from .runner.run import run_experiments

#: Configuration of a run without arguments.
ALL = "study"

Configurations = Annotated[
    list[str] | None,
    typer.Argument(help=f"Configurations, by path or name. Default: {ALL}, which contains all."),
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run. Default: in the cache.")]


def get(
    name: Annotated[str, typer.Argument(help="apidocs: 367,860 texts about the APIs of AWS and Google.")],
    out: Annotated[Path | None, typer.Argument(help="New folder. Default: in the cache.")] = None,
    texts: Annotated[int | None, typer.Option(min=300, help="Maximum number of texts. Default: all.")] = None,
    wheels: Annotated[
        Path | None, typer.Option(help="Folder for the packages. Default: in the cache. Needs 50 MB.")
    ] = None,
    cache: Cache = CACHE,
) -> None:
    """Make a large collection of real texts and queries from packages of PyPI.

    Print its folder, for `encode`.
    """
    if name != "apidocs":
        raise typer.BadParameter(f"There is no collection {name!r} to get. There is: apidocs.")
    packages = wheels or cache.expanduser() / "wheels"
    folder = out or texts_in(cache) / (name if texts is None else f"{name}-{texts}")
    if folder.exists() and out is None:
        typer.echo(str(folder))
        return
    with usage_errors((RuntimeError, OSError)):
        packages.mkdir(parents=True, exist_ok=True)
        download_wheels(packages)
        folder.parent.mkdir(parents=True, exist_ok=True)
        count = write_apidocs(packages, folder, texts)
    progress(f"{count:,} texts.")
    typer.echo(str(folder))


def encode(
    texts: Annotated[Path, typer.Argument(help="Folder with corpus.jsonl, queries.jsonl and qrels/.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder. Default: in the cache, named by a checksum of the texts."),
    ] = None,
    model: Annotated[str, typer.Option(help="'minilm', or a MultiVectorEncoder checkpoint.")] = "minilm",
    dimension: Annotated[
        int, typer.Option(min=0, help="Reduce wider vectors to this dimension by PCA; 0: keep them.")
    ] = 128,
    split: Annotated[str, typer.Option(help="Embed queries with judgements of this split.")] = "test",
    cache: Cache = CACHE,
) -> None:
    """Turn a collection's texts into token embeddings.

    An interrupted command continues where it stopped.
    """
    with usage_errors((ValueError, OSError, ImportError)):
        folder = encode_texts(texts, out, model, dimension or None, split, cache)
    typer.echo(str(folder))


def passages(
    out: Annotated[Path, typer.Argument(help="New folder of texts, for `encode`.")],
    most: Annotated[int, typer.Option(min=1, help="Maximum number of passages.")] = 300_000,
    first: Annotated[
        Path | None,
        typer.Option(help="Folder in BEIR's layout; its texts are written first, and its queries, too."),
    ] = None,
    man: Annotated[
        Path | None, typer.Option(help="Write only man pages of this folder, such as /usr/share/man/ja.")
    ] = None,
) -> None:
    """Write real passages of this machine as texts.

    They are docstrings, man pages and package descriptions.
    """
    typer.echo(f"{write_passages(out, most, first, man):,} passages in {out}.")


def run(
    config: Configurations = None,
    data: Data = None,
    collection: Annotated[list[str] | None, typer.Option(help="A collection; may be repeated.")] = None,
    out: Out = None,
    cache: Cache = CACHE,
    threads: Annotated[int, typer.Option(min=1, help="Threads per system; peers use one.")] = 1,
    save: Save = False,
) -> None:
    """Run experiments: quality, time and memory of every system.

    An interrupted run continues where it stopped.
    """
    experiments = _load(config)
    collections = paths_of(collection or (), data, cache)
    folder = out or _run_folder(config, cache)
    failed = _run(experiments, collections, Session(folder, cache, threads, progress))
    if save:
        save_run(folder)
    if failed:
        raise typer.Exit(1)


def quick(
    config: Configurations = None,
    out: Out = None,
    cache: Cache = CACHE,
    expected: Annotated[Path, typer.Option(help="File of expected scores.")] = EXPECTED / "quick.jsonl",
) -> None:
    """Run small versions of experiments and check their scores; takes minutes.

    The scores are compared with the expected ones.
    """
    experiments = [quick_experiment(experiment, cache) for experiment in _load(config)]
    folder = out or _run_folder(config, cache, "quick-")
    failed = _run(experiments, quick_collections(), Session(folder, cache, 1, progress, quick=True))
    check(folder, [expected], None, 0.0)
    if failed:
        raise typer.Exit(1)


def _load(config: list[str] | None) -> list[Experiment]:
    with usage_errors():
        return load_experiments(config or [ALL])


def _run_folder(config: list[str] | None, cache: Path, prefix: str = "") -> Path:
    label = "-".join(Path(name).stem for name in config or [ALL])
    return cache.expanduser() / "runs" / f"{prefix}{label}"


def _run(
    experiments: Sequence[Experiment], collections: Sequence[DatasetPath | Collection], session: Session
) -> bool:
    """Run experiments, print the failures, and return whether there are any."""
    with usage_errors((RuntimeError,)), threadpool_limits(session.threads):
        failures = run_experiments(experiments, collections, session)
    typer.echo(f"{session.out}: {len(experiments)} experiments, {len(failures)} failures.")
    for failure in failures:
        progress(f"FAILED {failure.experiment}, {failure.collection}, {failure.system}: {failure.message}")
    return bool(failures)


def check(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")],
    expected: Annotated[
        list[Path] | None, typer.Option(help="Files of expected scores. Default: all in expected/.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Write the run's scores to this file of expected scores instead.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Tolerance for --record.")] = 0.01,
) -> None:
    """Compare a run's scores with the expected ones.

    Print OK or FAIL for each, and the totals.
    """
    with usage_errors():
        if record is not None:
            typer.echo(f"{record_run(run_folder, record, tolerance)} lines in {record}.")
            return
        lines = check_run(run_folder, expected)
    failed = sum(line.startswith("FAIL") for line in lines)
    for line in [*lines, f"{len(lines)} expected scores: {len(lines) - failed} OK, {failed} FAIL."]:
        typer.echo(line)
    if failed:
        raise typer.Exit(1)


def page(
    run_folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="Folder of a run, with manifest.json and summary.json.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="File of the page. Default: page.html in the run's folder.")
    ] = None,
) -> None:
    """Write one HTML page of a run; it needs no other file and no network."""
    target = out or run_folder / "page.html"
    with usage_errors((ValueError, OSError, ImportError)):
        content = page_of(load_run(run_folder)).encode()
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, content)
    typer.echo(f"{target} ({len(content) / 1e6:.2f} MB)")


def recompute(
    name: Annotated[
        list[str] | None, typer.Argument(help="Experiments. Default: all with stored ids.")
    ] = None,
) -> None:
    """Compute recalls and nDCGs from the stored ids, and compare them with the pages.

    Print what differs, and the number of equal cells.
    """
    names = name or sorted(path.stem for path in (RESULTS / IDS).glob("*.npz"))
    failed = False
    for experiment in names:
        cells = list((recomputed_sizes if experiment == "size" else recomputed)(experiment, RESULTS))
        if not cells:
            raise typer.BadParameter(f"There are no stored ids of {experiment}. Run it with --save.")
        wrong = [cell for cell in cells if cell.stored != cell.recomputed]
        for cell in wrong:
            where = f"{cell.table}, {cell.row}, {cell.column}"
            typer.echo(f"FAIL {where}: {cell.stored or 'empty'}, by the ids {cell.recomputed or 'empty'}")
        typer.echo(f"{experiment}: {len(cells) - len(wrong)} of {len(cells)} cells are as stored.")
        failed |= bool(wrong)
    if failed:
        raise typer.Exit(1)


def results() -> None:
    """Write the stored results as pages and tables of the documents.

    The pages go into docs/results and docs/papers.md, the tables into README.md and
    docs/muvera.md.
    """
    root = Path(__file__).parents[1]
    for path, update in (
        (root / "README.md", update_readme),
        (root / "docs" / "muvera.md", update_fde_table),
    ):
        path.write_text(update(path.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
    with usage_errors((ValueError, ImportError)):
        for path in write_pages(root / "docs" / "results", RESULTS):
            typer.echo(str(path))
        (root / "docs" / "papers.md").write_text(papers_page(), encoding="utf-8")


def machines(
    documents: Annotated[
        list[int] | None,
        typer.Argument(min=1, help="Sizes of collections. Default: 100 million, 10 billion."),
    ] = None,
    memory: Annotated[float, typer.Option(min=1, help="GB per machine.")] = Machine.memory_gb,
    cores: Annotated[int, typer.Option(min=1, help="Cores per machine.")] = Machine.cores,
    rate: Annotated[
        float, typer.Option(min=1, help="Total queries per second of all machines.")
    ] = Machine.rate,
    disk: Annotated[float, typer.Option(min=0.1, help="TB of disks per machine.")] = Disks.terabytes,
    reads: Annotated[
        float, typer.Option(min=1, help="Random reads of 4 KiB per second and machine.")
    ] = Disks.reads,
) -> None:
    """Estimate machines and queries per second of large collections.

    The estimates follow from the stored results.
    """
    sizes = documents or [100_000_000, 10_000_000_000]
    machine = Machine(memory, cores, rate)
    typer.echo(markdown(machine_table(sizes, machine)))
    typer.echo("\nWith a graph on disk:\n")
    typer.echo(markdown(disk_table(sizes, machine, Disks(disk, reads))))
