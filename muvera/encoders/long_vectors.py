"""LongVectorEncoder: base class of encoders whose vectors are a sketch, blocks of moments, or both.

Columns of a long vector: the sketch (none for a mean), the covariance where there is one, the mean
token, the bias.  A compact map may then take its place.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_kernel_arrays
from ..data.sampling import MAX_FIT_DOCUMENTS, DocumentSample, as_batches, mean_token
from ..data.validation import validated_out
from ..numerics.int8_matmul import Int8Matrix
from ..utils.parallel import run_in_ranges, split_by_weight
from .base import BaseEncoder, ReadArray, Side
from .fde.compact_maps import CompactMaps, fit_maps, sample_windows, similarities_of
from .fde.int8_projection import CompactProduct
from .moments.blocks import MomentBlocks, moment_dimension
from .moments.calibration import SAMPLE_DOCUMENTS, Sketches, calibrate

__all__ = ["LongVectorEncoder", "read_learned"]


# A task is about this many tokens: enough to hide its start, few enough to share out evenly.
_TASK_TOKENS = 2048

# With a compact map, that many texts and tokens a task: each task reads the whole map.
_COMPACT_TEXTS, _COMPACT_TOKENS = 204, 32768


class _Config(Protocol):
    """What the encoder reads of a configuration."""

    @property
    def dimension(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def split_mean(self) -> bool: ...
    @property
    def covariance(self) -> bool: ...
    @property
    def compact_dimension(self) -> int | None: ...
    @property
    def long_dimension(self) -> int: ...
    @property
    def vector_dimension(self) -> int: ...


class LongVectorEncoder(BaseEncoder):
    """Base class: fitting and encoding; what a sketch is, the subclass says."""

    config: Any

    #: Largest number of texts of a task, of long vectors that are not written where they stay.
    _task_texts: int | None = None

    def __init__(self, config: _Config, blocks: MomentBlocks | None, compact: CompactMaps | None) -> None:
        self.config = config
        self._blocks: MomentBlocks | None = None
        if blocks is not None:
            self._take_blocks(blocks)
        self.compact: CompactMaps | None = None
        if compact is not None:
            self._take_maps(compact)

    # -- of the subclass ------------------------------------------------------

    @property
    def _sketch_columns(self) -> int:
        """Columns of the sketch in a long vector."""
        return 0

    @property
    def _sketch_scale(self) -> float:
        """So many times Chamfer are inner products of sketches."""
        return 1.0

    def _write_sketch(
        self, side: Side, arrays: Any, start: int, stop: int, weight: float, out: NDArray[np.float32]
    ) -> None:
        """Write `weight` times the sketches of texts start..stop to `out`."""

    @abstractmethod
    def _require_fit(self) -> None:
        """Raise ValueError where something is still to be learned."""

    @abstractmethod
    def _take_center(self, center: NDArray[np.float32]) -> None:
        """Keep the documents' mean token, which a configuration may ask for."""

    # -- fitting --------------------------------------------------------------

    @property
    def blocks(self) -> MomentBlocks | None:
        """How the mean, the covariance and the bias are weighted; None before fitting or without them."""
        return self._blocks

    def _take_blocks(self, blocks: MomentBlocks) -> None:
        if not self.config.split_mean:
            raise ValueError("blocks of moments were given, but the configuration has split_mean=False.")
        blocks.require_shape(self.config.dimension, self.config.covariance)
        self._metric = blocks.packed_metric()
        self._blocks = blocks

    def _take_maps(self, maps: CompactMaps) -> None:
        if self.config.compact_dimension is None:
            raise ValueError("compact maps were given, but the configuration has no compact_dimension.")
        maps.require_shape(self.config.long_dimension, self.config.compact_dimension)
        self._query_map, self._document_product = Int8Matrix(maps.queries), CompactProduct(maps)
        self.compact = maps

    @property
    def needs_fit(self) -> bool:
        """Whether something is still to be learned from documents before encoding."""
        config = self.config
        return (config.split_mean and self._blocks is None) or (
            config.compact_dimension is not None and self.compact is None
        )

    def _learn(self, documents: Any, queries: Any, threads: int | None) -> None:
        """Learn the mean token, the blocks and the compact map, as far as the configuration has them."""
        config = self.config
        asked = None if queries is None else self._checked(queries, "queries")
        batches = as_batches(documents)
        compact = config.compact_dimension is not None
        if not compact and not config.split_mean:
            self._take_center(mean_token(batches, config.dimension))
            return
        most = MAX_FIT_DOCUMENTS if compact else SAMPLE_DOCUMENTS
        sampling = DocumentSample(config.long_dimension, config.seed, most)
        self._take_center(
            mean_token(sampling.sample_while_yielding(batches), config.dimension)
        )  # checks the batches, too
        sample = sampling.documents(config.dimension)
        if config.split_mean:
            self._take_blocks(self._calibrated(sample, asked, threads))
        if compact:
            self._take_maps(self._fitted_maps(sample, asked, threads))

    def _calibrated(
        self, sample: MultiVectors, queries: MultiVectors | None, threads: int | None
    ) -> MomentBlocks:
        sketches = None
        if self._sketch_columns:
            sketches = Sketches(
                lambda texts: self._all(texts, "documents", threads, sketch_only=True),
                lambda texts: self._all(texts, "queries", threads, sketch_only=True),
                self._sketch_scale,
            )
        return calibrate(
            sample,
            queries,
            covariance=self.config.covariance,
            sketches=sketches,
            balance="length" if self.config.compact_dimension is None else "range",
            seed=self.config.seed,
            threads=threads,
        )

    def _fitted_maps(
        self, sample: MultiVectors, queries: MultiVectors | None, threads: int | None
    ) -> CompactMaps:
        config = self.config
        windows = sample_windows(sample, queries, config.long_dimension, config.seed)
        similarities = similarities_of(windows, sample, threads)
        similarities *= np.float32(1 if config.split_mean else self._sketch_scale)  # as the long vectors do
        return fit_maps(
            self._all(windows, "queries", threads),
            self._all(sample, "documents", threads),
            similarities,
            config.compact_dimension,
            moment_dimension(config.dimension, False) if config.split_mean else 0,
            config.seed,
            threads,
        )

    # -- encoding -------------------------------------------------------------

    def _all(
        self, texts: MultiVectors, side: Side, threads: int | None, sketch_only: bool = False
    ) -> NDArray[np.float32]:
        """Return the long vectors of all texts, or their sketches as they are before they are weighted."""
        width = self._sketch_columns if sketch_only else self.config.long_dimension
        out = np.empty((len(texts), width), np.float32)
        arrays = (*as_kernel_arrays(texts), texts.offsets)

        def work(start: int, stop: int) -> None:
            if sketch_only:
                self._write_sketch(side, arrays, start, stop, 1.0, out[start:stop])
            else:
                self._write_long(side, arrays, start, stop, out[start:stop])

        run_in_ranges(work, split_by_weight(texts.offsets, _TASK_TOKENS, max(1, len(texts))), threads)
        return out

    def _write_long(self, side: Side, arrays: Any, start: int, stop: int, out: NDArray[np.float32]) -> None:
        columns, blocks = self._sketch_columns, self._blocks
        if blocks is None:
            self._write_sketch(side, arrays, start, stop, 1.0, out)
            return
        unit = float(blocks.units[0])
        if side == "documents":
            weight = float(blocks.coefficients[0]) / self._sketch_scale * unit
            self._write_sketch(side, arrays, start, stop, weight, out)
            blocks.write_documents(arrays, start, stop, columns, out)
        else:
            self._write_sketch(side, arrays, start, stop, 1 / unit, out)
            blocks.write_queries(arrays, start, stop, columns, out, self._metric)

    def _encode(
        self, values: Any, side: Side, out: NDArray[np.float32] | None, threads: int | None
    ) -> NDArray[np.float32]:
        self._require_fit()
        texts = self._checked(values, side)
        out = validated_out(out, (len(texts), self.config.vector_dimension))
        arrays = (*as_kernel_arrays(texts), texts.offsets)
        if self.compact is not None:
            ranges = split_by_weight(texts.offsets, _COMPACT_TOKENS, _COMPACT_TEXTS)
        else:
            most = self._task_texts or max(1, len(texts))
            ranges = split_by_weight(texts.offsets, _TASK_TOKENS, most)

        def work(start: int, stop: int) -> None:
            rows = out[start:stop]
            if self.compact is None:
                self._write_long(side, arrays, start, stop, rows)
            elif side == "documents":
                self._document_product.write(
                    lambda first, last, part: self._write_long(side, arrays, first, last, part),
                    start, stop, rows,
                )  # fmt: skip
                rows[texts.lengths[start:stop] == 0] = 0
            else:
                block = np.empty((stop - start, self.config.long_dimension), np.float32)
                self._write_long(side, arrays, start, stop, block)
                self._query_map.multiply(block, rows)

        run_in_ranges(work, ranges, threads)
        return out

    # -- keeping --------------------------------------------------------------

    def _learned_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was learned, by name."""
        parts = {"moments": self._blocks, "compact": self.compact}
        return {
            f"{prefix}_{name}": array
            for prefix, part in parts.items()
            if part is not None
            for name, array in part.to_arrays().items()
        }


def read_learned(config: Any, read: ReadArray) -> tuple[MomentBlocks | None, CompactMaps | None]:
    """Return the blocks and the maps that an encoder of this configuration saved."""
    blocks = maps = None
    if config.split_mean:
        blocks = MomentBlocks(**{field.name: read(f"moments_{field.name}") for field in fields(MomentBlocks)})
    if config.compact_dimension is not None:
        maps = CompactMaps(**{field.name: read(f"compact_{field.name}") for field in fields(CompactMaps)})
    return blocks, maps
