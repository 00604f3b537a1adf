"""States of labels: as sets of numbers would tell them, in any order of changes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.mips.label_states import FREE, SPENT, USED, LabelStates

CHANGES = st.lists(
    st.tuples(st.sets(st.integers(0, 40), max_size=6), st.sampled_from([FREE, USED, SPENT])), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(CHANGES)
def test_they_are_what_sets_say(changes: list[tuple[set[int], int]]) -> None:
    found = LabelStates()
    expected: dict[int, set[int]] = {USED: set(), SPENT: set()}
    for labels, state in changes:
        found.put(np.array(sorted(labels), np.int64), state)
        for kind in expected:
            expected[kind] = expected[kind] - labels | (labels if kind == state else set())
    assert set(found.used.tolist()) == expected[USED]
    assert (found.num_used, found.num_spent) == (len(expected[USED]), len(expected[SPENT]))
    asked = np.array([-1, *range(41), 10**12])
    states = [
        USED if label in expected[USED] else SPENT if label in expected[SPENT] else FREE for label in asked
    ]
    assert found.of(asked).tolist() == states
