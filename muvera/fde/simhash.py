"""SimHash cells: the paper's partition and inner projections, as one step.

Paper: arXiv 2405.19504, section 2.  Each of R_reps repetitions divides token space by
k_sim hyperplanes into 2**k_sim cells (:mod:`muvera.fde.partition`).  A query's cell
holds the sum of its tokens, a document's the mean.  A random projection
(:mod:`muvera.fde.projection`) makes d_proj floats of each cell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..kernels.tile import LANES, at_cache_line, pack_columns, pad_columns
from . import partition, projection, reference
from .arrays import EncoderArrays, Shapes, array
from .config import FDEConfig
from .graph import TINY
from .kernels import (
    CANCELED,
    CELL_LENGTH,
    CELL_MEAN,
    CELL_UNIT,
    Cells,
    Partition,
    Projection,
    Tokens,
    encode_documents,
    encode_queries,
)
from .steps import SimHash
from .tasks import ArrayClasses, CellStep, FitSample, Rows, Side, Texts, Value

# Tokens of a document whose order decides which one fills a cell: float32 holds keys of
# 16 signs and so many tokens exactly.
_MOST_TOKENS = 1 << 19

_CELL_VALUES = {"mean": CELL_MEAN, "unit": CELL_UNIT, "length": CELL_LENGTH}

_PROJECTIONS: dict[str, Callable[[int, int, int, int], NDArray[Any]]] = {
    "complementary": projection.draw_complementary,
    "rademacher": projection.draw_rademacher,
    "count_sketch": projection.draw_count_sketches,
    "identity": projection.draw_identity,
}


@dataclass(frozen=True)
class SimHashMatrices(EncoderArrays):
    """The random matrices of an encoder; `width` is d rounded up to a multiple of 16.

    They are stored, because NumPy's random streams may change.
    """

    #: Normals, (R_reps * k_sim, width).
    hyperplanes: NDArray[np.float32] = array(np.float32)
    #: psi, scale included, (R_reps, d_proj, width), or (0, 0, 0) for the identity.
    projections: NDArray[np.float32] = array(np.float32)

    def _shapes(self, config: FDEConfig) -> Shapes:
        cells = config.cells
        assert isinstance(cells, SimHash)
        width, repetitions = config.dimension + -config.dimension % LANES, cells.num_repetitions
        projections = (0, 0, 0) if cells.projection == "identity" else (repetitions, cells.columns, width)
        return (repetitions * cells.num_simhash_projections, width), projections

    @cached_property
    def packed(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Hyperplanes and projections for kernels; the identity is empty."""
        projections = [pack_columns(rows).reshape(-1) for rows in self.projections]
        joined = np.concatenate([np.empty(0, np.float32), *projections])
        return at_cache_line(pack_columns(self.hyperplanes)), at_cache_line(joined)

    @cached_property
    def inverse_norms(self) -> NDArray[np.float32]:
        """One over the length of each normal, float32 (R_reps * k_sim,)."""
        return partition.inverse_norms(self.hyperplanes)


@dataclass(frozen=True)
class CenterToken(EncoderArrays):
    """The mean token of documents, which is subtracted from tokens."""

    #: float32 (d,).
    center: NDArray[np.float32] = array(np.float32)

    def _shapes(self, config: FDEConfig) -> Shapes:
        return ((config.dimension,),)

    @cached_property
    def padded(self) -> NDArray[np.float32]:
        """The mean token with its width rounded up to whole vectors."""
        return pad_columns(self.center)


def draw_matrices(cells: SimHash, dimension: int, seed: int) -> SimHashMatrices:
    """Draw the matrices of SimHash cells, always the same for the same arguments.

    Every purpose of random draws has its child of one ``SeedSequence``.  So does every
    repetition, or every group of repetitions that share a rotation.  So repetition r
    does not depend on the number of repetitions, up to rounding.
    """
    draws = reference if cells.dialect == "reference" else partition
    planes = draws.draw_hyperplanes(seed, cells.num_repetitions, cells.num_simhash_projections, dimension)
    draw = _PROJECTIONS[cells.projection]
    if cells.dialect == "reference" and cells.projection == "count_sketch":
        draw = reference.draw_count_sketches
    drawn = draw(seed, cells.num_repetitions, cells.columns, dimension)
    return SimHashMatrices(pad_columns(planes), pad_columns(drawn))


def cell_positions(cells: SimHash) -> NDArray[np.int64]:
    """Return the position of each code's block in its repetition, int64 (2**k_sim,)."""
    positions = partition.gray_positions if cells.dialect == "reference" else partition.cell_positions
    return positions(cells.num_simhash_projections)


