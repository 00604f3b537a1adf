"""FDEConfig: every choice that makes an FDE, and the named presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from ...kernels.byte_tile import MAX_DEPTH
from ...utils.checks import given, require_choice, require_int, require_number
from ..base import BaseConfig
from ..moments.blocks import moment_dimension

__all__ = ["PRESETS", "Dialect", "FDEConfig"]

Projection = Literal["complementary", "rademacher", "count_sketch", "identity"]
FinalProjection = Literal["rademacher", "count_sketch"]
DocumentCells = Literal["mean", "unit", "length"]
Hyperplanes = Literal["orthogonal", "gaussian"]

#: Whose random streams, cell numbering, fill and tie rules: this library's or another program's.
Dialect = Literal["muvera", "reference", "fastembed", "weaviate"]

#: 2**k cells a repetition; more could not be held.
MOST_PROJECTIONS = 16


@dataclass(frozen=True, kw_only=True)
class FDEConfig(BaseConfig):
    """What makes an FDE.  The default is the setting that found most across collections.

    A vector is a sketch of ``num_repetitions * 2**num_simhash_projections * projection_dimension``
    floats, with which recall, time and memory grow, and blocks that have no error: with `split_mean`
    ``dimension + 1`` floats more.

    Parameters
    ----------
    dimension : int
        Columns of a token vector.
    num_repetitions : int
        R: independent partitions side by side.  More lower the error; time and size grow in
        proportion.
    num_simhash_projections : int
        k: hyperplanes of a partition, 2**k cells.  More separate tokens more finely (better
        with long documents), and leave more cells empty.
    projection_dimension : int, optional
        p: columns that a token keeps in a block.  Default 16, at most `dimension` (but for
        "count_sketch").
    projection : {"complementary", "rademacher", "count_sketch", "identity"}
        How d columns become p.  "complementary": every d/p repetitions share the rows of one
        random rotation, so that together they lose nothing; never worse than independent
        draws at the same size.  "rademacher": the paper's dense +-1/sqrt(p).
        "count_sketch": one +-1 a column.  "identity": p = d.
    hyperplanes : {"orthogonal", "gaussian"}
        "gaussian": the paper's.  "orthogonal": rows of random rotations, each with a third of the
        columns or more (all of them up to 80 columns); the same recall, and signs for a seventh
        of the arithmetic at 128 columns.
    center : bool
        Subtract the mean document token from document tokens, and from both sides before
        cells are decided.  Chamfer's ranking does not change; on models whose vectors share
        a direction (mean cosine above .3) recall rises much.  Needs ``fit``.
    fill_empty_partitions : bool
        Give an empty document cell the nearest token (paper, section 2).  Together with
        `center`, leaving it empty (which then means: the average token) is better.
    document_cells : {"mean", "unit", "length"}
        What stands for the tokens of a document's cell.  "mean": their mean, as in the paper; it is
        shorter than they are.  "unit": its direction, with length 1.  "length": its direction, with
        the mean length of the tokens; what `split_mean` leaves is of many lengths.
    split_mean : bool
        Keep the document's own mean token apart, which Chamfer contains exactly, and sketch only what
        it leaves of the tokens; add a bias for the document's spread and length, and weight all of them
        by coefficients that ``fit`` learns (see :mod:`muvera.encoders.moments.blocks`).  On models
        whose vectors share a direction most of the ranking is in those ``dimension + 1`` floats.
    covariance : bool
        Keep the covariance of the document's tokens, too: ``dimension * (dimension + 1) / 2`` floats
        without any random draw.  They find most on models that were trained for late interaction.
        Needs `split_mean`.
    soft_query_cells : float
        tau: a query token at distance m from its nearest hyperplane also goes to the cell
        across it, with weight exp(-m / tau) / 2.  0 switches it off.  Costs nothing at search
        time.
    final_projection : {"rademacher", "count_sketch"}, optional
        A last map of the whole FDE to `final_projection_dimension` floats.
    final_projection_dimension : int, optional
        Size after the last map.  A long FDE mapped down finds more than a short one, and
        takes longer to encode ("rademacher": a dense product).
    compact_dimension : int, optional
        Size after a map that is learned from documents (see :mod:`muvera.encoders.fde.compact_maps`) instead
        of drawn: 512 floats find less than the long FDE and more than the paper's 10,240, in a
        fraction of the memory and search time.  Encoding takes a third to twice as long again;
        queries beside the documents in ``fit`` help much where the two differ.  An index keeps
        both maps, 5 bytes times this times ``long_dimension`` (at most 65,536).  Needs ``fit``.
    seed : int
        Fixes all random draws.
    dialect : {"muvera", "reference", "fastembed", "weaviate"}
        Use :meth:`preset` to reproduce another program.

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

    dimension: int
    num_repetitions: int = 40
    num_simhash_projections: int = 3
    projection_dimension: int | None = None
    projection: Projection = "complementary"
    hyperplanes: Hyperplanes = "orthogonal"
    center: bool = True
    fill_empty_partitions: bool = False
    document_cells: DocumentCells = "length"
    split_mean: bool = True
    covariance: bool = False
    soft_query_cells: float = 0.05
    final_projection: FinalProjection | None = None
    final_projection_dimension: int | None = None
    seed: int = 42
    dialect: Dialect = "muvera"
    compact_dimension: int | None = None

    def __post_init__(self) -> None:
        for name in ("dimension", "num_repetitions"):
            require_int(name, getattr(self, name), 1)
        require_int("num_simhash_projections", self.num_simhash_projections, 0, MOST_PROJECTIONS)
        require_int("seed", self.seed, 0)
        for name, kind in (
            ("projection", Projection),
            ("hyperplanes", Hyperplanes),
            ("dialect", Dialect),
            ("document_cells", DocumentCells),
            ("final_projection", FinalProjection | None),
        ):
            require_choice(name, getattr(self, name), _choices(kind))
        for name in ("center", "fill_empty_partitions", "split_mean", "covariance"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be a bool, got {given(getattr(self, name))}.")
        if self.covariance and not self.split_mean:
            raise ValueError(
                "covariance=True needs split_mean=True: it is the covariance about the document's mean, got "
                "split_mean=False."
            )
        self._settle_projection_dimension()
        tau = require_number("soft_query_cells", self.soft_query_cells, 0, 10, hint="0 switches it off.")
        object.__setattr__(self, "soft_query_cells", tau)
        if (self.final_projection is None) != (self.final_projection_dimension is None):
            raise ValueError(
                "final_projection and final_projection_dimension go together, got "
                f"{self.final_projection!r} and {self.final_projection_dimension!r}."
            )
        if self.final_projection_dimension is not None:
            require_int("final_projection_dimension", self.final_projection_dimension, 1)
        if self.compact_dimension is not None:
            require_int("compact_dimension", self.compact_dimension, 1, self.long_dimension)
            if self.long_dimension > MAX_DEPTH:
                raise ValueError(
                    f"compact_dimension needs a long FDE of at most {MAX_DEPTH} floats, got "
                    f"{self.long_dimension}. Lower num_repetitions, num_simhash_projections or "
                    "projection_dimension."
                )
            if self.final_projection is not None:
                raise ValueError(
                    f"compact_dimension={self.compact_dimension} and final_projection="
                    f"{self.final_projection!r} both map the FDE down. Use one of them."
                )
        self._require_dialect()

    def _settle_projection_dimension(self) -> None:
        width = self.projection_dimension
        if width is None:
            width = self.dimension if self.projection == "identity" else min(16, self.dimension)
            object.__setattr__(self, "projection_dimension", width)
        # A count sketch may spread columns out, and Weaviate's p is 16 whatever the dimension.
        widens = self.projection == "count_sketch" or self.dialect == "weaviate"
        require_int("projection_dimension", width, 1, None if widens else self.dimension)
        if self.projection == "identity" and width != self.dimension:
            raise ValueError(
                f"projection='identity' keeps all {self.dimension} columns, got "
                f"projection_dimension={width}. Leave it out, or use projection='complementary'."
            )

    def _require_dialect(self) -> None:
        """Another program's draws exist only for the settings that the program has."""
        if self.dialect == "muvera":
            return
        allowed = _DIALECT_PROJECTIONS[self.dialect]
        if self.projection not in allowed:
            raise ValueError(
                f"dialect={self.dialect!r} has projection {' or '.join(map(repr, allowed))}, "
                f"got {self.projection!r}."
            )
        if self.hyperplanes != "gaussian":
            raise ValueError(
                f"dialect={self.dialect!r} has hyperplanes='gaussian', got {self.hyperplanes!r}."
            )
        final = self.final_projection
        if final is not None and not (self.dialect == "reference" and final == "count_sketch"):
            raise ValueError(f"dialect={self.dialect!r} has no final_projection={final!r}.")

    @classmethod
    def preset(cls, name: str, dimension: int, **changes: Any) -> FDEConfig:
        """Return a named configuration, with `changes` to it.

        Parameters
        ----------
        name : {"default", "paper", "reference", "fastembed", "weaviate"}
            "paper": arXiv 2405.19504, section 2, at 10,240 floats.  "reference": the C++
            reference (google/graph-mining) itself, same seed, same FDE up to float32
            rounding, as built with GNU libstdc++: other C++ standard libraries draw other
            numbers.  "fastembed", "weaviate": what those programs compute.
        dimension : int
            Columns of a token vector.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r}. There are: {', '.join(PRESETS)}.")
        return cls(**{"dimension": dimension, **PRESETS[name], **changes})

    @property
    def block_width(self) -> int:
        """p, the columns of a cell's block."""
        assert self.projection_dimension is not None  # settled when the object was made
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
    def long_dimension(self) -> int:
        """Floats before a compact map: the sketch and the blocks beside it."""
        blocks = moment_dimension(self.dimension, self.covariance) if self.split_mean else 0
        return (self.final_projection_dimension or self.sketch_dimension) + blocks

    @property
    def vector_dimension(self) -> int:
        """Floats of an FDE."""
        return self.compact_dimension or self.long_dimension

    @property
    def needs_fit_sample(self) -> bool:
        """Whether maps are learned from documents, and not a mean token and coefficients alone."""
        return self.compact_dimension is not None


_DIALECT_PROJECTIONS: dict[str, tuple[str, ...]] = {
    "reference": ("count_sketch", "identity"),
    "fastembed": ("rademacher", "identity"),
    "weaviate": ("rademacher",),
}

_PAPER: dict[str, Any] = {
    "num_repetitions": 20,
    "num_simhash_projections": 5,
    "projection": "rademacher",
    "hyperplanes": "gaussian",
    "center": False,
    "fill_empty_partitions": True,
    "document_cells": "mean",
    "split_mean": False,
    "soft_query_cells": 0.0,
}

#: Named configurations: what each changes of the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": _PAPER,
    "reference": {**_PAPER, "projection": "count_sketch", "seed": 1, "dialect": "reference"},
    "fastembed": {**_PAPER, "dialect": "fastembed"},
    "weaviate": {
        **_PAPER,
        "num_repetitions": 10,
        "num_simhash_projections": 4,
        "projection_dimension": 16,
        "seed": 0x532CA5105169B1DF,
        "dialect": "weaviate",
    },
}


def _choices(kind: Any) -> list[Any]:
    choices = [c for part in (get_args(kind) or (kind,)) for c in (get_args(part) or (part,))]
    return [None if choice is type(None) else choice for choice in choices]
