"""Saved indexes of every format version, backend and encoder answer the same."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.golden_indexes import BACKENDS, CASES, ENCODERS, FOLDER, answers, documents
from builders.paths import ROOT

from muvera import FDEConfig, FDEEncoder, MuveraIndex, load_encoder
from muvera.fde.config import PRESETS
from muvera.index.generations import FILE_PATTERNS, FORMAT_VERSION, read_manifest
from muvera.mips import SEARCHES
from muvera.utils.atomic_files import content_checksum


def assert_same(rankings: list[dict[str, Any]], name: str) -> None:
    """Compare with the stored answers.

    Processors round differently, but no two scores are that close.
    """
    expected = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert [row["ids"] for row in rankings] == [row["ids"] for row in expected]
    for row, other in zip(rankings, expected, strict=True):
        np.testing.assert_allclose(row["scores"], other["scores"], rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_read_changed_and_saved(name: str, tmp_path: Path) -> None:
    index = MuveraIndex.load(FOLDER / name, verify_files=True)
    assert_same(answers(index), name)
    assert index.info().search == BACKENDS[name.rpartition("-")[0]].get("backend", "all tokens")
    assert index.info().deleted_documents == 3
    shutil.copytree(FOLDER / name, tmp_path / "index")
    copy = MuveraIndex.load(tmp_path / "index")
    new = [f"new {i}" for i in range(5)]
    copy.add(documents(60)[45:50].with_ids(new), threads=1)
    copy.delete(new)
    copy.save(tmp_path / "index")
    assert_same(answers(MuveraIndex.load(tmp_path / "index", verify_files=True)), name)
    copy.rebuild(threads=1)
    assert len(copy) == len(index)


def test_every_backend_and_encoder_has_a_folder() -> None:
    manifests = [read_manifest(FOLDER / name) for name in CASES]
    assert {manifest["format_version"] for manifest in manifests} == {FORMAT_VERSION}
    # The presets "paper" and "reference" have no arrays besides those of "simhash".
    assert set(ENCODERS) == set(PRESETS) - {"paper", "reference"}
    assert {FDEConfig.from_dict(manifest["config"]) for manifest in manifests} == set(ENCODERS.values())
    kinds = {manifest["candidates"]["kind"] for manifest in manifests if manifest["candidates"]}
    assert kinds == set(SEARCHES)
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == {*CASES, "former", "queries"}
    text = (ROOT / "docs" / "index-format.md").read_text(encoding="utf-8")
    for word in (*FILE_PATTERNS, *manifests[0], "sha256"):
        assert f"`{word}`" in text, f"{word} is not described"
    assert f"version {FORMAT_VERSION}" in text


def changed_config(file: Path, config: dict[str, Any]) -> None:
    """Replace the configuration in a file, with a matching checksum."""
    state = json.loads(file.read_text(encoding="utf-8")) | {"config": config}
    del state["sha256"]
    file.write_text(json.dumps({**state, "sha256": content_checksum(state)}), encoding="utf-8")


FORMER = json.loads((FOLDER / "former.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("former", FORMER)
def test_former_configurations_are_refused_in_one_sentence(former: str, tmp_path: Path) -> None:
    """Checkouts before the one family of FDEs wrote them, and the folder "former"."""
    shutil.copytree(FOLDER / "exact-moments", tmp_path / "index")
    changed_config(tmp_path / "index" / "manifest.json", FORMER[former])
    FDEEncoder(ENCODERS["mean"]).fit(documents(40)).save(tmp_path / "encoder")
    changed_config(tmp_path / "encoder" / "encoder.json", FORMER[former])
    calls: list[tuple[Any, Path]] = [
        (MuveraIndex.load, tmp_path / "index"),
        (MuveraIndex.load, FOLDER / "former"),
        (load_encoder, tmp_path / "encoder"),
    ]
    for load, path in calls:
        with pytest.raises(
            ValueError, match="has the configuration of another version: FDEConfig has no"
        ) as caught:
            load(path)
        assert "Use the muvera that wrote it" in str(caught.value) and "\n" not in str(caught.value)
