"""Landmark cells: a partition of token space that is learned from documents.

M landmarks l_1..l_M are the means of clusters of documents' token directions.  A
document's value in cell j is its largest similarity to landmark j, max_x <x, l_j>.  A
query token q is divided among the cells of its nearest landmarks, by their cosines
around the mean token c:

    w_j(q) = |q| exp(beta cos_j) / (exp(beta kappa) + sum_i exp(beta cos_i)),
    cos_j = cos(q / |q| - c, l_j - c).

The first term of the sum, with kappa = .7, is the share of a token that no landmark
resembles.  So

    Chamfer(Q, X) = sum_q max_x <x, q>  ~  sum_j (sum_q w_j(q)) max_x <x, l_j>,

which is a kernel regression of Chamfer through the landmarks.  The right side is an
inner product of two vectors of M floats: an FDE.  From both, the mean over the cells is
subtracted.  Without this, documents unlike the sample get scores that are too high or
too low, and searches miss them.

This partition is not from the paper.  Like LEMUR's network (arXiv 2601.21853), it
describes a document by its similarity to points, but k-means replaces gradient descent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..utils.parallel import share_done, stage
from ..utils.random_streams import random_stream
from .arrays import EncoderArrays, Shapes, array
from .config import FDEConfig
from .graph import TINY
from .landmark_kernels import (
    ELSEWHERE,
    NEAREST,
    ByteColumns,
    Directions,
    center_rows,
    landmark_queries,
    largest_products,
)
from .linear_algebra import direction_bytes, direction_columns, product, quantize_columns, token_columns
from .steps import Landmarks, LearnedProjection
from .tasks import ArrayClasses, CellStep, FitSample, Rows, Side, Texts, Tokens, Value

# Number of this purpose among the random streams of a seed.
_LANDMARKS = 0xD0

# Tokens whose lengths are measured together.
_BLOCK = 65536

# Sampled tokens per landmark.
_TOKENS = 20

# Rounds of k-means.  Five gain no more than three.
_ROUNDS = 3

# Tokens that are compared with all landmarks at a time.
_COMPARED = 4096


@dataclass(frozen=True)
class LandmarkArrays(EncoderArrays):
    """The landmarks of an encoder, in bytes."""

    #: The mean of the sample's token directions, c, (d,).
    center: NDArray[np.float32] = array(np.float32)
    #: The sample's mean token, (d,).  It is subtracted from documents' tokens before
    #: these are rounded, which adds a constant to each cell.
    mean: NDArray[np.float32] = array(np.float32)
    #: The landmarks, (d, n), n <= M; column j is in units of its scale.
    landmarks: NDArray[np.int8] = array(np.int8, unit_of_columns="scales")
    scales: NDArray[np.float32] = array(np.float32)

    prefix = "landmarks_"

    def _shapes(self, config: FDEConfig) -> Shapes:
        assert isinstance(config.cells, Landmarks)
        # A small sample has fewer tokens than M.
        count = min(config.cells.num_landmarks, len(self.scales))
        return (config.dimension,), (config.dimension,), (config.dimension, count), (count,)

    @property
    def count(self) -> int:
        """Number of landmarks."""
        return len(self.scales)

    @cached_property
    def document_columns(self) -> ByteColumns:
        """The landmarks for kernels of documents."""
        return token_columns(self.landmarks, self.scales, self.mean)

    @cached_property
    def directions(self) -> Directions:
        """The :attr:`direction_bytes` for kernels."""
        return direction_columns(*self.direction_bytes, self.center)

    @property
    def direction_bytes(self) -> tuple[NDArray[np.int8], float]:
        """The directions from the center to the landmarks in bytes, and their unit.

        They are int8 (d, n), and 0 for a landmark at the center.
        """
        scales: NDArray[np.float64] = self.scales.astype(np.float64)
        around: Any = self.landmarks * scales - self.center[:, np.newaxis]
        lengths = np.sqrt(np.square(around).sum(axis=0))
        around /= np.where(lengths > 0, lengths, 1)
        return direction_bytes(around)


class LandmarkCells(CellStep):
    """The landmark cells of one encoder."""

    value: Landmarks
    landmarks: LandmarkArrays
    array_classes: ClassVar[ArrayClasses] = {"landmarks": LandmarkArrays}

    @stage("learning the landmarks")
    def fit(self, sample: FitSample) -> None:
        """Learn the landmarks."""
        count, seed = self.value.num_landmarks, self.config.seed
        self.landmarks = learn_landmarks(sample.documents, count, seed, sample.threads)

    @property
    def columns(self) -> int:
        """Floats of all cells; a learned projection omits those without a landmark."""
        learned = isinstance(self.config.projection, LearnedProjection)
        return self.landmarks.count if learned else self.config.cell_dimension

    def write(self, side: Side, tokens: Tokens, start: int, stop: int, out: Rows, weight: float = 1) -> None:
        """Write `weight` times the cells of texts start..stop, minus their mean."""
        count = self.landmarks.count
        cells = np.empty((stop - start, count), np.float32)
        if side == "documents":
            largest_products(tokens, start, stop, self.landmarks.document_columns, cells)
        else:
            sharpness = self.value.landmark_sharpness
            landmark_queries(tokens, start, stop, self.landmarks.directions, sharpness, cells)
        center_rows(cells, count, np.float32(weight))
        out[:, :count] = cells
        out[:, count : self.columns] = 0

    def onnx(self, side: Side, texts: Texts, weight: float = 1) -> Value:
        """Return `weight` times the cells of texts, minus their mean."""
        count = self.landmarks.count
        cells = self._similarities(texts) if side == "documents" else self._shares(texts)
        cells = (cells - cells.sum(1, keepdims=True) / count) * weight
        missing = self.columns - count
        return cells.op("Pad", np.array([0, 0, 0, missing])) if missing else cells

    def _similarities(self, texts: Texts) -> Value:
        """Return each document's largest product with each landmark, (b, n)."""
        numbers, unit = ((texts.tokens - self.landmarks.mean) * texts.mask).rounded(127, 1, 2)
        # Largest entries along the last axis are found several times faster.
        products = texts.graph.bytes(self.landmarks.landmarks.T) @ numbers.transpose(0, 2, 1)
        present = texts.present.transpose(0, 2, 1)
        largest = present.where(products, np.float32(-(2.0**31))).max(2)
        return largest * self.landmarks.scales * unit.reshape(0, 1)

    def _shares(self, texts: Texts) -> Value:
        """Return the sums of the weights of queries' tokens in each cell, (b, n)."""
        graph, sharpness = texts.graph, self.value.landmark_sharpness
        directions, direction_unit = self.landmarks.direction_bytes
        # With a length in float64, bytes are rounded as in the kernel, bit for bit.
        length = texts.tokens.doubles().length()
        inverse = graph.constant(1).doubles() / length.op("Max", graph.constant(TINY).doubles())
        around = texts.tokens * inverse.floats() - self.landmarks.center
        numbers, unit = around.rounded(127, -1)
        # Products are integers that float32 holds exactly, in the order of the cosines.
        # Of equal ones, TopK takes the first, as the kernel does.
        products = numbers @ graph.bytes(directions)
        kept = np.array([min(NEAREST, self.landmarks.count)])
        nearest, places = graph.ops("TopK", products, kept, outputs=2)
        first = nearest.op("Gather", np.array([0]), axis=2)
        steepness = unit / around.length().op("Max", np.float32(TINY)) * (sharpness * direction_unit)
        powers = ((nearest - first) * steepness).op("Exp")
        elsewhere = (sharpness * ELSEWHERE - first * steepness).op("Exp")
        weights = powers * (length.floats() / (powers.sum(2, keepdims=True) + elsewhere))
        shares = (products * 0.0).op("ScatterElements", places, weights, axis=2)
        return (texts.mask.transpose(0, 2, 1) @ shares).reshape(0, self.landmarks.count)


