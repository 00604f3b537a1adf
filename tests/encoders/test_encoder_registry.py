"""Which configuration makes which encoder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import muvera
from muvera import FDEConfig, FDEEncoder, LearnedConfig, LearnedEncoder, MultiVectors, MuveraIndex
from muvera.encoders.base import EncoderConfig
from muvera.encoders.registry import (
    PRESETS,
    as_config,
    config_from_dict,
    make_encoder,
    possible_presets,
    preset_config,
    read_encoder,
    require_config,
)
from muvera.utils.atomic_files import content_checksum


@pytest.mark.parametrize(
    "config", [FDEConfig(dimension=32), LearnedConfig(dimension=32, vector_dimension=64)]
)
def test_a_configuration_comes_back(config: FDEConfig | LearnedConfig) -> None:
    assert config_from_dict(config.to_dict()) == config
    assert make_encoder(config).config is config


def test_kinds() -> None:
    assert isinstance(make_encoder(FDEConfig(dimension=32)), FDEEncoder)
    assert isinstance(make_encoder(LearnedConfig(dimension=32)), LearnedEncoder)
    assert config_from_dict({"encoder": "fde", "dimension": 8}) == FDEConfig(dimension=8)
    for preset in PRESETS.values():
        assert config_from_dict({"dimension": 32, **preset}).dimension == 32


def test_wrong_kinds() -> None:
    with pytest.raises(ValueError, match=r"encoder must be one of 'fde', 'learned'.*, got 'deep'"):
        config_from_dict({"encoder": "deep", "dimension": 8})
    with pytest.raises(
        TypeError, match=r"config must be a preset's name or an FDEConfig or LearnedConfig.*, got dict"
    ):
        require_config({"dimension": 8})


def test_one_list_of_presets() -> None:
    documents = MultiVectors.from_arrays([np.eye(4, 32)])
    for name in PRESETS:
        assert MuveraIndex.build(documents, name).config == preset_config(name, 32)
    assert preset_config("learned", 32, seed=7) == LearnedConfig(dimension=32, seed=7)
    assert as_config(None, 32) == FDEConfig(dimension=32) == as_config(FDEConfig(dimension=32), 64)
    with pytest.raises(ValueError, match=r"no preset 'deep'\. There are: default, paper, .*learned"):
        MuveraIndex.build(documents, "deep")


@pytest.mark.parametrize("dimension", [8, 64, 400])
def test_presets_that_do_not_suit_the_tokens_are_left_out(dimension: int) -> None:
    """Tokens of 8 columns have a covariance of 36 floats, those of 400 one too long for a map."""
    possible = possible_presets(dimension)
    assert set(PRESETS) - set(possible) == (set() if dimension == 64 else {"compact_covariance"})
    assert all(config == preset_config(name, dimension) for name, config in possible.items())


def test_what_a_fit_needs() -> None:
    needs = {name for name in PRESETS if preset_config(name, 32).needs_fit_sample}
    assert needs == {"compact", "compact_covariance", "learned"}


@pytest.mark.parametrize(
    "config",
    [
        FDEConfig(dimension=8, num_repetitions=2),
        FDEConfig.preset("weaviate", dimension=8),
        FDEConfig(dimension=8, num_repetitions=2, compact_dimension=16),
        LearnedConfig(dimension=8, vector_dimension=16, num_landmarks=64, num_features=64),
    ],
    ids=lambda config: f"{config.kind} {config.vector_dimension}",
)
def test_a_saved_encoder_encodes_the_same(config: EncoderConfig, tmp_path: Path) -> None:
    documents = MultiVectors.from_arrays(np.random.default_rng(0).normal(size=(80, 5, 8)))
    encoder = make_encoder(config).fit(documents)
    encoder.save(tmp_path / "encoder")
    loaded = muvera.load_encoder(tmp_path / "encoder")
    assert loaded.config == config
    for side in ("encode_documents", "encode_queries"):
        np.testing.assert_array_equal(getattr(loaded, side)(documents), getattr(encoder, side)(documents))
    with pytest.raises(FileExistsError, match="exists and is not empty"):
        encoder.save(tmp_path / "encoder")
    encoder.save(str(tmp_path / "encoder"), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]


def test_folders_that_hold_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no encoder\.json"):
        muvera.load_encoder(tmp_path)
    with pytest.raises(ValueError, match=r"split_mean=True, which is learned"):
        FDEEncoder(FDEConfig(dimension=8)).save(tmp_path / "encoder")
    FDEEncoder(FDEConfig(dimension=8, center=False, split_mean=False)).save(tmp_path / "encoder")
    file = tmp_path / "encoder" / "encoder.json"
    content = file.read_text()
    for wrong, message in (
        ("{", "damaged"),
        ("[" * 100_000, "damaged"),
        ("[]", "does not describe an encoder"),
        (content.replace('"format_version": 1', '"format_version": 2'), "does not describe an encoder"),
        (content.replace('"seed": 42', '"seed": 43'), "another checksum than when it was written"),
        (
            with_checksum(content, lambda state: state["config"].update(encoder="deep")),
            "encoder must be one of",
        ),
        (with_checksum(content, lambda state: state.update(files={})), "disagree over 'encoder_"),
        (with_checksum(content, lambda state: state["files"].update({"../x": {}})), "disagree over '../x'"),
    ):
        file.write_text(wrong)
        with pytest.raises(ValueError, match=message):
            muvera.load_encoder(file.parent)
    file.write_text(content)
    center = file.with_name("encoder_center.npy")
    center.write_bytes(center.read_bytes()[:-1] + b"x")
    with pytest.raises(
        ValueError, match=r"encoder_center\.npy has another checksum than when it was written"
    ):
        muvera.load_encoder(file.parent)


def test_arrays_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    """Without it every search would find a fault in its queries."""
    config = FDEConfig(dimension=8, center=False, split_mean=False)
    FDEEncoder(config).save(tmp_path / "encoder")
    file = tmp_path / "encoder" / "encoder_hyperplanes.npy"
    array = np.load(file)
    array.reshape(-1)[5] = np.nan
    np.save(file, array)
    with pytest.raises(ValueError, match=r"encoder_hyperplanes\.npy is damaged: it has a NaN or an infinity"):
        read_encoder(tmp_path / "encoder", config)


def with_checksum(content: str, change: Callable[[dict[str, Any]], object]) -> str:
    """Return a changed description, as somebody who means harm would write it."""
    state = json.loads(content)
    del state["sha256"]
    change(state)
    return json.dumps({**state, "sha256": content_checksum(state)})
