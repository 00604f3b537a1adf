"""Size of an index of token vectors before it is built, and the stages of a build."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera import FDEConfig, IndexSettings, MultiVectors, MuveraIndex
from muvera.index.estimate import expected_bytes, expected_seconds
from muvera.utils.parallel import listening

TOKENS, DIMENSION = 12, 32


def some_documents(count: int, dtype: str = "float32") -> MultiVectors:
    """Normal tokens of length 1 around 20 topics."""
    stream = np.random.default_rng(0)
    topics = stream.normal(size=(20, DIMENSION))[stream.integers(20, size=count), np.newaxis]
    tokens = topics + stream.normal(size=(count, TOKENS, DIMENSION))
    tokens /= np.linalg.norm(tokens, axis=2, keepdims=True)
    return MultiVectors.from_arrays(list(tokens.astype(dtype)))


@pytest.mark.parametrize(
    ("settings", "dtype"),
    [({}, "float32"), ({}, "float16"), ({"tokens": "2bit", "exact_tokens": 0}, "float32"),
     ({"tokens": "int8", "keep_exact": True, "backend": "scan", "exact_tokens": 0}, "float32"),
     ({"backend": "exact", "exact_tokens": 0}, "float16")],
)  # fmt: skip
def test_the_expected_size_is_right_within_a_factor_of_one_and_a_half(
    settings: dict[str, Any], dtype: str, tmp_path: Path
) -> None:
    documents = some_documents(1000, dtype)
    config = FDEConfig.preset("fde", DIMENSION, num_landmarks=64, final_projection_dimension=64)
    MuveraIndex.build(documents, config, path=tmp_path / "index", **settings)
    size = sum(file.stat().st_size for file in (tmp_path / "index").rglob("*") if file.is_file())
    chosen = IndexSettings.of(**settings)
    expected = expected_bytes(config, chosen, len(documents), documents.num_tokens, dtype)
    assert size / 1.5 < expected < 1.5 * size


def test_more_documents_take_longer_and_more_threads_shorter() -> None:
    config = FDEConfig.preset("fde", 128)
    seconds = [expected_seconds(config, 1000 * count, 100_000 * count, 1) for count in (1, 10, 100)]
    assert 5 < seconds[0] < 20 and seconds == sorted(seconds)
    assert expected_seconds(config, 1000, 100_000, 2) == seconds[0] / 2


def test_each_stage_of_a_build_reports_its_share(tmp_path: Path) -> None:
    """Every report has a percentage, and no percentage falls before the stage ends."""
    stages: list[tuple[str, list[int]]] = []
    last = ""

    def listen(report: str) -> None:
        nonlocal last
        name, _, share = report.rpartition(" ")
        assert report == "" or re.fullmatch(r"\d+%", share), report
        if report and not last:
            stages.append((name, []))
        if report:
            stages[-1][1].append(int(share[:-1]))
        last = report

    config = FDEConfig.preset("fde", DIMENSION, num_landmarks=32, final_projection_dimension=32)
    with listening(listen):
        MuveraIndex.build(some_documents(600), config, path=tmp_path / "index", exact_tokens=0, tokens="4bit")
    names = {name for name, _ in stages}
    assert names == {
        "learning the landmarks", "learning the projection", "making vectors", "measuring recall",
        "making codes of tokens", "calibrating", "saving",
    }  # fmt: skip
    assert all(shares == sorted(shares) and len(shares) > 1 for _, shares in stages)
    assert [shares[-1] for name, shares in stages if name == "saving"] == [100]
