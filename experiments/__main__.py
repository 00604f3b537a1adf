"""What is measured: ``python -m experiments speed | quality | threshold | rerank | page | readme``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from tqdm import tqdm

from . import quality as recalls
from . import quality_tables, smaller
from . import threshold as thresholds
from .attack.command import attack
from .bench import speed as speeds
from .bench import speed_tables
from .bench.first_calls import first_calls
from .datasets.collections import CACHE, exact_top, load_collection
from .options import Cache, Data, Json, Named, Save, Seeds, Threads, chosen_collections
from .report import study_markdown
from .report.command import page
from .report.stored_results import fill_block, load_results, machine, save_results
from .run_commands import add_commands
from .vector_commands import MODULES, add_vector_commands

#: The collection whose documents are pooled in the speed table.
POOLED = "cranfield-minilm"

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
add_commands(app)
add_vector_commands(app)

app.command()(page)
app.command()(attack)


@app.command()
def quality(
    data: Data = None,
    collection: Named = None,
    seeds: Seeds = 5,
    row: Annotated[str, typer.Option(help="Only rows with this in their name.")] = "",
    cache: Cache = CACHE,
    threads: Threads = None,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """Recall of FDE candidates: every option alone and together, over seeds and collections."""
    paths = chosen_collections(data, collection, cache)
    stored = load_results("quality") if save else {}
    results: dict[str, Any] = {}
    for name in paths:
        results[name] = _measure_quality(paths[name], seeds, row, cache, threads)
        if save:  # after each collection: the next may take long
            stored[name] = recalls.merged(stored.get(name), results[name])
            save_results("quality", stored)
        if not as_json:
            print(quality_tables.collection_table(results, name), end="\n\n", flush=True)
    print(json.dumps(results) if as_json else quality_tables.overview_table(results))


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
                "vector_dimension": runs[0]["vector_dimension"],
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
    paths = chosen_collections(data, None)
    if POOLED not in paths:
        typer.echo(f"There is no {POOLED}, so that pooling is left out.", err=True)
        return None
    return [np.asarray(document, np.float32) for document in load_collection(paths[POOLED]).documents]


@app.command()
def threshold(
    data: Data = None,
    collection: Named = None,
    queries: Annotated[int, typer.Option(min=1, help="How many to time.")] = 30,
    repeat: Annotated[int, typer.Option(min=1)] = 3,
    most: Annotated[int, typer.Option(min=1, help="Documents.")] = max(thresholds.SIZES),
    as_json: Json = False,
    save: Save = False,
) -> None:
    """Where exact search over tokens, a scan of FDEs and a graph cross, one thread."""
    loaded = [load_collection(path) for path in chosen_collections(data, collection).values()]
    documents, asked = thresholds.joined(loaded, queries)
    sizes = [size for size in thresholds.SIZES if size <= min(most, len(documents))]
    steps = thresholds.measure(documents, asked, sizes, repeat)
    rows = list(tqdm(steps, total=len(sizes), unit="size"))
    results = {"collections": [one.name for one in loaded], "machine": machine(), "rows": rows}
    if save:
        save_results("threshold", results)
    print(json.dumps(results) if as_json else thresholds.table(rows))


@app.command()
def readme() -> None:
    """Write the stored results into README.md and experiments/README.md."""
    here = Path(__file__).parent
    found = {name: load_results(name) for name in ("quality", "speed", "threshold", *MODULES)}
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
            **{name: module.markdown(found[name]) for name, module in MODULES.items()},
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
