"""FDEEncoder: from token sets to Fixed Dimensional Encodings."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...data.multivectors import MultiVectors, as_kernel_arrays
from ...data.sampling import DocumentSample, as_batches, mean_token
from ...data.validation import validated_out
from ...kernels.fde_encoding import (
    FILL_NEAREST_CELL,
    FILL_NEAREST_TOKEN,
    FILL_NONE,
    encode_documents,
    encode_queries,
)
from ...kernels.final_projections import add_count_sketch, add_rademacher
from ...kernels.tile import LANES
from ...numerics.int8_matmul import Int8Matrix
from ...utils.parallel import run_in_ranges, split_by_weight
from ..base import BaseEncoder, ReadArray
from .compact_maps import CompactMaps, fit_maps, sample_windows, similarities_of
from .config import FDEConfig
from .draws import native
from .int8_projection import CompactProduct
from .matrices import FDEMatrices, cell_positions, draw_matrices, is_interleaved, pack_rows

__all__ = ["FDEEncoder"]

# A task is about this many tokens: enough to hide its start, few enough to share out evenly.
_TASK_TOKENS = 2048

# Long FDEs held by one thread before a final projection.
_BLOCK_BYTES = 64 << 20

# With a compact map, that many texts and tokens a task: each task reads the whole map.
_COMPACT_TEXTS, _COMPACT_TOKENS = 204, 32768

# Long FDEs that are made before they are rounded: few enough to stay in a cache.
_ROUNDED_TEXTS = 12

# Sign bits of a dense final projection are kept up to this size, else drawn again per block.
_KEPT_SIGN_BYTES = 64 << 20


class FDEEncoder(BaseEncoder):
    """Turn token sets into vectors whose inner product approximates R times Chamfer.

    Parameters
    ----------
    config : FDEConfig
        With ``center`` or ``compact_dimension`` the encoder needs :meth:`fit` first.
    matrices : FDEMatrices, optional
        Instead of drawing them from the configuration: those of a saved index.
    center : float32 (dimension,), optional
        Instead of fitting: the mean token of a saved index.
    compact : CompactMaps, optional
        Instead of fitting: the maps of a saved index.

    Examples
    --------
    >>> import numpy as np
    >>> from muvera import FDEConfig, MultiVectors
    >>> rng = np.random.default_rng(0)
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(9, 32)) for _ in range(4)])
    >>> encoder = FDEEncoder(FDEConfig(dimension=32)).fit(documents)
    >>> encoder.encode_documents(documents).shape
    (4, 10240)
    """

    def __init__(
        self,
        config: FDEConfig,
        *,
        matrices: FDEMatrices | None = None,
        center: Any = None,
        compact: CompactMaps | None = None,
    ) -> None:
        if not isinstance(config, FDEConfig):
            raise TypeError(f"config must be an FDEConfig, got {type(config).__name__}.")
        self.config = config
        self.matrices = draw_matrices(config) if matrices is None else matrices
        self._center: NDArray[np.float32] | None = None
        if center is not None:
            self._center = np.asarray(center, np.float32).reshape(-1)
            if self._center.shape != (config.dimension,):
                raise ValueError(f"center has {self._center.size} entries, but dimension={config.dimension}.")
        self.compact: CompactMaps | None = None
        if compact is not None:
            self._take_maps(compact)
        self._prepare()

    def _take_maps(self, maps: CompactMaps) -> None:
        if self.config.compact_dimension is None:
            raise ValueError("compact maps were given, but the configuration has no compact_dimension.")
        maps.require_shape(self.config.long_dimension, self.config.compact_dimension)
        self._query_map, self._document_product = Int8Matrix(maps.queries), CompactProduct(maps)
        self.compact = maps

    def _prepare(self) -> None:
        """Pack the matrices as the kernels read them."""
        config, matrices = self.config, self.matrices
        repetitions, width = config.num_repetitions, native.padded_width(config.dimension)
        if matrices.hyperplanes.shape != (repetitions * config.num_simhash_projections, width):
            raise ValueError(
                f"The hyperplanes have shape {matrices.hyperplanes.shape}, which does not fit {config}."
            )
        self._width = width
        self._lane_planes = bool(matrices.mixing.size) and is_interleaved(matrices.hyperplanes)
        self._planes = pack_rows(matrices.hyperplanes, self._lane_planes)
        flat = matrices.projections.reshape(-1, width)
        self._lane_projection = (
            bool(matrices.mixing.size) and config.block_width % LANES == 0 and is_interleaved(flat)
        )
        self._projection = np.concatenate(
            [
                np.empty(0, np.float32),
                *(pack_rows(rows, self._lane_projection) for rows in matrices.projections),
            ]
        )
        self._mixing = pack_rows(matrices.mixing, True) if matrices.mixing.size else np.empty(0, np.float32)
        # Of the tokens' own columns: where the basis is padded, a normal also has others.
        norms = np.linalg.norm(matrices.dense_hyperplanes[:, : config.dimension], axis=1)
        self._inverse_norms = (1 / np.maximum(norms, 1e-30)).astype(np.float32)
        self._position = cell_positions(config)
        self._code_at = np.argsort(self._position)
        self._kept_signs: list[NDArray[np.uint16]] | None = None
        panels = -(-config.vector_dimension // LANES)
        if config.final_projection == "rademacher" and config.long_dimension * panels * 2 <= _KEPT_SIGN_BYTES:
            self._kept_signs = [self._draw_signs(r) for r in range(repetitions)]
        fill = FILL_NONE
        if config.fill_empty_partitions:
            fill = FILL_NEAREST_CELL if config.dialect == "fastembed" else FILL_NEAREST_TOKEN
        self._fill = fill

    # -- fitting --------------------------------------------------------------

    @property
    def needs_fit(self) -> bool:
        """Whether something is still to be learned from documents before encoding."""
        missing = self.config.compact_dimension is not None and self.compact is None
        return missing or (self.config.center and self._center is None)

    @property
    def center(self) -> NDArray[np.float32]:
        """The vector that is subtracted, float32 (dimension,); zero without ``center``."""
        self._require_fit()
        if self._center is None:
            return np.zeros(self.config.dimension, np.float32)
        return self._center

    def fit(self, documents: Any, queries: Any = None, *, threads: int | None = None) -> FDEEncoder:
        """Learn what the configuration asks for: the mean token, the compact maps.

        Parameters
        ----------
        documents : MultiVectors, arrays, or an iterable of MultiVectors
            A sample is enough: some thousand tokens for the mean, as many documents as there
            are up to 4,096 for the maps (of more, a random sample is used, held in memory).
            Fitting again is an error once something was encoded with the old fit, so it is
            not offered: make a new encoder.
        queries : MultiVectors or arrays, optional
            Queries to learn the compact maps from beside the documents' own tokens, which
            stand in for them otherwise.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        FDEEncoder
            This encoder.
        """
        config = self.config
        if not config.center and config.compact_dimension is None:
            return self
        if not self.needs_fit or self._center is not None:
            raise ValueError(
                "This encoder is fitted, and FDEs of two fits do not compare. Make a new encoder."
            )
        asked = None
        if queries is not None:
            asked = self._checked(queries, "queries")
        batches = as_batches(documents)
        if config.compact_dimension is None:
            self._center = mean_token(batches, config.dimension)
            return self
        sample = DocumentSample(config.long_dimension, config.seed)
        mean = mean_token(sample.watch(batches), config.dimension)  # checks the batches, too
        if config.center:
            self._center = mean
        try:
            self._fit_maps(sample.documents(config.dimension), asked, threads)
        except BaseException:
            self._center = None  # to be fitted again, not half fitted
            raise
        return self

    def _fit_maps(self, documents: MultiVectors, queries: MultiVectors | None, threads: int | None) -> None:
        config = self.config
        assert config.compact_dimension is not None
        windows = sample_windows(documents, queries, config.long_dimension, config.seed)
        similarities = similarities_of(windows, documents, threads)
        similarities *= np.float32(config.num_repetitions)  # what the long FDE estimates
        maps = fit_maps(
            self._long(windows, "queries", threads),
            self._long(documents, "documents", threads),
            similarities,
            config.compact_dimension,
            config.seed,
            threads,
        )
        self._take_maps(maps)

    def _long(self, texts: MultiVectors, side: str, threads: int | None) -> NDArray[np.float32]:
        """Return the FDEs before any map."""
        out = np.empty((len(texts), self.config.long_dimension), np.float32)
        encode = self._write_documents if side == "documents" else self._write_queries
        floats, halves = as_kernel_arrays(texts)
        ranges = split_by_weight(texts.offsets, _TASK_TOKENS, max(1, len(texts)))
        run_in_ranges(lambda a, b: encode(floats, halves, texts.offsets, a, b, out[a:b]), ranges, threads)
        return out

    def _require_fit(self) -> None:
        if self.needs_fit:
            size = self.config.compact_dimension
            asks, instead = "center=True", "center=False"
            if size is not None:
                asks, instead = f"compact_dimension={size}", "compact_dimension=None"
            raise ValueError(
                f"This configuration has {asks}, which is learned from documents: call fit(documents) "
                f"first, or use {instead}."
            )

    # -- encoding -------------------------------------------------------------

    def encode_documents(
        self, documents: Any, *, out: NDArray[np.float32] | None = None, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Encode documents.

        Parameters
        ----------
        documents : MultiVectors, one array (tokens, dimension) or a list of such arrays
            A document without tokens gets the zero vector.
        out : float32 (n, vector_dimension), optional
            Where to write, such as a memory map; C-contiguous.
        threads : int, optional
            Default: all usable cores.  The result does not depend on it.

        Returns
        -------
        float32 (n, vector_dimension)
            Its inner product with a query's FDE approximates
            ``num_repetitions * chamfer(query, document)``, up to a constant a query where
            tokens are centered.
        """
        return self._encode(documents, "documents", out, threads)

    def encode_queries(
        self, queries: Any, *, out: NDArray[np.float32] | None = None, threads: int | None = None
    ) -> NDArray[np.float32]:
        """Encode queries: the same, with sums instead of means and no filling of cells.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
            A query without tokens gets the zero vector.
        out, threads
            As for :meth:`encode_documents`.

        Returns
        -------
        float32 (n, vector_dimension)
        """
        return self._encode(queries, "queries", out, threads)

    def _encode(
        self, values: Any, side: str, out: NDArray[np.float32] | None, threads: int | None
    ) -> NDArray[np.float32]:
        self._require_fit()
        texts = self._checked(values, side)
        out = validated_out(out, (len(texts), self.config.vector_dimension))
        compact = self.compact is not None
        final = compact or self.config.final_projection is not None
        most, tokens = max(1, len(texts)), _TASK_TOKENS
        if final:
            most = max(1, _BLOCK_BYTES // (4 * self.config.long_dimension))
        if compact:
            most, tokens = min(most, _COMPACT_TEXTS), _COMPACT_TOKENS
        ranges = split_by_weight(texts.offsets, tokens, most)
        encode = self._write_documents if side == "documents" else self._write_queries
        floats, halves = as_kernel_arrays(texts)

        def work(start: int, stop: int) -> None:
            if not final:
                encode(floats, halves, texts.offsets, start, stop, out[start:stop])
                return
            if compact and side == "documents":
                self._write_compact_documents(floats, halves, texts.offsets, start, stop, out[start:stop])
                return
            block = np.empty((stop - start, self.config.long_dimension), np.float32)
            encode(floats, halves, texts.offsets, start, stop, block)
            if compact:
                self._query_map.multiply(block, out[start:stop])
            else:
                self._write_final(block, out[start:stop])

        run_in_ranges(work, ranges, threads)
        return out

    def _padded_center(self) -> NDArray[np.float32]:
        center = np.zeros(self._width, np.float32)
        if self._center is not None:
            center[: self.config.dimension] = self._center
        return center

    def _write_documents(
        self, floats: Any, halves: Any, offsets: Any, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        config = self.config
        encode_documents(
            floats, halves, offsets, start, stop, self._padded_center(), self._mixing, self.matrices.places,
            self._planes, self._lane_planes, config.num_repetitions, config.num_simhash_projections,
            self._position, self._code_at, self._projection, self._lane_projection, config.block_width,
            self._fill, config.unit_document_cells, out,
        )  # fmt: skip

    def _write_queries(
        self, floats: Any, halves: Any, offsets: Any, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        config = self.config
        encode_queries(
            floats, halves, offsets, start, stop, self._padded_center(), self._mixing, self.matrices.places,
            self._planes, self._lane_planes, self._inverse_norms, config.num_repetitions,
            config.num_simhash_projections, self._position, self._projection, self._lane_projection,
            config.block_width, np.float32(config.soft_query_cells), out,
        )  # fmt: skip

    # -- the compact map and the final projection -------------------------------

    def _write_compact_documents(
        self, floats: Any, halves: Any, offsets: Any, start: int, stop: int, out: NDArray[np.float32]
    ) -> None:
        rows = self._document_product.room(stop - start)
        block = np.empty((min(_ROUNDED_TEXTS, stop - start), self.config.long_dimension), np.float32)
        for first in range(start, stop, _ROUNDED_TEXTS):
            last = min(first + _ROUNDED_TEXTS, stop)
            part = block[: last - first]
            self._write_documents(floats, halves, offsets, first, last, part)
            self._document_product.round(part, rows[first - start : last - start])
        self._document_product.write(rows, out)
        out[np.diff(offsets[start : stop + 1]) == 0] = 0

    def _draw_signs(self, repetition: int) -> NDArray[np.uint16]:
        rows = self.config.num_cells * self.config.block_width
        return native.final_signs(self.config.seed, repetition, rows, self.config.vector_dimension)

    def _write_final(self, block: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Map a block of long FDEs down; each row's sum runs over repetitions in order."""
        out[:] = 0
        if self.config.final_projection == "count_sketch":
            add_count_sketch(block, self.matrices.final_targets, self.matrices.final_signs, out)
            return
        scale = np.float32(1 / np.sqrt(self.config.vector_dimension))
        rows = self.config.num_cells * self.config.block_width
        for r in range(self.config.num_repetitions):
            signs = self._draw_signs(r) if self._kept_signs is None else self._kept_signs[r]
            add_rademacher(block, r * rows, signs, scale, out)

    # -- keeping --------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the matrices, the center and the compact maps by name.

        Matrices are kept although the seed gives them, since random streams may change between
        versions of NumPy.

        Raises
        ------
        ValueError
            Where the encoder is not fitted.
        """
        maps = {} if self.compact is None else self.compact.to_arrays()
        learned = {f"compact_{name}": array for name, array in maps.items()}
        return {**self.matrices.to_arrays(), "center": self.center, **learned}

    @classmethod
    def from_arrays(cls, config: FDEConfig, read: ReadArray) -> FDEEncoder:
        """Return the encoder whose :meth:`to_arrays` `read` reads by name."""
        maps = None
        if config.compact_dimension is not None:
            maps = CompactMaps(**{f.name: read(f"compact_{f.name}") for f in fields(CompactMaps)})
        return cls(
            config,
            matrices=FDEMatrices(**{f.name: read(f.name) for f in fields(FDEMatrices)}),
            center=read("center") if config.center else None,
            compact=maps,
        )
