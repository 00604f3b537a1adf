"""Which encoders a diagnosis measures, and what they are called."""

import pytest

from muvera import FDEConfig, LearnedConfig, MeanConfig
from muvera.diagnostics.configurations import PAPER, constructor_call, encoders_to_measure, preset_name
from muvera.encoders.base import EncoderConfig
from muvera.encoders.registry import PRESETS, preset_config


def test_every_kind_of_encoder_is_measured() -> None:
    default = FDEConfig(dimension=64)
    names = list(encoders_to_measure(default))
    assert names == [
        PAPER,
        "FDE 2,625",
        "FDE 5,185",
        "compact 512",
        "learned 1,024",
        "mean 65",
        "covariance 2,145",
        "compact_covariance 256",
    ]
    assert encoders_to_measure(default)[PAPER] == FDEConfig.preset("paper", 64)
    other = FDEConfig(dimension=64, num_repetitions=3)
    assert list(encoders_to_measure(other)) == [*names, "given"]
    assert encoders_to_measure(other)["given"] == other


@pytest.mark.parametrize("dimension", [8, 400])
def test_encoders_that_tokens_do_not_allow_are_not_measured(dimension: int) -> None:
    names = {name.split()[0] for name in encoders_to_measure(FDEConfig(dimension=dimension))}
    assert names == {"FDE", "compact", "learned", "mean", "covariance"}
    assert preset_name(FDEConfig(dimension=dimension)) == "default"


KINDS = (FDEConfig, LearnedConfig, MeanConfig)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_recognized_and_written_as_python(name: str) -> None:
    config = preset_config(name, 64)
    found = preset_name(config)
    assert found is not None and PRESETS[found] == PRESETS[name]
    assert eval(constructor_call(config), {kind.__name__: kind for kind in KINDS}) == config
    assert preset_name(FDEConfig(dimension=64, num_repetitions=7)) is None


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (FDEConfig(dimension=8), "FDEConfig(dimension=8)"),
        (LearnedConfig(dimension=8, ridge=0.1), "LearnedConfig(dimension=8, ridge=0.1)"),
    ],
)
def test_defaults_are_left_out(config: EncoderConfig, text: str) -> None:
    assert constructor_call(config) == text
