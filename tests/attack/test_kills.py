"""Killed saves; ``MUVERA_ATTACK=1000`` kills before every file operation instead of some."""

import os
import subprocess
import sys

import pytest
from builders.paths import ROOT

from attack.kills import OPERATIONS


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and exchanges folders in one step")
def test_a_kill_leaves_the_old_content_or_the_new() -> None:
    every = "1" if "MUVERA_ATTACK" in os.environ else "13"
    script = str(ROOT / "tests" / "attack" / "kills.py")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    ended = subprocess.run(
        [sys.executable, script, every], env=environment, capture_output=True, text=True, check=False
    )
    lines = ended.stdout.splitlines()
    assert ended.returncode == 0, ended.stderr
    assert [line.partition(":")[0] for line in lines] == list(OPERATIONS), ended.stdout
    assert all(line.partition(": ")[2] != "{}" for line in lines)
