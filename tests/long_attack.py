"""Attack indexes, files and the server for about half an hour, and print counts.

``python tests/long_attack.py`` kills writers and calls, interrupts calls at lines that
are spread over all of them, damages a sample of every format and encoder, and sends
hostile requests to a server.  Two attacks run at a time.  ``--scale 0.1`` makes a tenth
of each.  The exit status is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from attack.cut_short import CASES
from attack.damage import MEMORY
from attack.oracle import MODELS
from attack.processes import run_alone
from attack.samples import SAMPLES
from attack.server_limits import SHAPES
from attack.small_memory import can_limit

# Kills of a process with writers through the library and over HTTP.
_KILLS = {"open": 420, "http": 80}

# Interrupts of calls, over all kinds of indexes.
_INTERRUPTS = 2_000

# Damages of files, over all samples.
_DAMAGES = 50_000

# Random operations on each kind of index.
_OPERATIONS = 2_000

# Requests to one server, and MB, handles and threads by which it may grow after the
# first tenth of them.
_REQUESTS = 20_000
_GROWTH = {"MB": 30, "handles": 2, "threads": 2}

# Connections that never finish a request, and how often they come.
_CROWD, _ROUNDS = 600, 40

# Clients that do not read their answers, and MB by which they may raise the peak of a
# server's memory.
_SLOW_READERS, _MEMORY = 100, 200

# MB that one request may need, and the milliseconds that another client may wait on a
# busy machine.
_REQUEST_MEMORY, _REQUEST_WAIT = 256, 2_000

# Kills of processes that write or read one folder.
_SHARED_KILLS = 300

# MB of memory for an index of three times as much, and searches of it.
_SMALL_MEMORY, _SMALL_SEARCHES = 400, 200

# Kinds of indexes whose calls are killed before file operations: every operation.
_KILLED_CALLS = ("hnsw", "texts exact", "durable exact")

#: Numbers of what was done, and the faults.
Outcome = tuple[dict[str, float], list[str]]


class Attack(NamedTuple):
    """A function of the package `attack`, and how its result is read."""

    name: str
    module: str
    function: str
    arguments: tuple[Any, ...]
    outcome: Callable[[Any], Outcome]

    def run(self) -> Outcome:
        """Run the attack in a process of its own."""
        try:
            return self.outcome(run_alone(self.module, self.function, *self.arguments))
        except AssertionError as error:
            return {}, [f"{self.name} did not end: {str(error)[-2000:]}"]


def _writers(count: int) -> Callable[[Any], Outcome]:
    def outcome(found: dict[str, int]) -> Outcome:
        faults = [f"{found[name]} changes {name}" for name in ("lost", "half applied") if found[name]]
        return {"kills of writers": count, "acknowledged changes": found["acknowledged"]}, faults

    return outcome


def _shared(kills: int) -> Callable[[Any], Outcome]:
    def outcome(found: Any) -> Outcome:
        counts, faults = found
        totals = {f"{name} in a shared folder": number for name, number in counts.items()}
        return {"kills of processes with one folder": kills, **totals}, faults

    return outcome


def _counted(name: str) -> Callable[[Any], Outcome]:
    return lambda found: ({name: found[0]}, found[1])


def _damaged(found: Any) -> Outcome:
    counts, faults = found
    return {f"damaged samples {kind}": number for kind, number in counts.items()}, faults


def _crowded(found: Any) -> Outcome:
    answered, unanswered, wait = found
    faults = [f"{unanswered} requests beside a crowd were not answered"] * bool(unanswered)
    return {"requests answered beside a crowd": answered, "longest wait beside it, ms": wait}, faults


def _read_slowly(found: Any) -> Outcome:
    status, memory = found
    faults = [f"status {status} and {memory:.0f} MB more beside slow readers"] * (
        status != 200 or memory >= _MEMORY
    )
    return {"more MB of a server with slow readers": memory}, faults


def _grown(found: dict[str, list[float]]) -> Outcome:
    growth = {name: found[name][-1] - found[name][1] for name in _GROWTH}
    faults = [
        f"a server grew by {growth[name]:.1f} {name} in {_REQUESTS:,} requests"
        for name in _GROWTH
        if growth[name] > _GROWTH[name]
    ]
    return {f"most {name} that a server grew by": grown for name, grown in growth.items()}, faults


def _requested(name: str) -> Callable[[Any], Outcome]:
    def outcome(found: Any) -> Outcome:
        status, wait, memory = found
        wrong = wait >= _REQUEST_WAIT or memory >= _REQUEST_MEMORY
        faults = [f"{name}: status {status}, {wait:.0f} ms, {memory:.0f} MB"] * wrong
        return {
            "large requests": 1,
            "most MB of a request": memory,
            "longest wait beside one, ms": wait,
        }, faults

    return outcome


def attacks(scale: float) -> Iterator[Attack]:
    """Yield all attacks; those that take longest come first."""

    def scaled(number: float) -> int:
        return math.ceil(scale * number)

    for way, number in _KILLS.items():
        count = scaled(number)
        yield Attack(f"kills, {way}", "durability", "kill_writers", (count, way), _writers(count))
    for name in _KILLED_CALLS:
        every = max(1, round(1 / scale))
        yield Attack(
            f"kills, {name}", "cut_short", "kill_each", (name, every), _counted("kills at file operations")
        )
    for name in MODELS:
        count = scaled(_OPERATIONS)
        yield Attack(f"operations, {name}", "oracle", "operate", (name, count), _counted("operations"))
    for overwrite in (False, True):
        every = max(1, round(1 / scale))
        kind = "an index over another" if overwrite else "an index"
        yield Attack(
            f"kills, texts index of {kind}", "continued", "kill_texts_index", (every, overwrite),
            _counted("kills of muvera texts index"),
        )  # fmt: skip
    every = max(1, round(1 / scale))
    yield Attack("kills, shards", "shards", "kill_shards", (every,), _counted("kills of builds of shards"))
    for kind in ("texts", "vectors"):
        kills = scaled(_SHARED_KILLS)
        yield Attack(f"shared folder, {kind}", "shared_folder", "share", (kind, kills), _shared(kills))
    yield Attack("requests", "many_requests", "send", (scaled(_REQUESTS), False), _grown)
    if can_limit():
        arguments = scaled(_SMALL_MEMORY), scaled(_SMALL_SEARCHES)
        kind = "searches of an index of three times the memory"
        yield Attack("small memory", "small_memory", "use", arguments, _counted(kind))
    for name in SAMPLES:
        count = scaled(_DAMAGES / len(SAMPLES))
        yield Attack(f"damage, {name}", "damage", "damage_alone", (name, count), _damaged)
    for name in CASES:
        count = scaled(_INTERRUPTS / len(CASES))
        yield Attack(
            f"interrupts, {name}", "cut_short", "interrupt_some", (name, count), _counted("interrupts")
        )
    yield Attack("crowd", "server_limits", "crowd", (_CROWD, scaled(_ROUNDS)), _crowded)
    readers = max(20, scaled(_SLOW_READERS))
    yield Attack("slow readers", "server_limits", "slow_readers", (readers,), _read_slowly)
    for name in list(SHAPES)[: scaled(len(SHAPES))]:
        yield Attack(f"request, {name}", "server_limits", "measure", (name,), _requested(name))


#: Counts of which the largest is shown, not the sum.
_LARGEST = ("MB", "longest", "most")


def main() -> int:
    """Run the attacks; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of each attack (default: 1)")
    parser.add_argument("--only", default="", help="run only attacks whose name contains this")
    arguments = parser.parse_args()
    if MEMORY.is_dir():
        os.environ.setdefault("TMPDIR", str(MEMORY))
    begun = time.monotonic()
    totals: dict[str, float] = {}
    faults: list[str] = []

    def run(attack: Attack) -> tuple[Attack, Outcome]:
        return attack, attack.run()

    chosen = [attack for attack in attacks(arguments.scale) if arguments.only in attack.name]
    with ThreadPoolExecutor(2) as pool:
        for attack, (counts, wrong) in pool.map(run, chosen):
            for name, number in counts.items():
                largest = name.startswith(_LARGEST)
                before = totals.get(name, 0)
                totals[name] = max(before, number) if largest else before + number
            faults += wrong
            minutes = (time.monotonic() - begun) / 60
            print(f"{minutes:5.1f} min  {attack.name}: {json.dumps(counts)}, {len(wrong)} faults", flush=True)
    print(f"\n{'count':>12}  what, in {(time.monotonic() - begun) / 60:.1f} minutes")
    for name, number in totals.items():
        print(f"{number:12,.0f}  {name}")
    print(f"{len(faults):12,}  faults", *faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
