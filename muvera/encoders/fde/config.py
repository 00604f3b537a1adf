"""FDEConfig: configuration of Fixed Dimensional Encodings, and their presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from ...utils.checks import given, require_choice, require_int, require_number
from ..base import EncoderConfig
from ..moment_blocks import moment_dimension

Projection = Literal["complementary", "rademacher", "count_sketch", "identity"]
DocumentCells = Literal["mean", "unit", "length"]
# Source of the random draws and of the cell numbering: this library or Google's C++ reference.
Dialect = Literal["muvera", "reference"]

# 2**k cells per repetition; more would not fit into memory.
_MAX_PROJECTIONS = 16


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
    #: Its blocks contain no covariance.
    covariance: ClassVar[bool] = False

    dimension: int
    num_repetitions: int = 40
    num_simhash_projections: int = 3
    projection_dimension: int | None = None
    projection: Projection = "complementary"
    center: bool = True
    fill_empty_partitions: bool = False
    document_cells: DocumentCells = "length"
    split_mean: bool = True
    soft_query_cells: float = 0.05
    final_projection_dimension: int | None = None
    seed: int = 42
    dialect: Dialect = "muvera"

    def __post_init__(self) -> None:
        for name in ("dimension", "num_repetitions"):
            require_int(name, getattr(self, name), 1)
        require_int("num_simhash_projections", self.num_simhash_projections, 0, _MAX_PROJECTIONS)
        require_int("seed", self.seed, 0)
        for name, kind in (
            ("projection", Projection),
            ("dialect", Dialect),
            ("document_cells", DocumentCells),
        ):
            require_choice(name, getattr(self, name), get_args(kind))
        for name in ("center", "fill_empty_partitions", "split_mean"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be a bool, got {given(getattr(self, name))}.")
        self._settle_projection_dimension()
        tau = require_number("soft_query_cells", self.soft_query_cells, 0, 10, hint="0 switches it off.")
        object.__setattr__(self, "soft_query_cells", tau)
        if self.final_projection_dimension is not None:
            require_int("final_projection_dimension", self.final_projection_dimension, 1)
        if self.dialect == "reference":
            require_choice("projection of dialect='reference'", self.projection, ["count_sketch", "identity"])

    def _settle_projection_dimension(self) -> None:
        width = self.projection_dimension
        if width is None:
            width = self.dimension if self.projection == "identity" else min(16, self.dimension)
            object.__setattr__(self, "projection_dimension", width)
        # A count sketch may increase the number of columns.
        require_int(
            "projection_dimension", width, 1, None if self.projection == "count_sketch" else self.dimension
        )
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
    def block_width(self) -> int:
        """p, the columns of a cell's block."""
        assert self.projection_dimension is not None  # set in __post_init__
        return self.projection_dimension

    @property
    def num_cells(self) -> int:
        """Cells of one repetition, 2**k."""
        return int(2**self.num_simhash_projections)

    @property
    def sketch_dimension(self) -> int:
        """Floats of the sketch before a final projection, R * 2**k * p."""
        return self.num_repetitions * self.num_cells * self.block_width

    @property
    def vector_dimension(self) -> int:
        """Floats of an FDE."""
        blocks = moment_dimension(self.dimension, covariance=False) if self.split_mean else 0
        return (self.final_projection_dimension or self.sketch_dimension) + blocks


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
