"""Which configuration makes which encoder."""

import pytest

from muvera import FDEConfig, FDEEncoder, LearnedConfig, LearnedEncoder
from muvera.encoders.base import PRESETS, config_from_dict, make_encoder, require_config


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
    with pytest.raises(ValueError, match="encoder must be 'fde' or 'learned', got 'deep'"):
        config_from_dict({"encoder": "deep", "dimension": 8})
    with pytest.raises(TypeError, match="config must be an FDEConfig or a LearnedConfig, got dict"):
        require_config({"dimension": 8})
