"""``muvera tune``: its table, and the file that ``muvera index --config`` takes."""

import json
from pathlib import Path

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera
from builders.realistic_collections import documents_like_real, queries_like_real
from builders.small_search_space import TUNE, use_small_encoders

from muvera import MuveraIndex
from muvera.encoders.registry import config_from_dict

pytestmark = pytest.mark.compiled("encodes hundreds of documents many times")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Documents and queries."""
    folder = tmp_path_factory.mktemp("tune")
    documents = documents_like_real(500)
    documents.save(folder / "docs")
    queries_like_real(documents, 45).save(folder / "queries")
    return folder / "docs", folder / "queries"


@pytest.mark.parametrize("part", ["learned", "compact", "FDE"])
def test_the_file_builds_the_index_that_was_measured(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    use_small_encoders(monkeypatch, part)
    docs, queries = folders
    options = ("--queries", queries, "--candidates", 30, "--max-bytes", 150, "--out", tmp_path / "tuned.json")
    code, out, err = muvera("tune", docs, *options)
    assert code == 0, err
    assert f"Use {part}" in out and f"index {docs} INDEX --config" in err
    written = json.loads((tmp_path / "tuned.json").read_text())
    kind = {"auto": "exact", "int8": "int8"}[written["backend"]]
    config = ("--config", tmp_path / "tuned.json", "--exact-tokens", 0)
    values = answer("index", docs, tmp_path / "index", *config)
    tuned = answer("tune", docs, *options)
    assert values["vectors"]["kind"] == kind
    assert values["vectors"]["bytes_per_vector"] == tuned["choice"]["bytes"] <= 150
    assert MuveraIndex.load(tmp_path / "index").config == config_from_dict(tuned["config"])


def test_a_graph_goes_along(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_encoders(monkeypatch, "FDE")
    monkeypatch.setattr("muvera.tuning.search_space.graph_from", lambda _: 300)
    monkeypatch.setattr(TUNE, "STORAGES", TUNE.STORAGES[:1])
    docs, _ = folders
    file = tmp_path / "tuned.json"
    tuned = answer("tune", docs, "--candidates", 30, "--target-recall", 0.5, "--out", file)
    assert tuned["pseudo_queries"] and tuned["target_reached"]
    written = json.loads(file.read_text())
    assert written["hnsw"] == tuned["settings"]["hnsw"]
    written["backend"] = "hnsw"  # as from 3,000 documents on
    file.write_text(json.dumps(written))
    built = answer("index", docs, tmp_path / "index", "--config", file, "--exact-tokens", 0)
    assert {name: built["vectors"][name] for name in ("m", "ef")} == written["hnsw"]


def test_plots_and_what_cannot_be_drawn(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_small_encoders(monkeypatch, "learned")
    docs, queries = folders
    code, _, err = muvera("tune", docs, "--queries", queries, "--plot", tmp_path / "tuned.svg", "--quiet")
    assert (code, err) == (0, "")
    assert "bytes per document" in (tmp_path / "tuned.svg").read_text()
    assert "got tuned.gif" in fails("tune", docs, "--plot", tmp_path / "tuned.gif")
    assert not list(tmp_path.glob("*.gif"))


def test_errors_are_one_line(folders: tuple[Path, Path], tmp_path: Path) -> None:
    docs, _ = folders
    missing = tmp_path / "none"
    assert f"no folder {missing} to write x.json" in fails("tune", docs, "--out", missing / "x.json")
    assert "both limit the size" in fails("tune", docs, "--max-bytes", 9, "--max-floats", 9)
    np.save(tmp_path / "few.npy", np.ones((3, 2, 16), np.float32))
    assert "at least 50 documents" in fails("tune", tmp_path / "few.npy")
