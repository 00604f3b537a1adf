"""FDEConfig and FDEEncoder: turn token sets into Fixed Dimensional Encodings, see docs/how-it-works.md.

Every purpose of random draws has its own child of one ``SeedSequence``.  So does every repetition, or every group of
repetitions that share a rotation.  So repetition r does not depend on the number of repetitions, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..fde import partition, projection, reference
from ..fde.kernels import (
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
from ..kernels.rows import add_count_sketch
from ..kernels.tile import LANES, at_cache_line, pack_columns, pad_columns
from ..utils.checks import require_choice, require_int, require_number
from .base import Encoder, EncoderArrays, EncoderConfig, KernelArrays, Shapes, Side, run_tasks
from .moment_blocks import SAMPLE_DOCUMENTS, MomentBlocks, fit_blocks, moment_dimension

ProjectionName = Literal["complementary", "rademacher", "count_sketch", "identity"]
DocumentCells = Literal["mean", "unit", "length"]
# Source of the random draws and of the cell numbering: this library or Google's C++ reference.
Dialect = Literal["muvera", "reference"]

_CELL_VALUES = {"mean": CELL_MEAN, "unit": CELL_UNIT, "length": CELL_LENGTH}

# Number of bytes of the sketches that one thread keeps before a final projection.
_BLOCK_BYTES = 64 << 20

_NONE = np.empty(0, np.float32)

_PROJECTIONS: dict[str, Callable[[int, int, int, int], NDArray[Any]]] = {
    "complementary": projection.draw_complementary,
    "rademacher": projection.draw_rademacher,
    "count_sketch": projection.draw_count_sketches,
    "identity": projection.draw_identity,
}

_PAPER: dict[str, Any] = {
    "num_repetitions": 20,
    "num_simhash_projections": 5,
    "projection": "rademacher",
    "center": False,
    "fill_empty_partitions": True,
    "document_cells": "mean",
    "split_mean": False,
    "soft_query_cells": 0.0,
}

#: Named configurations: the parameters that differ from the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "fde": {},
    "paper": _PAPER,
    "reference": {**_PAPER, "projection": "count_sketch", "seed": 1, "dialect": "reference"},
}


@dataclass(frozen=True, kw_only=True)
class FDEConfig(EncoderConfig):
    """Configuration of an FDE.  The defaults had the best recall across collections.

    The cells of a vector have ``num_repetitions * 2**num_simhash_projections * projection_dimension`` floats, which
    are called its sketch.  Recall, time and memory grow with them.  `split_mean` adds ``dimension + 1`` floats.

    Parameters
    ----------
    dimension : int
        Columns of a token vector.
    num_repetitions : int
        R: number of independent partitions.  More of them lower the error; time and size grow in proportion.
    num_simhash_projections : int
        k: hyperplanes of a partition, 2**k cells.  More of them suit long documents, and leave more cells empty.
    projection_dimension : int, optional
        p: columns of a token in a block.  Default 16, at most `dimension` (except for "count_sketch").
    projection : {"complementary", "rademacher", "count_sketch", "identity"}
        How d columns become p.  "complementary": every d/p repetitions share the rows of one random rotation, so
        that together they preserve inner products exactly.  "rademacher": the paper's dense +-1/sqrt(p).
        "count_sketch": one +-1 per column.  "identity": p = d.
    center : bool
        Subtract the mean document token from document tokens, and from the tokens of both sides before they
        are assigned to cells.  The ranking by Chamfer does not change.  Without `split_mean`, this raises recall
        a lot for models whose vectors share a direction.  Needs ``fit``.
    fill_empty_partitions : bool
        Assign the nearest token to an empty document cell (paper, section 2).  With `center`, an empty cell
        represents the average token, which is better.
    document_cells : {"mean", "unit", "length"}
        Value of a document's cell: the mean of its tokens as in the paper, the direction of the mean, or that
        direction with the mean length of the tokens.
    split_mean : bool
        Store the document's own mean token separately, because its part of Chamfer is exact.  The sketch contains
        the residuals, and a bias depends on the document's spread and length.  ``fit`` finds the coefficients of
        these terms (see :mod:`muvera.encoders.moment_blocks`).
    soft_query_cells : float
        tau: a query token at distance m from its nearest hyperplane also goes to the cell across it, with weight
        exp(-m / tau) / 2.  0 turns it off.
    final_projection_dimension : int, optional
        Floats after a last map of the whole sketch, a count sketch.  A long sketch that is reduced has higher
        recall than a short one, but encoding takes longer.
    seed : int
        Seed of all random draws.
    dialect : {"muvera", "reference"}
        Use :meth:`preset` to reproduce the C++ reference.

    Examples
    --------
    >>> FDEConfig(dimension=128).vector_dimension
    5249
    >>> FDEConfig(dimension=128, num_simhash_projections=4).vector_dimension
    10369
    >>> FDEConfig.preset("paper", dimension=96).projection
    'rademacher'
    """

    kind: ClassVar[str] = "fde"
    # 2**k cells per repetition; more would not fit into memory.
    _limits: ClassVar = {"num_simhash_projections": (0, 16)}
    #: Its blocks contain no covariance.
    covariance: ClassVar[bool] = False

    dimension: int
    num_repetitions: int = 40
    num_simhash_projections: int = 3
    projection_dimension: int = cast("Any", None)
    projection: ProjectionName = "complementary"
    center: bool = True
    fill_empty_partitions: bool = False
    document_cells: DocumentCells = "length"
    split_mean: bool = True
    soft_query_cells: float = 0.05
    final_projection_dimension: int | None = None
    seed: int = 42
    dialect: Dialect = "muvera"

    def __post_init__(self) -> None:
        super().__post_init__()
        choices = {
            "projection": get_args(ProjectionName),
            "dialect": get_args(Dialect),
            "document_cells": _CELL_VALUES,
        }
        for name, known in choices.items():
            require_choice(name, getattr(self, name), known)
        self._settle_projection_dimension()
        tau = require_number("soft_query_cells", self.soft_query_cells, 0, 10, hint="0 switches it off.")
        object.__setattr__(self, "soft_query_cells", tau)
        if self.dialect == "reference":
            require_choice("projection of dialect='reference'", self.projection, ["count_sketch", "identity"])

    def _settle_projection_dimension(self) -> None:
        if cast("Any", self.projection_dimension) is None:
            width = self.dimension if self.projection == "identity" else min(16, self.dimension)
            object.__setattr__(self, "projection_dimension", width)
        width = self.projection_dimension
        if self.projection != "count_sketch":  # which may increase the number of columns
            require_int("projection_dimension", width, 1, self.dimension)
        if self.projection == "identity" and width != self.dimension:
            raise ValueError(
                f"projection='identity' keeps all {self.dimension} columns, got "
                f"projection_dimension={width}. Omit it, or use projection='complementary'."
            )

    @classmethod
    def preset(cls, name: str, dimension: int, **changes: Any) -> FDEConfig:
        """Return a named configuration, with `changes` to it.

        Parameters
        ----------
        name : {"fde", "paper", "reference"}
            "fde": the defaults.  "paper": arXiv 2405.19504, section 2, with 10,240 floats.
            "reference": Google's C++ reference (google/graph-mining), the same FDE from the same seed up to
            float32 rounding.  This holds for builds with GNU libstdc++; other C++ standard libraries draw other
            numbers.
        dimension : int
            Columns of a token vector.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no FDE preset {name!r}. The FDE presets are: {', '.join(PRESETS)}.")
        return cls(**{"dimension": dimension, **PRESETS[name], **changes})

    @property
    def sketch_dimension(self) -> int:
        """Floats of the sketch before a final projection, R * 2**k * p."""
        return (self.num_repetitions << self.num_simhash_projections) * self.projection_dimension

    @property
    def vector_dimension(self) -> int:
        """Floats of an FDE."""
        blocks = moment_dimension(self.dimension, covariance=False) if self.split_mean else 0
        return (self.final_projection_dimension or self.sketch_dimension) + blocks


