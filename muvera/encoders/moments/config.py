"""MeanConfig: every choice that makes a vector of a document's moments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...kernels.byte_tile import MAX_DEPTH
from ...utils.checks import given, require_int
from ..base import BaseConfig
from .blocks import moment_dimension

__all__ = ["MeanConfig"]


@dataclass(frozen=True, kw_only=True)
class MeanConfig(BaseConfig):
    """What makes a vector of a document's mean token, a bias and, where asked for, the covariance.

    Nothing is drawn at random.  The mean alone encodes at the speed of memory and needs hardly a fit:
    what a longer vector finds should be compared with it first.

    Parameters
    ----------
    dimension : int
        Columns of a token vector.
    covariance : bool
        Add the covariance of the document's tokens: ``dimension * (dimension + 1) / 2`` floats, most of
        what a late-interaction model says beyond the mean.  Encoding takes about ten times as long,
        still a fraction of an FDE's time.
    compact_dimension : int, optional
        Size after a map that is learned from documents, see
        :mod:`muvera.encoders.fde.compact_maps`: a few hundred floats find as much as all of the
        covariance's thousands or more.  Fitting takes seconds instead of milliseconds.
    seed : int
        Fixes which documents and windows are learned from.

    Examples
    --------
    >>> MeanConfig(dimension=128).vector_dimension
    129
    >>> MeanConfig(dimension=128, covariance=True).vector_dimension
    8385
    """

    kind: ClassVar[str] = "mean"

    #: The mean token is a block of its own, as in an FDE with ``split_mean``.
    split_mean: ClassVar[bool] = True

    dimension: int
    covariance: bool = False
    compact_dimension: int | None = None
    seed: int = 42

    def __post_init__(self) -> None:
        require_int("dimension", self.dimension, 1)
        require_int("seed", self.seed, 0)
        if not isinstance(self.covariance, bool):
            raise TypeError(f"covariance must be a bool, got {given(self.covariance)}.")
        if self.compact_dimension is not None:
            require_int("compact_dimension", self.compact_dimension, 1, self.long_dimension)
            if self.long_dimension > MAX_DEPTH:
                raise ValueError(
                    f"compact_dimension needs a long vector of at most {MAX_DEPTH} floats, got "
                    f"{self.long_dimension}. Use covariance=False, or tokens of fewer columns."
                )

    @property
    def long_dimension(self) -> int:
        """Floats before a compact map."""
        return moment_dimension(self.dimension, self.covariance)

    @property
    def vector_dimension(self) -> int:
        """Floats of a vector."""
        return self.compact_dimension or self.long_dimension

    @property
    def needs_fit_sample(self) -> bool:
        """Whether maps are learned from documents, and not coefficients alone."""
        return self.compact_dimension is not None
