"""Pareto fronts against their definition, and halving with separated candidates."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from muvera.tuning.successive_halving import better_half, halve, pareto_fronts

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20)


@given(points)
def test_fronts_are_those_of_the_definition(found: list[tuple[int, int]]) -> None:
    sizes, values = [float(a) for a, _ in found], [float(b) for _, b in found]
    layers = pareto_fronts(sizes, values)
    assert sorted(i for layer in layers for i in layer) == list(range(len(found)))
    left = set(range(len(found)))
    for layer in layers:
        for i in left:
            others = left - {i}
            beaten = any(
                sizes[j] <= sizes[i]
                and values[j] >= values[i]
                and ((sizes[j], values[j]) != (sizes[i], values[i]) or j < i)
                for j in others
            )
            assert (i in layer) == (not beaten)
        left -= set(layer)


@given(points)
def test_half_is_kept_and_no_better_one_is_dropped(found: list[tuple[int, int]]) -> None:
    sizes, values = [float(a) for a, _ in found], [float(b) for _, b in found]
    kept = better_half(sizes, values)
    assert 2 * len(kept) >= len(found)
    for j in set(range(len(found))) - set(kept):
        assert any(sizes[i] <= sizes[j] and values[i] >= values[j] for i in kept)


def test_separated_candidates_survive_noise() -> None:
    """Of three candidates a size, the best is .1 ahead and noise is .02."""
    rng = np.random.default_rng(0)
    candidates = [(size, quality) for size in (1, 2, 4, 8) for quality in (0.0, 0.1, 0.2)]
    seen = []

    def measure(left: Sequence[tuple[int, float]], rung: int) -> list[float]:
        seen.append((rung, len(left)))
        return [
            0.05 * np.log2(size) + quality + rng.uniform(-0.02, 0.02) / np.sqrt(rung)
            for size, quality in left
        ]

    left = halve(candidates, (1, 2), lambda candidate: candidate[0], measure)
    assert {(size, 0.2) for size in (1, 2, 4, 8)} <= set(left)
    assert (1, 0.0) not in left or (1, 0.1) in left
    assert seen[0] == (1, 12) and seen[1][0] == 2 and 6 <= seen[1][1] < 12


def test_a_single_candidate_is_not_measured() -> None:
    assert halve(["one"], (1, 2), lambda _: 1, lambda *_: [][0]) == ["one"]
