"""The encoders of the search space; Pareto fronts and halving against their definitions."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera import FDEConfig, MomentsConfig
from muvera.tuning.plot import _COLORS
from muvera.tuning.search_space import encoder_candidates, halve, pareto_fronts

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20)


@pytest.mark.parametrize("dimension", [1, 4, 16, 128, 768])
def test_encoders_differ_and_are_valid_for_every_dimension(dimension: int) -> None:
    candidates = encoder_candidates(dimension)
    configs = {one.config for one in candidates}
    assert len(configs) == len({one.name for one in candidates}) == len(candidates)
    assert {one.kind for one in candidates} == {"mean", "moments", "FDE", "learned"} == set(_COLORS)
    assert {FDEConfig(dimension=dimension), MomentsConfig(dimension=dimension)} <= configs
    floats = [one.floats for one in candidates]
    assert floats == sorted(floats) and floats[0] <= 128
    for one in candidates:
        # Leading columns of a longer vector: only the size differs.
        size = "compact_dimension" if one.kind == "moments" else "vector_dimension"
        if one.source != one.config:
            assert one.source.vector_dimension >= one.floats
            assert {**one.source.to_dict(), size: 0} == {**one.config.to_dict(), size: 0}


@given(points)
def test_fronts_are_those_of_the_definition(pairs: list[tuple[int, int]]) -> None:
    sizes, values = [float(a) for a, _ in pairs], [float(b) for _, b in pairs]
    fronts = pareto_fronts(sizes, values)
    assert sorted(i for front in fronts for i in front) == list(range(len(pairs)))
    left = set(range(len(pairs)))
    for front in fronts:
        for i in left:
            exceeded = any(
                sizes[j] <= sizes[i]
                and values[j] >= values[i]
                and ((sizes[j], values[j]) != (sizes[i], values[i]) or j < i)
                for j in left - {i}
            )
            assert (i in front) == (not exceeded)
        left -= set(front)


@given(points)
def test_half_is_kept_and_nothing_better_is_dropped(pairs: list[tuple[int, int]]) -> None:
    left = halve(
        range(len(pairs)), [1], lambda i: pairs[i][0], lambda some, _: [float(pairs[i][1]) for i in some]
    )
    assert 2 * len(left) >= len(pairs)
    for j in set(range(len(pairs))) - set(left):
        assert any(pairs[i][0] <= pairs[j][0] and pairs[i][1] >= pairs[j][1] for i in left)


def test_separated_candidates_survive_noise() -> None:
    """Of three candidates per size, the best is .1 ahead, and noise is .02."""
    rng = np.random.default_rng(0)
    candidates = [(size, quality) for size in (1, 2, 4, 8) for quality in (0.0, 0.1, 0.2)]
    measured = []

    def measure(left: Sequence[tuple[int, float]], rung: int) -> list[float]:
        measured.append((rung, len(left)))
        return [0.05 * np.log2(size) + quality + rng.uniform(-0.02, 0.02) for size, quality in left]

    left = halve(candidates, (1, 2), lambda candidate: candidate[0], measure)
    assert {(size, 0.2) for size in (1, 2, 4, 8)} <= set(left)
    assert measured[0] == (1, 12) and measured[1][0] == 2 and 6 <= measured[1][1] < 12
    assert halve(["one"], (1, 2), lambda _: 1, lambda *_: [][0]) == ["one"]  # not measured
