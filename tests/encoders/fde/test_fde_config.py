"""FDEConfig: defaults, what it derives, what it refuses and in which words."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera import FDEConfig
from muvera.encoders.fde.config import PRESETS


def test_the_default_settles_what_was_left_out() -> None:
    config = FDEConfig(dimension=128)
    assert (config.block_width, config.num_cells, config.sketch_dimension) == (16, 8, 5120)
    assert config.vector_dimension == config.long_dimension == 5120 + 128 + 1
    assert FDEConfig(dimension=5).block_width == 5
    assert FDEConfig(dimension=128, projection="identity").block_width == 128
    assert FDEConfig(dimension=128, num_simhash_projections=0).num_cells == 1
    short = FDEConfig(dimension=128, final_projection="rademacher", final_projection_dimension=100)
    assert (short.sketch_dimension, short.vector_dimension) == (5120, 100 + 128 + 1)


def test_it_is_frozen_and_takes_names_only() -> None:
    config = FDEConfig(dimension=4)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.dimension = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        FDEConfig(4)  # type: ignore[call-arg]


@given(
    st.fixed_dictionaries(
        {"dimension": st.integers(1, 300)},
        optional={
            "num_repetitions": st.integers(1, 50),
            "num_simhash_projections": st.integers(0, 16),
            "projection": st.sampled_from(["complementary", "rademacher", "count_sketch", "identity"]),
            "hyperplanes": st.sampled_from(["orthogonal", "gaussian"]),
            "center": st.booleans(),
            "fill_empty_partitions": st.booleans(),
            "document_cells": st.sampled_from(["mean", "unit", "length"]),
            "soft_query_cells": st.floats(0, 10) | st.integers(0, 10),
            "seed": st.integers(0, 2**70),
        },
    )
)
def test_dictionaries_go_there_and_back(values: dict[str, Any]) -> None:
    config = FDEConfig(**values)
    through_json = FDEConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert through_json == config
    assert through_json.hash == config.hash
    assert hash(through_json) == hash(config)


def test_the_hash_is_stable_and_sees_every_value() -> None:
    """Saved indexes carry it: a change here makes them unreadable."""
    assert FDEConfig(dimension=128).hash == "f80ef2dd4fb7ff4a"
    assert FDEConfig.preset("paper", 128).hash == "77cb0c7f68c09601"
    base = FDEConfig(dimension=128)
    others: dict[str, Any] = {
        "dimension": 127,
        "num_repetitions": 21,
        "num_simhash_projections": 4,
        "projection_dimension": 15,
        "projection": "rademacher",
        "hyperplanes": "gaussian",
        "center": False,
        "fill_empty_partitions": True,
        "document_cells": "mean",
        "soft_query_cells": 0.1,
        "seed": 43,
    }
    changed = [dataclasses.replace(base, **{name: value}) for name, value in others.items()]
    for kind in ("rademacher", "count_sketch"):
        changed += [
            dataclasses.replace(base, final_projection=kind, final_projection_dimension=size)
            for size in (10, 11)
        ]
    changed += [dataclasses.replace(base, compact_dimension=size) for size in (10, 11)]
    changed += [dataclasses.replace(base, split_mean=not base.split_mean)]
    changed += [dataclasses.replace(base, split_mean=True, covariance=True)]
    changed += [FDEConfig.preset(name, 128) for name in ("reference", "fastembed", "weaviate")]
    assert len({config.hash for config in [base, *changed]}) == len(changed) + 1
    fields = {field.name for field in dataclasses.fields(FDEConfig)}
    rest = {"final_projection", "final_projection_dimension", "compact_dimension", "dialect"}
    rest |= {"split_mean", "covariance"}
    assert fields - set(others) == rest
    # 0 and 0.0 are one setting.
    assert (
        FDEConfig(dimension=8, soft_query_cells=0).hash == FDEConfig(dimension=8, soft_query_cells=0.0).hash
    )


def test_presets_take_changes() -> None:
    config = FDEConfig.preset("paper", dimension=96, num_repetitions=3, center=True)
    assert (config.num_repetitions, config.center, config.fill_empty_partitions) == (3, True, True)
    assert set(PRESETS) == {"default", "paper", "reference", "fastembed", "weaviate"}
    with pytest.raises(ValueError, match=r"no preset 'papier'. There are: default, paper, reference,"):
        FDEConfig.preset("papier", 96)


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"dimension": 0}, ValueError, "^dimension must be at least 1, got 0.$"),
    ({"dimension": 4.0}, TypeError, "^dimension must be an int, got float 4.0.$"),
    ({"dimension": True}, TypeError, "^dimension must be an int, got bool True.$"),
    ({"num_repetitions": 0}, ValueError, "^num_repetitions must be at least 1, got 0.$"),
    ({"num_repetitions": "20"}, TypeError, "^num_repetitions must be an int, got str '20'.$"),
    ({"num_simhash_projections": 17}, ValueError, "must be between 0 and 16, got 17.$"),
    ({"num_simhash_projections": -1}, ValueError, "must be between 0 and 16, got -1.$"),
    ({"projection_dimension": 0}, ValueError, "must be between 1 and 64, got 0.$"),
    ({"projection_dimension": 65}, ValueError, "must be between 1 and 64, got 65.$"),
    ({"projection_dimension": 65, "projection": "rademacher"}, ValueError, "between 1 and 64, got 65.$"),
    ({"projection_dimension": 0, "projection": "count_sketch"}, ValueError, "at least 1, got 0.$"),
    (
        {"projection_dimension": 16, "projection": "identity"},
        ValueError,
        "keeps all 64 columns, got projection_dimension=16. Leave it out, or use",
    ),
    (
        {"projection": "gauss"},
        ValueError,
        "complementary, rademacher, count_sketch, identity, got 'gauss'.$",
    ),
    ({"projection": None}, ValueError, "got None.$"),
    (
        {"hyperplanes": "dense"},
        ValueError,
        "^hyperplanes must be one of orthogonal, gaussian, got 'dense'",
    ),
    ({"dialect": "rust"}, ValueError, "muvera, reference, fastembed, weaviate, got 'rust'.$"),
    ({"final_projection": "identity", "final_projection_dimension": 9}, ValueError, "got 'identity'.$"),
    ({"center": 1}, TypeError, "^center must be a bool, got int 1.$"),
    ({"fill_empty_partitions": "yes"}, TypeError, "^fill_empty_partitions must be a bool, got str 'yes'.$"),
    (
        {"document_cells": "median"},
        ValueError,
        "^document_cells must be one of mean, unit, length, got 'median'.$",
    ),
    ({"split_mean": 1}, TypeError, "^split_mean must be a bool, got int 1.$"),
    ({"covariance": True, "split_mean": False}, ValueError, "^covariance=True needs split_mean=True: "),
    ({"soft_query_cells": True}, TypeError, "must be a number, got bool True. 0 switches it off.$"),
    ({"soft_query_cells": "0.05"}, TypeError, "must be a number, got str '0.05'. 0 switches it off.$"),
    ({"soft_query_cells": -0.1}, ValueError, "between 0 and 10, got -0.1. 0 switches it off.$"),
    ({"soft_query_cells": 11}, ValueError, "between 0 and 10, got 11. 0 switches it off.$"),
    ({"soft_query_cells": float("nan")}, ValueError, "must be finite, got nan. 0 switches it off.$"),
    ({"final_projection": "rademacher"}, ValueError, "go together, got 'rademacher' and None.$"),
    ({"final_projection_dimension": 100}, ValueError, "go together, got None and 100.$"),
    (
        {"final_projection": "count_sketch", "final_projection_dimension": 0},
        ValueError,
        "^final_projection_dimension must be at least 1, got 0.$",
    ),
    ({"seed": -1}, ValueError, "^seed must be at least 0, got -1.$"),
    ({"seed": 1.5}, TypeError, "^seed must be an int, got float 1.5.$"),
    (
        {"dialect": "reference"},
        ValueError,
        "has projection 'count_sketch' or 'identity', got 'complementary'",
    ),
    (
        {"dialect": "reference", "projection": "identity"},
        ValueError,
        "has hyperplanes='gaussian', got 'orthogonal'.$",
    ),
    (
        {
            "dialect": "fastembed",
            "projection": "rademacher",
            "hyperplanes": "gaussian",
            "final_projection": "rademacher",
            "final_projection_dimension": 9,
        },
        ValueError,
        "dialect='fastembed' has no final_projection='rademacher'.$",
    ),
]


@pytest.mark.parametrize(("values", "error", "words"), REFUSED, ids=lambda value: str(value)[:50])
def test_refused(values: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        FDEConfig(**{"dimension": 64, **values})


def test_a_dictionary_must_have_known_names_and_a_dimension() -> None:
    with pytest.raises(
        ValueError, match=r"FDEConfig has no 'repetitions'. It has: dimension, num_repetitions,"
    ):
        FDEConfig.from_dict({"dimension": 4, "repetitions": 3})
    with pytest.raises(ValueError, match="needs dimension"):
        FDEConfig.from_dict({"num_repetitions": 3})
