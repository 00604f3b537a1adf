"""Damaged, edited and foreign folders do not load."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.indexes import built
from builders.realistic_collections import CONFIG

from muvera import FDEConfig, MuveraIndex
from muvera.index.generations import IndexFolderError
from muvera.utils.atomic_files import content_checksum


def edited(**changes: Any) -> Callable[[Path], object]:
    """Return a change of the manifest, with the right checksum.

    None removes a key, and a dictionary merges.
    """

    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        del manifest["sha256"]
        for key, value in changes.items():
            if value is None:
                del manifest[key]
            elif isinstance(value, dict) and isinstance(manifest[key], dict):
                manifest[key] |= value
            else:
                manifest[key] = value
        manifest["sha256"] = content_checksum(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return edit


def file_of(folder: Path, name: str) -> Path:
    return next(folder.glob(f"generation-*/{name}"))


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: file_of(folder, name).write_bytes(file_of(folder, name).read_bytes()[:-3])


def flipped(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = bytearray(file_of(folder, name).read_bytes())
        content[len(content) // 2] ^= 4
        file_of(folder, name).write_bytes(content)

    return change


def text(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "manifest.json").write_text(content)


def linked(folder: Path) -> None:
    (folder / "link").symlink_to("/etc")
    edited(folder="link")(folder)


LISTED = {"bytes": 1, "sha256": "0"}
OTHER = dataclasses.replace(CONFIG, dimension=17)
TOKENS = "generation-000001/tokens-000000000000.npy"
DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    **{
        f"{change.__name__} {name}": (change(name), message)
        for name in ("tokens-*.npy", "vectors.hnsw", "ids.json", "lengths.npy", "encoder_center.npy")
        for change, message in ((cut, r"bytes instead of \d+"), (flipped, "does not match its checksum"))
    },
    **{
        f"without {key}": (edited(**{key: None}), f"incomplete.*'{key}'")
        for key in ("files", "config", "settings", "segments", "codes", "candidates", "generation", "stamp",
                    "folder", "encoder")
    },
    **{
        f"manifest {content[:45]}": (text(content), message)
        for content, message in (
            ("", "is damaged"),
            ('{"format": "muvera-index", "format_ver', "is damaged"),
            ("[" * 100_000, "is damaged"),
            ("[1]", "not the manifest"),
            ('{"format": "other"}', "not the manifest"),
            ('{"format": "muvera-index"}', "version None, .* version 2"),
            ('{"format": "muvera-index", "format_version": 3}', "version 3, .* version 2"),
        )
    },
    # With the right checksum, as an attacker writes it.
    "absolute file": (edited(files={"/etc/hostname": LISTED}), "'/etc/hostname'"),
    "parent file": (edited(files={"../x.npy": LISTED}), r"'\.\./x\.npy'"),
    "windows parent": (edited(files={"..\\x.npy": LISTED}), "not inside"),
    "absolute folder": (edited(folder="/etc"), "'/etc'"),
    "other folder": (edited(folder="../other/generation-000001"), "not inside"),
    "linked folder": (linked, "'link'"),
    "segment elsewhere": (edited(segments=[{"first": 0, "file": "/x.npy"}]), "not inside"),
    "codes elsewhere": (edited(codes={"segments": [{"first": 0, "file": "../x.npy"}]}), "not inside"),
    "graph elsewhere": (edited(candidates={"kept": ["../other/vectors.hnsw"]}), "not inside"),
    "unlisted segment": (edited(segments=[{"first": 0, "file": "x.npy"}]), "not listed"),
    "unlisted file": (
        lambda folder: (folder / TOKENS.replace("tokens", "codes")).touch(),
        "codes-.* not listed",
    ),
    "numbers": (edited(folder=3), "incomplete"),
    "missing file": (lambda folder: file_of(folder, "alive.npy").unlink(), r"alive\.npy"),
    "edited configuration": (edited(config={"seed": 43}), "the manifest was changed"),
    "unknown configuration": (
        edited(config={"color": 1}),
        "another version: .*'color'.* build the index again",
    ),
    "invalid configuration": (edited(config={"dimension": 0}), "dimension .* 0"),
    "other dimension": (edited(config=OTHER.to_dict(), config_hash=OTHER.hash), "is damaged"),
    "unknown backend": (edited(settings={"backend": "tree"}), "'tree'"),
    "no segments": (edited(segments=[]), "200 ids and 0 token sets. Restore the folder from a copy"),
    **{
        f"segments from {starts}": (
            edited(segments=[{"first": first, "file": TOKENS} for first in starts]),
            "must ascend from 0 to at most 200",
        )
        for starts in ([7], [-1], [0, 201], [0, 9, 5], [0.0], [False])
    },
    "no encoder": (edited(encoder=False), "not the encoder .* Restore the folder from a copy"),
    "other kind": (edited(candidates={"kind": "exact"}), r"vector_labels\.npy"),
    "other m": (edited(settings={"hnsw": {"m": 5}}), "m=16, but m=5"),
    "recall as text": (edited(candidates={"recall_size": "x"}), "is damaged"),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "index"
    built(path=folder)
    return folder


@pytest.mark.parametrize("case", DAMAGES)
def test_damages(case: str, saved: Path, folder: Path) -> None:
    change, message = DAMAGES[case]
    shutil.copytree(saved, folder)
    change(folder)
    with pytest.raises(IndexFolderError, match=message) as caught:
        MuveraIndex.load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["tokens-*.npy", "vectors.hnsw", "lengths.npy", "encoder_hyperplanes.npy"])
def test_garbage_of_the_same_size(name: str, saved: Path, folder: Path) -> None:
    shutil.copytree(saved, folder)
    path = file_of(folder, name)
    path.write_bytes((b"garbage!" * (path.stat().st_size // 8 + 1))[: path.stat().st_size])
    with pytest.raises(IndexFolderError, match="is damaged"):
        MuveraIndex.load(folder, verify_files=False)


def test_tokens_of_another_dimension(folder: Path) -> None:
    index = MuveraIndex(FDEConfig.preset("simhash", 4))
    index.add([np.ones((2, 4), np.float32)])
    index.save(folder)
    edited(config=OTHER.to_dict(), config_hash=OTHER.hash)(folder)
    with pytest.raises(
        IndexFolderError, match=r"is damaged: .*\.npy has 4 columns, .*=17\. Restore it from a copy"
    ):
        MuveraIndex.load(folder)


def test_vectors_of_other_documents(saved: Path, folder: Path) -> None:
    shutil.copytree(saved, folder)
    lengths = np.load(file_of(folder, "lengths.npy"))
    lengths[3], lengths[4] = 0, lengths[3] + lengths[4]
    np.save(file_of(folder, "lengths.npy"), lengths)
    with pytest.raises(IndexFolderError, match=r"189 vectors for 188 documents .* Restore the folder"):
        MuveraIndex.load(folder, verify_files=False)
