"""FDEEncoder: turn token sets into Fixed Dimensional Encodings; its sketch and final projection."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors, as_kernel_arrays
from ...data.sampling import DocumentSample, as_batches, mean_token
from ...data.validation import as_array, validated_out
from ...kernels.fde_encoding import CELL_LENGTH, CELL_MEAN, CELL_UNIT, encode_documents, encode_queries
from ...kernels.products import add_count_sketch, add_rademacher
from ...kernels.tile import LANES, pack_columns
from ...utils.parallel import run_in_ranges, split_by_weight
from ..base import Encoder, ReadArray, Side
from ..calibration import SAMPLE_DOCUMENTS, Sketches, calibrate
from ..moment_blocks import BlockWriter, KernelArrays, MomentBlocks
from .config import FDEConfig
from .matrices import FDEMatrices, cell_positions, draw_matrices, final_signs, padded_width

__all__ = ["FDEEncoder", "FinalProjection", "Sketch"]

_CELL_VALUES = {"mean": CELL_MEAN, "unit": CELL_UNIT, "length": CELL_LENGTH}

# Number of tokens per task: enough to hide the cost of starting it, few enough to balance the threads.
_TASK_TOKENS = 2048

# Number of sketches that one thread keeps before a final projection.
_BLOCK_BYTES = 64 << 20

# Sign bits of a dense final projection are kept up to this size; larger ones are drawn for each task.
_SIGN_BYTES = 64 << 20


class FDEEncoder(Encoder):
    """Turn token sets into vectors whose inner product approximates Chamfer.

    Parameters
    ----------
    config : FDEConfig
        With ``split_mean`` or ``center`` the encoder needs :meth:`fit` first.
    matrices : FDEMatrices, optional
        Those of a saved encoder, instead of drawing them.
    center : float32 (dimension,), optional
        Mean token of a saved encoder, instead of fitting.
    blocks : MomentBlocks, optional
        Those of a saved encoder, instead of fitting.

    Examples
    --------
    >>> import numpy as np
    >>> from muvera import FDEConfig, MultiVectors
    >>> rng = np.random.default_rng(0)
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(9, 32)) for _ in range(4)])
    >>> encoder = FDEEncoder(FDEConfig(dimension=32)).fit(documents)
    >>> encoder.encode_documents(documents).shape
    (4, 5153)
    """

    config: FDEConfig

    def __init__(
        self,
        config: FDEConfig,
        *,
        matrices: FDEMatrices | None = None,
        center: Any = None,
        blocks: MomentBlocks | None = None,
    ) -> None:
        if not isinstance(config, FDEConfig):
            raise TypeError(f"config must be an FDEConfig, got {type(config).__name__}.")
        self.config = config
        self.matrices = draw_matrices(config) if matrices is None else matrices
        self.matrices.require_shape(config)
        self._sketch = Sketch(config, self.matrices)
        self._final: FinalProjection | None = None
        if config.final_projection is not None:
            self._final = FinalProjection(config, self.matrices)
        self._center: NDArray[np.float32] | None = None
        if center is not None:
            vector = as_array(center, "center").astype(np.float32).reshape(-1)
            if vector.shape != (config.dimension,):
                raise ValueError(f"center has {vector.size} entries, but dimension={config.dimension}.")
            self._use_center(vector)
        self.blocks: MomentBlocks | None = None
        if blocks is not None:
            self._use_blocks(blocks)

    def _use_center(self, center: NDArray[np.float32]) -> None:
        if self.config.center:
            self._sketch.center_at(center)
            self._center = center

    def _use_blocks(self, blocks: MomentBlocks) -> None:
        if not self.config.split_mean:
            raise ValueError("blocks were given, but the configuration has split_mean=False.")
        blocks.require_shape(self.config.dimension, covariance=False)
        self._writer = BlockWriter(blocks)
        self.blocks = blocks

    # -- fitting --------------------------------------------------------------

    @property
    def needs_fit(self) -> bool:
        """True if :meth:`fit` must be called before encoding."""
        return (self.config.center and self._center is None) or (
            self.config.split_mean and self.blocks is None
        )

    @property
    def center(self) -> NDArray[np.float32]:
        """The vector that is subtracted, float32 (dimension,); zero without ``center``."""
        self._require_fit()
        return np.zeros(self.config.dimension, np.float32) if self._center is None else self._center

    def fit(self, documents: Any, queries: Any = None, *, threads: int | None = None) -> FDEEncoder:
        """Fit the mean token and the coefficients, if the configuration has them.

        Parameters
        ----------
        documents : MultiVectors, arrays, or an iterable of MultiVectors
            A sample is enough: a few thousand tokens for the mean, a thousand documents for the coefficients
            (of more, a random sample is kept in memory).  With very few documents the coefficients stay near
            their defaults.
        queries : MultiVectors or arrays, optional
            Queries to fit the coefficients on.  Default: windows of the documents' own tokens.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        FDEEncoder
            This encoder.

        Raises
        ------
        ValueError
            If it is fitted already, or the documents have no tokens, numbers that are not finite, or
            another dimension.
        """
        config = self.config
        if not config.center and not config.split_mean:
            return self
        self._require_no_fit()
        texts = None if queries is None else self._checked(queries, "queries")
        batches = as_batches(documents)
        if not config.split_mean:
            self._use_center(mean_token(batches, config.dimension))
            return self
        sampling = DocumentSample(config.vector_dimension, config.seed, SAMPLE_DOCUMENTS)
        self._use_center(mean_token(sampling.sample_while_yielding(batches), config.dimension))
        try:
            self._use_blocks(
                calibrate(
                    sampling.documents(config.dimension),
                    texts,
                    covariance=False,
                    sketches=Sketches(
                        lambda texts: self._sketches(texts, "documents", threads),
                        lambda texts: self._sketches(texts, "queries", threads),
                        float(config.num_repetitions),
                    ),
                    balance="length",
                    seed=config.seed,
                    threads=threads,
                )
            )
        except BaseException:
            self._center = None  # a failed fit changes nothing
            raise
        return self

    # -- encoding -------------------------------------------------------------

    def _write_sketch(
        self, side: Side, arrays: KernelArrays, start: int, stop: int, weight: float, out: NDArray[np.float32]
    ) -> None:
        if self._final is None:
            self._sketch.write(side, arrays, start, stop, weight, out)
            return
        block = np.empty((stop - start, self.config.sketch_dimension), np.float32)
        self._sketch.write(side, arrays, start, stop, weight, block)
        self._final.write(block, out[:, : self._final.dimension])

    def _sketches(self, texts: MultiVectors, side: Side, threads: int | None) -> NDArray[np.float32]:
        """Return the unweighted sketches of texts."""
        out = np.empty((len(texts), self._sketch_columns), np.float32)
        arrays = (*as_kernel_arrays(texts), texts.offsets)

        def work(start: int, stop: int) -> None:
            self._write_sketch(side, arrays, start, stop, 1.0, out[start:stop])

        run_in_ranges(work, self._ranges(texts), threads)
        return out

    @property
    def _sketch_columns(self) -> int:
        return self.config.final_projection_dimension or self.config.sketch_dimension

    def _ranges(self, texts: MultiVectors) -> list[tuple[int, int]]:
        most = max(1, len(texts))
        if self._final is not None:
            most = max(1, _BLOCK_BYTES // (4 * self.config.sketch_dimension))
        return split_by_weight(texts.offsets, _TASK_TOKENS, most)

    def _encode(
        self, values: Any, side: Side, out: NDArray[np.float32] | None, threads: int | None
    ) -> NDArray[np.float32]:
        self._require_fit()
        texts = self._checked(values, side)
        out = validated_out(out, (len(texts), self.config.vector_dimension))
        arrays = (*as_kernel_arrays(texts), texts.offsets)
        columns, blocks = self._sketch_columns, self.blocks

        def work(start: int, stop: int) -> None:
            rows = out[start:stop]
            if blocks is None:
                self._write_sketch(side, arrays, start, stop, 1.0, rows)
            elif side == "documents":
                weight = float(blocks.coefficients[0]) / self.config.num_repetitions * float(blocks.units[0])
                self._write_sketch(side, arrays, start, stop, weight, rows)
                self._writer.write_documents(arrays, start, stop, columns, rows)
            else:
                self._write_sketch(side, arrays, start, stop, 1 / float(blocks.units[0]), rows)
                self._writer.write_queries(arrays, start, stop, columns, rows)

        run_in_ranges(work, self._ranges(texts), threads)
        return out

    # -- saving ---------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the matrices, the center and the blocks by name.

        The matrices are included although the seed determines them, because random streams may change between
        versions of NumPy.

        Raises
        ------
        ValueError
            If the encoder is not fitted.
        """
        blocks = {} if self.blocks is None else self.blocks.to_arrays()
        moments = {f"moments_{name}": array for name, array in blocks.items()}
        return {**self.matrices.to_arrays(), "center": self.center, **moments}

    @classmethod
    def from_arrays(cls, config: FDEConfig, read: ReadArray) -> FDEEncoder:
        """Return the encoder whose :meth:`to_arrays` `read` reads by name."""
        return cls(
            config,
            matrices=FDEMatrices.from_arrays(read),
            center=read("center") if config.center else None,
            blocks=MomentBlocks.from_arrays(read, "moments_") if config.split_mean else None,
        )


