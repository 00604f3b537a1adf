"""DrawSizes: what the draws of the other programs' encoders depend on."""

from dataclasses import dataclass

__all__ = ["DrawSizes"]


@dataclass(frozen=True, kw_only=True)
class DrawSizes:
    """Shape and seed of an encoder's random matrices.

    Parameters
    ----------
    dimension : int
        Width d of a token.
    num_repetitions : int
        Repetitions R.
    num_simhash_projections : int
        Hyperplanes k of a repetition.
    projection_dimension : int
        Width p of a projected token, at most d.
    seed : int
        Each program's own use of it stands in its module.
    """

    dimension: int
    num_repetitions: int
    num_simhash_projections: int
    projection_dimension: int
    seed: int

    @property
    def hyperplanes_shape(self) -> tuple[int, int, int]:
        """The shape (R, k, d) of the hyperplanes' normals."""
        return self.num_repetitions, self.num_simhash_projections, self.dimension

    @property
    def projections_shape(self) -> tuple[int, int, int]:
        """The shape (R, p, d) of the projections."""
        return self.num_repetitions, self.projection_dimension, self.dimension
