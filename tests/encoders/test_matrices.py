"""Random matrices: orthogonality, complements, independence of the number of repetitions, refused positions."""

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from muvera import FDEConfig, FDEEncoder
from muvera.encoders.fde.config import PRESETS
from muvera.encoders.fde.matrices import cell_positions, draw_matrices, generator, orthonormal_rows

# float32 entries of orthonormal rows, summed over at most a few hundred terms.
ROUNDING = 5e-6

KINDS: list[dict[str, Any]] = [
    {"projection": projection, "hyperplanes": hyperplanes}
    for projection in ("complementary", "rademacher", "count_sketch", "identity")
    for hyperplanes in ("orthogonal", "gaussian")
]

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(kind.values()))


def projections_of(config: FDEConfig) -> np.ndarray:
    return np.asarray(draw_matrices(config).projections[:, :, : config.dimension], np.float64)


@pytest.mark.parametrize(("count", "size"), [(1, 1), (3, 9), (16, 16)])
def test_rows_are_orthonormal(count: int, size: int) -> None:
    rows = orthonormal_rows(generator(1, 0), count, size)
    np.testing.assert_allclose(rows @ rows.T, np.eye(count), atol=1e-12)


@pytest.mark.parametrize("dimension", [1, 17, 130])
def test_orthogonal_hyperplanes(dimension: int) -> None:
    config = FDEConfig(dimension=dimension, num_repetitions=30, num_simhash_projections=5)
    normals = draw_matrices(config).hyperplanes.astype(np.float64)
    assert len(normals) == 150
    for start in range(0, len(normals), dimension):
        rows = normals[start : start + dimension]
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=ROUNDING)


@pytest.mark.parametrize(("dimension", "block"), [(1, 1), (16, 16), (70, 7), (128, 13), (130, 16)])
def test_complementary_projections_lose_nothing_together(dimension: int, block: int) -> None:
    group = -(-dimension // block)
    config = FDEConfig(dimension=dimension, num_repetitions=2 * group, projection_dimension=block)
    inner = projections_of(config)
    for start in (0, group):
        total = sum(rows.T @ rows for rows in inner[start : start + group])
        np.testing.assert_allclose(total / group, np.eye(dimension), atol=ROUNDING)
    assert dimension == 1 or not np.allclose(inner[:group], inner[group:])


@each_kind
@pytest.mark.parametrize("dimension", [7, 130])
def test_repetitions_do_not_depend_on_their_number(dimension: int, kind: dict[str, Any]) -> None:
    common = {"dimension": dimension, "num_simhash_projections": 3, **kind}
    few, many = (draw_matrices(FDEConfig(num_repetitions=count, **common)) for count in (3, 17))
    np.testing.assert_allclose(few.hyperplanes, many.hyperplanes[:9], atol=ROUNDING)
    np.testing.assert_allclose(few.projections, many.projections[:3], atol=ROUNDING)


@each_kind
def test_repetitions_and_seeds_differ(kind: dict[str, Any]) -> None:
    common = {"dimension": 32, "num_repetitions": 4, "num_simhash_projections": 4, **kind}
    matrices, other = (draw_matrices(FDEConfig(seed=seed, **common)) for seed in (0, 1))
    planes = matrices.hyperplanes.reshape(4, 4, -1)
    for r in range(1, 4):
        assert not np.array_equal(planes[0], planes[r])
        # The next seed is not the next repetition.
        assert not np.array_equal(other.hyperplanes.reshape(4, 4, -1)[0], planes[r])
    if kind["projection"] != "identity":
        assert len({rows.tobytes() for rows in matrices.projections}) == 4
    streams = {generator(0, p, *key).bytes(16) for p in range(3) for key in ((), (0,), (1,), (0, 0))}
    assert len(streams) == 12


def test_entries_of_projections() -> None:
    common = {"dimension": 20, "projection_dimension": 9}
    inner = projections_of(FDEConfig(projection="rademacher", **common))  # type: ignore[arg-type]
    np.testing.assert_allclose(np.abs(inner), 1 / 3, rtol=1e-7)
    inner = projections_of(FDEConfig(projection="count_sketch", **common))  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.abs(inner).sum(axis=1), 1)
    assert draw_matrices(FDEConfig(dimension=20, projection="identity")).projections.size == 0


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("bits", [0, 1, 4, 7])
def test_cells_are_numbered_once(name: str, bits: int) -> None:
    positions = cell_positions(FDEConfig.preset(name, dimension=16, num_simhash_projections=bits))
    np.testing.assert_array_equal(np.sort(positions), np.arange(2**bits))
    if name == "reference":
        # Gray code: neighbors in position differ in one sign.
        codes = np.argsort(positions)
        assert all((int(a) ^ int(b)).bit_count() == 1 for a, b in pairwise(codes))
    else:
        np.testing.assert_array_equal(positions, np.arange(2**bits))


def wrong(array: np.ndarray, position: int, value: int) -> np.ndarray:
    changed: np.ndarray = array.copy()
    changed[position] = value
    return changed


def test_positions_of_compiled_code_are_checked() -> None:
    """Compiled code writes to these positions without bounds checks."""
    final = {"final_projection": "count_sketch", "final_projection_dimension": 30}
    config = FDEConfig(dimension=96, num_repetitions=2, center=False, split_mean=False, **final)  # type: ignore[arg-type]
    matrices = draw_matrices(config)
    targets = matrices.final_targets
    changes: list[dict[str, np.ndarray]] = [
        {"final_targets": wrong(targets, 3, 30)},
        {"final_targets": wrong(targets, 0, -1)},
        {"final_targets": targets[:-1]},
        {"final_targets": targets.astype(np.int32)},
        {"projections": matrices.projections[:1]},
        {"hyperplanes": matrices.hyperplanes.astype(np.float64)},
    ]
    for change in changes:
        with pytest.raises(ValueError, match=next(iter(change))):
            FDEEncoder(config, matrices=dataclasses.replace(matrices, **change))
    FDEEncoder(config, matrices=matrices)
