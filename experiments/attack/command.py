"""``python -m experiments attack``: hostile files for readers; threads, kills and random changes for indexes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from .drift import Drift, change_at_random, drift_table
from .harness import KINDS, Attack, Limits, Tally, table
from .kills import OPERATIONS, Kills, kill_at_every_file_operation, kills_table
from .samples import make_samples
from .threads import BACKENDS, Stress, stress
from .threads import settings_of as settings
from .threads import table as stress_table
from .throughput import Throughput, measure_throughput, throughput_table

__all__ = ["attack"]

attack = typer.Typer(no_args_is_help=True, help="Try to break readers and indexes, and count what happens.")

Only = Annotated[str, typer.Option(help="Backends with this in their names, of several with commas.")]


@attack.command()
def readers(
    mutations: Annotated[int, typer.Option(min=1, help="Of each sample.")] = 1000,
    first: Annotated[int, typer.Option(min=0, help="Number of the first mutation.")] = 0,
    only: Annotated[str, typer.Option(help="Samples with this in their names, of several with commas.")] = "",
    isolated: Annotated[bool, typer.Option("--isolated", help="Read with isolated=True.")] = False,
    save: Annotated[
        Path | None, typer.Option(help="Keep the counts in this file, added to those that it has.")
    ] = None,
    faults: Annotated[bool, typer.Option(help="Print every fault as it is found.")] = True,
) -> None:
    """Damage small files of every format, read them, and count what happens.

    A file may be read (where the damage cannot be seen) or refused in one sentence that names
    it.  All else is a fault: a raw error, a message without the file's name, the death of the
    process, no end within 10 seconds of processor time, a program that was run, numbers that
    are not finite.
    """
    wanted = only.split(",")
    tallies = {} if save is None or not save.exists() else _loaded(save)
    with tempfile.TemporaryDirectory() as folder:
        samples = make_samples(Path(folder))
        attacker = Attack(samples, Limits(), isolated)
        for name in samples:
            if not any(part in name for part in wanted):
                continue
            tally = Tally()
            numbers = range(first, first + mutations)
            for number, kind, damage, text, took in tqdm(
                attacker.run(name, numbers), desc=name, total=mutations, disable=None, leave=False
            ):
                tally.counts[kind] += 1
                tally.slowest = max(tally.slowest, took)
                if kind not in KINDS[:2] and faults:
                    print(f"{name} {number} {kind} ({damage}): {text}", flush=True)
            tallies[name] = tally
            if save is not None:
                save.write_text(json.dumps({key: dict(value.counts) for key, value in tallies.items()}))
        attacker.close()
    print(table(tallies))
    if any(tally.counts[kind] for tally in tallies.values() for kind in KINDS[2:]):
        raise typer.Exit(1)


@attack.command()
def threads(
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each backend.")] = 120.0,
    readers: Annotated[int, typer.Option(min=1, help="Threads that search.")] = 6,
    writers: Annotated[int, typer.Option(min=1, help="Threads that change and save the index.")] = 2,
    only: Only = "",
    seed: int = 0,
) -> None:
    """Search an index from some threads while others change it, and check every answer.

    A fault is an error, or an answer that was right at no moment of its search.
    """
    found: dict[str, Stress] = {}
    for backend in _chosen(only):
        with tempfile.TemporaryDirectory() as folder:
            found[backend] = stress(
                seconds=seconds,
                readers=readers,
                writers=writers,
                folder=Path(folder) / "index",
                seed=seed,
                **settings(backend),
            )
        for fault in found[backend].faults:
            print(f"{backend}: {fault}", flush=True)
    print(stress_table(found))
    if any(each.faults for each in found.values()):
        raise typer.Exit(1)


@attack.command()
def throughput(
    threads: Annotated[int, typer.Option(min=1, help="That search at once.")] = 2,
    rounds: Annotated[int, typer.Option(min=2, help="Each with the lock and without it.")] = 40,
    seconds: Annotated[float, typer.Option(min=0.01, help="Of a half of a round.")] = 0.25,
    only: Only = "",
) -> None:
    """Measure what the index's lock costs searches, on an index so small that the lock weighs most."""
    found: dict[str, Throughput] = {}
    for backend in _chosen(only):
        found[backend] = measure_throughput(backend, threads=threads, rounds=rounds, seconds=seconds)
    print(throughput_table(found))


@attack.command()
def kills(
    every: Annotated[int, typer.Option(min=1, help="Kill at every so many file operations.")] = 1,
    only: Annotated[str, typer.Option(help="Operations with this in their names.")] = "",
) -> None:
    """Kill saves, builds and conversions at each of their file operations, and look at what is left.

    A fault is anything but the old content or the new one, and a file that the next try leaves behind.
    """
    found: dict[str, Kills] = {}
    for name in OPERATIONS:
        if only in name:
            found[name] = kill_at_every_file_operation(name, every)
            for fault in found[name].faults:
                print(fault, flush=True)
    print(kills_table(found))
    if any(each.faults for each in found.values()):
        raise typer.Exit(1)


@attack.command()
def drift(
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each backend.")] = 120.0,
    only: Only = "",
    seed: int = 0,
) -> None:
    """Change an index at random for long, and compare its answers with plain arithmetic after every change."""
    found: dict[str, Drift] = {}
    for backend in _chosen(only):
        found[backend] = change_at_random(seconds, seed, **settings(backend))
        for fault in found[backend].faults:
            print(f"{backend}: {fault}", flush=True)
    print(drift_table(found))
    if any(each.faults for each in found.values()):
        raise typer.Exit(1)


def _chosen(only: str) -> list[str]:
    return [backend for backend in BACKENDS if any(part in backend for part in only.split(","))]


def _loaded(file: Path) -> dict[str, Tally]:
    tallies = {}
    for name, counts in json.loads(file.read_text(encoding="utf-8")).items():
        tallies[name] = Tally()
        tallies[name].counts.update(counts)
    return tallies
