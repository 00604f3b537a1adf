"""LearnedConfig: every choice that makes a learned vector."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ...kernels.byte_product import MOST_DEPTH

__all__ = ["LearnedConfig"]


@dataclass(frozen=True, kw_only=True)
class LearnedConfig:
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
        Random features of a token, at least `vector_dimension` and at most 65,536.  More find more;
        encoding queries takes time in proportion, encoding documents does not, and fitting takes
        time with their cube.
    ridge : float
        Pull towards zero, in units of the features' mean variance.  A third or three times the
        default changes recall little.
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

    dimension: int
    vector_dimension: int = 1024
    num_landmarks: int = 8192
    num_features: int = 4096
    ridge: float = 0.03
    seed: int = 42

    def __post_init__(self) -> None:
        for name, least in (
            ("dimension", 1), ("vector_dimension", 1), ("num_landmarks", 1), ("num_features", 1), ("seed", 0)
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, got {value!r}.")
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}.")
        if self.num_features > MOST_DEPTH:
            raise ValueError(f"num_features must be at most {MOST_DEPTH}, got {self.num_features}.")
        if self.vector_dimension > self.num_features:
            raise ValueError(
                f"vector_dimension must be at most num_features={self.num_features}, got {self.vector_dimension}. "
                "Raise num_features, too."
            )
        if isinstance(self.ridge, bool) or not isinstance(self.ridge, (int, float)):
            raise TypeError(f"ridge must be a float, got {self.ridge!r}.")
        if not 0.001 <= self.ridge <= 100:
            raise ValueError(f"ridge must be between 0.001 and 100, got {self.ridge}.")
        object.__setattr__(self, "ridge", float(self.ridge))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_dict` takes."""
        return {"encoder": "learned", **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LearnedConfig:
        """Return the configuration that :meth:`to_dict` described; unknown keys are errors."""
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - {*known, "encoder"})
        if unknown:
            raise ValueError(f"LearnedConfig has no {unknown[0]!r}. It has: {', '.join(known)}.")
        if "dimension" not in values:
            raise ValueError("LearnedConfig needs dimension, the columns of a token vector.")
        return cls(**{name: value for name, value in values.items() if name != "encoder"})

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that depend on every value and on nothing else."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