def learn_landmarks(
    documents: MultiVectors, number: int, seed: int, threads: int | None = None
) -> LandmarkArrays:
    """Learn M landmarks by k-means of the directions of the documents' tokens.

    There are fewer if the documents have fewer than M = `number` tokens that are not
    zero; they need one.  The result does not depend on the number of threads.
    """
    lengths = _lengths(documents)
    filled = np.flatnonzero(lengths > 0)
    stream = random_stream(seed, _LANDMARKS)
    count = min(number, len(filled))
    # The first `count` of a random order are the start.
    rows = stream.permutation(filled)[: _TOKENS * count]
    directions = documents.tokens[rows].astype(np.float32) / lengths[rows, np.newaxis]
    landmarks = directions[:count]
    for done in range(1, _ROUNDS + 1):
        landmarks = cluster_means(directions, landmarks, threads)
        share_done(done / (_ROUNDS + 1))
    center = np.zeros(documents.dimension)
    for start in range(0, len(lengths), _BLOCK):
        some = documents.tokens[start : start + _BLOCK].astype(np.float32)
        part = lengths[start : start + _BLOCK, np.newaxis]
        center += np.divide(some, part, out=np.zeros_like(some), where=part > 0).sum(axis=0, dtype=np.float64)
    center /= max(1, len(filled))
    mean = documents.tokens.mean(axis=0, dtype=np.float64).astype(np.float32)
    columns = quantize_columns(np.ascontiguousarray(landmarks.T))
    return LandmarkArrays(center.astype(np.float32), mean, *columns)


def cluster_means(
    directions: NDArray[np.float32], landmarks: NDArray[np.float32], threads: int | None
) -> NDArray[np.float32]:
    """Return the mean of the directions whose largest product is with each landmark.

    `directions` are tokens of length 1, float32 (n, d).  `landmarks` and the result are
    float32 (M, d).  Means are not normalized, so dense clusters attract more tokens.
    This gives higher recall than Euclidean or cosine k-means.  Empty clusters keep
    their landmark; ties go to the first.
    """
    if not len(directions):
        return landmarks
    columns = np.ascontiguousarray(landmarks.T)
    nearest = np.concatenate(
        [
            product(directions[start : start + _COMPARED], columns, threads).argmax(axis=1)
            for start in range(0, len(directions), _COMPARED)
        ]
    )
    order = np.argsort(nearest, kind="stable")
    present, firsts, sizes = np.unique(nearest[order], return_index=True, return_counts=True)
    means: NDArray[np.float32] = landmarks.copy()
    means[present] = np.add.reduceat(directions[order], firsts, axis=0) / sizes[:, np.newaxis]
    return means


def _lengths(documents: MultiVectors) -> NDArray[np.float32]:
    """Return the length of each token, float32 (n_tokens,)."""
    blocks = [
        np.linalg.norm(documents.tokens[start : start + _BLOCK].astype(np.float32), axis=1)
        for start in range(0, documents.num_tokens, _BLOCK)
    ]
    return np.concatenate([np.empty(0, np.float32), *blocks])