@dataclass(frozen=True)
class FDEMatrices(EncoderArrays):
    """The random matrices of an encoder, stored because NumPy's streams may change; width is d rounded up to 16."""

    #: Normals, (R * k, width).
    hyperplanes: NDArray[np.float32]
    #: Map of a cell's vector, scale included, (R, p, width), or (0, 0, 0) for the identity.
    projections: NDArray[np.float32]
    #: Final count sketch, (R * 2**k * p,), or (0,) without one.
    final_targets: NDArray[np.int64]
    final_signs: NDArray[np.float32]

    def _shapes(self, config: Any) -> Shapes:
        width, repetitions = config.dimension + -config.dimension % LANES, config.num_repetitions
        planes = (repetitions * config.num_simhash_projections, width)
        projections = (repetitions, config.projection_dimension, width)
        targets = config.sketch_dimension if config.final_projection_dimension else 0
        return planes, (0, 0, 0) if config.projection == "identity" else projections, (targets,), (targets,)

    def require_shape(self, config: Any) -> None:
        """Raise ValueError if the matrices belong to another configuration, or a position is out of range."""
        super().require_shape(config)
        targets, final = self.final_targets, config.final_projection_dimension
        if targets.size and not 0 <= targets.min() <= targets.max() < final:
            raise ValueError(
                f"The encoder's array 'final_targets' must be within 0..{final - 1}, got "
                f"{targets.min()}..{targets.max()}. Restore the encoder from a copy."
            )

    @cached_property
    def packed(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Hyperplanes and projections, packed for the kernels; the projections of the identity are empty."""
        projections = [pack_columns(rows).reshape(-1) for rows in self.projections]
        joined = np.concatenate([_NONE, *projections])
        return at_cache_line(pack_columns(self.hyperplanes)), at_cache_line(joined)

    @cached_property
    def inverse_norms(self) -> NDArray[np.float32]:
        """One over the length of each hyperplane's normal."""
        return partition.inverse_norms(self.hyperplanes)


@dataclass(frozen=True)
class MeanToken(EncoderArrays):
    """The mean token of documents, float32 (d,), which is subtracted from tokens."""

    center: NDArray[np.float32]

    def _shapes(self, config: Any) -> Shapes:
        return ((config.dimension,),)

    @cached_property
    def padded(self) -> NDArray[np.float32]:
        """The mean token with its width rounded up to whole vectors."""
        return pad_columns(self.center)


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
        positions = partition.gray_positions if config.dialect == "reference" else partition.cell_positions
        self._positions = positions(config.num_simhash_projections)
        self._sketch_columns = config.final_projection_dimension or config.sketch_dimension

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

    def _fit(
        self, sample: MultiVectors, queries: MultiVectors, mean: NDArray[np.float32], threads: int | None
    ) -> None:
        config = self.config
        if config.center:
            self.mean_token = MeanToken(mean)

        def sketches(texts: MultiVectors, side: Side) -> NDArray[np.float32]:
            weight = 1 / config.num_repetitions if side == "documents" else 1.0
            write = partial(self._write_sketch, side, weight)
            return run_tasks(write, texts, self._sketch_columns, threads, *self._task_size(side))

        if config.split_mean:
            self.blocks = fit_blocks(sample, queries, config, threads, sketches=sketches)

    # -- encoding -------------------------------------------------------------

    @property
    def _kernel_steps(self) -> tuple[Partition, Projection]:
        config, matrices, mean_token = self.config, self.matrices, self.mean_token
        assert mean_token is not None
        planes, projections = matrices.packed
        return (
            Partition(
                mean_token.padded, planes, matrices.inverse_norms, self._positions,
                config.num_repetitions, config.num_simhash_projections,
            ),
            Projection(projections, config.projection_dimension),
        )  # fmt: skip

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
        tokens, kernel_partition, kernel_projection = Tokens(*arrays), *self._kernel_steps
        if side == "documents":
            cells = Cells(
                config.fill_empty_partitions, _CELL_VALUES[config.document_cells], config.split_mean
            )
            encode_documents(
                tokens, start, stop, kernel_partition, kernel_projection, cells, np.float32(weight), target
            )
        else:
            softness = np.float32(config.soft_query_cells)
            encode_queries(
                tokens, start, stop, kernel_partition, kernel_projection, softness, np.float32(weight), target
            )
        if config.final_projection_dimension is not None:
            out[:, : self._sketch_columns] = 0
            add_count_sketch(target, self.matrices.final_targets, self.matrices.final_signs, out)


def draw_matrices(config: FDEConfig) -> FDEMatrices:
    """Draw the matrices of `config`; the same configuration always gives the same matrices."""
    draws = reference if config.dialect == "reference" else partition
    planes = draws.draw_hyperplanes(
        config.seed, config.num_repetitions, config.num_simhash_projections, config.dimension
    )
    shape = config.seed, config.num_repetitions, config.projection_dimension, config.dimension
    draw: Callable[[int, int, int, int], NDArray[Any]] = _PROJECTIONS[config.projection]
    if config.dialect == "reference" and config.projection == "count_sketch":
        draw = reference.draw_count_sketches
    projections = draw(*shape)
    targets, signs = np.empty(0, np.int64), _NONE
    if config.final_projection_dimension is not None:
        final = reference if config.dialect == "reference" else projection
        targets, signs = final.draw_final_count_sketch(
            config.seed, config.sketch_dimension, config.final_projection_dimension
        )
    return FDEMatrices(pad_columns(planes), pad_columns(projections), targets, signs)