class Sketch:
    """The random matrices of an FDE, packed for the kernels, and the center.

    Parameters
    ----------
    config : FDEConfig
    matrices : FDEMatrices
    """

    def __init__(self, config: FDEConfig, matrices: FDEMatrices) -> None:
        self._config, self._matrices = config, matrices
        mixed = bool(matrices.mixing.size)
        self._lane_planes = mixed and _is_interleaved(matrices.hyperplanes)
        self._planes = _pack_rows(matrices.hyperplanes, self._lane_planes)
        width = padded_width(config.dimension)
        self._lane_projection = (
            mixed
            and config.block_width % LANES == 0
            and _is_interleaved(matrices.projections.reshape(-1, width))
        )
        packed = [_pack_rows(rows, self._lane_projection) for rows in matrices.projections]
        self._projection = np.concatenate([np.empty(0, np.float32), *packed])
        self._mixing = _pack_rows(matrices.mixing, True) if mixed else np.empty(0, np.float32)
        # Norms over the tokens' own columns: in a padded basis, a normal also has other columns.
        norms = np.linalg.norm(matrices.dense_hyperplanes[:, : config.dimension], axis=1)
        self._inverse_norms = (1 / np.maximum(norms, 1e-30)).astype(np.float32)
        self._position = cell_positions(config)
        self._center = np.zeros(width, np.float32)

    def center_at(self, center: NDArray[np.float32]) -> None:
        """Subtract `center` (d,) from tokens from now on."""
        self._center[: self._config.dimension] = center

    def write(
        self, side: Side, arrays: KernelArrays, start: int, stop: int, weight: float, out: NDArray[np.float32]
    ) -> None:
        """Write `weight` times the sketches of texts start..stop to the first columns of `out`."""
        config = self._config
        common = (
            *arrays, start, stop, self._center, self._mixing, self._matrices.places, self._planes,
            self._lane_planes,
        )  # fmt: skip
        if side == "documents":
            encode_documents(
                *common, config.num_repetitions, config.num_simhash_projections, self._position,
                self._projection, self._lane_projection, config.block_width, config.fill_empty_partitions,
                _CELL_VALUES[config.document_cells], config.split_mean, np.float32(weight), out,
            )  # fmt: skip
        else:
            encode_queries(
                *common, self._inverse_norms, config.num_repetitions, config.num_simhash_projections,
                self._position, self._projection, self._lane_projection, config.block_width,
                np.float32(config.soft_query_cells), np.float32(weight), out,
            )  # fmt: skip


