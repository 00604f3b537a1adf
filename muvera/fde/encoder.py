"""FDEEncoder: turn token sets into Fixed Dimensional Encodings.

The steps, in this order; each may be absent (:class:`muvera.FDEConfig`):

1. Cells.  Partition the tokens by SimHash (:mod:`muvera.fde.simhash`) or landmarks
   (:mod:`muvera.fde.landmarks`), and aggregate them per cell.
2. Moments.  Mean token and covariance stand beside the cells
   (:mod:`muvera.fde.moments`).
3. Final projection.  Reduce both to few floats
   (:mod:`muvera.fde.learned_projection`), or the cells alone
   (:mod:`muvera.fde.count_sketch`).
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..data.batches import (
    MAX_FIT_DOCUMENTS,
    DocumentSample,
    DocumentsLike,
    as_batches,
    mean_token,
    valid_batches,
)
from ..data.multivectors import MultiVectors, MultiVectorsLike, checked_texts
from ..data.validation import validated_out
from ..kernels.byte_product import multiply_by_bytes
from ..utils.atomic_files import atomic_folder, content_checksum, described_file, write_json
from ..utils.parallel import share_done, stage
from .arrays import EncoderArrays, write_encoder_arrays
from .config import FDEConfig
from .count_sketch import FinalSketch, SketchedCells, draw_final_sketch
from .landmarks import LandmarkArrays, LandmarkCells, learn_landmarks
from .learned_projection import ProjectionMaps, fit_maps, sample_windows, window_similarities
from .moments import SAMPLE_DOCUMENTS, MomentBlocks, fit_blocks
from .query_kernels import project_moments, project_queries
from .simhash import CenterToken, SimHashCells, SimHashMatrices, draw_matrices
from .steps import CountSketch, Landmarks, LearnedProjection, SimHash
from .tasks import TASK_TOKENS, CellWriter, Side, Tokens, new_rows, run_tasks

#: Saved encoders, see docs/index-format.md.
ENCODER_FORMAT = {"format": "muvera-encoder", "format_version": 4}
ENCODER_FILE = "encoder.json"

# Texts per task with a learned projection.  With more, a map is read less often; with
# fewer, long vectors fit into the cache.
_PROJECTED_TEXTS = 16

# A smaller share of the sum of squares is a float32 rounding error, for example if all
# documents are equal.
_ROUNDING = 1e-12

# Number of bytes of the cells that one thread keeps before a count sketch.
_BLOCK_BYTES = 64 << 20

# Number of tokens per task when landmarks are measured: each task reads them once.
_LANDMARK_TOKENS = 16384


class FDEEncoder:
    """Turn token sets into vectors whose inner product approximates Chamfer.

    An encoder of the presets "paper" and "reference" can encode at once; all others
    need :meth:`fit` first.

    Parameters
    ----------
    config : FDEConfig
        How tokens are encoded.
    **arrays : EncoderArrays
        Arrays of a saved encoder by name, instead of drawing or fitting them; see
        :func:`muvera.load_encoder`.

    Raises
    ------
    TypeError
        If `config` is not an FDEConfig.
    ValueError
        If arrays belong to another configuration.

    Examples
    --------
    The paper's FDE of a random document:

    >>> import numpy as np
    >>> from muvera import FDEConfig, FDEEncoder
    >>> tokens = np.random.default_rng(0).normal(size=(80, 128))
    >>> FDEEncoder.preset("paper", 128).encode_documents(tokens).shape
    (1, 10240)

    The default, fitted to documents:

    >>> rng = np.random.default_rng(0)
    >>> documents = [rng.normal(size=(9, 32)) for _ in range(300)]
    >>> encoder = FDEEncoder(FDEConfig(32)).fit(documents)
    >>> encoder.encode_documents(documents).shape
    (300, 512)
    """

    #: Each is None if the configuration has no such step, or before a fit.
    matrices: SimHashMatrices | None = None
    mean_token: CenterToken | None = None
    landmarks: LandmarkArrays | None = None
    sketch: FinalSketch | None = None
    blocks: MomentBlocks | None = None
    learned: ProjectionMaps | None = None

    #: A power of two.  Tokens are divided by it before encoding, and vectors are
    #: multiplied by it.  It is 1 unless float32 cannot hold the fourth power of tokens.
    scale: float = 1.0

    # Cached: True once the encoder is fitted.
    _is_ready: bool = False

    def __init__(self, config: FDEConfig, **arrays: EncoderArrays | None) -> None:
        if not isinstance(config, FDEConfig):
            raise TypeError(f"config must be an FDEConfig, got {type(config).__name__}.")
        self.config = config
        classes = array_classes(config)
        for name, values in arrays.items():
            if values is not None:
                if name not in classes:
                    raise ValueError(f"{name} were given, but an encoder of {config} has none.")
                values.require_shape(config)
                setattr(self, name, values)
        if isinstance(config.cells, SimHash) and self.matrices is None:
            self.matrices = draw_matrices(config.cells, config.dimension, config.seed)
        if isinstance(config.projection, CountSketch) and self.sketch is None:
            self.sketch = draw_final_sketch(config)
        learned, landmarks = self.learned, self.landmarks
        if learned is not None and landmarks is not None and len(learned.cells) != landmarks.count:
            raise ValueError(
                f"The encoder's map has {len(learned.cells)} rows of cells, but there are {landmarks.count} "
                "landmarks. Restore the encoder from a copy."
            )

    @classmethod
    def preset(cls, name: str, dimension: int, **changes: Any) -> FDEEncoder:
        """Return an encoder of a named configuration.

        Parameters
        ----------
        name : {"fde", "moments", "mean", "simhash", "paper", "reference"}
            See :meth:`FDEConfig.preset`.
        dimension : int
            d, columns of a token vector.
        **changes
            As for :meth:`FDEConfig.preset`.

        Returns
        -------
        FDEEncoder
            Not fitted yet; "paper" and "reference" need no fit.

        Examples
        --------
        >>> encoder = FDEEncoder.preset("paper", 128, num_simhash_projections=4)
        >>> encoder.config.vector_dimension
        5120
        """
        return cls(FDEConfig.preset(name, dimension, **changes))

    @property
    def needs_fit(self) -> bool:
        """True if :meth:`fit` must be called before encoding."""
        return any(getattr(self, name) is None for name in array_classes(self.config))

    @property
    def center(self) -> NDArray[np.float32]:
        """The mean token that SimHash cells subtract, float32 (d,), or zeros."""
        self._require_fit()
        if self.mean_token is None:
            return np.zeros(self.config.dimension, np.float32)
        return self.mean_token.center

    # -- fitting -----------------------------------------------------------------------

    def fit(
        self, documents: DocumentsLike, queries: MultiVectorsLike | None = None, *, threads: int | None = None
    ) -> FDEEncoder:
        """Fit the encoder to a sample of documents, and return it.

        Parameters
        ----------
        documents : MultiVectors, arrays, or an iterable of MultiVectors
            A sample is enough.  At most 4,096 documents (512 without landmarks and
            learned projection) are used and held in memory, chosen at random.
        queries : MultiVectors or arrays, optional
            Queries to fit to.  Default: windows of the documents' own tokens.
        threads : int, optional
            Default: all usable cores.  The result does not depend on it.

        Returns
        -------
        FDEEncoder
            This encoder.

        Raises
        ------
        ValueError
            If it is fitted already, or the documents have no tokens, numbers that are
            not finite, or another dimension.
        """
        config = self.config
        if not config.needs_fit:
            return self
        if not self.needs_fit:
            raise ValueError(
                "This encoder is fitted already, and vectors of two fits cannot be compared. Make a new "
                "encoder."
            )
        texts = checked_texts([] if queries is None else queries, "queries", config.dimension, "this encoder")
        self._fit_to(as_batches(documents), texts, texts[:0], threads)
        return self

    def _fit_to(
        self,
        batches: Iterable[MultiVectors],
        queries: MultiVectors,
        others: MultiVectors,
        threads: int | None,
    ) -> None:
        """Fit; see :func:`fitted_without_queries_from` for `others`."""
        config = self.config
        sampling = DocumentSample(self._sampled_floats, config.seed, self._sampled_documents)
        valid = valid_batches(sampling.sample_while_yielding(batches), config.dimension)
        # After an exception, this encoder is as before.
        fitted = copy(self)
        center: NDArray[np.float32] | None = None
        if isinstance(config.cells, SimHash) and config.cells.center:
            center = mean_token(valid, config.dimension)
        deque(valid, maxlen=0)
        sample = sampling.documents(config.dimension)
        scale = _scale_of(sample)
        if center is not None:
            fitted.mean_token = CenterToken(center / np.float32(scale))
        fitted._fit(_divided(sample, scale), _divided(queries, scale), _divided(others, scale), threads)
        fitted.scale = scale
        vars(self).update(vars(fitted))

    @property
    def _sampled_floats(self) -> int:
        learned = isinstance(self.config.projection, LearnedProjection)
        return self.config.long_dimension if learned else self.config.vector_dimension

    @property
    def _sampled_documents(self) -> int:
        return MAX_FIT_DOCUMENTS if self.config.needs_fit_sample else SAMPLE_DOCUMENTS

    def _fit(
        self,
        sample: MultiVectors,
        queries: MultiVectors,
        others: MultiVectors,
        threads: int | None,
    ) -> None:
        config = self.config
        if isinstance(config.cells, Landmarks):
            with stage("learning the landmarks"):
                self.landmarks = learn_landmarks(sample, config.cells.num_landmarks, config.seed, threads)
        if config.moments is None:
            return
        if isinstance(config.projection, LearnedProjection):
            with stage("learning the projection"):
                self.blocks = fit_blocks(sample, queries, config, threads, units="rounded")
                self._fit_projection(sample, queries, others, threads)
            return

        def cells(texts: MultiVectors, side: Side) -> NDArray[np.float32]:
            write = partial(self._write_cells, side, 1.0)
            width = config.vector_dimension - config.moment_dimension
            return new_rows(write, texts, width, threads, *self._task_size(side))

        self.blocks = fit_blocks(
            sample, queries, config, threads, cells=None if config.cells is None else cells
        )

    def _fit_projection(
        self, sample: MultiVectors, queries: MultiVectors, others: MultiVectors, threads: int | None
    ) -> None:
        """Fit the learned projection, and the units of the blocks that it reads."""
        config, blocks = self.config, cast(MomentBlocks, self.blocks)
        cells, columns = self._cell_columns, self._cell_columns + config.moment_dimension
        windows = sample_windows(sample, queries, columns, config.seed)
        documents = MultiVectors.concatenate([sample, others]) if len(others) else sample
        share_done(0.1)
        similarities = window_similarities(windows, documents, threads)
        share_done(0.2)

        def long(side: Side, texts: MultiVectors) -> NDArray[np.float32]:
            write = partial(self._write_long, side, 1.0)
            return new_rows(write, texts, columns, threads, _LANDMARK_TOKENS, _PROJECTED_TEXTS)

        long_documents, long_windows = long("documents", documents), long("queries", windows)
        share_done(0.3)
        unit = _cell_unit(long_documents, cells)
        long_documents[:, :cells] *= np.float32(unit)
        long_windows[:, :cells] /= np.float32(unit)
        size, means = config.vector_dimension, config.dimension + 1
        maps = fit_maps(long_windows, long_documents, similarities, size, means, config.seed, threads)
        units = blocks.units.copy()
        units[0] *= np.float32(unit)
        coefficients = blocks.coefficients.copy()
        # The projection weighs the cells.
        coefficients[0] = 1
        self.blocks = replace(blocks, units=units, coefficients=coefficients)
        self.learned = ProjectionMaps.rounded(long_windows, maps, cells, means, float(units[0]), threads)

    # -- encoding ----------------------------------------------------------------------

    def encode_documents(
        self,
        documents: MultiVectorsLike,
        *,
        out: NDArray[np.float32] | None = None,
        threads: int | None = None,
    ) -> NDArray[np.float32]:
        """Encode documents.

        Parameters
        ----------
        documents : MultiVectors, one array (tokens, dimension) or a list of such arrays
            A document without tokens gets the zero vector.
        out : numpy.ndarray, optional
            float32 (n, vector_dimension), C-contiguous, to write to, such as a memory
            map.
        threads : int, optional
            Default: all usable cores.  The result does not depend on it.

        Returns
        -------
        numpy.ndarray
            float32 (n, vector_dimension).  The inner product with a query's vector
            approximates ``chamfer(query, document)`` up to a constant per query.
            With SimHash and no `moments`, it approximates ``num_repetitions`` times the
            similarity, as in the paper.

        Raises
        ------
        ValueError
            If the encoder is not fitted, or the documents have another dimension or
            invalid numbers.
        """
        return self._encode(documents, "documents", out, threads)

    def encode_queries(
        self, queries: MultiVectorsLike, *, out: NDArray[np.float32] | None = None, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Encode queries.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
            A query without tokens gets the zero vector.
        out : numpy.ndarray, optional
            As for :meth:`encode_documents`.
        threads : int, optional
            As for :meth:`encode_documents`.

        Returns
        -------
        numpy.ndarray
            float32 (n, vector_dimension).  A query's vector is the sum of the
            vectors of its tokens, up to rounding.

        Raises
        ------
        ValueError
            As for :meth:`encode_documents`.
        """
        return self._encode(queries, "queries", out, threads)

    def _encode(
        self, values: MultiVectorsLike, side: Side, out: NDArray[np.float32] | None, threads: int | None
    ) -> NDArray[np.float32]:
        self._require_fit()
        texts = checked_texts(values, side, self.config.dimension, "this encoder")
        out = validated_out(out, (len(texts), self.config.vector_dimension))
        if self.scale != 1:
            texts = _divided(texts, self.scale)
        run_tasks(partial(self._write, side), texts, out, threads, *self._task_size(side))
        if self.scale != 1:
            out *= np.float32(self.scale)
        if side == "documents":  # sums over the tokens of an empty query are zero
            out[texts.lengths == 0] = 0
        return out

    def _task_size(self, side: Side) -> tuple[int, int | None]:
        """Return the number of tokens of a task, and the largest number of texts."""
        if self.learned is not None:
            return TASK_TOKENS, _PROJECTED_TEXTS
        if self.sketch is not None or self.landmarks is not None:
            return TASK_TOKENS, max(1, _BLOCK_BYTES // (4 * self.config.cell_dimension))
        return TASK_TOKENS, None

    def _write(self, side: Side, tokens: Tokens, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Write the vectors of texts start..stop; empty ones may get any vector."""
        if self.learned is None:
            weight = 1.0 if self.blocks is None else self.blocks.cell_weight(side)
            self._write_cells(side, weight, tokens, start, stop, out)
            if self.blocks is not None:
                self.blocks.write(side, out.shape[1] - self.config.moment_dimension, tokens, start, stop, out)
        elif side == "documents":
            long = np.empty((stop - start, self._cell_columns + self.config.moment_dimension), np.float32)
            self._write_long(
                side, cast(MomentBlocks, self.blocks).cell_weight(side), tokens, start, stop, long
            )
            self.learned.project_documents(long, out)
        else:
            self._project_queries(self.learned, tokens, start, stop, out)

    def _write_long(
        self, side: Side, weight: float, tokens: Tokens, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write cells, times `weight`, and moments side by side."""
        assert self.blocks is not None
        self._write_cells(side, weight, tokens, start, stop, out)
        self.blocks.write(side, self._cell_columns, tokens, start, stop, out)

    def _write_cells(
        self, side: Side, weight: float, tokens: Tokens, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write cells of texts start..stop, times `weight`, from column 0 of `out`."""
        if self._cells is not None:
            self._cells.write(side, weight, tokens, start, stop, out)

    def _project_queries(
        self, learned: ProjectionMaps, tokens: Tokens, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write projected queries without building the unprojected vectors."""
        blocks, landmarks, cells = cast(MomentBlocks, self.blocks), self.landmarks, self.config.cells
        moments = *blocks.packed_directions, *blocks.query_metric, *learned.triangle_map, *learned.sum_map
        if isinstance(cells, Landmarks) and landmarks is not None:
            landmark_cells = *landmarks.directions, cells.landmark_sharpness, *learned.cell_rows
            project_queries(tuple(tokens), start, stop, moments, landmark_cells, out)
            return
        project_moments(tuple(tokens), start, stop, moments, out)
        if self._cells is not None:
            long = np.empty((stop - start, self._cell_columns), np.float32)
            self._cells.write("queries", 1.0, tokens, start, stop, long)
            products = np.empty_like(out)
            multiply_by_bytes(long, *learned.cell_map, products)
            out += products

    @cached_property
    def _cells(self) -> CellWriter | None:
        """The cells' step, once its arrays are drawn or fitted."""
        cells, projection = self.config.cells, self.config.projection
        if cells is None:
            return None
        writer: CellWriter
        if isinstance(cells, Landmarks):
            landmarks = cast(LandmarkArrays, self.landmarks)
            writer = LandmarkCells(landmarks, cells.landmark_sharpness, self._cell_columns)
        else:
            matrices, split = cast(SimHashMatrices, self.matrices), self.config.moments is not None
            writer = SimHashCells(cells, matrices, self.mean_token, split)
        if isinstance(projection, CountSketch):
            sketch = cast(FinalSketch, self.sketch)
            writer = SketchedCells(writer, sketch, projection.final_projection_dimension)
        return writer

    @property
    def _cell_columns(self) -> int:
        """Floats of the cells; a small sample has fewer than M landmarks."""
        if self.landmarks is not None and isinstance(self.config.projection, LearnedProjection):
            return self.landmarks.count
        return self.config.cell_dimension

    # -- files -------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the drawn and fitted arrays by name.

        Drawn arrays are included, because random streams may change between versions of
        NumPy.  The columns of token vectors are padded with zeros to a multiple of 16.
        Bit j of a cell's code is set if its hyperplane j has a positive product, and
        the blocks of a SimHash FDE run through repetitions, then codes (a Gray code
        with ``dialect="reference"``), then the d_proj floats of a cell.

        Returns
        -------
        dict

        Raises
        ------
        ValueError
            If the encoder is not fitted.
        """
        self._require_fit()
        stored = {} if self.scale == 1 else {"scale": np.array([self.scale], np.float32)}
        for name in array_classes(self.config):
            stored |= getattr(self, name).to_arrays()
        return stored

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write configuration and arrays to a folder for :func:`muvera.load_encoder`.

        The folder gets its name only when it is complete.

        Parameters
        ----------
        path : path
            The folder to create.
        overwrite : bool
            Replace an encoder's folder.

        Raises
        ------
        ValueError
            If the encoder is not fitted.
        FileExistsError
            If `path` exists and `overwrite` is False, or if it contains anything but an
            encoder.
        """
        arrays = self.to_arrays()
        with atomic_folder(path, overwrite, own=(ENCODER_FILE, "encoder_*.npy")) as folder:
            write_encoder_arrays(arrays, folder)
            files = {path.name: described_file(path) for path in sorted(folder.iterdir())}
            state = {**ENCODER_FORMAT, "config": self.config.to_dict(), "files": files}
            write_json(folder / ENCODER_FILE, {**state, "sha256": content_checksum(state)})

    def _require_fit(self) -> None:
        if not self._is_ready:
            if self.needs_fit:
                raise ValueError("This encoder is not fitted. Call fit(documents) first.")
            self._is_ready = True


def fitted_without_queries_from(
    config: FDEConfig, batches: Iterable[MultiVectors], others: MultiVectors, threads: int | None
) -> FDEEncoder:
    """Return an encoder fitted on documents, and to windows of all but `others`.

    `others` are only used as documents, by the fit of the learned projection.  So their
    windows are like real queries: they look for documents that the encoder was fitted
    on, but it was not fitted to them.
    """
    encoder = FDEEncoder(config)
    encoder._fit_to(batches, others[:0], others, threads)
    return encoder


def array_classes(config: FDEConfig) -> dict[str, type[EncoderArrays]]:
    """Return the classes of an encoder's arrays, by attribute name."""
    classes: dict[str, type[EncoderArrays]] = {}
    if isinstance(config.cells, SimHash):
        classes["matrices"] = SimHashMatrices
        if config.cells.center:
            classes["mean_token"] = CenterToken
    if isinstance(config.cells, Landmarks):
        classes["landmarks"] = LandmarkArrays
    if isinstance(config.projection, CountSketch):
        classes["sketch"] = FinalSketch
    if config.moments is not None:
        classes["blocks"] = MomentBlocks
    if isinstance(config.projection, LearnedProjection):
        classes["learned"] = ProjectionMaps
    return classes


def _cell_unit(documents: NDArray[np.float32], cells: int) -> float:
    """Return the factor that scales the cells' standard deviation to the moments'."""
    parts = documents[:, :cells], documents[:, cells:]
    spreads = [float(np.square(part - part.mean(axis=0), dtype=np.float64).sum()) for part in parts]
    sizes = [float(np.square(part, dtype=np.float64).sum()) for part in parts]
    if any(spread <= _ROUNDING * size for spread, size in zip(spreads, sizes, strict=True)):
        return 1.0
    return math.sqrt(spreads[1] / spreads[0])


def _scale_of(documents: MultiVectors) -> float:
    """Return a power of two near the largest number, or 1 for ordinary numbers.

    Float32 must hold the fourth power of a token's entries.
    """
    tokens = documents.tokens
    largest = max(float(tokens.max(initial=0)), -float(tokens.min(initial=0)))
    if largest == 0 or 2.0**-20 <= largest <= 2.0**20:
        return 1.0
    return 2.0 ** min(max(math.floor(math.log2(largest)), -50), 40)


def _divided(texts: MultiVectors, scale: float) -> MultiVectors:
    if scale == 1:
        return texts
    return MultiVectors.from_flat(texts.tokens.astype(np.float32) / np.float32(scale), texts.lengths)
