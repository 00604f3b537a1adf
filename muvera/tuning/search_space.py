"""The search space: encoders of many sizes; and successive halving, which narrows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..encoders.base import EncoderConfig
from ..encoders.fde.config import FDEConfig
from ..encoders.learned.config import LearnedConfig
from ..encoders.moments import MomentsConfig

__all__ = ["EncoderCandidate", "encoder_candidates", "halve", "pareto_fronts"]

# (num_repetitions, num_simhash_projections, projection_dimension) of FDEs: sketches of 640 to 20,480 floats.
_FDE_SHAPES = (
    (20, 2, 8),
    (20, 3, 8),
    (40, 2, 8),
    (20, 3, 16),
    (40, 2, 16),
    (40, 3, 8),
    (20, 4, 16),
    (40, 3, 16),
    (20, 5, 16),
    (40, 4, 16),
    (80, 3, 16),
    (40, 5, 16),
)

# Floats of an FDE with 8 cells, no projection and as many repetitions as fit.
_IDENTITY_FLOATS = 10240

# Floats of moments and learned vectors.  One fit serves all sizes; its time grows with the largest.
_MOMENTS_SIZES = (128, 256, 512)
_LEARNED_SIZES = (128, 256, 512, 1024, 2048)

_T = TypeVar("_T")


@dataclass(frozen=True)
class EncoderCandidate:
    """An encoder of the search space; the first word of its name is its kind.

    During the search, the leading columns of the vectors of `source` are used, so that one fit serves all
    sizes.
    """

    name: str
    config: EncoderConfig
    source: EncoderConfig

    @property
    def kind(self) -> str:
        """First word of the name."""
        return self.name.split()[0]

    @property
    def floats(self) -> int:
        """Floats of a vector."""
        return self.config.vector_dimension


def encoder_candidates(dimension: int) -> list[EncoderCandidate]:
    """Return the encoders to try for tokens of `dimension` columns, small vectors first."""
    mean = MomentsConfig(dimension=dimension, covariance=False, compact_dimension=None)
    whole = MomentsConfig(dimension=dimension, compact_dimension=None)
    moments = MomentsConfig(dimension=dimension, compact_dimension=max(_MOMENTS_SIZES))
    learned = LearnedConfig(dimension=dimension, vector_dimension=max(_LEARNED_SIZES))
    rows: list[tuple[str, EncoderConfig, EncoderConfig]] = [("mean", mean, mean), ("moments", whole, whole)]
    rows += [("moments", replace(moments, compact_dimension=size), moments) for size in _MOMENTS_SIZES]
    rows += [("learned", replace(learned, vector_dimension=size), learned) for size in _LEARNED_SIZES]
    candidates: dict[EncoderConfig, EncoderCandidate] = {}
    for kind, config, source in rows:
        candidate = EncoderCandidate(f"{kind} {config.vector_dimension:,}", config, source)
        candidates.setdefault(config, candidate)
    for repetitions, planes, width in _FDE_SHAPES:
        columns = min(width, dimension)
        fde = FDEConfig(
            dimension=dimension,
            num_repetitions=repetitions,
            num_simhash_projections=planes,
            projection_dimension=columns,
        )
        name = f"FDE R={repetitions} k={planes} p={columns}"
        candidates.setdefault(fde, EncoderCandidate(name, fde, fde))
    repetitions = max(1, _IDENTITY_FLOATS // (8 * dimension))
    fde = FDEConfig(
        dimension=dimension,
        num_repetitions=repetitions,
        num_simhash_projections=3,
        projection="identity",
    )
    candidates.setdefault(fde, EncoderCandidate(f"FDE R={repetitions} k=3 identity", fde, fde))
    return sorted(candidates.values(), key=lambda candidate: candidate.floats)


def pareto_fronts(sizes: Sequence[float], values: Sequence[float]) -> list[list[int]]:
    """Return positions by Pareto front: no position of equal or smaller size exceeds those of the first.

    Each front starts with the smallest size.  Of two equal positions the first is in the earlier front.

    Examples
    --------
    >>> pareto_fronts([1, 2, 3, 2], [0.5, 0.7, 0.6, 0.4])
    [[0, 1], [3, 2]]
    """
    left = sorted(range(len(sizes)), key=lambda i: (sizes[i], -values[i], i))
    fronts = []
    while left:
        front: list[int] = []
        for i in left:
            if not front or values[i] > values[front[-1]]:
                front.append(i)
        fronts.append(front)
        left = [i for i in left if i not in front]
    return fronts


def halve(
    candidates: Sequence[_T],
    rungs: Sequence[int],
    size: Callable[[_T], float],
    measure: Callable[[Sequence[_T], int], Sequence[float]],
) -> list[_T]:
    """Return the candidates that are left after successive halving.

    They are measured on samples of growing size, the `rungs`.  After each, whole Pareto fronts of size (smaller is
    better) and value (larger is better) are kept, the best first, until they are at least half of the candidates.
    """
    left = list(candidates)
    for rung in rungs:
        if len(left) < 2:
            break
        best: list[int] = []
        for front in pareto_fronts([size(candidate) for candidate in left], measure(left, rung)):
            best += front
            if 2 * len(best) >= len(left):
                break
        left = [left[i] for i in sorted(best)]
    return left
