"""The steps of an FDE as values: cells, moments and a final projection.

:class:`muvera.FDEConfig` combines at most one value of each kind.  Parameters that
Google's C++ reference also has are named as there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal, get_args

from ..utils.checks import given, require_choice, require_int, require_number

#: How the vector of a SimHash cell is projected to d_proj floats.
InnerProjection = Literal["complementary", "rademacher", "count_sketch", "identity"]
#: The value of a document's SimHash cell.
DocumentCells = Literal["mean", "unit", "length"]
#: Source of random draws and cell numbers: this library, or Google's C++ reference.
Dialect = Literal["muvera", "reference"]

#: Largest number of directions of the covariance.  Tokens of more columns are turned
#: into their principal directions.
MAX_DIRECTIONS = 128

# Kernels process directions in vectors of this many floats.  It is the LANES of
# kernels/tile.py; importing that module would load numba.
_LANES = 16

# Largest k_sim: more than 2**16 cells per repetition would not fit into memory.
_MOST_PLANES = 16

_MOST_LANDMARKS = 16384


class _Checked:
    """Base class of the values; it has what their constructors share."""

    #: Name of the value in :meth:`muvera.FDEConfig.to_dict`.
    kind: ClassVar[str]

    def _settle(self, **values: Any) -> None:
        """Set fields of a frozen value to what a check returned."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, kw_only=True)
