"""FDEEncoder: turn token sets into Fixed Dimensional Encodings."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors
from ...kernels.fde_encoding import CELL_LENGTH, CELL_MEAN, CELL_UNIT, encode_documents, encode_queries
from ...kernels.rows import add_count_sketch
from ..base import Encoder, EncoderArrays, FitSample, KernelArrays, Side, run_tasks
from ..coefficients import SAMPLE_DOCUMENTS, fit_blocks
from ..moment_blocks import MomentBlocks
from .config import FDEConfig
from .matrices import FDEMatrices, MeanToken, cell_positions, draw_matrices

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
    mean_token : MeanToken, optional
        That of a saved encoder, instead of fitting.
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
    matrices: FDEMatrices
    mean_token: MeanToken | None = None
    blocks: MomentBlocks | None = None

    @staticmethod
    def _array_classes(config: FDEConfig) -> dict[str, type[EncoderArrays]]:
        classes: dict[str, type[EncoderArrays]] = {"matrices": FDEMatrices}
        if config.center:
            classes["mean_token"] = MeanToken
        if config.split_mean:
            classes["blocks"] = MomentBlocks
        return classes

    def __init__(
        self, config: FDEConfig, *, matrices: FDEMatrices | None = None, **arrays: EncoderArrays | None
    ) -> None:
        super().__init__(config, matrices=matrices, **arrays)
        self.matrices = matrices or draw_matrices(config)
        if not config.center:
            self.mean_token = MeanToken(np.zeros(config.dimension, np.float32))
        self._positions = cell_positions(config)
        self._sketch_columns = config.final_projection_dimension or config.sketch_dimension

    # -- fitting --------------------------------------------------------------

    @property
    def center(self) -> NDArray[np.float32]:
        """The vector that is subtracted, float32 (dimension,); zero without ``center``."""
        self._require_fit()
        assert self.mean_token is not None
        return self.mean_token.center

    @property
    def _fit_size(self) -> tuple[int, int] | None:
        if not self.config.center and not self.config.split_mean:
            return None
        return self.config.vector_dimension, SAMPLE_DOCUMENTS

    def _fit(self, sample: FitSample, threads: int | None) -> None:
        config = self.config
        if config.center:
            self.mean_token = MeanToken(sample.mean)
        if config.split_mean:

            def sketches(texts: MultiVectors, side: Side) -> NDArray[np.float32]:
                weight = 1 / config.num_repetitions if side == "documents" else 1.0
                out = np.empty((len(texts), self._sketch_columns), np.float32)
                write = partial(self._write_sketch, side, weight)
                return run_tasks(write, texts, out, threads, *self._task_size(side))

            self.blocks = fit_blocks(
                sample.documents, sample.queries, covariance=False, balance="length", seed=config.seed,
                sketches=sketches, threads=threads,
            )  # fmt: skip

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
        self.blocks.write(side, self._sketch_columns, arrays, start, stop, out)

    def _write_sketch(
        self, side: Side, weight: float, arrays: KernelArrays, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        """Write `weight` times the sketches of texts start..stop to the first columns of `out`."""
        config, target = self.config, out
        if config.final_projection_dimension is not None:
            target = np.empty((stop - start, config.sketch_dimension), np.float32)
        matrices, mean_token = self.matrices, self.mean_token
        assert mean_token is not None
        planes, projections = matrices.packed
        common = (
            *arrays, start, stop, mean_token.padded, planes, config.num_repetitions,
            config.num_simhash_projections, self._positions, projections, config.block_width,
        )  # fmt: skip
        if side == "documents":
            encode_documents(
                *common, config.fill_empty_partitions, _CELL_VALUES[config.document_cells], config.split_mean,
                np.float32(weight), target,
            )  # fmt: skip
        else:
            encode_queries(
                *common,
                matrices.inverse_norms,
                np.float32(config.soft_query_cells),
                np.float32(weight),
                target,
            )
        if config.final_projection_dimension is not None:
            out[:, : self._sketch_columns] = 0
            add_count_sketch(target, matrices.final_targets, matrices.final_signs, out)
