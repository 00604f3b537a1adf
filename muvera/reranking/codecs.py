"""Codecs of token vectors: a few bytes per token instead of floats.

Fit them by name, save and load them.  With `threads` None, functions use all usable
cores; their results do not depend on the number.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..data.validation import TokenArray, read_only_view
from ..kernels.byte_tile import STEP
from ..kernels.rows import add_product, pack_map
from ..kernels.tile import LANES
from ..kernels.token_codes import (
    CHUNK,
    FACTOR_BYTES,
    CodeFormat,
    CodeQuery,
    QueryRounding,
    byte_table,
    decode_codes,
    round_query,
    write_residuals,
)
from ..utils.checks import require_choice
from ..utils.hints import Argument, Message
from ..utils.parallel import run_in_ranges, split_by_count

#: Types of tokens that are stored as floats, by name.
FLOATS: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float16": np.float16}

#: Largest number of fitted centroids: their numbers take one byte.
NUM_CENTROIDS = 256

# Bits per coordinate that PLAID supports.
_PLAID_BITS = (1, 2, 4, 8)

# Number of tokens per task.
_BLOCK = 8192

# Number of tokens that are rounded to bytes together.
_ROUNDED = 512

# An entry of an int8 code is at most this many steps above or below _ZERO.
_STEPS = 127

# Byte of an entry of an int8 code that is equal to the center.
_ZERO = 128

# Smallest factor of int8; a typical token has a factor of 1 to 2.  With smaller steps,
# float32 would round a decoded entry to another step.
_LEAST_FACTOR = np.float32(2.0**-10)

# A centroid is the mean of at least this many tokens on average.
_TOKENS_PER_CENTROID = 16

# A scale is at least this share of the typical scale, so that bytes have enough
# resolution for all coordinates.
_LEAST_SCALE = 0.25

# The typical scale is at least this share of a token's length, in case the sample has
# very few tokens.
_LEAST_TYPICAL = 1e-3

# Factors by which a token is scaled before encoding; the best one is used.
_STRETCHES = read_only_view(np.array([1, 0.95, 1.05, 0.9, 1.1], np.float32))

# Largest size of a centroid's entry plus a residual, in steps.
_MOST = 126

# Rounds of k-means: more rounds change the error by less than a hundredth.
_ROUNDS = 5

# Maximum number of products of tokens with centroids in memory.
_PRODUCTS = 1 << 24

# Rows per task of a product.
_TASK_ROWS = 192

# The Lloyd-Max levels of the standard normal distribution by bits, only the positive
# half.  They have the least squared error: each is the mean of the values nearest to
# it.
_NORMAL_LEVELS = {
    1: (0.7978846,),
    2: (0.45278004, 1.5104176),
    4: (0.12839504, 0.3880483, 0.65675914, 0.94234043, 1.2562312, 1.6180464, 2.0690172, 2.7325895),
}


class TokenCodec(ABC):
    """Base class of codecs, which turn each token vector into a few bytes.

    A code depends only on the token and the codec.

    Parameters
    ----------
    name : str
        Name of the codec, such as "2bit".
    arrays : dict of numpy.ndarray
        Fitted arrays by name, as they are saved.
    form : CodeFormat
        Layout of the codes, and the values that they encode.
    rounding : QueryRounding
        How queries are rounded to bytes.
    rotation : float32 (dimension, dimension), optional
        Codes have the coordinates of ``tokens @ rotation``.
    """

    #: Name of the class in a saved index.
    kind: ClassVar[str]
    #: Names of the arrays in a saved index; the first one has `dimension` columns.
    names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        name: str,
        arrays: dict[str, NDArray[Any]],
        form: CodeFormat,
        rounding: QueryRounding,
        rotation: NDArray[np.float32] | None = None,
    ) -> None:
        self.name = name
        self.arrays = arrays
        self.form = form
        self.dimension = len(form.scales)
        self.bytes_per_token = form.width
        self._rounding = rounding
        self._maps = None if rotation is None else (pack_map(rotation), pack_map(rotation.T.copy()))

    @classmethod
    @abstractmethod
    def of_arrays(cls, arrays: dict[str, NDArray[Any]]) -> TokenCodec:
        """Return the codec of saved arrays, by name."""

    @abstractmethod
    def _encode(self, tokens: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        """Write the codes of tokens to `out`, uint8 zeros (n, bytes_per_token)."""

    def query(self, tokens: NDArray[np.float32]) -> CodeQuery:
        """Return the tokens of one query, float32 (m, dimension), rounded to bytes."""
        count = len(tokens)
        depth = -(-self.dimension // STEP) * STEP
        padded = -(-count // LANES) * LANES
        query = CodeQuery(
            np.zeros(padded * depth, np.int8), np.zeros(padded, np.float32),
            np.empty(count, np.float32), np.empty(count, np.float32),
        )  # fmt: skip
        round_query(np.ascontiguousarray(self.rotated(tokens)), self._rounding, self.form.unit, query)
        return query

    def rotated(self, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return tokens, float32 (n, dimension), in the coordinates of the codes.

        Inner products of documents and queries are the same up to rounding.
        """
        return tokens if self._maps is None else _product(tokens, self._maps[0], self.dimension)

    def encode(self, tokens: TokenArray, threads: int | None = None) -> NDArray[np.uint8]:
        """Return the codes of tokens, uint8 (n, bytes_per_token).

        The tokens are float32 or float16 (n, dimension), of finite numbers.  Raise
        ValueError for another dimension.
        """
        if tokens.shape[1] != self.dimension:
            raise ValueError(
                f"The tokens have {tokens.shape[1]} columns, but the codec was fitted to "
                f"dimension={self.dimension}. Fit a codec to these tokens."
            )
        out = np.zeros((len(tokens), self.bytes_per_token), np.uint8)

        def work(start: int, stop: int) -> None:
            self._encode(np.ascontiguousarray(tokens[start:stop], np.float32), out[start:stop])

        run_in_ranges(work, split_by_count(len(tokens), _BLOCK), threads)
        return out

    def decode(self, codes: NDArray[np.uint8], threads: int | None = None) -> NDArray[np.float32]:
        """Return the tokens that codes stand for, float32 (n, dimension).

        The codes are from :meth:`encode`, uint8 (n, bytes_per_token).
        """
        out = np.empty((len(codes), self.dimension), np.float32)

        def work(start: int, stop: int) -> None:
            flat = read_only_view(np.ascontiguousarray(codes[start:stop])).reshape(-1)
            decode_codes(flat, self.form, out[start:stop])
            if self._maps is not None:
                out[start:stop] = _product(out[start:stop], self._maps[1], self.dimension)

        run_in_ranges(work, split_by_count(len(codes), _BLOCK), threads)
        return out