class FinalProjection:
    """The final projection of a configuration that has one.

    Parameters
    ----------
    config : FDEConfig
    matrices : FDEMatrices
    """

    def __init__(self, config: FDEConfig, matrices: FDEMatrices) -> None:
        assert config.final_projection_dimension is not None
        self._config, self._matrices = config, matrices
        self.dimension = config.final_projection_dimension
        self._signs: list[NDArray[np.uint16]] | None = None
        panels = -(-self.dimension // LANES)
        dense = config.final_projection == "rademacher"
        if dense and config.sketch_dimension * panels * 2 <= _SIGN_BYTES:
            self._signs = [self._draw_signs(r) for r in range(config.num_repetitions)]

    def _draw_signs(self, repetition: int) -> NDArray[np.uint16]:
        rows = self._config.num_cells * self._config.block_width
        return final_signs(self._config.seed, repetition, rows, self.dimension)

    def write(self, block: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Write the maps of sketches (b, L) to `out` (b, D); each row's sum runs over repetitions in order."""
        out[:] = 0
        if self._config.final_projection == "count_sketch":
            add_count_sketch(block, self._matrices.final_targets, self._matrices.final_signs, out)
            return
        scale = np.float32(1 / np.sqrt(self.dimension))
        rows = self._config.num_cells * self._config.block_width
        for r in range(self._config.num_repetitions):
            signs = self._draw_signs(r) if self._signs is None else self._signs[r]
            add_rademacher(block, r * rows, signs, scale, out)


def _is_interleaved(matrix: NDArray[np.float32]) -> bool:
    """Return True if row i is zero in all columns that are not i modulo LANES."""
    rows = np.arange(len(matrix))[:, np.newaxis] % LANES
    columns = np.arange(matrix.shape[1])[np.newaxis] % LANES
    return not matrix[rows != columns].any()


def _pack_rows(matrix: NDArray[np.float32], interleaved: bool) -> NDArray[np.float32]:
    """Pack rows as panels of LANES columns, flat; interleaved ones have one entry per lane."""
    packed = pack_columns(matrix)
    if not interleaved:
        return packed.reshape(-1)
    panels, width, _ = packed.shape
    lanes = packed.reshape(panels, width // LANES, LANES, LANES)
    return np.ascontiguousarray(np.diagonal(lanes, axis1=2, axis2=3)).reshape(-1)
