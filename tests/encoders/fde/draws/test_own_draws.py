"""Our own draws: orthogonality, what complements what, and that repetition r does not depend on R."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from muvera import FDEConfig
from muvera.encoders.fde.config import PRESETS
from muvera.encoders.fde.draws import own
from muvera.encoders.fde.matrices import cell_positions, draw_matrices

# float32 entries of orthonormal rows, summed over at most a few hundred terms.
ROUNDING = 5e-6

KINDS: list[dict[str, Any]] = [
    {"projection": projection, "hyperplanes": hyperplanes}
    for projection in ("complementary", "rademacher", "count_sketch", "identity")
    for hyperplanes in ("orthogonal", "gaussian")
]

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))


def hyperplanes_of(config: FDEConfig) -> np.ndarray:
    """Normals in the tokens' own columns, float64 (R * k, d)."""
    return draw_matrices(config).dense_hyperplanes[:, : config.dimension]


def projections_of(config: FDEConfig) -> np.ndarray:
    """Projections in the tokens' own columns, float64 (R, p, d)."""
    matrices = draw_matrices(config)
    return (matrices.projections @ matrices.basis)[:, :, : config.dimension]


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_rotations_are_orthogonal(size: int) -> None:
    q = own.rotation(own.generator(1, 0), size)
    np.testing.assert_allclose(q @ q.T, np.eye(size), atol=1e-12)


@pytest.mark.parametrize(("lanes", "groups"), [(16, 1), (16, 8), (5, 3), (1, 4)])
def test_interleaved_rotations_are_orthogonal_and_keep_their_lanes(lanes: int, groups: int) -> None:
    q = own.interleaved_rotation(own.generator(1, 0), lanes, groups)
    np.testing.assert_allclose(q @ q.T, np.eye(lanes * groups), atol=1e-12)
    rows, columns = np.nonzero(q)
    np.testing.assert_array_equal(rows % lanes, columns % lanes)


@pytest.mark.parametrize("dimension", [1, 3, 16, 17, 48, 64, 96, 128, 130, 256])
def test_orthogonal_hyperplanes(dimension: int) -> None:
    """Unit normals, orthogonal within each set of as many as there are columns."""
    config = FDEConfig(dimension=dimension, num_repetitions=30, num_simhash_projections=5)
    normals = draw_matrices(config).hyperplanes.astype(np.float64)
    size = own.padded_width(dimension) if own.is_structured(dimension) else dimension
    for start in range(0, len(normals), size):
        rows = normals[start : start + size]
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=ROUNDING)
    if size == dimension:
        np.testing.assert_allclose(np.linalg.norm(hyperplanes_of(config), axis=1), 1, atol=ROUNDING)


@pytest.mark.parametrize("dimension", [96, 128, 130, 256])
def test_the_mixed_basis_is_orthonormal(dimension: int) -> None:
    basis = draw_matrices(FDEConfig(dimension=dimension)).basis
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=ROUNDING)


@pytest.mark.parametrize("dimension", [96, 128, 256])
def test_structured_normals_mix_enough_columns(dimension: int) -> None:
    """A third of them on average, as the configuration says of "orthogonal", and no normal very few."""
    mixed = (np.abs(hyperplanes_of(FDEConfig(dimension=dimension))) > 1e-9).sum(axis=1)
    assert mixed.mean() > 0.3 * dimension
    assert mixed.min() >= 24


def test_few_columns_are_all_mixed() -> None:
    for dimension in (2, 16, 80):
        assert (np.abs(hyperplanes_of(FDEConfig(dimension=dimension))) > 1e-9).all()


