"""FDEConfig: presets, sizes, hashes, and what is refused."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from builders.fdes import CONFIGS
from hypothesis import given
from hypothesis import strategies as st

from muvera import Covariance, FDEConfig, FDEEncoder, Landmarks, LearnedProjection, MeanToken, SimHash
from muvera.fde.config import _PARAMETERS, PRESETS, SIZES

SIMHASH = {"partition": "simhash"}
WHOLE = {**SIMHASH, "moments": None, "final_projection": None}


def test_presets_have_these_sizes() -> None:
    sizes = {name: FDEConfig.preset(name, 32).vector_dimension for name in PRESETS}
    assert sizes == {
        "fde": 512, "moments": 512, "mean": 33, "simhash": 5153, "paper": 10240, "reference": 10240
    }  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    config = FDEConfig.preset(name, 32)
    assert FDEConfig.from_dict(config.to_dict()) == config
    assert FDEConfig.preset(name, np.int64(32)).hash == config.hash
    assert FDEConfig.preset(name, 32, seed=7) == dataclasses.replace(config, seed=7)
    assert FDEEncoder.preset(name, 32).config == config
    assert FDEEncoder(config).needs_fit == (name not in ("paper", "reference"))
    assert config.needs_fit_sample == (name in ("fde", "moments"))


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dimension", [1, 8, 384, 8192])
def test_presets_of_any_dimension(name: str, dimension: int) -> None:
    assert FDEConfig.preset(name, dimension).vector_dimension > 0


@pytest.mark.parametrize(
    ("dimension", "size"),
    [(1, 3), (8, 45), (30, 496), (31, 512), (128, 512), (129, 512), (384, 512), (8192, 512)],
)
def test_moments_are_projected_where_they_are_longer(dimension: int, size: int) -> None:
    config = FDEConfig.preset("moments", dimension)
    assert config.vector_dimension == size
    assert (config.projection == LearnedProjection()) == config.needs_fit_sample == (dimension > 30)


@pytest.mark.parametrize("name", CONFIGS)
def test_dictionaries_and_hashes_survive_json(name: str) -> None:
    config = CONFIGS[name]
    through_json = FDEConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert through_json == config and through_json.hash == config.hash


CHANGES: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(["num_landmarks", "dimension"], ("fde", 100)),
    "landmark_sharpness": ("fde", 9.0),
    "final_projection": ("fde", None),
    "final_projection_dimension": ("fde", 64),
    "seed": ("fde", 2**70),
    "partition": ("fde", None),
    "moments": ("simhash", None),
    "num_directions": ("fde", 64),
    "num_repetitions": ("simhash", 21),
    "num_simhash_projections": ("simhash", 4),
    "projection_dimension": ("simhash", 15),
    "projection": ("simhash", "rademacher"),
    "center": ("simhash", False),
    "fill_empty_partitions": ("simhash", True),
    "document_cells": ("simhash", "mean"),
    "soft_query_cells": ("simhash", 0.1),
    "dialect": ("reference", "muvera"),
}


def test_hashes_have_every_parameter() -> None:
    assert set(CHANGES) == {*FDEConfig.preset("paper", 8).to_dict(), *_PARAMETERS}
    bases = [{"dimension": 128, **values} for values in PRESETS.values()]
    changed = [
        {"dimension": 128, **PRESETS[preset], name: value} for name, (preset, value) in CHANGES.items()
    ]
    configs = [FDEConfig.from_dict(values) for values in bases + changed]
    # Without landmarks, "fde" is the preset "moments".
    assert len({config.hash for config in configs}) == len({repr(c) for c in configs}) == len(configs) - 1


def test_equal_numbers_have_equal_hashes() -> None:
    integer, number = (FDEConfig(8, cells=Landmarks(landmark_sharpness=value)) for value in (12, 12.0))
    assert integer.hash == number.hash
    integer, number = (FDEConfig.preset("simhash", 8, soft_query_cells=value) for value in (0, 0.0))
    assert integer.hash == number.hash


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 6), st.sampled_from(["mean", None]))
def test_a_simhash_fde_has_r_times_2_to_the_k_times_p_floats(
    dimension: int, repetitions: int, bits: int, moments: Any
) -> None:
    """Section 2: R_reps * 2**k_sim * d_proj, and d + 1 of the mean token."""
    config = FDEConfig.preset(
        "simhash", dimension, num_repetitions=repetitions, num_simhash_projections=bits, moments=moments
    )
    cells = repetitions * 2**bits * min(16, dimension)
    assert config.cell_dimension == cells
    assert config.vector_dimension == cells + (dimension + 1 if moments else 0)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"dimension": 4.0}, TypeError, "float 4.0"),
        ({"dimension": 0}, ValueError, "between 1 and 32768, got 0"),
        ({"num_landmarks": 0}, ValueError, "between 1 and 16384, got 0"),
        ({"num_landmarks": 1.5}, TypeError, "float 1.5"),
        ({"landmark_sharpness": -1}, ValueError, "landmark_sharpness.*-1"),
        ({"landmark_sharpness": "12"}, TypeError, "landmark_sharpness.*str"),
        ({**SIMHASH, "num_simhash_projections": 17}, ValueError, "between 0 and 16, got 17"),
        ({**SIMHASH, "projection_dimension": 65}, ValueError, "between 1 and 64, got 65"),
        ({**SIMHASH, "projection_dimension": 16, "projection": "identity"}, ValueError, "64 columns.*16"),
        ({**SIMHASH, "projection": "gauss"}, ValueError, "'gauss'"),
        ({**SIMHASH, "soft_query_cells": float("nan")}, ValueError, "got nan"),
        ({**SIMHASH, "num_repetitions": None}, TypeError, "NoneType None"),
        ({**SIMHASH, "center": 1}, TypeError, "center must be a bool, got int 1"),
        ({**SIMHASH, "dialect": "reference"}, ValueError, "dialect='reference'.*'complementary'"),
        ({"partition": "trees"}, ValueError, "'trees'"),
        ({"moments": True}, ValueError, "True"),
        ({"final_projection": "pca"}, ValueError, "'pca'"),
        ({"seed": -1}, ValueError, "at least 0, got -1"),
        ({"final_projection_dimension": 0}, ValueError, "at least 1, got 0"),
        ({"partition": None, "moments": None, "final_projection": None}, ValueError, "cells or moments"),
        ({"moments": None}, ValueError, "learned projection needs moments"),
        ({"num_directions": 129}, ValueError, "between 16 and 128, got 129"),
        ({"num_directions": 40}, ValueError, "multiple of 16, got 40"),
        ({"final_projection": None, "final_projection_dimension": 9}, ValueError, "9 needs final_projection"),
        ({**WHOLE, "final_projection": "count_sketch"}, ValueError, "count_sketch.*final_projection_dim"),
        ({"partition": None, "final_projection": "count_sketch", "final_projection_dimension": 9},
         ValueError, "count sketch projects cells.*None"),
        ({**SIMHASH, "num_simhash_projections": 9}, ValueError, "at most 65536 floats.*got 329825"),
        ({"repetitions": 3}, ValueError, "'repetitions'"),
    ],
)  # fmt: skip
def test_wrong_values(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FDEConfig.from_dict({"dimension": 64, **values})


@pytest.mark.parametrize(
    ("partition", "values"),
    [
        ("simhash", {"num_landmarks": 2048}),
        ("simhash", {"num_landmarks": 100}),
        ("simhash", {"landmark_sharpness": 9.0}),
        (None, {"num_landmarks": 100}),
        ("landmarks", {"num_repetitions": 3}),
        ("landmarks", {"num_simhash_projections": 3 + 1}),
        ("landmarks", {"projection_dimension": 16}),
        ("landmarks", {"projection": "rademacher"}),
        ("landmarks", {"center": False}),
        ("landmarks", {"fill_empty_partitions": True}),
        ("landmarks", {"document_cells": "mean"}),
        (None, {"soft_query_cells": 0.0}),
        (None, {"dialect": "reference"}),
    ],
)
def test_values_of_another_partition_are_refused(partition: Any, values: dict[str, Any]) -> None:
    """They would be ignored.

    The message is one sentence that names both partitions.
    """
    (name,) = values
    with pytest.raises(ValueError, match=rf"{name}=.* needs partition=.*, got partition={partition!r}\.$"):
        FDEConfig.from_dict({"dimension": 64, "partition": partition, **values})


def test_steps_are_values_with_the_names_of_dictionaries() -> None:
    cells = SimHash(num_repetitions=20, num_simhash_projections=5)
    config = FDEConfig(128, cells=cells, moments=MeanToken(), projection=None)
    values = {"num_repetitions": 20, "num_simhash_projections": 5}
    assert config == FDEConfig.preset("simhash", 128, **values)
    assert config.cells == dataclasses.replace(cells, projection_dimension=16)
    assert FDEConfig(64, cells=Landmarks(300), moments=Covariance(48)) == FDEConfig.preset(
        "fde", 64, num_landmarks=300, num_directions=48
    )


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"cells": "simhash"}, "cells must be a Landmarks or SimHash or None, got str"),
        ({"cells": SimHash}, "cells must be"),
        ({"moments": Landmarks()}, "moments must be a Covariance or MeanToken or None, got Landmarks"),
        ({"projection": 512}, "projection must be .*, got int 512"),
    ],
)
def test_steps_of_another_kind_are_refused(steps: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        FDEConfig(64, **steps)


@pytest.mark.parametrize("encoder", ["fde", "moments", "learned"])
def test_dictionaries_of_former_versions_are_refused(encoder: str) -> None:
    with pytest.raises(ValueError, match=r"^FDEConfig has no 'encoder'\. It has: dimension, partition"):
        FDEConfig.from_dict({"encoder": encoder, "dimension": 64})


def test_names_and_dimensions_are_needed() -> None:
    with pytest.raises(ValueError, match="needs dimension"):
        FDEConfig.from_dict({})
    with pytest.raises(ValueError, match=r"'papier'.*fde, moments, mean, simhash, paper, reference"):
        FDEConfig.preset("papier", 96)


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(1, 300))
def test_larger_collections_have_larger_encoders(documents: int, more: int, per_document: int) -> None:
    config = FDEConfig(dimension=64, seed=3)
    small = config.sized(documents, documents * per_document)
    large = config.sized(documents + more, (documents + more) * per_document)
    assert large == small.sized(documents + more, (documents + more) * per_document)
    assert small.sized(0, 0) == small and small.seed == 3
    assert small.cell_dimension <= large.cell_dimension
    assert small.vector_dimension <= large.vector_dimension


def test_only_the_default_has_sizes() -> None:
    for other in (FDEConfig(64, cells=Landmarks(100)), FDEConfig.preset("mean", 64)):
        assert other.sized(10**6, 10**8) == other and other.larger(10**8) is None


def test_each_size_is_followed_by_a_larger_one() -> None:
    configs = [FDEConfig(dimension=64)]
    while (larger := configs[-1].larger(10**8)) is not None:
        configs.append(larger)
    assert [(each.cells, each.moments, each.projection) for each in configs] == [size[2:] for size in SIZES]
    assert configs[0].larger(10**5) is None  # too few tokens to place more landmarks
