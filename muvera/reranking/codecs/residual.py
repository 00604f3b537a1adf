"""ResidualCodec: a centroid, and a few bits a coordinate for what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...data.validation import read_only_view
from ...kernels.byte_shuffles import HAS_SHUFFLES
from ...kernels.byte_tile import STEP
from ...kernels.residuals import byte_table, decode_residuals
from ...kernels.token_codes import FACTOR_BYTES, write_residuals
from ...numerics.matmul import product
from .base import CodeLayout, CodeQuery, TokenCodec, factor_bytes
from .clustering import direction_centroids, nearest_centroids, unit_rows
from .lloyd_max import normal_levels, thresholds_between
from .query_bytes import packed_query, power_of_two
from .rotation import Rotation, random_rotation

__all__ = ["ResidualCodec"]

#: Centroids where they are learned: their number takes one byte.
NUM_CENTROIDS = 256

# Tokens that a centroid is the mean of, on average at least: of fewer, it leaves too little of them.
_TOKENS_PER_CENTROID = 16

# A scale is at least this share of the typical one, so that bytes resolve all coordinates alike, and the
# typical one at least this share of a token's length, where a sample has hardly more than one token.
_LEAST_SCALE, _LEAST_TYPICAL = 0.25, 1e-3

# Factors by which a token is stretched before it is coded, of which the best is taken.
_STRETCHES = read_only_view(np.array([1, 0.95, 1.05, 0.9, 1.1], np.float32))

# Entries that carry a byte of a centroid's number: two bits each.
_MARKS = 4

# How far an entry of a token of length 1 is from what its code stands for, at most, where it was decoded: float32
# rounds its rotation.
_TOLERANCE = 5e-6

# A sum of a centroid's and a residual's steps is at most this in size.
_MOST = 126

# Tokens whose lengths are measured at a time.
_ROWS = 8192

_WORDS = {8: np.uint64, 4: np.uint32, 2: np.uint16, 1: np.uint8}


class ResidualCodec(TokenCodec):
    """Codec of 1, 2, 4 or 8 bits a coordinate, a centroid's number and a factor.

    Encoding what was decoded gives the same codes, from 8 dimensions on.  What is decoded may be nearer to
    another centroid than its own, so the two lowest bits of its first entries carry the number of its own.

    The token ``x`` stands as ``f * P (c + s * z)``: P is an orthogonal matrix that spreads every error over
    all coordinates, c one of the centroids, s a scale a coordinate, z a level a coordinate, and f the factor
    that gives the token its own length again.  Without that factor, shortened tokens would rank too low.

    Parameters
    ----------
    centroids : float32 (K, dimension)
        In the coordinates of `rotation`.
    levels : float32 (2 ** bits,)
        Ascending.
    thresholds : float32 (2 ** bits - 1,)
        What lies above i of them has level i.
    scales : float32 (dimension,)
    rotation : float32 (dimension, dimension), optional
        Rotated tokens are ``x @ rotation``.  Default: they are as they are.
    unit : float
        What a factor of 1 stands for.

    Raises
    ------
    ValueError
        For arrays that do not fit each other, or numbers that are not finite.
    """

    kind: ClassVar[str] = "residual"

    def __init__(
        self,
        centroids: NDArray[np.float32],
        levels: NDArray[np.float32],
        thresholds: NDArray[np.float32],
        scales: NDArray[np.float32],
        rotation: NDArray[np.float32] | None,
        unit: float,
    ) -> None:
        _require_fitting(centroids, levels, thresholds, scales, rotation, unit)
        super().__init__(centroids.shape[1])
        self.bits = len(levels).bit_length() - 1
        self._arrays = {
            "centroids": centroids,
            "levels": levels,
            "thresholds": thresholds,
            "scales": scales,
            "unit": np.array([unit], np.float32),
        }
        self._centroids, self._levels = read_only_view(centroids), read_only_view(levels)
        self._thresholds, self._scales = read_only_view(thresholds), read_only_view(scales)
        self._inverse_scales = read_only_view(1 / scales)
        self._rotation = None if rotation is None else Rotation(rotation)
        self._unit = np.float32(unit)
        self._id_bytes = 1 if len(centroids) <= 1 << 8 else 2 if len(centroids) <= 1 << 16 else 4
        self._residual_bytes = -(-self.dimension * self.bits // 8)
        self._scaled_centroids = read_only_view(centroids * self._inverse_scales)
        self._table = read_only_view(byte_table(levels, self.bits))
        self._make_layout()

    def _make_layout(self) -> None:
        """Round centroids and levels to steps of one size, so that a sum of two of them is a byte."""
        keys = 8 // self.bits
        kind = _WORDS[keys]
        words = -(-self._residual_bytes * keys // 8) * 8 // keys
        self._shift = self._scaled_centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = self._scaled_centroids - self._shift
        widest = np.float32(np.abs(spread).max() + np.abs(self._levels).max())
        self._step = widest / _MOST if widest > 0 else np.float32(1)  # one centroid, and no residuals at all
        centers = np.rint(spread / self._step)
        table = np.rint(self._table / self._step)
        most = np.abs(centers).max(), np.abs(table).max()
        self._zero = float(most[0] + most[1])
        self._steps = read_only_view(self._scales * self._step)
        self._shift_in_steps = read_only_view(self._shift / self._step)
        rows = np.zeros((len(centers), words * keys), np.uint8)
        rows[:, : self.dimension] = centers + most[0]
        bytes_of = np.ascontiguousarray((table + most[1]).astype(np.uint8))
        entries = bytes_of.view(kind).reshape(-1)
        # Of the byte whose upper half is a nibble, the first half of the coordinates.
        nibbles = np.ascontiguousarray(bytes_of[::16, : keys // 2].T).reshape(-1)
        assert words * keys % STEP == 0
        self._layout = CodeLayout(
            self._id_bytes,
            read_only_view(rows.view(kind).reshape(-1)),
            read_only_view(entries),
            read_only_view(nibbles if HAS_SHUFFLES else nibbles[:0]),
            words,
            words * keys,
        )

    @classmethod
    def fit(cls, tokens: NDArray[np.float32], bits: int, threads: int | None = None) -> ResidualCodec:
        """Return the codec for tokens like these.

        Parameters
        ----------
        tokens : float32 (n, dimension)
            At least one; some 50,000 are enough.
        bits : {1, 2, 4}
        threads : int, optional
            Default: all usable cores.  The codec does not depend on it.
        """
        dimension = tokens.shape[1]
        streams = [np.random.default_rng(child) for child in np.random.SeedSequence(0).spawn(2)]
        units, lengths = unit_rows(tokens)
        rotation = random_rotation(dimension, streams[0])
        rotated = product(units, rotation, threads)
        most = max(1, min(NUM_CENTROIDS, len(tokens) // _TOKENS_PER_CENTROID))
        centroids = direction_centroids(rotated, most, streams[1], threads)
        residuals = rotated - centroids[nearest_centroids(rotated, centroids, threads)]
        scales = np.sqrt(np.mean(residuals.astype(np.float64) ** 2, axis=0))
        typical = max(_LEAST_TYPICAL, float(np.sqrt(np.mean(scales**2))))
        scales = np.maximum(scales, _LEAST_SCALE * typical)
        levels = normal_levels(bits)
        return cls(
            centroids,
            levels,
            thresholds_between(levels),
            scales.astype(np.float32),
            rotation,
            power_of_two(float(np.median(lengths))),
        )

    @classmethod
    def of_plaid(cls, centroids: NDArray[np.float32], weights: NDArray[np.float32]) -> ResidualCodec:
        """Return the codec of a PLAID index: its own centroids, and its buckets' weights as levels."""
        levels = np.ascontiguousarray(weights, np.float32)
        return cls(
            np.array(centroids, np.float32),
            levels,
            thresholds_between(levels),
            np.ones(centroids.shape[1], np.float32),
            None,
            1.0,
        )

    def plaid_codes(self, numbers: NDArray[Any], packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the codes of centroids' numbers (n,) and packed residuals, scaled to length 1 as PLAID does."""
        out = np.zeros((len(numbers), self.bytes_per_token), np.uint8)
        self.write_codes(numbers, np.ones(len(numbers)), packed, out)
        for start in range(0, len(out), _ROWS):
            part = out[start : start + _ROWS]
            lengths = np.linalg.norm(self.decode(part, 1).astype(np.float64), axis=1)
            self.write_codes(
                numbers[start : start + _ROWS],
                1 / np.maximum(lengths, 1e-4),
                packed[start : start + _ROWS],
                part,
            )
        return out

    @property
    def name(self) -> str:
        """What users call it."""
        return f"{self.bits}bit" if self._rotation is not None else f"plaid-{self.bits}bit"

    @property
    def bytes_per_token(self) -> int:
        """Bytes of a code."""
        return self._id_bytes + FACTOR_BYTES + self._residual_bytes

    @property
    def layout(self) -> CodeLayout:
        """What the scoring kernel reads besides codes."""
        return self._layout

    def _encode(self, tokens: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        units, lengths = unit_rows(tokens)
        rotated = units if self._rotation is None else self._rotation.rotate(units)
        numbers = nearest_centroids(rotated, self._centroids, 1)
        packed = np.zeros((len(tokens), self._residual_bytes), np.uint8)
        norms = np.empty(len(tokens))
        write_residuals(
            rotated, self._centroids, self._marked_centroids(tokens), numbers, self._inverse_scales,
            self._thresholds, self._levels, self._scales, self.bits, _STRETCHES, _TOLERANCE, packed, norms,
        )  # fmt: skip
        self.write_codes(numbers, lengths / np.where(norms == 0, 1, norms), packed, out)
        factors = out[:, self._id_bytes : self._id_bytes + FACTOR_BYTES]
        out[~factors.any(axis=1)] = 0  # all of these are decoded to zeros

    def write_codes(
        self,
        numbers: NDArray[np.integer[Any]],
        factors: NDArray[np.float64],
        packed: NDArray[np.uint8],
        out: NDArray[np.uint8],
    ) -> None:
        """Write codes of centroids' numbers (n,), factors (n,) and packed residuals (n, bytes) to `out`."""
        start = self._id_bytes
        out[:, :start] = numbers.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :start]
        out[:, start : start + FACTOR_BYTES] = factor_bytes(factors / self._unit)
        out[:, start + FACTOR_BYTES :] = packed

    def split_codes(
        self, codes: NDArray[np.uint8]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.uint8]]:
        """Return the centroids' numbers, factors and packed residuals of codes (n, bytes_per_token)."""
        start = self._id_bytes
        ids = np.zeros((len(codes), 4), np.uint8)
        ids[:, :start] = codes[:, :start]
        factors = codes[:, start : start + FACTOR_BYTES].copy().view("<f2").reshape(-1).astype(np.float32)
        packed = np.ascontiguousarray(codes[:, start + FACTOR_BYTES :])
        # A damaged number is that of the last centroid, as in the kernel: none is read outside of them.
        numbers = np.minimum(ids.view("<u4").reshape(-1).astype(np.int64), len(self._centroids) - 1)
        return numbers, factors * self._unit, packed

    def _decode(self, codes: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        numbers, factors, packed = self.split_codes(codes)
        scaled = np.empty_like(out)
        decode_residuals(numbers, packed, self._scaled_centroids, self._table, False, scaled)
        scaled *= self._scales
        scaled *= factors[:, np.newaxis]
        out[:] = scaled if self._rotation is None else self._rotation.rotate_back(scaled)
        self._mark_centroids(numbers, out)

    def _mark_centroids(self, numbers: NDArray[np.int64], tokens: NDArray[np.float32]) -> None:
        """Write the centroids' numbers to the two lowest bits of each of the first entries, zeros left out."""
        for i in range(min(_MARKS * self._id_bytes, self.dimension)):
            bits = tokens[:, i].view(np.uint32)
            pair = (numbers >> 2 * i & 3).astype(np.uint32)
            bits[:] = np.where(bits << np.uint32(1) == 0, bits, bits & ~np.uint32(3) | pair)

    def _marked_centroids(self, tokens: NDArray[np.float32]) -> NDArray[np.int64]:
        """Return the numbers that :meth:`_mark_centroids` wrote; any where it did not."""
        numbers = np.zeros(len(tokens), np.int64)
        for i in range(min(_MARKS * self._id_bytes, self.dimension)):
            numbers |= (tokens[:, i].view(np.uint32) & np.uint32(3)).astype(np.int64) << 2 * i
        return np.minimum(numbers, len(self._centroids) - 1)

    def query(self, tokens: NDArray[np.float32]) -> CodeQuery:
        """Return a query, float32 (m, dimension), rounded to bytes."""
        rotated = tokens if self._rotation is None else self._rotation.rotate(tokens)
        return packed_query(
            rotated,
            self._steps,
            self._shift_in_steps,
            self._layout.depth,
            self._zero,
            self._unit,
            shift_before_factor=True,
        )

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was learned, by name."""
        rotation = (
            np.empty((0, self.dimension), np.float32) if self._rotation is None else self._rotation.matrix
        )
        return {**self._arrays, "rotation": rotation}

    @classmethod
    def from_arrays(cls, read: Callable[[str], NDArray[Any]], dimension: int) -> ResidualCodec:
        """Return the codec of the arrays that `read` returns by name.

        Raises
        ------
        ValueError
            For arrays that do not fit each other or the dimension, or are not finite.
        """
        centroids, rotation, unit = read("centroids"), read("rotation"), read("unit")
        if centroids.ndim != 2 or centroids.shape[1] != dimension or unit.shape != (1,):
            raise ValueError(
                f"The codec's centroids have shape {centroids.shape}, but the tokens have dimension={dimension}."
            )
        return cls(
            centroids,
            read("levels"),
            read("thresholds"),
            read("scales"),
            rotation if len(rotation) else None,
            float(unit[0]),
        )


def _require_fitting(
    centroids: NDArray[Any],
    levels: NDArray[Any],
    thresholds: NDArray[Any],
    scales: NDArray[Any],
    rotation: NDArray[Any] | None,
    unit: float,
) -> None:
    arrays = {"centroids": centroids, "levels": levels, "thresholds": thresholds, "scales": scales}
    if rotation is not None:
        arrays["rotation"] = rotation
    for name, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise ValueError(f"The codec's {name} must be finite float32 numbers.")
    if centroids.ndim != 2 or 0 in centroids.shape:
        raise ValueError(f"The codec's centroids must have shape (K, dimension), got {centroids.shape}.")
    dimension = centroids.shape[1]
    if len(levels) not in (2, 4, 16, 256) or levels.ndim != 1 or thresholds.shape != (len(levels) - 1,):
        raise ValueError(
            f"The codec has {levels.shape} levels and {thresholds.shape} thresholds; 2, 4, 16 or 256 levels "
            "are needed, and one threshold less."
        )
    fits = scales.shape == (dimension,) and (rotation is None or rotation.shape == (dimension, dimension))
    if not fits or scales.min() <= 0 or not (np.isfinite(unit) and unit > 0):
        raise ValueError(
            f"The codec's scales or rotation do not fit dimension={dimension}, or are not positive."
        )
