"""Kills of processes with eight writers; ``MUVERA_ATTACK=500`` kills 500 times instead of a few."""

import json
import os
import subprocess
import sys

import pytest
from builders.paths import ROOT


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("way", ["http", "open"])
def test_no_acknowledged_change_is_lost_or_half_applied(way: str) -> None:
    if way == "http":
        pytest.importorskip("uvicorn", reason="the serve extra is not installed")
    command = [sys.executable, str(ROOT / "tests" / "attack" / "durability.py"), "kills"]
    ended = subprocess.run(
        [*command, os.environ.get("MUVERA_ATTACK", "4"), way],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    counts = json.loads(ended.stdout)
    assert counts["acknowledged"] > 4, ended.stderr
    assert counts["lost"] == counts["half applied"] == counts["unloadable"] == 0, (counts, ended.stderr)
