"""``python -m experiments attack``: damaged and hostile files for every reader."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from .harness import KINDS, Attack, Limits, Tally, table
from .samples import make_samples

__all__ = ["attack"]


def attack(
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


def _loaded(file: Path) -> dict[str, Tally]:
    tallies = {}
    for name, counts in json.loads(file.read_text(encoding="utf-8")).items():
        tallies[name] = Tally()
        tallies[name].counts.update(counts)
    return tallies
