"""FDEConfig: the parameters of a Fixed Dimensional Encoding, and its presets.

An FDE is made in three steps, each of which may be absent
(:mod:`muvera.fde.steps`):

1. Cells.  A partition of token space decides which tokens meet: SimHash as in the paper
   (arXiv 2405.19504, section 2), or landmarks learned from documents.
2. Moments.  A document's mean token, with or without the covariance of its tokens.
3. A final projection to few floats: learned, or the paper's count sketch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import KW_ONLY, dataclass
from difflib import get_close_matches
from typing import Any, NamedTuple

from ..utils.atomic_files import content_checksum
from ..utils.checks import given, require_choice, require_int
from .steps import (
    Cells,
    CountSketch,
    Covariance,
    FinalProjection,
    Landmarks,
    LearnedProjection,
    MeanToken,
    Moments,
    SimHash,
    for_tokens,
    parameters,
)

# The paper's steps alone, with 10,240 floats.
_PAPER: dict[str, Any] = {
    "partition": "simhash",
    "num_repetitions": 20,
    "num_simhash_projections": 5,
    "projection": "rademacher",
    "center": False,
    "fill_empty_partitions": True,
    "document_cells": "mean",
    "soft_query_cells": 0.0,
    "moments": None,
    "final_projection": None,
}

#: Named configurations: the entries of :meth:`FDEConfig.to_dict` that differ from the
#: defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "fde": {},
    "moments": {"partition": None},
    "mean": {"partition": None, "moments": "mean", "final_projection": None},
    "simhash": {"partition": "simhash", "moments": "mean", "final_projection": None},
    "paper": _PAPER,
    "reference": {**_PAPER, "projection": "count_sketch", "seed": 1, "dialect": "reference"},
}

#: The preset that is used without `encoder`.
DEFAULT_PRESET = "fde"


class Size(NamedTuple):
    """The steps of "fde" for collections of a size."""

    #: Smallest numbers of documents and tokens for this size.  None: an index takes it
    #: only if a smaller size has a low recall.
    documents: int | None
    tokens: int
    cells: Landmarks = Landmarks()
    moments: Moments = Covariance()
    projection: LearnedProjection = LearnedProjection()


# With fewer than 32 tokens per landmark, the 4,096 landmarks of the second size would
# be poorly determined.
_TOKENS = 1 << 17

#: Sizes of "fde", ascending, by `python -m experiments landmarks`.
SIZES = (
    Size(0, 0),
    Size(2048, _TOKENS, Landmarks(4096), MeanToken()),
    Size(1 << 17, _TOKENS, Landmarks(4096), MeanToken(), LearnedProjection(1024)),
    Size(None, _TOKENS, Landmarks(8192), MeanToken(), LearnedProjection(2048)),
)

# The steps in a dictionary: for each entry that names a step's kind, the field of
# FDEConfig, and the kinds, the default first.
_STEPS: dict[str, tuple[str, list[type[Any]]]] = {
    "partition": ("cells", [Landmarks, SimHash]),
    "moments": ("moments", [Covariance, MeanToken]),
    "final_projection": ("projection", [LearnedProjection, CountSketch]),
}

# Parameters of steps, which a dictionary has beside their kinds.
_PARAMETERS = list(
    dict.fromkeys(name for _, kinds in _STEPS.values() for kind in kinds for name in parameters(kind))
)

# Parameters that a dictionary has only if they differ from their default, because older
# versions did not know them.
_NEWER = {"num_directions": Covariance().num_directions}

# Parameters whose default depends on other values; None stands for it.
_SIZES = ("projection_dimension", "final_projection_dimension")

# Largest number of columns: it keeps long vectors within MAX_DEPTH of
# :mod:`muvera.kernels.byte_tile`.
_MOST_COLUMNS = 32768

# Longest vector that a learned projection reads: sums of its bytes must fit into 32
# bits.
_LONGEST = 65536


@dataclass(frozen=True)
class FDEConfig:
    """Configuration of an FDE: a list of steps.

    The defaults had the best recall across collections: ``FDEConfig(d)`` is the preset
    "fde", landmark cells, moments and a learned projection to 512 floats.
    :meth:`preset` gives the others by name.

    Parameters
    ----------
    dimension : int
        d, columns of a token vector.
    cells : Landmarks, SimHash or None
        How token space is divided into cells.  :class:`muvera.Landmarks` have the best
        recall and need a fit to documents; :class:`muvera.SimHash` is the paper's
        partition by random hyperplanes.  None: no cells, only moments.
    moments : Covariance, MeanToken or None
        What the vector stores of all tokens of a document together:
        :class:`muvera.MeanToken`, or :class:`muvera.Covariance`, which includes it.
    projection : LearnedProjection, CountSketch or None
        The last step: :class:`muvera.LearnedProjection` of cells and moments to few
        floats, or :class:`muvera.CountSketch`, the paper's projection of the cells.
    seed : int
        Seed of all random draws.  No seed is better than another; documents and queries
        need the same one.

    Raises
    ------
    TypeError
        If a parameter has the wrong type.
    ValueError
        If a value is out of range, or the steps do not fit together.

    Examples
    --------
    >>> from muvera import Landmarks, LearnedProjection, MeanToken, SimHash
    >>> FDEConfig(128).vector_dimension
    512
    >>> longer = LearnedProjection(1024)
    >>> FDEConfig(128, cells=Landmarks(4096), projection=longer).vector_dimension
    1024

    The paper's cells, beside the mean token:

    >>> cells = SimHash(num_repetitions=20, num_simhash_projections=5)
    >>> config = FDEConfig(128, cells=cells, moments=MeanToken(), projection=None)
    >>> config.vector_dimension
    10369
    """

    dimension: int
    _: KW_ONLY
    cells: Cells | None = Landmarks()
    moments: Moments | None = Covariance()
    projection: FinalProjection | None = LearnedProjection()
    seed: int = 42

    def __post_init__(self) -> None:
        dimension = require_int("dimension", self.dimension, 1, _MOST_COLUMNS)
        object.__setattr__(self, "dimension", dimension)
        object.__setattr__(self, "seed", require_int("seed", self.seed, 0))
        for name, kinds in _STEPS.values():
            step = getattr(self, name)
            if step is not None and type(step) not in kinds:
                names = " or ".join(kind.__name__ for kind in kinds)
                raise TypeError(f"{name} must be a {names} or None, got {given(step)}.")
        if self.cells is None and self.moments is None:
            raise ValueError(
                "An FDE needs cells or moments, got cells=None and moments=None. "
                "Use cells=SimHash() or moments=MeanToken()."
            )
        if self.cells is not None:
            object.__setattr__(self, "cells", for_tokens(self.cells, dimension))
        self._settle_projection()

    def _settle_projection(self) -> None:
        projection = self.projection
        if isinstance(projection, CountSketch) and self.cells is None:
            raise ValueError("A count sketch projects cells, got cells=None. Use SimHash() or Landmarks().")
        if not isinstance(projection, LearnedProjection):
            return
        if self.moments is None:
            raise ValueError(
                "A learned projection needs moments, got moments=None. Use moments=MeanToken(), or "
                "projection=None."
            )
        if self.long_dimension > _LONGEST:
            raise ValueError(
                f"A learned projection reads at most {_LONGEST} floats of cells and moments, got "
                f"{self.long_dimension}. Use fewer repetitions or cells."
            )
        if projection.final_projection_dimension >= self.long_dimension:
            # Nothing is left to project.
            object.__setattr__(self, "projection", None)

    @classmethod
    def preset(cls, name: str, dimension: int, **changes: Any) -> FDEConfig:
        """Return a named configuration, with `changes` to it.

        Parameters
        ----------
        name : {"fde", "moments", "mean", "simhash", "paper", "reference"}
            "fde": the default, landmark cells and moments, projected to 512 floats.
            "moments": the same without cells.  "mean": the mean token and a bias, the
            baseline for any longer vector.  "simhash": SimHash cells and the mean
            token, 5,249 floats for 128 columns.  It hardly depends on the documents
            that it was fitted on, which suits streams of changing documents.  "paper":
            arXiv 2405.19504, section 2, with 10,240 floats.  "reference": Google's C++
            reference (google/graph-mining), the same FDE from the same seed up to
            float32 rounding.  This holds for builds with GNU libstdc++; other C++
            standard libraries draw other numbers.
        dimension : int
            d, columns of a token vector.
        **changes
            Entries of :meth:`to_dict`: parameters of the steps, such as
            ``num_repetitions=40``, or other kinds of steps, such as
            ``partition="simhash"`` or ``moments=None``.

        Returns
        -------
        FDEConfig

        Raises
        ------
        ValueError
            If there is no such preset, or as for :meth:`from_dict`.

        Examples
        --------
        >>> FDEConfig.preset("paper", 96).cells.projection
        'rademacher'
        >>> FDEConfig.preset("simhash", 128).vector_dimension
        5249
        >>> FDEConfig.preset("paper", 128, num_simhash_projections=4).vector_dimension
        5120
        """
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r}. The presets are: {', '.join(PRESETS)}.")
        return cls.from_dict({"dimension": dimension, **PRESETS[name], **changes})

    def sized(self, documents: int, tokens: int) -> FDEConfig:
        """Return "fde" for a collection of this size, if this is a smaller "fde".

        An index calls it before it fits an encoder.  Large collections get more
        landmarks, no covariance and more floats: docs/settings.md has the table.

        Parameters
        ----------
        documents : int
            Number of documents with tokens.
        tokens : int
            Number of their tokens.

        Returns
        -------
        FDEConfig
            A larger one, or this one: always this one unless it is "fde", or differs
            from it only by its size and seed.

        Examples
        --------
        >>> large = FDEConfig(128).sized(documents=1_000_000, tokens=30_000_000)
        >>> large.cells, large.moments, large.vector_dimension
        (Landmarks(num_landmarks=4096, landmark_sharpness=8.0), MeanToken(), 1024)
        """
        sizes = self._sizes()
        if self not in sizes:
            return self
        fitting = [
            config
            for config, size in zip(sizes, SIZES, strict=True)
            if size.documents is not None and documents >= size.documents and tokens >= size.tokens
        ]
        return max(self, fitting[-1], key=sizes.index)

    def larger(self, tokens: int) -> FDEConfig | None:
        """Return "fde" of the next larger size, which has a higher recall.

        Parameters
        ----------
        tokens : int
            Number of tokens of all documents.

        Returns
        -------
        FDEConfig or None
            None for the largest size, for too few tokens, and if this is not "fde".
        """
        sizes = self._sizes()
        later = sizes.index(self) + 1 if self in sizes else len(sizes)
        return sizes[later] if later < len(sizes) and tokens >= SIZES[later].tokens else None

    def _sizes(self) -> list[FDEConfig]:
        """Return the configurations of SIZES with this dimension and seed."""
        return [
            FDEConfig(self.dimension, cells=cells, moments=moments, projection=projection, seed=self.seed)
            for _, _, cells, moments, projection in SIZES
        ]

    @property
    def cell_dimension(self) -> int:
        """Floats of all cells: R_reps * 2**k_sim * d_proj, or M landmarks, or 0."""
        return 0 if self.cells is None else self.cells.count * self.cells.columns

    @property
    def num_directions(self) -> int:
        """Directions of the covariance, 0 without one."""
        covariance = self.moments
        return min(self.dimension, covariance.num_directions) if isinstance(covariance, Covariance) else 0

    @property
    def moment_dimension(self) -> int:
        """Floats of the moments: covariance, mean and bias."""
        size = self.num_directions
        return 0 if self.moments is None else size * (size + 1) // 2 + self.dimension + 1

    @property
    def long_dimension(self) -> int:
        """Floats of cells and moments before a learned projection."""
        return self.cell_dimension + self.moment_dimension

    @property
    def vector_dimension(self) -> int:
        """Floats of an FDE."""
        if self.projection is None:
            return self.long_dimension
        size = self.projection.final_projection_dimension
        return size if isinstance(self.projection, LearnedProjection) else size + self.moment_dimension

    @property
    def needs_fit(self) -> bool:
        """True if an encoder must be fitted to documents before it can encode."""
        return self.moments is not None or not isinstance(self.cells, SimHash) or self.cells.center

    @property
    def needs_fit_sample(self) -> bool:
        """True if fitting needs many documents; a mean token needs only a few."""
        return isinstance(self.projection, LearnedProjection) or isinstance(self.cells, Landmarks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: the kind of each step, and the parameters of the steps.

        Returns
        -------
        dict
            Values by name, which :meth:`from_dict` accepts: "dimension", "seed"; the
            kinds "partition", "moments" and "final_projection" ("landmarks", "mean",
            "learned" and so on, or None); and the parameters of these steps.
        """
        values: dict[str, Any] = {"dimension": self.dimension}
        for entry, (name, _) in _STEPS.items():
            step = getattr(self, name)
            values[entry] = None if step is None else step.kind
            for key, value in ({} if step is None else dataclasses.asdict(step)).items():
                if value != _NEWER.get(key, ...):
                    values[key] = value
        values.setdefault("final_projection_dimension", None)
        return {**values, "seed": self.seed}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FDEConfig:
        """Return the configuration from the result of :meth:`to_dict`.

        Parameters
        ----------
        values : dict
            Values by name; those that are missing have their defaults.

        Returns
        -------
        FDEConfig

        Raises
        ------
        ValueError
            If there is no such parameter, it belongs to another kind of step, or as for
            :class:`FDEConfig`.
        """
        known = ["dimension", *_STEPS, *_PARAMETERS, "seed"]
        unknown = sorted(set(values) - set(known))
        if unknown:
            near = [f"Did you mean {name!r}? " for name in get_close_matches(unknown[0], known, 1, 0.8)]
            raise ValueError(f"FDEConfig has no {unknown[0]!r}. {''.join(near)}It has: {', '.join(known)}.")
        if "dimension" not in values:
            raise ValueError("FDEConfig needs dimension, the columns of a token vector.")
        steps = {name: _step(entry, kinds, values) for entry, (name, kinds) in _STEPS.items()}
        return cls(**{name: values[name] for name in ("dimension", "seed") if name in values}, **steps)

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that depend only on the values."""
        return content_checksum(self.to_dict())[:16]


def _step(entry: str, kinds: list[type[Any]], values: dict[str, Any]) -> Any:
    """Return the step whose kind ``values[entry]`` names, with its parameters."""
    by_name = {kind.kind: kind for kind in kinds}
    chosen = values.get(entry, kinds[0].kind)
    require_choice(entry, chosen, (*by_name, None))
    # None stands for the default of a size.
    present = {name: value for name, value in values.items() if value is not None or name not in _SIZES}
    accepted = [] if chosen is None else parameters(by_name[chosen])
    for kind in kinds:
        for name in parameters(kind):
            if name in present and name not in accepted:
                needed = " or ".join(
                    f"{entry}={other.kind!r}" for other in kinds if name in parameters(other)
                )
                raise ValueError(f"{name}={present[name]!r} needs {needed}, got {entry}={chosen!r}.")
    if chosen is None:
        return None
    if chosen == "count_sketch" and "final_projection_dimension" not in present:
        raise ValueError("final_projection='count_sketch' needs final_projection_dimension, got None.")
    return by_name[chosen](**{name: present[name] for name in accepted if name in present})