@pytest.mark.parametrize(
    ("dimension", "block"),
    [
        (1, 1),
        (3, 2),
        (16, 16),
        (33, 5),
        (48, 16),
        (70, 7),
        (96, 16),
        (128, 8),
        (128, 16),
        (130, 16),
        (128, 13),
    ],
)
def test_complementary_projections_lose_nothing_together(dimension: int, block: int) -> None:
    """Over a group, the sum of P^T P is the identity times the group's size."""
    width = own.padded_width(dimension) if own.is_structured(dimension) else dimension
    group = -(-width // block)
    config = FDEConfig(dimension=dimension, num_repetitions=2 * group, projection_dimension=block)
    inner = projections_of(config)
    for start in (0, group):
        total = sum(rows.T @ rows for rows in inner[start : start + group])
        np.testing.assert_allclose(total / group, np.eye(dimension), atol=ROUNDING)
    assert dimension == 1 or not np.allclose(inner[:group], inner[group:])


@each_kind
@pytest.mark.parametrize("dimension", [7, 48, 128, 130])
def test_repetitions_are_independent_of_their_number(dimension: int, kind: dict[str, Any]) -> None:
    few, many = (
        draw_matrices(
            FDEConfig(dimension=dimension, num_repetitions=count, num_simhash_projections=3, **kind)
        )
        for count in (3, 17)
    )
    np.testing.assert_array_equal(few.hyperplanes, many.hyperplanes[:9])
    np.testing.assert_array_equal(few.projections, many.projections[:3])
    np.testing.assert_array_equal(few.mixing, many.mixing)
    np.testing.assert_array_equal(few.places, many.places)


def test_final_signs_are_independent_of_the_number_of_repetitions() -> None:
    signs = [own.final_signs(3, repetition, 40, 20) for repetition in range(3)]
    assert signs[0].shape == (2, 40)
    assert not np.array_equal(signs[0], signs[1])
    np.testing.assert_array_equal(signs[2], own.final_signs(3, 2, 40, 20))


@each_kind
def test_repetitions_and_seeds_differ(kind: dict[str, Any]) -> None:
    common = {"dimension": 32, "num_repetitions": 4, "num_simhash_projections": 4, **kind}
    one, other = (draw_matrices(FDEConfig(seed=seed, **common)) for seed in (0, 1))
    planes = one.hyperplanes.reshape(4, 4, -1)
    for r in range(1, 4):
        assert not np.array_equal(planes[0], planes[r])
        # One seed later is not one repetition later: a seed plus r is never a seed.
        assert not np.array_equal(other.hyperplanes.reshape(4, 4, -1)[0], planes[r])
    if kind["projection"] != "identity":
        assert len({rows.tobytes() for rows in one.projections}) == 4


def test_the_streams_of_purposes_differ() -> None:
    draws = {
        own.generator(0, purpose, *key).bytes(16) for purpose in range(4) for key in ((), (0,), (1,), (0, 0))
    }
    assert len(draws) == 16


def test_rademacher_projections_are_signs_over_the_root_of_p() -> None:
    inner = projections_of(FDEConfig(dimension=20, projection="rademacher", projection_dimension=9))
    np.testing.assert_allclose(np.abs(inner), 1 / 3, rtol=1e-7)


def test_count_sketches_have_one_sign_a_column() -> None:
    inner = projections_of(FDEConfig(dimension=20, projection="count_sketch", projection_dimension=9))
    np.testing.assert_array_equal(np.abs(inner).sum(axis=1), 1)


def test_identity_has_no_matrix() -> None:
    assert draw_matrices(FDEConfig(dimension=20, projection="identity")).projections.size == 0


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("bits", [0, 1, 4, 7])
def test_cells_are_numbered_once(name: str, bits: int) -> None:
    config = FDEConfig.preset(name, dimension=16, num_simhash_projections=bits)
    positions = cell_positions(config)
    np.testing.assert_array_equal(np.sort(positions), np.arange(2**bits))
    if name == "reference":
        # Gray code: neighbors in position differ in one sign.  The high bit is the first hyperplane's.
        codes = np.argsort(positions)
        assert all((int(a) ^ int(b)).bit_count() == 1 for a, b in pairwise(codes))
    else:
        np.testing.assert_array_equal(positions, np.arange(2**bits))


def test_matrices_go_through_arrays() -> None:
    matrices = draw_matrices(
        FDEConfig.preset("reference", 16, final_projection="count_sketch", final_projection_dimension=30)
    )
    again = type(matrices)(**matrices.to_arrays())  # type: ignore[arg-type]
    for name, array in matrices.to_arrays().items():
        np.testing.assert_array_equal(array, getattr(again, name))
