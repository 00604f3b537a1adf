"""LearnedConfig: configuration of learned vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...kernels.byte_tile import MAX_DEPTH
from ...utils.checks import require_int
from ..base import EncoderConfig

__all__ = ["LearnedConfig"]


@dataclass(frozen=True, kw_only=True)
class LearnedConfig(EncoderConfig):
    """Configuration of a learned vector, see :mod:`muvera.encoders.learned.maps`.

    Parameters
    ----------
    dimension : int
        Columns of a token vector.
    vector_dimension : int
        Floats of a vector.  More raise recall; memory and search time grow in proportion.
    num_landmarks : int
        Tokens at which documents are measured.  More raise recall; encoding documents takes time in
        proportion: ``2 * num_landmarks * dimension`` operations per document token.
    num_features : int
        Features of a token, at least `vector_dimension` and at most 65,536.  More raise recall.  The time to
        encode queries grows in proportion, that of documents does not, and fitting time grows with the cube.
    training_epochs : int
        Number of passes over about ten thousand sampled tokens to train the features.  0 keeps them random,
        which lowers recall and saves most of the fitting time.  Trained features have at least the recall of
        twice as many random ones.
    seed : int
        Seed of all random draws.

    Notes
    -----
    An index stores ``(num_landmarks + num_features) * (vector_dimension + dimension)`` bytes of maps.

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
                f"vector_dimension must be at most num_features={self.num_features}, got "
                f"{self.vector_dimension}. Raise num_features, too."
            )

    @property
    def needs_fit_sample(self) -> bool:
        """True: the maps are fitted to documents."""
        return True
