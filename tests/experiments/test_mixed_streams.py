"""Encoders that learned from another collection, beside ones that learned from both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.__main__ import app
from experiments.bench.mixed_streams import measure_mixed_streams, mixed_encoders, mixed_results
from experiments.datasets.collection import Collection, tokens_checksum
from experiments.report.results_pages import experiment_section, write_pages
from experiments.report.stored_results import save_results
from muvera import LearnedConfig, MeanConfig, MultiVectors
from muvera.encoders.base import EncoderConfig

pytestmark = pytest.mark.compiled("fits encoders on hundreds of documents")

DIMENSION = 16
ENCODERS: dict[str, EncoderConfig] = {
    "mean": MeanConfig(dimension=DIMENSION),
    "learned": LearnedConfig(
        dimension=DIMENSION, vector_dimension=24, num_landmarks=256, num_features=64, training_epochs=0
    ),
    "mean kept": LearnedConfig(
        dimension=DIMENSION,
        vector_dimension=41,
        num_landmarks=256,
        num_features=64,
        training_epochs=0,
        split_mean=True,
    ),
}


def collection(name: str, axes: slice, count: int = 150, seed: int = 0) -> Collection:
    """Documents of unit tokens in some of the axes alone; queries are parts of them."""
    rng = np.random.default_rng(seed)
    tokens = np.zeros((count * 6, DIMENSION), np.float32)
    wide = tokens[:, axes].shape[1]
    tokens[:, axes] = np.repeat(rng.standard_normal((count, wide)), 6, axis=0)
    tokens[:, axes] += rng.standard_normal((count * 6, wide))
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    documents = MultiVectors.from_flat(tokens, [6] * count)
    queries = MultiVectors.from_arrays([documents[i][:3] for i in range(0, count, 5)])
    names = [str(i) for i in range(count)]
    return Collection(name, documents, queries, tokens_checksum(documents, queries), names, names[::5])


def table(first: Collection, second: Collection) -> dict[str, list[str]]:
    header, rows = measure_mixed_streams(first, second, dict(ENCODERS))
    assert len(header) == 6 and all(len(row) == 6 for row in rows)
    assert header[2] == f"{first.name}, then {second.name}: before"
    return {row[0]: row[1:] for row in rows}


def test_learned_vectors_of_another_kind_find_less_until_they_are_rebuilt() -> None:
    found = table(collection("low", slice(0, 8)), collection("high", slice(8, 16), seed=1))
    assert found["mean"][0] == "17" and found["learned"][0] == "24"
    learned = [float(cell) for cell in found["learned"][1:]]
    mean = [float(cell) for cell in found["mean"][1:]]
    # 30 queries of ten: a share is known to .03.
    assert learned[1] > learned[0] + 0.1 and learned[3] > learned[2] + 0.1
    assert min(mean[0], mean[2]) > max(mean[1], mean[3]) - 0.1
    kept = [float(cell) for cell in found["mean kept"][1:]]
    assert kept[0] > learned[0] + 0.1 and kept[2] > learned[2] + 0.1
    assert float(found["distance"][1]) > 0.3 and float(found["distance"][3]) > 0.3


def test_more_of_one_kind_is_near() -> None:
    found = table(collection("one", slice(0, 16)), collection("other", slice(0, 16), seed=1))
    assert float(found["distance"][1]) < 0.2
    assert abs(float(found["learned"][1]) - float(found["learned"][2])) < 0.15


def test_every_kind_is_compared_and_stored_as_a_section() -> None:
    encoders = mixed_encoders(64)
    assert {config.kind for config in encoders.values()} == {"fde", "mean", "learned"}
    assert encoders["small FDE"].vector_dimension < encoders["learned"].vector_dimension
    stored: dict[str, Any] = mixed_results(["encoder", "floats"], [["mean", "65"]])
    text = experiment_section(stored)
    assert "| mean | 65 |" in text and text.startswith("## Adding documents of another kind")


def test_the_page_of_vectors_shows_it(tmp_path: Path) -> None:
    save_results("mixed_streams", mixed_results(["encoder", "floats"], [["mean", "65"]]), tmp_path)
    names = [path.name for path in write_pages(tmp_path / "pages", tmp_path)]
    assert names == ["vectors.md", "index.md"]


def test_a_collection_that_is_not_there() -> None:
    found = CliRunner().invoke(app, ["mixed", "nothing", "of-it"])
    assert found.exit_code == 2
