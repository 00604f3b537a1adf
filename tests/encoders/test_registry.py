"""Presets, configurations and fitted encoders behind `encoder=`; saved encoders and damaged folders."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera import (
    FDEConfig,
    FDEEncoder,
    LearnedConfig,
    MomentsConfig,
    MomentsEncoder,
    MultiVectors,
    load_encoder,
)
from muvera.encoders.registry import (
    ENCODERS,
    PRESETS,
    as_encoder,
    config_from_dict,
    make_encoder,
    preset_config,
    read_encoder,
)
from muvera.utils.atomic_files import content_checksum

DOCUMENTS = MultiVectors.from_arrays(np.random.default_rng(0).normal(size=(80, 5, 8)))


def test_presets() -> None:
    configs = {name: preset_config(name, 32) for name in PRESETS}
    sizes = {name: config.vector_dimension for name, config in configs.items()}
    assert sizes == {
        "moments": 256,
        "learned": 1024,
        "mean": 33,
        "fde": 5153,
        "paper": 10240,
        "reference": 10240,
    }
    assert {name for name in PRESETS if configs[name].needs_fit_sample} == {"moments", "learned"}
    assert {name for name in PRESETS if not make_encoder(configs[name]).needs_fit} == {"paper", "reference"}
    assert preset_config("learned", 32, seed=7) == LearnedConfig(dimension=32, seed=7)
    for name, config in configs.items():
        assert config_from_dict(config.to_dict()) == config
        encoder = make_encoder(config)
        assert encoder.config is config and type(encoder) is ENCODERS[config.kind]
        assert as_encoder(name, 32) == as_encoder(config, 32) == (config, None)
        for dimension in (1, 8, 384, 8192):
            assert preset_config(name, dimension).vector_dimension


def test_encoder_arguments() -> None:
    assert config_from_dict({"dimension": 8}) == MomentsConfig(dimension=8)
    new = MomentsEncoder(MomentsConfig(dimension=8))
    assert as_encoder(new, 8) == (new.config, None)
    fitted = MomentsEncoder(MomentsConfig(dimension=8)).fit(DOCUMENTS)
    assert as_encoder(fitted, 8) == (fitted.config, fitted)
    assert as_encoder("paper", 8) == (FDEConfig.preset("paper", 8), None)
    assert as_encoder(None, 8) == (MomentsConfig(dimension=8), None)


def test_wrong_encoder_arguments() -> None:
    wrong: Any = {"dimension": 8}
    for call, error, message in (
        (lambda: as_encoder("deep", 32), ValueError, "'deep'"),
        (lambda: as_encoder(wrong, 8), TypeError, "dict"),
        (lambda: as_encoder(FDEConfig(dimension=32), 8), ValueError, r"dimension=32.*8 columns"),
        (lambda: FDEEncoder(wrong), TypeError, "dict"),
    ):
        with pytest.raises(error, match=message):
            call()


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"dimension": 4.0}, TypeError, "float 4.0"),
        ({"num_simhash_projections": 17}, ValueError, "between 0 and 16, got 17"),
        ({"projection_dimension": 65}, ValueError, "between 1 and 64, got 65"),
        ({"projection_dimension": 16, "projection": "identity"}, ValueError, "64 columns.*16"),
        ({"projection": "gauss"}, ValueError, "'gauss'"),
        ({"soft_query_cells": float("nan")}, ValueError, "got nan"),
        ({"seed": -1}, ValueError, "at least 0, got -1"),
        ({"dialect": "reference"}, ValueError, "dialect='reference'.*'complementary'"),
        ({"encoder": "moments", "dimension": 0}, ValueError, "between 1 and 32768, got 0"),
        ({"encoder": "moments", "covariance": 1}, TypeError, "int 1"),
        ({"encoder": "moments", "compact_dimension": 0}, ValueError, "at least 1, got 0"),
        ({"encoder": "learned", "vector_dimension": 4096}, ValueError, "num_features=2048, got 4096"),
        ({"encoder": "learned", "num_landmarks": 1.5}, TypeError, "float 1.5"),
        ({"encoder": "learned", "training_epochs": -1}, ValueError, "at least 0, got -1"),
        ({"repetitions": 3}, ValueError, "'repetitions'"),
    ],
)  # fmt: skip
def test_wrong_configurations(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        config_from_dict({"encoder": "fde", "dimension": 64, **values})


def test_damaged_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"encoder\.json"):
        load_encoder(tmp_path)
    with pytest.raises(ValueError, match=r"fit\(documents\) first"):
        FDEEncoder(FDEConfig(dimension=8)).save(tmp_path / "encoder")
    config = FDEConfig(dimension=8, center=False, split_mean=False)
    FDEEncoder(config).save(tmp_path / "encoder")
    file = tmp_path / "encoder" / "encoder.json"
    content = file.read_text()
    for wrong, message in (
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
        ("[]", "does not describe an encoder"),
        (content.replace('"format_version": 3', '"format_version": 2'), "does not describe an encoder"),
        (content.replace('"seed": 42', '"seed": 43'), "checksum"),
        (with_checksum(content, lambda state: state["config"].update(encoder="deep")), "'deep'"),
        (
            with_checksum(content, lambda state: state["config"].update(color=1)),
            "another version: .* fit the",
        ),
        (with_checksum(content, lambda state: state.update(files={})), "'encoder_"),
        (with_checksum(content, lambda state: state["files"].update({"../x": {}})), "'../x'"),
    ):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=message):
            load_encoder(file.parent)
    file.write_text(content)
    planes = file.with_name("encoder_hyperplanes.npy")
    planes.write_bytes(planes.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match=r"encoder_hyperplanes\.npy.*checksum"):
        load_encoder(file.parent)
    for array in (np.full(8, np.nan, np.float32), np.array(["x"] * 8)):
        np.save(planes, array)
        with pytest.raises(ValueError, match=rf"encoder_hyperplanes\.npy.*{array.dtype}.*finite"):
            read_encoder(tmp_path / "encoder", config)


def test_bytes_are_deflated_rows(tmp_path: Path) -> None:
    config = MomentsConfig(dimension=8, compact_dimension=24)
    MomentsEncoder(config).fit(DOCUMENTS).save(tmp_path / "encoder")
    file = tmp_path / "encoder" / "encoder_compact_documents.npy"
    many = np.frombuffer(zlib.compress(bytes(24_000_000)), np.uint8)
    uneven = np.frombuffer(zlib.compress(bytes(25)), np.uint8)
    for wrong in (np.zeros(9, np.uint8), np.load(file)[:-1], many, uneven):
        np.save(file, wrong)
        with pytest.raises(ValueError, match="'documents' must be deflated rows of 24 bytes"):
            read_encoder(tmp_path / "encoder", config)


def with_checksum(content: str, change: Callable[[dict[str, Any]], object]) -> str:
    """Return a changed description with the right checksum, as an attacker would write it."""
    state = json.loads(content)
    del state["sha256"]
    change(state)
    return json.dumps({**state, "sha256": content_checksum(state)})
