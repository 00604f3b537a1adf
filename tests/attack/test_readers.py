"""A seeded share of ``python -m experiments attack readers``: damage is read or refused, nothing else."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from experiments.attack.harness import Attack, Limits, Tally, table
from experiments.attack.hostile import HOSTILE_PICKLES
from experiments.attack.mutations import mutate
from experiments.attack.samples import SAMPLES, make_samples
from experiments.attack.structured import changed_pickle
from experiments.attack.worker import outcome_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts processor time as Linux tells it")

#: Mutations of each sample; the command tries a thousand.
SHARE = 120


@pytest.fixture(scope="module")
def attack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attack]:
    attacker = Attack(make_samples(tmp_path_factory.mktemp("samples")), Limits())
    yield attacker
    attacker.close()


@pytest.mark.compiled("each damaged file would be measured by interpreted kernels")
@pytest.mark.parametrize("name", SAMPLES)
def test_damage_is_read_or_refused_in_a_sentence(attack: Attack, name: str) -> None:
    if name not in attack.samples:
        pytest.skip(f"{' and '.join(SAMPLES[name][0])} must be installed")
    tally = attack.tally(name, range(SHARE))
    assert tally.faults == []
    assert tally.total == SHARE and tally.counts["refused"] > 0


def test_a_mutation_is_the_same_each_time(attack: Attack, tmp_path: Path) -> None:
    content = attack.samples["npz"].read_bytes()
    found = []
    for i in range(2):
        for number in range(8):
            path = tmp_path / f"{i}.npz"
            path.write_bytes(content)
            mutate(path, "npz", number)
            found.append(path.read_bytes())
    assert found[:8] == found[8:] and len(set(found)) > 4


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("import os; os.abort()", "abort"),
        ("while True: pass", "hang"),
        ("import time; time.sleep(60)", "hang"),
        ("open('ran-a-program', 'w'); answer('read')", "unsound"),
    ],
)
def test_what_a_child_does_is_noticed(
    attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, kind: str
) -> None:
    """The harness itself can fail a reader: planted deaths, loops and programs are counted."""
    before = "import json, os, sys\ntask = json.loads(sys.stdin.readline())\nos.chdir(task['folder'])\n"
    before += "answer = lambda kind: print(json.dumps({'kind': kind, 'text': ''}), flush=True)\n"
    monkeypatch.setattr(Attack, "command", (sys.executable, "-c", before + script))
    attacker = Attack(attack.samples, Limits(processor_seconds=0.5, seconds=2))
    tally = attacker.tally("npz", range(1))
    attacker.close()
    assert dict(tally.counts) == {kind: 1} and len(tally.faults) == 1


def test_outcomes_are_judged(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", tokens=np.ones((2, 3), np.float32), lengths=[2])
    assert outcome_of(tmp_path / "a.npz")[0] == "read"
    (tmp_path / "a.npz").write_bytes(b"PK")
    assert outcome_of(tmp_path / "a.npz")[0] == "refused"


def test_the_table_adds_up() -> None:
    tallies = {"a": Tally(), "b": Tally()}
    tallies["a"].counts.update(read=2, refused=1)
    tallies["b"].counts.update(abort=1)
    lines = table(tallies).splitlines()
    assert lines[0].split("|")[1:4] == [" reader ", " mutations ", " read "]
    assert lines[-1] == "| **all** | 4 | 2 | 1 | 0 | 0 | 1 | 0 | 0 |"


def test_every_hostile_pickle_is_tried() -> None:
    seen = {changed_pickle(b"\x80\x04N.", random.Random(number)) for number in range(1500)}
    assert set(HOSTILE_PICKLES) <= seen
