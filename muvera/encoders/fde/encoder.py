"""FDEEncoder: turn token sets into Fixed Dimensional Encodings."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...data.validation import as_array
from ...kernels.fde_encoding import CELL_LENGTH, CELL_MEAN, CELL_UNIT, encode_documents, encode_queries
from ...kernels.products import add_count_sketch
from ...kernels.tile import pack_columns
from ..base import Encoder, EncoderArrays, FitSample, KernelArrays, ReadArray, Side, run_tasks
from ..calibration import SAMPLE_DOCUMENTS, calibrate
from ..moment_blocks import BlockWriter, MomentBlocks
from .config import FDEConfig
from .matrices import FDEMatrices, cell_positions, draw_matrices, padded_width

__all__ = ["FDEEncoder"]

_CELL_VALUES = {"mean": CELL_MEAN, "unit": CELL_UNIT, "length": CELL_LENGTH}

# Number of bytes of the sketches that one thread keeps before a final projection.
_BLOCK_BYTES = 64 << 20


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

    config_class = FDEConfig
    config: FDEConfig

    def __init__(
        self,
        config: FDEConfig,
        *,
        matrices: FDEMatrices | None = None,
        center: Any = None,
        blocks: MomentBlocks | None = None,
    ) -> None:
        super().__init__(config)
        self.matrices = matrices = draw_matrices(config) if matrices is None else matrices
        matrices.require_shape(config)
        self._planes = pack_columns(matrices.hyperplanes).reshape(-1)
        packed = [pack_columns(rows).reshape(-1) for rows in matrices.projections]
        self._projection = np.concatenate([np.empty(0, np.float32), *packed])
        norms = np.linalg.norm(matrices.hyperplanes.astype(np.float64), axis=1)
        self._inverse_norms = (1 / np.maximum(norms, 1e-30)).astype(np.float32)
        self._positions = cell_positions(config)
        self._sketch_columns = config.final_projection_dimension or config.sketch_dimension
        self._padded_center = np.zeros(padded_width(config.dimension), np.float32)
        self._has_center = not config.center
        self.blocks: MomentBlocks | None = None
        if center is not None:
            vector = as_array(center, "center").astype(np.float32).reshape(-1)
            if vector.shape != (config.dimension,):
                raise ValueError(f"center has {vector.size} entries, but dimension={config.dimension}.")
            if config.center:
                self._padded_center[: config.dimension] = vector
                self._has_center = True
        if blocks is not None:
            if not config.split_mean:
                raise ValueError("blocks were given, but the configuration has split_mean=False.")
            blocks.require_shape(config.dimension, covariance=False)
            self._use_blocks(blocks)

    def _use_blocks(self, blocks: MomentBlocks) -> None:
        self._writer, self.blocks = BlockWriter(blocks), blocks

    # -- fitting --------------------------------------------------------------

    @property
    def needs_fit(self) -> bool:
        """True if :meth:`fit` must be called before encoding."""
        return not self._has_center or (self.config.split_mean and self.blocks is None)

    @property
    def center(self) -> NDArray[np.float32]:
        """The vector that is subtracted, float32 (dimension,); zero without ``center``."""
        self._require_fit()
        return np.array(self._padded_center[: self.config.dimension])

    @property
    def _fit_size(self) -> tuple[int, int] | None:
        if not self.config.center and not self.config.split_mean:
            return None
        return self.config.vector_dimension, SAMPLE_DOCUMENTS

    def _fit(self, sample: FitSample, threads: int | None) -> None:
        config = self.config
        if config.center:
            self._padded_center[: config.dimension] = sample.mean
        if config.split_mean:

            def sketches(texts: MultiVectors, side: Side) -> NDArray[np.float32]:
                weight = 1 / config.num_repetitions if side == "documents" else 1.0
                out = np.empty((len(texts), self._sketch_columns), np.float32)
                write = partial(self._write_sketch, side, weight)
                return run_tasks(write, texts, out, threads, *self._task_size(side))

            blocks = calibrate(
                sample.documents, sample.queries, covariance=False, balance="length", seed=config.seed,
                sketches=sketches, threads=threads,
            )  # fmt: skip
            self._use_blocks(blocks)
        self._has_center = True

    # -- encoding -------------------------------------------------------------

    def _task_size(self, side: Side) -> tuple[int, int | None]:
        tokens, most = super()._task_size(side)
        if self.config.final_projection_dimension is not None:
            most = max(1, _BLOCK_BYTES // (4 * self.config.sketch_dimension))
        return tokens, most

    def _write(
        self, side: Side, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        if self.blocks is None:
            self._write_sketch(side, 1.0, arrays, start, stop, out)
            return
        weight = float(self.blocks.units[0])
        if side == "documents":
            weight *= float(self.blocks.coefficients[0]) / self.config.num_repetitions
        else:
            weight = 1 / weight
        self._write_sketch(side, weight, arrays, start, stop, out)
        self._writer.write(side, self._sketch_columns, arrays, start, stop, out)

    def _write_sketch(
        self, side: Side, weight: float, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write `weight` times the sketches of texts start..stop to the first columns of `out`."""
        config, target = self.config, out
        if config.final_projection_dimension is not None:
            target = np.empty((stop - start, config.sketch_dimension), np.float32)
        common = (
            *arrays, start, stop, self._padded_center, self._planes, config.num_repetitions,
            config.num_simhash_projections, self._positions, self._projection, config.block_width,
        )  # fmt: skip
        if side == "documents":
            encode_documents(
                *common, config.fill_empty_partitions, _CELL_VALUES[config.document_cells], config.split_mean,
                np.float32(weight), target,
            )  # fmt: skip
        else:
            encode_queries(
                *common, self._inverse_norms, np.float32(config.soft_query_cells), np.float32(weight), target
            )
        if config.final_projection_dimension is not None:
            out[:, : self._sketch_columns] = 0
            add_count_sketch(target, self.matrices.final_targets, self.matrices.final_signs, out)

    # -- saving ---------------------------------------------------------------

    def _stored(self) -> dict[str, EncoderArrays | None]:
        return {"": self.matrices, "moments_": self.blocks}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the matrices, the center and the blocks by name.

        Raises
        ------
        ValueError
            If the encoder is not fitted.
        """
        return {**super().to_arrays(), "center": self.center}

    @classmethod
    def from_arrays(cls, config: FDEConfig, read: ReadArray) -> FDEEncoder:
        """Return the encoder whose :meth:`to_arrays` `read` reads by name."""
        return cls(
            config,
            matrices=FDEMatrices.from_arrays(read),
            center=read("center") if config.center else None,
            blocks=MomentBlocks.from_arrays(read, "moments_") if config.split_mean else None,
        )
