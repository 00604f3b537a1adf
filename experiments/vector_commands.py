"""Commands about smaller vectors and cheaper reranking: compact, learned, hybrid, quantized, rerank, tune."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from . import compact as compacts
from . import hybrid as hybrids
from . import learned as learners
from . import quality as recalls
from . import quantized as quantizers
from . import rerank as reranks
from . import smaller
from . import tune as tunings
from .datasets.collections import CACHE, Collection, exact_top, load_collection
from .options import Cache, Data, Json, Named, Save, Seeds, Threads, chosen_collections
from .report.stored_results import load_results, machine, save_results

__all__ = ["MODULES", "add_vector_commands"]

#: Each has `table` and `markdown` of its command's results.
MODULES: dict[str, Any] = {
    "compact": compacts,
    "learned": learners,
    "hybrid": hybrids,
    "quantized": quantizers,
    "rerank": reranks,
    "tune": tunings,
}

Costs = Annotated[list[str] | None, typer.Option(help="Vary landmarks and features on this collection, too.")]


def add_vector_commands(app: typer.Typer) -> None:
    """Add the commands to the experiments' application."""
    for command in (compact, learned, hybrid, quantized, rerank, tune, vectors):
        app.command()(command)


def _measure_all(
    name: str,
    paths: dict[str, Path],
    measured: Callable[[Collection, dict[str, Any]], dict[str, Any]],
    as_json: bool,
    save: bool,
    facts: dict[str, Any] | None = None,
) -> None:
    """Measure collections, store what each gave as soon as it is there, and print the tables.

    Parameters
    ----------
    name : str
        The command's.
    paths : dict of str to Path
    measured : callable
        Returns a collection's entry; may add to the results that it is given.
    as_json, save : bool
    facts : dict, optional
        What is stored beside the machine.
    """
    stored = load_results(name) if save else {}
    results: dict[str, Any] = {**stored, "machine": machine(), **(facts or {})}
    results["collections"] = dict(stored.get("collections", {}))
    for collection, path in tqdm(paths.items(), unit="collection", desc=name):
        results["collections"][collection] = measured(load_collection(path), results)
        if save:  # after each collection: the next may take long
            save_results(name, results)
    print(json.dumps(results) if as_json else MODULES[name].table(results))


def compact(
    data: Data = None,
    collection: Named = None,
    seeds: Seeds = 3,
    queries: Annotated[bool, typer.Option(help="Fit the first seed also with queries.")] = True,
    graph: Annotated[bool, typer.Option(help=f"Build graphs of {compacts.GRAPH}.")] = True,
    threads: Threads = None,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """What maps learned from a quarter of the documents find, and what they save and cost."""

    def measured(loaded: Collection, results: dict[str, Any]) -> dict[str, Any]:
        if loaded.name == compacts.GRAPH and graph:
            results["graph"] = compacts.graph_ratios(loaded, 0)
        runs = [compacts.measure(loaded, seed, queries and seed == 0, threads) for seed in range(seeds)]
        return {"documents": len(loaded.documents), "runs": runs}

    paths = chosen_collections(data, collection)
    _measure_all("compact", paths, measured, as_json, save, {"threads": threads})


def learned(
    data: Data = None,
    collection: Named = None,
    seeds: Seeds = 3,
    costs: Costs = None,
    threads: Threads = None,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """What vectors learned from a quarter of the documents find, and what they cost."""

    def measured(loaded: Collection, results: dict[str, Any]) -> dict[str, Any]:
        if loaded.name in (costs or []):
            results.setdefault("costs", {})[loaded.name] = list(learners.measure_costs(loaded, 0, threads))
        runs = [learners.measure(loaded, seed, threads) for seed in range(seeds)]
        return {"documents": len(loaded.documents), "runs": runs}

    paths = chosen_collections(data, collection)
    _measure_all("learned", paths, measured, as_json, save, {"threads": threads})


def hybrid(
    data: Data = None,
    collection: Named = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the quarter and the encoders.")] = 0,
    threads: Threads = None,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """Whether a compact FDE and a learned vector side by side find more than either alone."""

    def measured(loaded: Collection, _: dict[str, Any]) -> dict[str, Any]:
        return hybrids.measure(loaded, seed, threads)

    _measure_all("hybrid", chosen_collections(data, collection), measured, as_json, save)


def quantized(
    data: Data = None,
    collection: Named = None,
    seeds: Seeds = 3,
    cache: Cache = CACHE,
    threads: Threads = None,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """What int8 and product codes of FDEs lose, and their bytes and times."""

    def measured(loaded: Collection, _: dict[str, Any]) -> dict[str, Any]:
        top = exact_top(loaded, recalls.TOP, cache)
        runs = [quantizers.measure(loaded, top, recalls.FIRST_SEED + seed, threads) for seed in range(seeds)]
        return {"documents": len(loaded.documents), "runs": runs}

    paths = chosen_collections(data, collection, cache)
    _measure_all("quantized", paths, measured, as_json, save, {"threads": threads})


def rerank(
    data: Data = None,
    collection: Named = None,
    queries: Annotated[int, typer.Option(min=1, help="How many of each collection, at most.")] = 100,
    repeat: Annotated[int, typer.Option(min=1)] = 5,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """What early exit, carving and patience save and give up, one thread."""

    def measured(loaded: Collection, _: dict[str, Any]) -> dict[str, Any]:
        return reranks.measure(loaded, queries, repeat)

    _measure_all("rerank", chosen_collections(data, collection), measured, as_json, save, {"repeat": repeat})


def tune(
    data: Data = None,
    collection: Named = None,
    sample: Annotated[int, typer.Option(min=100, help="Documents to tune on.")] = tunings.SAMPLE,
    seed: Annotated[int, typer.Option(min=0, help="Of the queries' halves and the tuning.")] = 0,
    cache: Cache = CACHE,
    threads: Threads = None,
    as_json: Json = False,
    save: Save = False,
) -> None:
    """What tuning finds beside every preset in its bytes, and what windows cost in place of queries."""

    def measured(loaded: Collection, _: dict[str, Any]) -> dict[str, Any]:
        return tunings.measure(loaded, exact_top(loaded, recalls.TOP, cache), sample, seed, threads)

    _measure_all("tune", chosen_collections(data, collection, cache), measured, as_json, save)


def vectors(
    data: Data = None,
    collection: Named = None,
    seeds: Seeds = 3,
    costs: Costs = None,
    cache: Cache = CACHE,
    stored: Annotated[bool, typer.Option(help="Print what was stored before, instead of measuring.")] = False,
    save: Save = False,
) -> None:
    """All tables of smaller vectors and cheaper reranking, one command after the other."""
    if not stored:
        compact(data, collection, seeds, save=save)
        learned(data, collection, seeds, costs, save=save)
        hybrid(data, collection, save=save)
        quantized(data, collection, seeds, cache=cache, save=save)
        rerank(data, collection, save=save)
        tune(data, collection, cache=cache, save=save)
        return
    found = {name: load_results(name) for name in ("quality", *MODULES)}
    for name, module in MODULES.items():
        if found[name]:
            print(f"# {name}", module.table(found[name]), sep="\n\n", end="\n\n")
    print("# together", smaller.table(found), sep="\n\n")
