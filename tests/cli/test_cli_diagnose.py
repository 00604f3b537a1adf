"""``muvera diagnose`` as a command of its own."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from builders.command_line import fails, some_texts
from typer.testing import CliRunner

from muvera import MultiVectors
from muvera.cli.diagnose import diagnose

app = typer.Typer()
app.command()(diagnose)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with 30 documents and 5 queries beside them."""
    rng = np.random.default_rng(0)
    for name, count in (("docs", 30), ("queries", 5)):
        np.save(tmp_path / f"{name}_tokens.npy", rng.normal(size=(4 * count, 16)).astype(np.float32))
        np.save(tmp_path / f"{name}_lens.npy", np.full(count, 4))
    return tmp_path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(value) for value in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_words(folder: Path) -> None:
    text = run(folder)
    assert text.startswith("documents      30, of which 0 without tokens; 30 measured\n")
    assert "windows of document tokens" in text


def test_queries_beside_documents_are_found(folder: Path, tmp_path: Path) -> None:
    values = json.loads(run(folder, "--queries", folder, "--json", "--format", "npy"))
    assert (values["queries"], values["pseudo_queries"], values["source"]) == (5, False, str(folder))
    alone = tmp_path / "alone"
    MultiVectors.from_arrays(np.ones((3, 2, 16))).save(alone)
    assert json.loads(run(folder, "--queries", alone, "--json"))["queries"] == 3


def test_part_sample_and_seed(folder: Path) -> None:
    assert json.loads(run(folder, "--part", "queries", "--json"))["documents"] == 5
    values = json.loads(run(folder, "--sample", 20, "--seed", 3, "--json"))
    assert values["sampled_documents"] == 20


def test_a_configuration(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"num_repetitions": 3, "num_simhash_projections": 2}')
    values = json.loads(run(folder, "--config", file, "--json"))
    assert values["config"]["num_repetitions"] == 3
    assert values["encoders"][-1]["name"] == "given"
    for text, message in (("{", "not JSON"), ("[]", "a JSON object of parameters, got list")):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            run(folder, "--config", file)


def test_queries_of_another_model(folder: Path, tmp_path: Path) -> None:
    some_texts(40, 8).save(tmp_path / "narrow")
    line = fails("diagnose", folder, "--queries", tmp_path / "narrow")
    assert "queries have 8 columns, but documents have 16. Give queries of the same model." in line
