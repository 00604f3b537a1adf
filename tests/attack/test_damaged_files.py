"""Damaged files and folders are read, or refused in one sentence.

There is no crash, no hang and no raw error.

``MUVERA_ATTACK=N`` tries N mutations of each sample instead of a few.  ``--basetemp``
in memory, such as a folder in /dev/shm, makes this several times faster: 1,250
mutations of each take about 6 minutes.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from attack.damage import Reader, damage
from attack.samples import SAMPLES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits processes as Linux does")

MUTATIONS = int(os.environ.get("MUVERA_ATTACK", "25"))


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.close()


@pytest.mark.parametrize("name", SAMPLES)
def test_damage_is_read_or_refused_in_a_sentence(reader: Reader, tmp_path: Path, name: str) -> None:
    counts, faults = damage(reader, tmp_path, name, MUTATIONS)
    print(f"{name}: {counts}, {len(faults)} faults", *faults, sep="\n")
    assert not faults, "\n".join(faults)
    assert counts.get("refused", 0) > 0
