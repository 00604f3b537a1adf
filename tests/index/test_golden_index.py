"""Saved indexes of every format version, backend and encoder: each later version reads them and answers the same."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.golden_indexes import BACKENDS, CASES, FOLDER, answers, documents
from builders.paths import ROOT

from muvera import MuveraIndex
from muvera.encoders.registry import ENCODERS
from muvera.index.manifest import FILE_PATTERNS, FORMAT_VERSION, read_manifest
from muvera.mips import SEARCHES


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    """One of the folders."""
    return str(request.param)


def expected(name: str) -> list[dict[str, Any]]:
    """What it answered when it was made."""
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def assert_same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    """Rounding differs between processors; no two scores here are so near to each other."""
    assert [row["ids"] for row in found] == [row["ids"] for row in wanted]
    for row, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(row["scores"], other["scores"], rtol=1e-5)


def test_it_is_read_and_answers_the_same(name: str) -> None:
    index = MuveraIndex.load(FOLDER / name, verify_files=True)
    assert_same(answers(index), expected(name))
    assert index.info().search == BACKENDS[CASES[name][0]].get("backend", "all tokens")
    assert index.info().deleted_documents == 3


def test_it_grows_and_is_saved_as_a_new_one_is(name: str, tmp_path: Path) -> None:
    """What was read is whole: it can be changed, saved by this version and read again."""
    shutil.copytree(FOLDER / name, tmp_path / "index")
    index = MuveraIndex.load(tmp_path / "index")
    index.add(documents(60)[45:50].with_ids([f"new {i}" for i in range(5)]), threads=1)
    index.delete([f"new {i}" for i in range(5)])
    index.save(tmp_path / "index")
    assert_same(answers(MuveraIndex.load(tmp_path / "index", verify_files=True)), expected(name))
    index.rebuild(threads=1)
    assert len(index) == len(MuveraIndex.load(FOLDER / name))


def test_every_backend_and_encoder_has_one() -> None:
    made = {name: read_manifest(FOLDER / name) for name in CASES}
    assert {entry["format_version"] for entry in made.values()} == set(range(1, FORMAT_VERSION + 1))
    assert {entry["config"]["encoder"] for entry in made.values()} == set(ENCODERS)
    kinds = {entry["candidates"]["kind"] for entry in made.values() if entry["candidates"]}
    assert kinds == set(SEARCHES)
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == {*CASES, "queries"}


def test_the_format_is_described() -> None:
    text = (ROOT / "docs" / "index-format.md").read_text(encoding="utf-8")
    for word in (*FILE_PATTERNS, *read_manifest(FOLDER / "hnsw-fde"), "sha256"):
        assert f"`{word}`" in text, f"{word} is not described"
    assert f"version {FORMAT_VERSION}" in text