class SimHashCells(CellStep):
    """The SimHash cells of one encoder."""

    value: SimHash
    mean_token: CenterToken
    array_classes: ClassVar[ArrayClasses] = {"matrices": SimHashMatrices, "mean_token": CenterToken}

    @classmethod
    def needed(cls, value: SimHash) -> ArrayClasses:
        """Return the classes of the arrays; a mean token is for centering."""
        return cls.array_classes if value.center else {"matrices": SimHashMatrices}

    @cached_property
    def matrices(self) -> SimHashMatrices:
        """The random matrices, drawn unless they are given."""
        return draw_matrices(self.value, self.config.dimension, self.config.seed)

    def fit(self, sample: FitSample) -> None:
        """Keep the mean token."""
        if self.value.center:
            self.mean_token = CenterToken(sample.mean)

    @cached_property
    def _partition(self) -> Partition:
        center = self.mean_token.padded if self.value.center else np.zeros(self.matrices.hyperplanes.shape[1])
        return Partition(
            pad_columns(center), self.matrices.packed[0], self.matrices.inverse_norms,
            cell_positions(self.value), self.value.num_repetitions, self.value.num_simhash_projections,
        )  # fmt: skip

    def write(self, side: Side, tokens: Tokens, start: int, stop: int, out: Rows, weight: float = 1) -> None:
        """Write `weight` times the cells of texts start..stop.

        Moments have the mean token of each document apart.  With them, a product
        estimates Chamfer itself; the paper's estimates R_reps times Chamfer.
        """
        value, split = self.value, self.config.moments is not None
        partition, projection = self._partition, Projection(self.matrices.packed[1], value.columns)
        if side == "documents":
            factor = np.float32(weight * (1 / value.num_repetitions if split else 1.0))
            cells = Cells(value.fill_empty_partitions, _CELL_VALUES[value.document_cells], split)
            encode_documents(tokens, start, stop, partition, projection, cells, factor, out)
        else:
            factor, softness = np.float32(weight), np.float32(value.soft_query_cells)
            encode_queries(tokens, start, stop, partition, projection, softness, factor, out)

    def onnx(self, side: Side, texts: Texts, weight: float = 1) -> Value:
        """Return `weight` times the cells of texts."""
        value, split = self.value, self.config.moments is not None
        repetitions, size = value.num_repetitions, 1 << value.num_simhash_projections
        tokens = (texts.tokens - self.mean_token.center) * texts.mask if value.center else texts.tokens
        inside = self._inside(side, texts, tokens).reshape(0, 0, repetitions * size).transpose(0, 2, 1)
        if side == "queries":
            cells = inside @ texts.tokens * weight
        else:
            rows = texts.centered(tokens) if split else tokens
            cells = inside @ rows
            cells = cells * self._factors(cells, inside, rows) * (weight / repetitions if split else weight)
        cells = cells.reshape(0, repetitions, size, self.config.dimension)
        if self.matrices.projections.size:
            cells @= self.matrices.projections[:, :, : self.config.dimension].transpose(0, 2, 1)
        return cells.reshape(0, self.columns)

    def _inside(self, side: Side, texts: Texts, tokens: Value) -> Value:
        """Return the share of each token in each cell, (b, n, R_reps, cells).

        Tokens and cells have a sign for each hyperplane of a repetition.  The product
        of both is k_sim in a token's cell, and 2 less for each different sign.
        """
        value = self.value
        shape = value.num_repetitions, max(value.num_simhash_projections, 1)
        codes, powers = np.argsort(cell_positions(value)), np.arange(shape[1])
        cell_signs = np.where(codes >> powers[:, np.newaxis] & 1, 1, -1).astype(np.float32)
        # Without hyperplanes, all tokens are on the same side of one of zeros.
        planes = np.zeros((shape[0] * shape[1], self.config.dimension), np.float32)
        planes[: len(self.matrices.hyperplanes)] = self.matrices.hyperplanes[:, : self.config.dimension]
        products: Value = (tokens @ planes.T).reshape(0, 0, *shape)
        signs = (products > 0.0).where(np.float32(1), np.float32(-1))
        alike, present = signs @ cell_signs, texts.mask.reshape(0, 0, 1, 1)
        inside = alike.equals(np.float32(shape[1])) * present
        if side == "queries" and value.soft_query_cells and value.num_simhash_projections:
            distances = products.op("Abs") * self.matrices.inverse_norms.reshape(shape)
            nearest = distances.op("ArgMin", axis=-1).equals(powers)
            across = (distances * (-1 / value.soft_query_cells)).max(-1, keepdims=True).op("Exp") * 0.5
            other = (signs * (1.0 - nearest * 2.0) @ cell_signs).equals(np.float32(shape[1])) * present
            return inside + (other - inside) * across
        if side == "documents" and value.fill_empty_partitions:
            # Of the tokens with the most signs of a cell, the first one has the largest
            # key.
            order = texts.mask.op("CumSum", np.array(1)).reshape(0, 0, 1, 1)
            keys = (present > 0.0).where(alike * float(_MOST_TOKENS) - order, np.float32(-(2.0**31)))
            nearest = keys.op("Equal", keys.max(1, keepdims=True)).floats()
            return (inside.max(1, keepdims=True) > 0.0).where(inside, nearest)
        return inside

    def _factors(self, cells: Value, inside: Value, rows: Value) -> Value:
        """Return the factors that make sums of rows values of document cells."""
        counts = inside.sum(2, keepdims=True).op("Max", np.float32(1))
        if self.value.document_cells == "mean":
            return 1.0 / counts
        square, total = (cells * cells).sum(2, keepdims=True), inside @ rows.length()
        least = total * total * float(CANCELED)
        factors = 1.0 / square.op("Max", np.float32(TINY)).op("Sqrt")
        if self.value.document_cells == "length":
            factors *= total / counts
        elif self.config.moments is None:
            least = least * 0.0
        return (square > least).where(factors, np.float32(0))
