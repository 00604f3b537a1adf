"""What loading refuses: damaged, edited and foreign folders, each by a sentence."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.kept_indexes import (
    DOCUMENTS,
    MORE,
    WAYS,
    answers,
    built,
)
from builders.realistic_collections import CONFIG

from muvera import FDEConfig, FDEEncoder, MultiVectors, MuveraIndex
from muvera.index.manifest import IndexFolderError
from muvera.utils.checksums import content_checksum

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """An edit of the manifest."""

    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["sha256"]
        change(manifest)
        manifest["sha256"] = content_checksum(manifest)  # as who means harm would do it
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return edit


def in_generation(name: str) -> Callable[[Path], Path]:
    return lambda folder: next(folder.glob(f"generation-*/{name}"))


def cut(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = in_generation(name)(folder)
        path.write_bytes(path.read_bytes()[:-3])

    return change


def flipped(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = in_generation(name)(folder)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)

    return change


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    **{
        f"{name} {change.__name__}": (change(name), message)
        for name in ("tokens-*.npy", "vectors.hnsw", "ids.json", "lengths.npy", "encoder_center.npy")
        for change, message in (
            (cut, r"bytes instead of \d+: it was cut off or changed\. Restore"),
            (flipped, r"has another checksum than when it was written: its content was changed"),
        )
    },
    "missing file": (
        lambda folder: in_generation("alive.npy")(folder).unlink(),
        r"generation-000001 lacks its file alive\.npy",
    ),
    "newer version": (
        edited(lambda m: m.update(format_version=2)),
        r"has format version 2, but this muvera reads version 1\. Use the muvera that wrote it",
    ),
    "old version": (edited(lambda m: m.update(format_version=0)), "has format version 0"),
    "no version": (edited(lambda m: m.pop("format_version")), "has format version None"),
    "other format": (edited(lambda m: m.update(format="x")), "is not the manifest of a muvera index"),
    "half a manifest": (lambda f: (f / "manifest.json").write_text('{"form'), r"manifest\.json is damaged"),
    "edited configuration": (
        edited(lambda m: m["config"].update(seed=43)),
        "was built with configuration [0-9a-f]{16}, but its manifest describes [0-9a-f]{16}: .* was changed",
    ),
    "unknown configuration": (edited(lambda m: m["config"].update(color=1)), "FDEConfig has no 'color'"),
    "invalid configuration": (
        edited(lambda m: m["config"].update(dimension=0)),
        "dimension must be at least 1",
    ),
    "other dimension": (
        edited(
            lambda m: m.update(
                config=(config := FDEConfig(dimension=17).to_dict()),
                config_hash=FDEConfig.from_dict(config).hash,
            )
        ),
        r"is damaged: The moments' offset has shape \(17,\), but the configuration asks for \(18,\)",
    ),
    "unknown backend": (edited(lambda m: m["settings"].update(backend="tree")), "got 'tree'"),
    "no segments": (edited(lambda m: m.update(segments=[])), "200 ids, 200 lengths and 0 token sets"),
    "other segments": (
        edited(lambda m: m["segments"][0].update(first=7)),
        "is damaged: .* lengths add up to",
    ),
    "no encoder": (edited(lambda m: m.update(encoder=False)), "FDEs without the matrices that made them"),
    "other kind": (edited(lambda m: m["candidates"].update(kind="exact")), r"is damaged: .*vectors\.npy"),
    "other m": (edited(lambda m: m["settings"]["hnsw"].update(m=5)), "has m=16, but m=5 is wanted"),
    **{
        f"without {key}": (edited(lambda m, key=key: m.pop(key)), f"incomplete.*: KeyError.'{key}'")  # type: ignore[misc]
        for key in (
            "files",
            "config",
            "settings",
            "segments",
            "candidates",
            "generation",
            "stamp",
            "folder",
            "encoder",
        )
    },
    "files of another type": (edited(lambda m: m.update(files=3)), "is incomplete"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "index"
    built(path=folder)
    return folder


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_a_sentence(case: str, saved: Path, folder: Path) -> None:
    change, message = REFUSED[case]
    shutil.copytree(saved, folder)
    change(folder)
    with pytest.raises(IndexFolderError, match=message) as caught:
        MuveraIndex.load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["tokens-*.npy", "vectors.hnsw", "lengths.npy", "encoder_hyperplanes.npy"])
def test_garbage_of_the_same_size_is_refused_without_checksums(name: str, saved: Path, folder: Path) -> None:
    shutil.copytree(saved, folder)
    path = in_generation(name)(folder)
    path.write_bytes((b"garbage!" * (path.stat().st_size // 8 + 1))[: path.stat().st_size])
    with pytest.raises(IndexFolderError, match="is damaged"):
        MuveraIndex.load(folder, verify_files=False)


def test_fdes_of_other_documents_are_refused(saved: Path, folder: Path) -> None:
    shutil.copytree(saved, folder)
    path = in_generation("alive.npy")(folder)
    alive = np.load(path)
    lengths = np.load(in_generation("lengths.npy")(folder))
    lengths[3], lengths[4] = 0, lengths[3] + lengths[4]
    np.save(in_generation("lengths.npy")(folder), lengths)
    assert alive[3] and alive[4]
    with pytest.raises(IndexFolderError, match="has FDEs of 189 documents, but 188 with tokens"):
        MuveraIndex.load(folder, verify_files=False)


def test_folders_that_are_no_index(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"x does not exist\. Give the folder of an index"):
        MuveraIndex.load(tmp_path / "x")
    DOCUMENTS.save(tmp_path / "documents")
    with pytest.raises(FileNotFoundError, match="documents is not a muvera index"):
        MuveraIndex.load(tmp_path / "documents")
    for call in (built().save, lambda path: built(path=path), lambda path: built(path=path, overwrite=True)):
        with pytest.raises(FileExistsError, match="documents exists and is not empty"):
            call(tmp_path / "documents")
    assert len(MultiVectors.load(tmp_path / "documents")) == 200
    built(path=tmp_path / "index")
    with pytest.raises(FileExistsError, match="Give another name, load the index there and"):
        built(path=tmp_path / "index")


@every_way
def test_documents_are_refused_where_fit_and_configuration_disagree(way: dict[str, Any]) -> None:
    other = dataclasses.replace(CONFIG, seed=CONFIG.seed + 1)
    index = built(**way, encoder=FDEEncoder(CONFIG).fit(DOCUMENTS))
    before = answers(index)
    index._contents.config = other  # as an editor of the saved manifest would have it
    with pytest.raises(
        ValueError, match=f"fitted for configuration {CONFIG.hash}, but the index has {other.hash}"
    ):
        index.add(MultiVectors(MORE.tokens, MORE.offsets))
    index._contents.config = CONFIG
    assert len(index) == len(DOCUMENTS) and answers(index) == before


def test_maps_of_another_fit_are_refused(folder: Path) -> None:
    index = built()
    index.save(folder)
    file = next(folder.rglob("encoder_center.npy"))
    np.save(file, np.load(file) + 1)
    with pytest.raises(IndexFolderError, match="encoder_center"):
        MuveraIndex.load(folder)
