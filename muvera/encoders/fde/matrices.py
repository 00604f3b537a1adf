"""FDEMatrices: the random matrices of an encoder, drawn once from its configuration.

A saved index keeps these arrays, because NumPy's streams may change between versions.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...kernels.tile import LANES, pack_columns
from .config import FDEConfig
from .draws import fastembed, own, reference, weaviate
from .draws.sizes import DrawSizes

__all__ = ["FDEMatrices", "cell_positions", "draw_matrices", "is_interleaved", "pack_rows"]


@dataclass(frozen=True)
class FDEMatrices:
    """Everything random in an encoder; width = dimension rounded up to 16.

    Parameters
    ----------
    hyperplanes : float32 (R * k, width)
        Normals, in the mixed basis where there is one.
    projections : float32 (R, p, width), or (0, 0, 0) for the identity
        What a cell's vector is multiplied by, scale included.
    mixing : float32 (width, width), or (0, 0)
        The orthogonal map into the mixed basis, before its permutation.
    places : int64 (width,), or (0,)
        Where each mixed coordinate stands.
    final_targets : int64 (R * 2**k * p,), or (0,)
        A final count sketch's targets.
    final_signs : float32, as `final_targets`
        Its signs.
    """

    hyperplanes: NDArray[np.float32]
    projections: NDArray[np.float32]
    mixing: NDArray[np.float32]
    places: NDArray[np.int64]
    final_targets: NDArray[np.int64]
    final_signs: NDArray[np.float32]

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the arrays by name, as they are saved."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def dense_hyperplanes(self) -> NDArray[np.float64]:
        """Hyperplane normals in the tokens' own basis, float64 (R * k, width)."""
        return np.asarray(self.hyperplanes @ self.basis)

    @property
    def basis(self) -> NDArray[np.float64]:
        """The map into the mixed basis, permutation included; the identity without one."""
        if not self.mixing.size:
            return np.eye(self.hyperplanes.shape[1])
        permuted = np.empty(self.mixing.shape, np.float64)
        permuted[self.places] = self.mixing
        return permuted


def draw_matrices(config: FDEConfig) -> FDEMatrices:
    """Draw the matrices of `config`; the same configuration always gives the same."""
    planes, projections = _DRAWS[config.dialect](config)
    mixing, places = np.empty((0, 0), np.float32), np.empty(0, np.int64)
    if _has_mixed_basis(config):
        mixing, places = own.mixing(config.seed, config.dimension)
    targets, signs = np.empty(0, np.int64), np.empty(0, np.float32)
    if config.final_projection == "count_sketch":
        assert config.final_projection_dimension is not None  # the two go together
        draw = reference.final_count_sketch if config.dialect == "reference" else own.final_count_sketch
        targets, signs = draw(
            input_dimension=config.sketch_dimension,
            final_dimension=config.final_projection_dimension,
            seed=config.seed,
        )
    return FDEMatrices(
        hyperplanes=_padded(planes.reshape(-1, planes.shape[-1])),
        projections=_padded(projections) if projections is not None else np.empty((0, 0, 0), np.float32),
        mixing=mixing,
        places=places,
        final_targets=targets,
        final_signs=signs,
    )


def cell_positions(config: FDEConfig) -> NDArray[np.int64]:
    """Return where each code's block stands in its repetition, int64 (2**k,).

    Bit j of a code is the sign at hyperplane j.  The reference reads hyperplane 0 first, as
    the high bit, and numbers cells by the inverse Gray code; the others by the code itself.
    """
    codes = np.arange(config.num_cells)
    if config.dialect != "reference":
        return codes
    position = np.zeros_like(codes)
    for j in range(config.num_simhash_projections):
        position = (position << 1) + (((codes >> j) & 1) ^ (position & 1))
    return position


def _padded(matrix: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return float32 with the last axis rounded up to whole vectors."""
    width = own.padded_width(matrix.shape[-1])
    out = np.zeros((*matrix.shape[:-1], width), np.float32)
    out[..., : matrix.shape[-1]] = matrix
    return out


def _has_mixed_basis(config: FDEConfig) -> bool:
    return config.projection == "complementary" and own.is_structured(config.dimension)


_Drawn = tuple[NDArray[np.floating], "NDArray[np.floating] | None"]


def _draw_ours(config: FDEConfig) -> _Drawn:
    seed, dimension, repetitions = config.seed, config.dimension, config.num_repetitions
    bits, block = config.num_simhash_projections, config.block_width
    planes: NDArray[np.floating]
    mixed = _has_mixed_basis(config)
    if config.hyperplanes == "gaussian":
        # In the mixed basis a token has `width` coordinates, of which none may go unseen.
        columns = own.padded_width(dimension) if mixed else dimension
        planes = own.gaussian_hyperplanes(seed, columns, repetitions, bits)
    else:
        planes = own.orthogonal_hyperplanes(seed, dimension, repetitions * bits)
        if own.is_structured(dimension) and not mixed:  # round one goes into the normals
            matrix, places = own.mixing(seed, dimension)
            permuted = np.empty_like(matrix)
            permuted[places] = matrix
            planes = planes @ permuted
    if config.projection == "identity":
        return planes, None
    draw = {
        "complementary": own.complementary_projections,
        "rademacher": own.rademacher_projections,
        "count_sketch": own.count_sketches,
    }[config.projection]
    return planes, draw(seed, dimension, repetitions, block)


def _sizes(config: FDEConfig) -> DrawSizes:
    return DrawSizes(
        dimension=config.dimension,
        num_repetitions=config.num_repetitions,
        num_simhash_projections=config.num_simhash_projections,
        projection_dimension=config.block_width,
        seed=config.seed,
    )


def _draw_reference(config: FDEConfig) -> _Drawn:
    kind: Literal["identity", "count_sketch"] = (
        "identity" if config.projection == "identity" else "count_sketch"
    )
    return reference.hyperplanes(_sizes(config)), reference.projections(_sizes(config), kind=kind)


def _draw_fastembed(config: FDEConfig) -> _Drawn:
    # The program multiplies in float64 and draws in float64; a token whose product is within
    # float32 rounding of 0 may fall into another cell here.
    return fastembed.hyperplanes(_sizes(config)), fastembed.projections(_sizes(config))


def _draw_weaviate(config: FDEConfig) -> _Drawn:
    return weaviate.hyperplanes(_sizes(config)), weaviate.projections(_sizes(config))


_DRAWS = {
    "muvera": _draw_ours,
    "reference": _draw_reference,
    "fastembed": _draw_fastembed,
    "weaviate": _draw_weaviate,
}


def is_interleaved(matrix: NDArray[np.float32]) -> bool:
    """Whether row i is zero wherever the column is not i modulo LANES."""
    rows = np.arange(len(matrix))[:, np.newaxis] % LANES
    columns = np.arange(matrix.shape[1])[np.newaxis] % LANES
    return not matrix[rows != columns].any()


def pack_rows(matrix: NDArray[np.float32], interleaved: bool) -> NDArray[np.float32]:
    """Pack rows as panels of LANES columns, flat; interleaved ones keep one entry a lane."""
    packed = pack_columns(matrix)
    if not interleaved:
        return packed.reshape(-1)
    panels, width, _ = packed.shape
    lanes = packed.reshape(panels, width // LANES, LANES, LANES)
    return np.ascontiguousarray(np.diagonal(lanes, axis1=2, axis2=3)).reshape(-1)
