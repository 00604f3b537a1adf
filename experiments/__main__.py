"""What is measured: ``python -m experiments speed | quality | threshold | rerank | page | readme``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from tqdm import tqdm

from . import compact as compacts
from . import learned as learners
from . import quality as recalls
from . import quality_tables, smaller, speed_tables
from . import quantised as quantisers
from . import rerank as reranks
from . import speed as speeds
from . import threshold as thresholds
from . import tune as tunings
from .collections import CACHE, DATA, exact_top, find_collections, load_collection
from .first_calls import first_calls
from .page.command import page
from .report import RESULTS, fill_block, load_results, machine, save_results
from .study import markdown as study_markdown
from .study_commands import add_commands

#: The collection whose documents are pooled in the speed table.
POOLED = "cranfield-minilm"

#: Commands about smaller vectors and cheaper reranking, each with `table` and `markdown` of its results.
_VECTORS: dict[str, Any] = {
    "compact": compacts,
    "learned": learners,
    "quantised": quantisers,
    "rerank": reranks,
    "tune": tunings,
}

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
add_commands(app)

Data = Annotated[
    list[Path] | None,
    typer.Option("--data", help=f"Folder of collections; may be repeated. Default: {DATA}."),
]
Cache = Annotated[Path, typer.Option(help="Where environments and exact answers are kept.")]
Json = Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of tables.")]
Save = Annotated[bool, typer.Option("--save", help=f"Store the results in {RESULTS.name}/ for `readme`.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Default: all usable cores.")]

app.command()(page)


@app.command()
def quality(
    data: Data = None,
    collection: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 5,
    row: Annotated[str, typer.Option(help="Only rows with this in their name.")] = "",
    cache: Cache = CACHE,
    threads: Threads = None,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """Recall of FDE candidates: every option alone and together, over seeds and collections."""
    paths = find_collections(data or [DATA])
    _require_known(collection, paths)
    stored = load_results("quality") if save else {}
    results: dict[str, Any] = {}
    for name in collection or paths:
        results[name] = _measure_quality(paths[name], seeds, row, cache, threads)
        if save:  # after each collection: the next may take long
            stored[name] = recalls.merged(stored.get(name), results[name])
            save_results("quality", stored)
        if not as_json:
            print(quality_tables.collection_table(results, name), end="\n\n", flush=True)
    print(json.dumps(results) if as_json else quality_tables.overview_table(results))


def _require_known(names: list[str] | None, paths: dict[str, Path]) -> None:
    unknown = sorted(set(names or []) - paths.keys())
    if unknown:
        raise typer.BadParameter(f"There is no collection {unknown[0]!r}. There are: {', '.join(paths)}.")


def _measure_quality(path: Path, seeds: int, part: str, cache: Path, threads: int | None) -> dict[str, Any]:
    loaded = load_collection(path)
    top = exact_top(loaded, recalls.TOP, cache)
    found = []
    for row in tqdm([row for row in recalls.ROWS if part in row.name], desc=loaded.name, unit="row"):
        runs = [
            recalls.measure(row, loaded, top, recalls.FIRST_SEED + seed, threads) for seed in range(seeds)
        ]
        found.append(
            {
                "group": row.group,
                "name": row.name,
                "fde_dimension": runs[0]["fde_dimension"],
                "recall": {str(d): [run["recall"][str(d)] for run in runs] for d in recalls.DEPTHS},
            }
        )
    return {
        "checksum": loaded.checksum,
        "documents": len(loaded.documents),
        "tokens": loaded.documents.num_tokens,
        "queries": len(loaded.queries),
        "first_seed": recalls.FIRST_SEED,
        "rows": found,
    }


@app.command()
def speed(
    data: Data = None,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    documents: Annotated[int, typer.Option(min=1, help="Documents to encode.")] = 200,
    only: Annotated[str, typer.Option(help="Only lines with this in their name or group.")] = "",
    cache: Cache = CACHE,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """Ours and the peers, interleaved in one run, one thread each; new environments are made at first."""
    sizes = speeds.Sizes(documents=documents, rounds=rounds)
    lines = [line for line in speeds.LINES if only in line.name or only == line.group]
    pooled = _documents_to_pool(data, any(line.group == "pooling" for line in lines))
    if pooled is None:
        lines = [line for line in lines if line.group != "pooling"]
    found_machine = machine()
    with tempfile.TemporaryDirectory() as folder:
        speeds.write_inputs(Path(folder), sizes, pooled)
        results = speeds.run(lines, Path(folder), sizes, cache, lambda text: typer.echo(text, err=True))
    results |= {"machine": found_machine, "rounds": rounds}
    if not only or only == "first calls":
        typer.echo("first calls in new processes", err=True)
        results["first_calls"] = first_calls()
    if save:
        save_results("speed", results)
    print(json.dumps(results) if as_json else speed_tables.text(results))


def _documents_to_pool(data: list[Path] | None, wanted: bool) -> list[Any] | None:
    if not wanted:
        return None
    paths = find_collections(data or [DATA])
    if POOLED not in paths:
        typer.echo(f"There is no {POOLED}, so that pooling is left out.", err=True)
        return None
    return [np.asarray(document, np.float32) for document in load_collection(paths[POOLED]).documents]


@app.command()
def threshold(
    data: Data = None,
    collection: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="How many to time.")] = 30,
    repeat: Annotated[int, typer.Option(min=1)] = 3,
    most: Annotated[int, typer.Option(min=1, help="Documents.")] = max(thresholds.SIZES),
    as_json: Json = False,
    save: Save = False,
) -> None:
    """Where exact search over tokens, a scan of FDEs and a graph cross, one thread."""
    paths = find_collections(data or [DATA])
    loaded = [load_collection(path) for name, path in paths.items() if not collection or name in collection]
    documents, asked = thresholds.joined(loaded, queries)
    sizes = [size for size in thresholds.SIZES if size <= min(most, len(documents))]
    steps = thresholds.measure(documents, asked, sizes, repeat)
    rows = list(tqdm(steps, total=len(sizes), unit="size"))
    results = {"collections": [one.name for one in loaded], "machine": machine(), "rows": rows}
    if save:
        save_results("threshold", results)
    print(json.dumps(results) if as_json else thresholds.table(rows))


@app.command()
def rerank(
    data: Data = None,
    collection: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="How many of each collection, at most.")] = 100,
    repeat: Annotated[int, typer.Option(min=1)] = 5,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """What early exit, carved queries and patience save and give up, one thread."""
    paths = find_collections(data or [DATA])
    _require_known(collection, paths)
    results: dict[str, Any] = {"machine": machine(), "repeat": repeat, "collections": {}}
    for name in tqdm(collection or paths, unit="collection"):
        results["collections"][name] = reranks.measure(load_collection(paths[name]), queries, repeat)
        if save:  # after each collection: the next may take long
            save_results("rerank", results)
    print(json.dumps(results) if as_json else reranks.table(results))


@app.command()
def quantised(
    data: Data = None,
    collection: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    cache: Cache = CACHE,
    threads: Threads = None,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """What int8 and product codes of FDEs lose, and their bytes and times."""
    paths = find_collections(data or [DATA])
    stored = load_results("quantised").get("collections", {}) if save else {}
    results: dict[str, Any] = {"machine": machine(), "threads": threads, "collections": {}}
    for name in tqdm(collection or paths, unit="collection"):
        loaded = load_collection(paths[name])
        top = exact_top(loaded, recalls.TOP, cache)
        runs = [quantisers.measure(loaded, top, recalls.FIRST_SEED + seed, threads) for seed in range(seeds)]
        results["collections"][name] = {"documents": len(loaded.documents), "runs": runs}
        if save:  # after each collection: the next may take long
            save_results("quantised", results | {"collections": stored | results["collections"]})
    print(json.dumps(results) if as_json else quantisers.table(results))


@app.command()
def compact(
    data: Data = None,
    collection: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    queries: Annotated[bool, typer.Option(help="Fit also with queries: twice the time.")] = True,
    graph: Annotated[bool, typer.Option(help=f"Build graphs of {compacts.GRAPH}.")] = True,
    threads: Threads = None,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """What maps learnt from a quarter of the documents find, and what they save and cost."""
    paths = find_collections(data or [DATA])
    results: dict[str, Any] = {"collections": {}}
    if save:
        results |= load_results("compact")
    results["machine"] = machine()
    for name in tqdm(collection or paths, unit="collection"):
        loaded = load_collection(paths[name])
        runs = [compacts.measure(loaded, seed, queries, threads) for seed in range(seeds)]
        results["collections"][name] = {"documents": len(loaded.documents), "runs": runs}
        if name == compacts.GRAPH and graph:
            results["graph"] = compacts.graph_ratios(loaded, 0)
        if save:  # after each collection: the next may take long
            save_results("compact", results)
    print(json.dumps(results) if as_json else compacts.table(results))


@app.command()
def learned(
    data: Data = None,
    collection: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    costs: Annotated[
        list[str] | None, typer.Option(help="Vary landmarks and features on this collection, too.")
    ] = None,
    threads: Threads = None,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """What vectors learnt from a quarter of the documents find, and what they cost."""
    paths = find_collections(data or [DATA])
    results: dict[str, Any] = {"collections": {}, "costs": {}}
    if save:
        results |= load_results("learned")
    results["machine"] = machine()
    for name in tqdm(collection or paths, unit="collection"):
        loaded = load_collection(paths[name])
        runs = [learners.measure(loaded, seed, threads) for seed in range(seeds)]
        results["collections"][name] = {"documents": len(loaded.documents), "runs": runs}
        if name in (costs or []):
            results["costs"][name] = list(learners.measure_costs(loaded, 0, threads))
        if save:  # after each collection: the next may take long
            save_results("learned", results)
    print(json.dumps(results) if as_json else learners.table(results))


@app.command()
def tune(
    data: Data = None,
    collection: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    sample: Annotated[int, typer.Option(min=100, help="Documents to tune on.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the queries' halves and the tuning.")] = 0,
    cache: Cache = CACHE,
    threads: Threads = None,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """What tuning finds beside every preset in its bytes, and what windows cost in place of queries."""
    paths = find_collections(data or [DATA])
    _require_known(collection, paths)
    results: dict[str, Any] = {"collections": {}}
    if save:
        results |= load_results("tune")
    for name in tqdm(collection or paths, unit="collection"):
        loaded = load_collection(paths[name])
        top = exact_top(loaded, recalls.TOP, cache)
        results["collections"][name] = tunings.measure(loaded, top, sample, seed, threads)
        if save:  # after each collection: the next may take long
            save_results("tune", results)
    print(json.dumps(results) if as_json else tunings.table(results))


@app.command()
def vectors(
    data: Data = None,
    collection: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    cache: Cache = CACHE,
    stored: Annotated[bool, typer.Option(help="Print what was stored before, instead of measuring.")] = False,
    save: Save = False,
) -> None:
    """All tables of smaller vectors and cheaper reranking: compact, learned, quantised, rerank, tune."""
    if not stored:
        costs = collection or list(find_collections(data or [DATA]))
        compact(data, collection, save=save)
        learned(data, collection, costs=costs, save=save)
        quantised(data, collection, cache=cache, save=save)
        rerank(data, collection, save=save)
        tune(data, collection, cache=cache, save=save)
        return
    found = {name: load_results(name) for name in ("quality", *_VECTORS)}
    for name, module in _VECTORS.items():
        if found[name]:
            print(f"# {name}", module.table(found[name]), sep="\n\n", end="\n\n")
    print("# together", smaller.table(found), sep="\n\n")


@app.command()
def readme() -> None:
    """Write the stored results into README.md and experiments/README.md."""
    here = Path(__file__).parent
    found = {name: load_results(name) for name in ("quality", "speed", "threshold", *_VECTORS)}
    missing = [name for name, results in found.items() if not results]
    if missing:
        raise typer.BadParameter(f"Nothing is stored of {missing[0]}: run `{missing[0]} --save` first.")
    blocks = {
        here.parent / "README.md": {
            "quality": quality_tables.short_markdown(found["quality"]),
            "smaller": smaller.markdown(found),
            "speed": speed_tables.markdown(found["speed"], targets_only=True),
        },
        here / "README.md": {
            "quality": quality_tables.full_markdown(found["quality"]),
            "speed": speed_tables.markdown(found["speed"], targets_only=False),
            "threshold": thresholds.markdown(found["threshold"]),
            **{name: module.markdown(found[name]) for name, module in _VECTORS.items()},
        },
    }
    study = load_results("study")
    for path, contents in blocks.items():
        text = path.read_text(encoding="utf-8")
        if study and "<!-- study:begin -->" in text:
            whole = path.parent == here
            contents["study"] = (study_markdown.full if whole else study_markdown.short)(study)
        for name, content in contents.items():
            text = fill_block(text, name, content)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    app()