class Int8Codec(TokenCodec):
    """Codec of one byte per coordinate, and a factor per token.

    Its error hardly changes a ranking.  Encoding a decoded token gives the same code.

    Parameters
    ----------
    center : float32 (dimension,)
        The bytes are relative to it.
    unit : float
        Step of a byte if the factor is 1.

    Raises
    ------
    ValueError
        If a number is not finite, or the unit not positive.
    """

    kind = "int8"
    names = ("center", "unit")

    def __init__(self, center: NDArray[np.float32], unit: float) -> None:
        if center.dtype != np.float32 or center.ndim != 1 or not np.isfinite(center).all():
            raise ValueError("The codec's center must be finite float32 numbers, one per coordinate.")
        if not (np.isfinite(unit) and unit > 0):
            raise ValueError(f"The codec's unit must be a positive number, got {unit}.")
        width = FACTOR_BYTES + -(-len(center) // STEP) * STEP  # bytes after the coordinates are zero
        no_bytes, no_floats = (read_only_view(np.empty(0, kind)) for kind in (np.uint8, np.float32))
        self._center = read_only_view(center)
        self._unit = np.float32(unit)
        ones = read_only_view(np.ones(len(center), np.float32))
        super().__init__(
            "int8",
            {"center": center, "unit": np.array([unit], np.float32)},
            CodeFormat(width, 0, 0, self._unit, self._center, no_floats, ones, no_bytes, no_bytes),
            QueryRounding(ones, self._center, False, float(_ZERO)),
        )

    @classmethod
    def of_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Int8Codec:
        """Return the codec of the arrays "center" and "unit"."""
        return cls(arrays["center"], float(arrays["unit"][0]))

    @classmethod
    def fit(cls, tokens: NDArray[np.float32], threads: int | None = None) -> Int8Codec:
        """Fit the codec to tokens, float32 (n, dimension), at least one.

        `threads` is not used.
        """
        center = tokens.mean(axis=0, dtype=np.float64).astype(np.float32)
        peaks = np.empty(len(tokens), np.float32)
        buffer = np.empty((min(_ROUNDED, len(tokens)), tokens.shape[1]), np.float32)
        for start in range(0, len(tokens), _ROUNDED):
            rows = slice(start, start + _ROUNDED)
            centered = np.subtract(tokens[rows], center, out=buffer[: len(tokens[rows])])
            peaks[rows] = np.abs(centered, out=centered).max(axis=1)
        return cls(center, _power_of_two(float(np.median(peaks)) / _STEPS))

    def _encode(self, tokens: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        # Two arrays that stay in the cache: allocating new ones would take most of the
        # time.
        buffers = np.empty((2, min(_ROUNDED, len(tokens)), self.dimension), np.float32)
        for start in range(0, len(tokens), _ROUNDED):
            rows = slice(start, start + _ROUNDED)
            centered, sizes = buffers[:, : len(tokens[rows])]
            np.subtract(tokens[rows], self._center, out=centered)
            peaks = np.abs(centered, out=sizes).max(axis=1)
            halves = _factors(np.maximum(peaks / (_STEPS * self._unit), _LEAST_FACTOR))
            out[rows, :FACTOR_BYTES] = halves.view(np.uint8).reshape(-1, FACTOR_BYTES)
            steps = halves.astype(np.float32)[:, np.newaxis] * self._unit
            rounded = np.rint(np.divide(centered, steps, out=centered), out=centered)
            np.clip(rounded, -_STEPS, _STEPS, out=rounded)
            out[rows, FACTOR_BYTES : FACTOR_BYTES + self.dimension] = np.add(rounded, _ZERO, out=rounded)


class ResidualCodec(TokenCodec):
    """Codec of a centroid's number, a factor, and 1, 2, 4 or 8 bits per coordinate.

    It is also the codec of a PLAID index.  A token is decoded to ``f * P (c + s * z)``:
    P is the rotation, if any, c a centroid, s one scale and z one level per
    coordinate.  The factor f restores the token's length, in multiples of `unit`;
    otherwise it would be too short.

    Parameters
    ----------
    centroids : float32 (c, dimension)
        Centroids of the rotated tokens' directions.
    levels : float32 (2, 4, 16 or 256,)
        Values that the bits of a coordinate stand for, ascending.
    scales : float32 (dimension,)
        Positive factors of the levels.
    rotation : float32 (dimension, dimension), or without rows
        Orthogonal matrix; without rows, tokens are not rotated.
    unit : float
        Unit of the factors.

    Raises
    ------
    ValueError
        If an array has another shape or numbers that are not finite.
    """

    kind = "residual"
    names = ("centroids", "levels", "scales", "rotation", "unit")

    def __init__(
        self,
        centroids: NDArray[np.float32],
        levels: NDArray[np.float32],
        scales: NDArray[np.float32],
        rotation: NDArray[np.float32],
        unit: float,
    ) -> None:
        arrays = {"centroids": centroids, "levels": levels, "scales": scales, "rotation": rotation}
        _require_fitting(arrays, unit)
        dimension = centroids.shape[1]
        self.bits = len(levels).bit_length() - 1
        self._centroids = read_only_view(centroids)
        self._levels = read_only_view(levels)
        self._thresholds = read_only_view((levels[1:] + levels[:-1]) / 2)  # the midpoints
        self._scales = read_only_view(scales)
        self._inverse_scales = read_only_view(1 / scales)
        self._unit = np.float32(unit)
        self._id_bytes = 1 if len(centroids) <= 1 << 8 else 2 if len(centroids) <= 1 << 16 else 4
        self._residual_bytes = -(-dimension * self.bits // 8)
        super().__init__(
            f"{self.bits}bit" if len(rotation) else f"plaid-{self.bits}bit",
            {**arrays, "unit": np.array([unit], np.float32)},
            *self._in_bytes(read_only_view(centroids * self._inverse_scales)),
            rotation if len(rotation) else None,
        )

    def _in_bytes(self, centers: NDArray[np.float32]) -> tuple[CodeFormat, QueryRounding]:
        """Round `centers`, in units of the scales, and levels to steps of one size.

        The sum of a center and a level is a byte.
        """
        levels = byte_table(self._levels, self.bits)
        shift = centers.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = centers - shift
        widest = np.float32(np.abs(spread).max() + np.abs(self._levels).max())
        step = widest / _MOST if widest > 0 else np.float32(1)  # 0: one centroid and no residuals
        center_steps, level_steps = np.rint(spread / step), np.rint(levels / step)
        most = np.abs(center_steps).max(), np.abs(level_steps).max()
        count, dimension = centers.shape
        center_bytes = np.zeros((count, -(-dimension // CHUNK) * CHUNK), np.uint8)
        center_bytes[:, :dimension] = center_steps + most[0]
        level_bytes = (level_steps + most[1]).astype(np.uint8)
        if self.bits < 8:  # for each half byte, the coordinates that it encodes as the upper half of a byte
            level_bytes = level_bytes[::16, : 4 // self.bits].T
        form = CodeFormat(
            self._id_bytes + FACTOR_BYTES + self._residual_bytes, self._id_bytes, self.bits, self._unit,
            *(
                read_only_view(np.ascontiguousarray(array)).reshape(-1)
                for array in (centers, levels, self._scales, center_bytes, level_bytes)
            ),
        )  # fmt: skip
        steps, shift_in_steps = read_only_view(self._scales * step), read_only_view(shift / step)
        return form, QueryRounding(steps, shift_in_steps, True, float(most[0] + most[1]))

    @classmethod
    def fit(cls, tokens: NDArray[np.float32], bits: int, threads: int | None = None) -> ResidualCodec:
        """Fit the codec to tokens, float32 (n, dimension), at least one.

        About 50,000 tokens are enough.  `bits` per coordinate are 1, 2 or 4: more bits
        lose less and take more memory and time.
        """
        rotation_stream, centroid_stream = map(np.random.default_rng, np.random.SeedSequence(0).spawn(2))
        units, lengths = _directions(tokens)
        rotation = _random_rotation(tokens.shape[1], rotation_stream)
        rotated = _product(units, pack_map(rotation), len(rotation), threads)
        most = max(1, min(NUM_CENTROIDS, len(tokens) // _TOKENS_PER_CENTROID))
        centroids = _direction_centroids(rotated, most, centroid_stream, threads)
        residuals = rotated - centroids[_nearest_centroids(rotated, centroids, threads)]
        scales = np.sqrt(np.mean(residuals.astype(np.float64) ** 2, axis=0))
        typical = max(_LEAST_TYPICAL, float(np.sqrt(np.mean(scales**2))))
        scales = np.maximum(scales, _LEAST_SCALE * typical).astype(np.float32)
        half = np.array(_NORMAL_LEVELS[bits], np.float32)
        levels = np.concatenate([-half[::-1], half])
        return cls(centroids, levels, scales, rotation, _power_of_two(float(np.median(lengths))))

    @classmethod
    def of_arrays(cls, arrays: dict[str, NDArray[Any]]) -> ResidualCodec:
        """Return the codec of the arrays named in `names`."""
        return cls(
            arrays["centroids"],
            arrays["levels"],
            arrays["scales"],
            arrays["rotation"],
            float(arrays["unit"][0]),
        )

    @classmethod
    def of_plaid(cls, centroids: NDArray[np.float32], weights: NDArray[np.float32]) -> ResidualCodec:
        """Return the codec of a PLAID index.

        `centroids`, float (c, dimension), are the index's centroids.  `weights`, float
        (2 ** nbits,), are its bucket weights, which become the levels.
        """
        dimension = centroids.shape[1]
        levels = np.ascontiguousarray(weights, np.float32)
        none = np.empty((0, dimension), np.float32)
        return cls(np.array(centroids, np.float32), levels, np.ones(dimension, np.float32), none, 1.0)

    def plaid_codes(self, numbers: NDArray[Any], packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return codes of a PLAID index's codes, uint8 (n, bytes_per_token).

        `numbers`, int (n,), are centroid numbers, and `packed`, uint8 (n, bytes), are
        residuals.  The codes are of tokens of length 1.
        """
        out = np.zeros((len(numbers), self.bytes_per_token), np.uint8)
        self._write_codes(numbers, np.ones(len(numbers)), packed, out)
        for start in range(0, len(out), _BLOCK):
            rows = slice(start, start + _BLOCK)
            lengths = np.linalg.norm(self.decode(out[rows], 1).astype(np.float64), axis=1)
            self._write_codes(numbers[rows], 1 / np.maximum(lengths, 1e-4), packed[rows], out[rows])
        return out

    def _encode(self, tokens: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        units, lengths = _directions(tokens)
        rotated = self.rotated(units)
        numbers = _nearest_centroids(rotated, self._centroids, 1)
        packed = np.zeros((len(tokens), self._residual_bytes), np.uint8)
        norms = np.empty(len(tokens))
        write_residuals(
            rotated, self._centroids, numbers, self._inverse_scales, self._thresholds, self._levels,
            self._scales, self.bits, _STRETCHES, packed, norms,
        )  # fmt: skip
        self._write_codes(numbers, lengths / np.where(norms == 0, 1, norms), packed, out)
        stored = out[:, self._id_bytes : self._id_bytes + FACTOR_BYTES]
        out[~stored.any(axis=1)] = 0  # one code for all tokens that decode to zeros

    def _write_codes(
        self,
        numbers: NDArray[np.integer[Any]],
        values: NDArray[np.float64],
        packed: NDArray[np.uint8],
        out: NDArray[np.uint8],
    ) -> None:
        """Write codes of centroid numbers, factors and packed residuals to `out`.

        The factors are `values` (n,).
        """
        start = self._id_bytes
        out[:, :start] = numbers.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :start]
        halves = _factors(values / self._unit)
        out[:, start : start + FACTOR_BYTES] = halves.view(np.uint8).reshape(-1, FACTOR_BYTES)
        out[:, start + FACTOR_BYTES :] = packed

    def split_codes(self, codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Return the parts of codes that a PLAID index stores.

        These are centroid numbers, int64 (n,), and residuals, uint8 (n, bytes), of the
        codes of :meth:`encode`, uint8 (n, bytes_per_token).
        """
        start = self._id_bytes
        ids = np.zeros((len(codes), 4), np.uint8)
        ids[:, :start] = codes[:, :start]
        packed = np.ascontiguousarray(codes[:, start + FACTOR_BYTES :])
        # As in the kernel, a damaged number counts as the last centroid.
        numbers = np.minimum(ids.view("<u4").reshape(-1).astype(np.int64), len(self._centroids) - 1)
        return numbers, packed


def _require_fitting(arrays: dict[str, NDArray[Any]], unit: float) -> None:
    """Raise ValueError unless the arrays are finite float32 of matching shapes.

    The rotation can have no rows.
    """
    centroids = arrays["centroids"]
    levels = arrays["levels"]
    dimension = centroids.shape[-1]
    if centroids.ndim != 2 or 0 in centroids.shape or len(levels) not in (2, 4, 16, 256):
        raise ValueError(
            "The codec's centroids must have shape (K, dimension) and its levels be 2, 4, 16 or 256, got "
            f"shapes {centroids.shape} and {levels.shape}."
        )
    shapes = {
        "centroids": centroids.shape,
        "levels": (len(levels),),
        "scales": (dimension,),
        "rotation": (dimension if len(arrays["rotation"]) else 0, dimension),
    }
    for name, array in arrays.items():
        if array.dtype != np.float32 or array.shape != shapes[name] or not np.isfinite(array).all():
            raise ValueError(
                f"The codec's {name} must be finite float32 numbers of shape {shapes[name]}, got "
                f"{array.dtype} {array.shape}."
            )
    if arrays["scales"].min() <= 0 or not (np.isfinite(unit) and unit > 0):
        raise ValueError(
            f"The codec's scales and unit must be positive, got {arrays['scales'].min()} and {unit}."
        )


# -- codecs by name -----------------------------------------------------------

#: Functions that fit a codec, by its name; arguments: at least one token, float32 (n,
#: dimension), and `threads`.
CODECS: dict[str, Callable[..., TokenCodec]] = {
    "int8": Int8Codec.fit,
    **{f"{bits}bit": partial(ResidualCodec.fit, bits=bits) for bits in (4, 2, 1)},
}


# -- fitting to PLAID's layout ------------------------------------------------


def plaid_centroids(num_tokens: int) -> int:
    """Return ColBERT's number of centroids for an index of `num_tokens` tokens.

    It is the largest power of two up to 16 times the square root of `num_tokens`.
    """
    return 1 << int(math.log2(16 * math.sqrt(max(1, num_tokens))))


def require_plaid_bits(nbits: int, dimension: int) -> None:
    """Raise ValueError unless a PLAID index can store such tokens.

    `nbits` per coordinate must be 1, 2, 4 or 8, and the bits of a token of `dimension`
    coordinates must fill whole bytes.
    """
    require_choice("nbits", nbits, _PLAID_BITS)
    if dimension * nbits % 8:
        raise ValueError(
            Message(
                f"A PLAID index needs whole bytes per token, but dimension={dimension} at ",
                Argument("nbits", f"{nbits}"),
                f" has {dimension * nbits} bits. Use ",
                Argument("nbits", "8"),
                f", or reduce the dimension to a multiple of {8 // nbits}.",
            )
        )


def fit_plaid_codec(
    tokens: NDArray[np.float32],
    nbits: int,
    num_centroids: int,
    *,
    bucket_means: bool = False,
    threads: int | None = None,
) -> ResidualCodec:
    """Fit a codec to tokens by ColBERT's method.

    Centroids are directions, rounded to half precision.  Each bucket contains the same
    number of residuals.

    Parameters
    ----------
    tokens : float32 (n, dimension)
        At least one token is needed.
    nbits : {1, 2, 4, 8}
        Bits per coordinate: more bits lose less and take more memory.
    num_centroids : int
        Largest number of centroids.
    bucket_means : bool
        Decode a bucket to the mean of its values, which loses less than ColBERT's
        midpoint.
    """
    units, _ = _directions(tokens)
    means = _direction_centroids(units, num_centroids, np.random.default_rng(0), threads)
    centroids = _directions(means)[0].astype(np.float16).astype(np.float32)
    residuals = units - centroids[_nearest_centroids(units, centroids, threads)]
    count = 2**nbits
    ordered = np.sort(residuals, axis=None)
    if bucket_means:
        edges = np.linspace(0, len(ordered), count + 1).astype(np.int64)
        sums = np.add.reduceat(ordered, np.minimum(edges[:-1], len(ordered) - 1), dtype=np.float64)
        weights = sums / np.maximum(np.diff(edges), 1)
    else:
        weights = np.quantile(ordered, (np.arange(count) + 0.5) / count)
    return ResidualCodec.of_plaid(centroids, weights.astype(np.float32))


# -- centroids, rotation and factors ------------------------------------------


def _directions(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the rows scaled to length 1, and their lengths; zero rows stay zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    return (rows / np.where(lengths == 0, 1, lengths)[:, np.newaxis]).astype(np.float32), lengths


def _product(
    rows: NDArray[np.float32], packed: NDArray[np.float32], columns: int, threads: int | None = 1
) -> NDArray[np.float32]:
    """Return the product (n, columns) of rows with a matrix packed by ``pack_map``.

    It is the same for any `threads`.
    """
    rows = np.ascontiguousarray(rows)
    out = np.zeros((len(rows), columns), np.float32)

    def work(start: int, stop: int) -> None:
        add_product(rows[start:stop], packed, out[start:stop])

    run_in_ranges(work, split_by_count(len(rows), _TASK_ROWS), threads)
    return out


def _random_rotation(dimension: int, stream: np.random.Generator) -> NDArray[np.float32]:
    """Return a random orthogonal matrix."""
    orthogonal, upper = np.linalg.qr(stream.standard_normal((dimension, dimension)))
    return np.ascontiguousarray(orthogonal * np.where(np.diag(upper) < 0, -1, 1), np.float32)


def _nearest_centroids(
    tokens: NDArray[np.float32], centroids: NDArray[np.float32], threads: int | None
) -> NDArray[np.int64]:
    """Return the number of the nearest centroid of each token, int64 (n,)."""
    packed = pack_map(np.ascontiguousarray(centroids.T))
    halves = np.einsum("ij,ij->i", centroids, centroids) / 2
    numbers = np.empty(len(tokens), np.int64)
    for start, stop in split_by_count(len(tokens), _PRODUCTS // len(centroids)):
        products = _product(tokens[start:stop], packed, len(centroids), threads)
        products -= halves
        numbers[start:stop] = products.argmax(axis=1)
    return numbers


def _direction_centroids(
    tokens: NDArray[np.float32], most: int, stream: np.random.Generator, threads: int | None
) -> NDArray[np.float32]:
    """Return at most `most` centroids, float32 (c, dimension).

    They are the means of clusters that k-means finds by direction.  Tokens (n,
    dimension) have length 1 or are zero; `stream` draws the initial centroids from
    them.
    """
    centroids = tokens[np.sort(stream.permutation(len(tokens))[:most])]
    for lap in range(_ROUNDS + 1):
        numbers = _nearest_centroids(tokens, centroids, threads)
        order = np.argsort(numbers, kind="stable")
        used, starts = np.unique(numbers[order], return_index=True)
        sums = np.add.reduceat(tokens[order].astype(np.float64), starts, axis=0)
        if lap < _ROUNDS:
            divisors = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        else:  # the mean leaves smaller residuals than its direction
            divisors = np.diff(np.append(starts, len(tokens))).astype(np.float64)
        moved = divisors > 0
        centroids[used[moved]] = sums[moved] / divisors[moved, np.newaxis]
    return centroids


def _factors(values: NDArray[np.floating[Any]]) -> NDArray[np.float16]:
    """Return non-negative factors of codes as little-endian float16, at most 65504."""
    halves: NDArray[np.float16] = np.minimum(values, 65504).astype("<f2")
    return halves


def _power_of_two(value: float) -> float:
    """Return the largest power of two that is at most `value`.

    1 if it is not positive.
    """
    return 2.0 ** math.floor(math.log2(value)) if value > 0 else 1.0