class SimHash(_Checked):
    """Cells by the paper's partition: random hyperplanes (arXiv 2405.19504, section 2).

    Each of R_reps repetitions divides token space by k_sim hyperplanes into 2**k_sim
    cells.  A query's cell holds the sum of its tokens, a document's cell their mean;
    a random projection makes d_proj floats of each.  The defaults are the preset
    "simhash"; ``FDEConfig.preset("paper", d)`` has the paper's values.

    Parameters
    ----------
    num_repetitions : int
        R_reps, the number of independent partitions.  The error falls with its square
        root; time and size grow in proportion.
    num_simhash_projections : int
        k_sim, the hyperplanes of a partition, from 0 to 16.  More of them suit long
        documents, and leave more cells empty.  Each doubles the size.
    projection_dimension : int, optional
        d_proj, the floats of a cell.  Default 16, at most the columns of a token
        (except for "count_sketch").
    projection : {"complementary", "rademacher", "count_sketch", "identity"}
        psi, how d columns become d_proj.  "complementary": every d / d_proj repetitions
        share the rows of one random rotation, so that together they preserve inner
        products exactly.  "rademacher": the paper's dense +-1/sqrt(d_proj).
        "count_sketch": one +-1 per column.  "identity": d_proj = d.
    center : bool
        Subtract the mean document token from document tokens, and from the tokens of
        both sides before they are assigned to cells.  The ranking by Chamfer does not
        change.  Without moments, this raises recall a lot for models whose vectors
        share a direction.  Needs a fit.
    fill_empty_partitions : bool
        Assign the nearest token to an empty document cell (section 2).  With `center`,
        an empty cell represents the average token, which is better.
    document_cells : {"length", "mean", "unit"}
        The value of a document's cell: the mean of its tokens as in the paper, the
        direction of the mean ("unit"), or that direction with the mean length of the
        tokens.
    soft_query_cells : float
        tau: a query token at distance m from its nearest hyperplane also goes to the
        cell across it, with weight exp(-m / tau) / 2.  0 turns it off.
    dialect : {"muvera", "reference"}
        ``FDEConfig.preset("reference", d)`` reproduces the C++ reference.

    Raises
    ------
    TypeError
        If a parameter has the wrong type.
    ValueError
        If a value is out of range.
    """

    num_repetitions: int = 40
    num_simhash_projections: int = 3
    projection_dimension: int | None = None
    projection: InnerProjection = "complementary"
    center: bool = True
    fill_empty_partitions: bool = False
    document_cells: DocumentCells = "length"
    soft_query_cells: float = 0.05
    dialect: Dialect = "muvera"

    kind: ClassVar[str] = "simhash"

    def __post_init__(self) -> None:
        require_choice("projection", self.projection, get_args(InnerProjection))
        require_choice("document_cells", self.document_cells, get_args(DocumentCells))
        require_choice("dialect", self.dialect, get_args(Dialect))
        if self.dialect == "reference":
            require_choice("projection of dialect='reference'", self.projection, ["count_sketch", "identity"])
        for name in ("center", "fill_empty_partitions"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be a bool, got {given(getattr(self, name))}.")
        planes = require_int("num_simhash_projections", self.num_simhash_projections, 0, _MOST_PLANES)
        self._settle(
            num_repetitions=require_int("num_repetitions", self.num_repetitions, 1),
            num_simhash_projections=planes,
            soft_query_cells=require_number(
                "soft_query_cells", self.soft_query_cells, 0, 10, hint="0 switches it off."
            ),
        )

    @property
    def count(self) -> int:
        """Cells of all repetitions, R_reps * 2**k_sim."""
        return self.num_repetitions << self.num_simhash_projections

    @property
    def columns(self) -> int:
        """Floats of a cell, d_proj, once the columns of a token are known."""
        assert self.projection_dimension is not None
        return self.projection_dimension


@dataclass(frozen=True)
class Landmarks(_Checked):
    """Cells around landmarks: M means of similar tokens, learned from documents.

    A document's value is its largest similarity to each landmark, and a query token is
    divided softly among the nearest ones.  This partition is not from the paper; it has
    the best recall (:mod:`muvera.fde.landmarks` has the formulas).

    Parameters
    ----------
    num_landmarks : int
        M.  More raise recall; encoding takes M * d products per token, for a document
        and for a query.
    landmark_sharpness : float
        beta: the weights of a query token grow as exp(beta * cosine) over its nearest
        landmarks.  Recall hardly depends on it between 6 and 16; less is better for
        documents unlike the sample.

    Raises
    ------
    TypeError
        If a parameter has the wrong type.
    ValueError
        If a value is out of range.
    """

    num_landmarks: int = 2048
    landmark_sharpness: float = 8.0

    kind: ClassVar[str] = "landmarks"

    def __post_init__(self) -> None:
        self._settle(
            num_landmarks=require_int("num_landmarks", self.num_landmarks, 1, _MOST_LANDMARKS),
            landmark_sharpness=require_number("landmark_sharpness", self.landmark_sharpness, 0, 1000),
        )

    @property
    def count(self) -> int:
        """Number of cells, M."""
        return self.num_landmarks

    @property
    def columns(self) -> int:
        """Floats of a cell."""
        return 1


@dataclass(frozen=True)
class MeanToken(_Checked):
    """Moments of first order: a document's mean token and a bias, d + 1 floats.

    The mean token's contribution to Chamfer is then exact.  SimHash cells hold the
    tokens minus this mean.
    """

    kind: ClassVar[str] = "mean"


@dataclass(frozen=True)
class Covariance(_Checked):
    """The moments of :class:`MeanToken`, and the covariance of a document's tokens.

    It raises recall for any partition.  A query takes about as long for it as for
    landmark cells.

    Parameters
    ----------
    num_directions : int
        r, a multiple of 16 up to 128: the number of principal directions of the tokens
        whose covariance is stored, or all columns if tokens have fewer.  Time and size
        grow with its square.

    Raises
    ------
    TypeError
        If a parameter has the wrong type.
    ValueError
        If a value is out of range.
    """

    num_directions: int = MAX_DIRECTIONS

    kind: ClassVar[str] = "covariance"

    def __post_init__(self) -> None:
        count = require_int("num_directions", self.num_directions, _LANES, MAX_DIRECTIONS)
        if count % _LANES:
            raise ValueError(
                f"num_directions must be a multiple of {_LANES}, got {count}. Use {count - count % _LANES}."
            )
        self._settle(num_directions=count)


@dataclass(frozen=True)
class LearnedProjection(_Checked):
    """A final projection of cells and moments together to few floats.

    It is a reduced-rank regression on exact similarities
    (:mod:`muvera.fde.learned_projection`).  Fitting takes seconds; a vector needs 1/20
    of the memory of the paper's FDE.  Needs moments.

    Parameters
    ----------
    final_projection_dimension : int
        D, floats of an FDE.  More raise recall, and cost time and memory in proportion.
        If cells and moments have no more floats, nothing is projected.

    Raises
    ------
    TypeError
        If a parameter has the wrong type.
    ValueError
        If a value is out of range.
    """

    # On six collections, 256 lose up to .06 of 10-recall@20:
    # `python -m experiments vectors family`.
    final_projection_dimension: int = 512

    kind: ClassVar[str] = "learned"

    def __post_init__(self) -> None:
        size = require_int("final_projection_dimension", self.final_projection_dimension, 1)
        self._settle(final_projection_dimension=size)


@dataclass(frozen=True)
class CountSketch(_Checked):
    """The paper's final projection (section 2), of the cells alone.

    Parameters
    ----------
    final_projection_dimension : int
        d_final, floats of all cells after the projection.

    Raises
    ------
    TypeError
        If a parameter has the wrong type.
    ValueError
        If a value is out of range.
    """

    final_projection_dimension: int

    kind: ClassVar[str] = "count_sketch"

    def __post_init__(self) -> None:
        size = require_int("final_projection_dimension", self.final_projection_dimension, 1)
        self._settle(final_projection_dimension=size)


#: A value of each kind of step.
Cells = SimHash | Landmarks
Moments = MeanToken | Covariance
FinalProjection = LearnedProjection | CountSketch


def for_tokens(cells: Cells, dimension: int) -> Cells:
    """Return cells with the `projection_dimension` for tokens of this dimension.

    Raise ValueError if it does not fit.
    """
    if isinstance(cells, Landmarks):
        return cells
    width = cells.projection_dimension
    if width is None:
        width = dimension if cells.projection == "identity" else min(16, dimension)
    # A count sketch may have more columns than a token.
    most = None if cells.projection == "count_sketch" else dimension
    width = require_int("projection_dimension", width, 1, most)
    if cells.projection == "identity" and width != dimension:
        raise ValueError(
            f"projection='identity' keeps all {dimension} columns, got projection_dimension={width}. "
            "Omit it, or use projection='complementary'."
        )
    return replace(cells, projection_dimension=width)


def parameters(step: type[_Checked] | _Checked) -> list[str]:
    """Return the names of a step's parameters."""
    return [field.name for field in fields(step)]  # type: ignore[arg-type]
