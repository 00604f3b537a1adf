"""Indexes that change: under searches of other threads, and at random; ``MUVERA_ATTACK=1000`` takes minutes."""

import os
from pathlib import Path

import pytest
from builders.indexes import WAYS

from attack.changes import Stress, change_at_random

SECONDS = 60.0 if "MUVERA_ATTACK" in os.environ else 1.5


@pytest.mark.compiled("counts what happens in a second")
@pytest.mark.parametrize("way", WAYS)
def test_searches_beside_changes_see_all_of_a_change_or_nothing(way: str, tmp_path: Path) -> None:
    stress = Stress(SECONDS, tmp_path / "index", **WAYS[way])
    stress.run()
    assert stress.faults == []
    assert stress.searches > 5 and stress.changes > 2


@pytest.mark.compiled("counts what happens in a second")
@pytest.mark.parametrize("way", WAYS)
def test_an_index_that_changes_at_random_does_not_drift(way: str, tmp_path: Path) -> None:
    assert change_at_random(SECONDS, tmp_path / "index", **WAYS[way]) > 2
