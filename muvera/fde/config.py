"""FDEConfig: the parameters of a Fixed Dimensional Encoding, and its presets.

An FDE is made in three steps, each of which may be absent:

1. Cells.  A partition of token space decides which tokens meet: SimHash as in the paper
   (arXiv 2405.19504, section 2), or landmarks learned from documents.
2. Moments.  A document's mean token, with or without the covariance of its tokens.
3. A final projection to few floats: learned, or the paper's count sketch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from ..utils.atomic_files import content_checksum
from ..utils.checks import given, require_choice, require_int, require_number

#: How token space is divided into cells; None for no cells.
PartitionKind = Literal["simhash", "landmarks"]
#: Which moments of a document's tokens the vector stores; None for none.
MomentsKind = Literal["mean", "covariance"]
#: The last step; None keeps cells and moments as they are.
FinalProjectionKind = Literal["learned", "count_sketch"]
#: How the vector of a SimHash cell is projected to d_proj floats.
InnerProjection = Literal["complementary", "rademacher", "count_sketch", "identity"]
#: The value of a document's SimHash cell.
DocumentCells = Literal["mean", "unit", "length"]
#: Source of random draws and cell numbers: this library, or Google's C++ reference.
Dialect = Literal["muvera", "reference"]

#: Largest number of directions of the covariance.  Tokens of more columns are turned
#: into their principal directions.
MAX_DIRECTIONS = 128

# Floats of an FDE after a learned projection.  On six collections, 256 lose up to .06
# of 10-recall@20: `python -m experiments vectors family`.
_LEARNED_FLOATS = 512

# The paper's steps alone, with 10,240 floats.
_PAPER: dict[str, Any] = {
    "partition": "simhash",
    "num_repetitions": 20,
    "num_simhash_projections": 5,
    "projection": "rademacher",
    "center": False,
    "fill_empty_partitions": True,
    "document_cells": "mean",
    "soft_query_cells": 0.0,
    "moments": None,
    "final_projection": None,
}

#: Named configurations: the parameters that differ from the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "fde": {},
    "moments": {"partition": None},
    "mean": {"partition": None, "moments": "mean", "final_projection": None},
    "simhash": {"partition": "simhash", "moments": "mean", "final_projection": None},
    "paper": _PAPER,
    "reference": {**_PAPER, "projection": "count_sketch", "seed": 1, "dialect": "reference"},
}

#: The preset that is used without `encoder`.
DEFAULT_PRESET = "fde"


class Size(NamedTuple):
    """Parameters of "fde" for collections of a size."""

    #: An index takes them from so many documents and tokens on.  None: only if a
    #: smaller size has a low recall.
    documents: int | None
    tokens: int
    parameters: dict[str, Any]


# Sizes of "fde", ascending, by `python -m experiments landmarks`.  Fewer tokens than 32
# for each landmark of the second size would not determine its landmarks.
_LARGE: dict[str, Any] = {"num_landmarks": 4096, "moments": "mean"}
SIZES = (
    Size(0, 0, {}),
    Size(2048, 1 << 17, _LARGE),
    Size(1 << 17, 1 << 17, {**_LARGE, "final_projection_dimension": 1024}),
    Size(None, 1 << 17, {**_LARGE, "num_landmarks": 8192, "final_projection_dimension": 2048}),
)

# Parameters that only one kind of partition has.
_OF_PARTITION: dict[str, PartitionKind] = {
    "num_landmarks": "landmarks",
    "landmark_sharpness": "landmarks",
    "num_repetitions": "simhash",
    "num_simhash_projections": "simhash",
    "projection_dimension": "simhash",
    "projection": "simhash",
    "center": "simhash",
    "fill_empty_partitions": "simhash",
    "document_cells": "simhash",
    "soft_query_cells": "simhash",
    "dialect": "simhash",
}

# Smallest and largest value of integer parameters; None: no limit.
_LIMITS: dict[str, tuple[int, int | None]] = {
    # Keeps long vectors within MAX_DEPTH of :mod:`muvera.kernels.byte_tile`.
    "dimension": (1, 32768),
    "num_landmarks": (1, 16384),
    "num_repetitions": (1, None),
    # 2**k_sim cells per repetition; more would not fit into memory.
    "num_simhash_projections": (0, 16),
    "final_projection_dimension": (1, None),
    "seed": (0, None),
}

# Longest vector that a learned projection reads: sums of its bytes must fit into 32
# bits.
_LONGEST = 65536


@dataclass(frozen=True, kw_only=True)
class FDEConfig:
    """Configuration of an FDE.  The defaults had the best recall across collections.

    ``FDEConfig(dimension=d)`` is the preset "fde": landmark cells, moments and a
    learned projection to 512 floats.  :meth:`preset` gives the others by name.

    Parameters
    ----------
    dimension : int
        d, columns of a token vector.
    partition : {"landmarks", "simhash"} or None
        How token space is divided into cells.  "landmarks": M means of similar tokens
        of documents; a document's value is its largest similarity to each landmark, and
        a query token is divided softly among the nearest ones.  It has the best recall
        and needs a fit to documents.  "simhash": the paper's random hyperplanes.
        None: no cells, only `moments`.
    num_landmarks : int
        M, with landmarks.  More raise recall; encoding takes M * d products per token,
        for a document and for a query.
    landmark_sharpness : float
        beta, with landmarks: the weights of a query token grow as exp(beta * cosine)
        over its nearest landmarks.  Recall hardly depends on it between 6 and 16; less
        is better for documents of another kind than the sample.
    num_repetitions : int
        R_reps, with SimHash: the number of independent partitions.  The error falls
        with its square root; time and size grow in proportion.
    num_simhash_projections : int
        k_sim, with SimHash: hyperplanes of a partition, which has 2**k_sim cells.  More
        of them suit long documents, and leave more cells empty.
    projection_dimension : int, optional
        d_proj, with SimHash: floats of a cell.  Default 16, at most `dimension` (except
        for "count_sketch").
    projection : {"complementary", "rademacher", "count_sketch", "identity"}
        psi, with SimHash: how d columns become d_proj.  "complementary": every
        d / d_proj repetitions share the rows of one random rotation, so that together
        they preserve inner products exactly.  "rademacher": the paper's dense
        +-1/sqrt(d_proj).  "count_sketch": one +-1 per column.  "identity": d_proj = d.
    center : bool
        With SimHash: subtract the mean document token from document tokens, and from
        the tokens of both sides before they are assigned to cells.  The ranking by
        Chamfer does not change.  Without `moments`, this raises recall a lot for models
        whose vectors share a direction.  Needs a fit.
    fill_empty_partitions : bool
        With SimHash: assign the nearest token to an empty document cell (section 2).
        With `center`, an empty cell represents the average token, which is better.
    document_cells : {"length", "mean", "unit"}
        With SimHash: the value of a document's cell is the mean of its tokens as in the
        paper, the direction of the mean ("unit"), or that direction with the mean
        length of the tokens.
    soft_query_cells : float
        tau, with SimHash: a query token at distance m from its nearest hyperplane also
        goes to the cell across it, with weight exp(-m / tau) / 2.  0 turns it off.
    moments : {"covariance", "mean"} or None
        "mean": store the document's mean token, whose contribution to Chamfer is then
        exact, and a bias.  SimHash cells then hold the tokens minus this mean.
        "covariance": also the covariance of the document's tokens in min(d, 128)
        directions, which raises recall for any partition.  A query takes about as long
        for it as for landmark cells.  None: neither.
    final_projection : {"learned", "count_sketch"} or None
        "learned": project cells and moments together to `final_projection_dimension`
        floats, by a reduced-rank regression on exact similarities.  Fitting takes
        seconds; a vector needs 1/20 of the memory of the paper's FDE.  Needs
        `moments`.  "count_sketch": the paper's final projection, of the cells alone.
        None: no projection.
    final_projection_dimension : int, optional
        Floats after the final projection.  Default for "learned": 512.  More raise
        recall and cost time and memory in proportion.
    seed : int
        Seed of all random draws.  No seed is better than another; documents and queries
        need the same one.
    dialect : {"muvera", "reference"}
        With SimHash: use :meth:`preset` to reproduce the C++ reference.

    Raises
    ------
    TypeError
        If a parameter has the wrong type.
    ValueError
        If a value is out of range, or belongs to another kind of partition.

    Examples
    --------
    >>> FDEConfig(dimension=128).vector_dimension
    512
    >>> FDEConfig.preset("paper", dimension=96).projection
    'rademacher'
    >>> FDEConfig.preset("simhash", 128).vector_dimension
    5249
    """

    dimension: int
    partition: PartitionKind | None = "landmarks"
    num_landmarks: int = 2048
    landmark_sharpness: float = 8.0
    num_repetitions: int = 40
    num_simhash_projections: int = 3
    projection_dimension: int | None = None
    projection: InnerProjection = "complementary"
    center: bool = True
    fill_empty_partitions: bool = False
    document_cells: DocumentCells = "length"
    soft_query_cells: float = 0.05
    moments: MomentsKind | None = "covariance"
    final_projection: FinalProjectionKind | None = "learned"
    final_projection_dimension: int | None = None
    seed: int = 42
    dialect: Dialect = "muvera"

    #: Name of this configuration in files; there is one kind.
    kind: ClassVar[str] = "fde"

    def __post_init__(self) -> None:
        self._require_types()
        self._require_of_partition()
        if self.partition == "simhash":
            self._settle_projection_dimension()
        self._settle_final_projection()
        if self.partition is None and self.moments is None:
            raise ValueError(
                "An FDE needs cells or moments, got partition=None and moments=None. "
                "Use partition='simhash' or moments='mean'."
            )

    def _require_types(self) -> None:
        choices = {
            "partition": (*get_args(PartitionKind), None),
            "projection": get_args(InnerProjection),
            "document_cells": get_args(DocumentCells),
            "moments": (*get_args(MomentsKind), None),
            "final_projection": (*get_args(FinalProjectionKind), None),
            "dialect": get_args(Dialect),
        }
        for name, known in choices.items():
            require_choice(name, getattr(self, name), known)
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            if name == "final_projection_dimension" and value is None:
                continue
            object.__setattr__(self, name, require_int(name, value, least, most))
        for name in ("center", "fill_empty_partitions"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f"{name} must be a bool, got {given(value)}.")
        tau = require_number("soft_query_cells", self.soft_query_cells, 0, 10, hint="0 switches it off.")
        object.__setattr__(self, "soft_query_cells", tau)
        beta = require_number("landmark_sharpness", self.landmark_sharpness, 0, 1000)
        object.__setattr__(self, "landmark_sharpness", beta)

    def _require_of_partition(self) -> None:
        """Refuse parameters that this partition would ignore."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name, partition in _OF_PARTITION.items():
            value = getattr(self, name)
            if partition != self.partition and value != defaults[name]:
                raise ValueError(
                    f"{name}={value!r} needs partition={partition!r}, got partition={self.partition!r}."
                )

    def _settle_projection_dimension(self) -> None:
        width = self.projection_dimension
        if width is None:
            width = self.dimension if self.projection == "identity" else min(16, self.dimension)
        # A count sketch may have more columns than a token.
        most = None if self.projection == "count_sketch" else self.dimension
        width = require_int("projection_dimension", width, 1, most)
        object.__setattr__(self, "projection_dimension", width)
        if self.projection == "identity" and width != self.dimension:
            raise ValueError(
                f"projection='identity' keeps all {self.dimension} columns, got "
                f"projection_dimension={width}. Omit it, or use projection='complementary'."
            )
        if self.dialect == "reference":
            require_choice("projection of dialect='reference'", self.projection, ["count_sketch", "identity"])

    def _settle_final_projection(self) -> None:
        size, kind = self.final_projection_dimension, self.final_projection
        if kind is None and size is not None:
            raise ValueError(
                f"final_projection_dimension={size} needs final_projection='learned' or 'count_sketch'."
            )
        if kind == "count_sketch" and (self.partition is None or size is None):
            raise ValueError(
                "final_projection='count_sketch' needs a partition and final_projection_dimension, got "
                f"partition={self.partition!r} and final_projection_dimension={size}."
            )
        if kind != "learned":
            return
        if self.moments is None:
            raise ValueError("final_projection='learned' needs moments='mean' or 'covariance', got None.")
        if self.long_dimension > _LONGEST:
            raise ValueError(
                f"final_projection='learned' reads at most {_LONGEST} floats of cells and moments, got "
                f"{self.long_dimension}. Use fewer repetitions or cells."
            )
        size = size or _LEARNED_FLOATS
        if size >= self.long_dimension:
            # Nothing is left to project.
            object.__setattr__(self, "final_projection", None)
            size = None
        object.__setattr__(self, "final_projection_dimension", size)

    @classmethod
    def preset(cls, name: str, dimension: int, **changes: Any) -> FDEConfig:
        """Return a named configuration, with `changes` to it.

        Parameters
        ----------
        name : {"fde", "moments", "mean", "simhash", "paper", "reference"}
            "fde": the default, landmark cells and moments, projected to 512 floats.
            "moments": the same without cells.  "mean": the mean token and a bias, the
            baseline for any longer vector.  "simhash": SimHash cells and the mean
            token, 5,249 floats for 128 columns.  It hardly depends on the documents
            that it was fitted on, which suits streams of changing documents.  "paper":
            arXiv 2405.19504, section 2, with 10,240 floats.  "reference": Google's C++
            reference (google/graph-mining), the same FDE from the same seed up to
            float32 rounding.  This holds for builds with GNU libstdc++; other C++
            standard libraries draw other numbers.
        dimension : int
            d, columns of a token vector.
        **changes
            Parameters of :class:`FDEConfig`.

        Returns
        -------
        FDEConfig

        Raises
        ------
        ValueError
            If there is no such preset, or as for :class:`FDEConfig`.
        """
        if name not in PRESETS:
            raise ValueError(f"There is no preset {name!r}. The presets are: {', '.join(PRESETS)}.")
        return cls.from_dict({"dimension": dimension, **PRESETS[name], **changes})

    def sized(self, documents: int, tokens: int) -> FDEConfig:
        """Return "fde" for a collection of this size, if this is a smaller "fde".

        An index calls it before it fits an encoder.  Large collections get more
        landmarks, no covariance and more floats: docs/settings.md has the table.

        Parameters
        ----------
        documents : int
            Number of documents with tokens.
        tokens : int
            Number of their tokens.

        Returns
        -------
        FDEConfig
            A larger one, or this one: always this one unless it is "fde", or differs
            from it only by its size and seed.

        Examples
        --------
        >>> default = FDEConfig(dimension=128)
        >>> large = default.sized(documents=1_000_000, tokens=30_000_000)
        >>> default.num_landmarks, large.num_landmarks, large.vector_dimension
        (2048, 4096, 1024)
        """
        sizes = self._sizes()
        if self not in sizes:
            return self
        fitting = [
            config
            for config, size in zip(sizes, SIZES, strict=True)
            if size.documents is not None and documents >= size.documents and tokens >= size.tokens
        ]
        return max(self, fitting[-1], key=sizes.index)

    def larger(self, tokens: int) -> FDEConfig | None:
        """Return "fde" of the next larger size, which has a higher recall.

        Parameters
        ----------
        tokens : int
            Number of tokens of all documents.

        Returns
        -------
        FDEConfig or None
            None for the largest size, for too few tokens, and if this is not "fde".
        """
        sizes = self._sizes()
        later = sizes.index(self) + 1 if self in sizes else len(sizes)
        return sizes[later] if later < len(sizes) and tokens >= SIZES[later].tokens else None

    def _sizes(self) -> list[FDEConfig]:
        """Return the configurations of SIZES with this dimension and seed."""
        return [FDEConfig(dimension=self.dimension, seed=self.seed, **size.parameters) for size in SIZES]

    @property
    def num_cells(self) -> int:
        """Cells of all repetitions: R_reps * 2**k_sim, or M landmarks, or 0."""
        if self.partition == "simhash":
            return self.num_repetitions << self.num_simhash_projections
        return self.num_landmarks if self.partition == "landmarks" else 0

    @property
    def cell_dimension(self) -> int:
        """Floats of all cells: R_reps * 2**k_sim * d_proj, or M landmarks."""
        return self.num_cells * (self.projection_dimension or 1)

    @property
    def num_directions(self) -> int:
        """Directions of the covariance, 0 without one."""
        return min(self.dimension, MAX_DIRECTIONS) if self.moments == "covariance" else 0

    @property
    def moment_dimension(self) -> int:
        """Floats of the moments: covariance, mean and bias."""
        size = self.num_directions
        return size * (size + 1) // 2 + self.dimension + 1 if self.moments else 0

    @property
    def long_dimension(self) -> int:
        """Floats of cells and moments before a learned projection."""
        return self.cell_dimension + self.moment_dimension

    @property
    def vector_dimension(self) -> int:
        """Floats of an FDE."""
        if self.final_projection == "learned":
            assert self.final_projection_dimension is not None
            return self.final_projection_dimension
        return (self.final_projection_dimension or self.cell_dimension) + self.moment_dimension

    @property
    def needs_fit(self) -> bool:
        """True if an encoder must be fitted to documents before it can encode."""
        centered = self.partition == "simhash" and self.center
        return centered or self.partition == "landmarks" or self.moments is not None

    @property
    def needs_fit_sample(self) -> bool:
        """True if fitting needs many documents; a mean token needs only a few."""
        return self.final_projection == "learned" or self.partition == "landmarks"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, without parameters of another partition.

        So a stored configuration does not depend on defaults that it ignores.

        Returns
        -------
        dict
            Values by parameter, which :meth:`from_dict` accepts.
        """
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if _OF_PARTITION.get(name, self.partition) == self.partition
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FDEConfig:
        """Return the configuration from the result of :meth:`to_dict`.

        Parameters
        ----------
        values : dict
            Parameters by name; those that are missing have their defaults.

        Returns
        -------
        FDEConfig

        Raises
        ------
        ValueError
            If there is no such parameter, or as for :class:`FDEConfig`.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"FDEConfig has no {unknown[0]!r}. It has: {', '.join(known)}.")
        if "dimension" not in values:
            raise ValueError("FDEConfig needs dimension, the columns of a token vector.")
        return cls(**values)

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that depend only on the values."""
        return content_checksum(self.to_dict())[:16]
