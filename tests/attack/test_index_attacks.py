"""A seeded share of what ``python -m experiments attack`` does to indexes: kills, random changes, the lock's cost."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders.paths import ROOT

from experiments.attack.drift import Drift, change_at_random, drift_table
from experiments.attack.kills import Kills, kills_table
from experiments.attack.threads import BACKENDS, Stress, settings_of, table
from experiments.attack.throughput import Throughput, measure_throughput, throughput_table


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux", reason="a killed process is a fork, and folders are exchanged in one step"
)
def test_a_kill_leaves_the_old_content_or_the_new(tmp_path: Path) -> None:
    """In a process of its own, for forks want a process without threads."""
    command = [sys.executable, "-m", "experiments", "attack", "kills", "--every", "7"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = [line.split("|")[1:-1] for line in ended.stdout.splitlines()[2:]]
    assert len(rows) == 5 and all(int(row[1]) > 0 and int(row[-1]) == 0 for row in rows)


@pytest.mark.compiled("counts what is done in a second")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_index_that_is_changed_at_random_does_not_drift(backend: str) -> None:
    if backend == "usearch":
        pytest.importorskip("usearch", reason="usearch is optional")
    found = change_at_random(1.0, **settings_of(backend))
    assert found.faults == [] and 0 < 3 * found.changes == found.searches


@pytest.mark.compiled("counts what is done in a fraction of a second")
def test_the_lock_is_measured_with_and_without() -> None:
    found = measure_throughput("exact", rounds=2, seconds=0.05)
    assert (found.locked > 0).all() and (found.unlocked > 0).all() and len(found.locked) == 2


def test_the_tables() -> None:
    stress, drift = Stress(9, 8, 1, 2.0, ["x"]), Drift(7, 6, 3.0)
    assert table({"hnsw": stress}).splitlines()[-1] == "| hnsw | 2 | 9 | 8 | 1 | 1 |"
    assert drift_table({"pq": drift}).splitlines()[-1] == "| pq | 3 | 7 | 6 | 0 |"
    assert kills_table({"save": Kills(5, 3, 2, 0, 1)}).splitlines()[-1] == "| save | 5 | 3 | 2 | 0 | 1 | 0 |"
    rates = Throughput(np.array([90.0, 190]), np.array([100.0, 200]))
    assert rates.ratio[0] == 0.925
    assert throughput_table({"pq": rates}).splitlines()[-1].startswith("| pq | 140 | 150 | 0.925 |")
