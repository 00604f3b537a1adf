"""Interrupts at lines of changes and saves; ``MUVERA_ATTACK=1`` takes every line, for hours."""

import os
import random
from pathlib import Path

import pytest

from attack.interrupts import NAMES, fault_after, lines_of, make_case

#: Lines of each call that are interrupted, without MUVERA_ATTACK.
SAMPLED = 1


@pytest.mark.compiled("thousands of small calls")
@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_call_leaves_the_state_before_or_after(name: str, tmp_path: Path) -> None:
    case = make_case(name, tmp_path / "template")
    stream, faults = random.Random(name), list[str]()
    for call in case.calls:
        lines = range(lines_of(case, call, tmp_path / "count"))
        chosen = lines if "MUVERA_ATTACK" in os.environ else stream.sample(lines, SAMPLED)
        for line in chosen:
            fault = fault_after(case, call, line, tmp_path / "work")
            if fault is not None:
                faults.append(fault)
    assert faults == []
