"""LearnedConfig: every choice that makes a learned vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...kernels.byte_tile import MAX_DEPTH
from ...utils.checks import given, require_int, require_number
from ..base import BaseConfig
from ..moments.blocks import moment_dimension

__all__ = ["LearnedConfig"]


@dataclass(frozen=True, kw_only=True)
class LearnedConfig(BaseConfig):
    """What makes a learned vector, see :mod:`muvera.encoders.learned.encoder`.

    Parameters
    ----------
    dimension : int
        Columns of a token vector.
    vector_dimension : int
        Floats of a vector.  More find more; memory and search time grow in proportion.
    num_landmarks : int
        Tokens at which documents are measured.  More find more; encoding documents takes time
        in proportion: ``2 * num_landmarks * dimension`` operations a document token.
    num_features : int
        Features of a token, at least `vector_dimension` and at most 65,536.  More find more;
        encoding queries takes time in proportion, encoding documents does not, and fitting takes
        time with their cube.
    training_epochs : int
        How often features are trained on each of some ten thousand sampled tokens; 0 leaves them
        random, which finds less and saves most of the time of fitting.  Trained features find what
        random ones of twice the number do, or more.
    ridge : float
        Pull towards zero, in units of the features' mean variance.  A third or three times the
        default changes recall little.
    split_mean : bool
        Keep the document's mean token, calibrated, in ``dimension + 1`` of the floats, and learn what it
        leaves.  That finds as much or more, above all where few documents could be learned from or where
        they were of another kind.  It costs recall where the mean takes up half of the floats.
    seed : int
        Fixes all random draws.

    Notes
    -----
    An index keeps ``4 * (num_landmarks + num_features) * (vector_dimension + dimension)`` bytes
    of maps.

    Examples
    --------
    >>> LearnedConfig(dimension=128).vector_dimension
    1024
    """

    kind: ClassVar[str] = "learned"

    dimension: int
    vector_dimension: int = 1024
    num_landmarks: int = 8192
    num_features: int = 2048
    training_epochs: int = 8
    ridge: float = 0.03
    split_mean: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("dimension", "vector_dimension", "num_landmarks", "num_features"):
            object.__setattr__(self, name, require_int(name, getattr(self, name), 1))
        for name in ("training_epochs", "seed"):
            object.__setattr__(self, name, require_int(name, getattr(self, name), 0))
        if self.num_features > MAX_DEPTH:
            raise ValueError(f"num_features must be at most {MAX_DEPTH}, got {self.num_features}.")
        if self.vector_dimension > self.num_features:
            raise ValueError(
                f"vector_dimension must be at most num_features={self.num_features}, got {self.vector_dimension}. "
                "Raise num_features, too."
            )
        object.__setattr__(self, "ridge", require_number("ridge", self.ridge, 0.001, 100))
        if not isinstance(self.split_mean, bool):
            raise TypeError(f"split_mean must be a bool, got {given(self.split_mean)}.")
        if self.sketch_dimension < 1:
            raise ValueError(
                f"vector_dimension must be at least {self.dimension + 2} with split_mean=True, of which the mean "
                f"token and the bias take {self.dimension + 1}, got {self.vector_dimension}. Use longer vectors, or "
                "split_mean=False."
            )

    @property
    def sketch_dimension(self) -> int:
        """Floats that are learned: all but the mean token and the bias."""
        return self.vector_dimension - (moment_dimension(self.dimension, False) if self.split_mean else 0)

    @property
    def needs_fit_sample(self) -> bool:
        """True: the maps are learned from documents."""
        return True
