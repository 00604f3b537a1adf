"""The manifest of an index's folder: what it must say, and files that are not what it says."""

import json
from pathlib import Path
from typing import Any

import pytest
from builders.generation_folders import writing

import muvera.index.manifest as manifest_module
import muvera.utils.checksums as checksums
from muvera.index.generations import commit
from muvera.index.manifest import IndexFolderError, read_manifest, verify


def test_a_folder_without_manifest(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"index does not exist\. Give the folder of an index"):
        read_manifest(folder)
    folder.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"index is not a muvera index: it has no manifest\.json"):
        read_manifest(folder)
    (folder / "tokens.npy").touch()
    with pytest.raises(FileNotFoundError, match=r"it holds token embeddings.* muvera index .*index INDEX\."):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is damaged"),
        ('{"format": "muvera-index", "format_ver', "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[1]", "is not the manifest of a muvera index"),
        ('{"format": "other"}', "is not the manifest of a muvera index"),
        ('{"format": "muvera-index"}', "has format version None, but this muvera reads version 1"),
        (
            '{"format": "muvera-index", "format_version": 2}',
            "has format version 2, but this muvera reads version 1. Use the muvera that wrote it",
        ),
    ],
)
def test_a_manifest_of_another_kind(folder: Path, content: str, message: str) -> None:
    folder.mkdir()
    (folder / "manifest.json").write_text(content)
    with pytest.raises(IndexFolderError, match=message):
        read_manifest(folder)


CHANGES: dict[str, tuple[Any, str]] = {
    "a digit": (lambda m: m.update(generation=2), "another checksum than when it was written"),
    "a key": (lambda m: m.pop("content"), "another checksum than when it was written"),
    "no checksum": (lambda m: m.pop("sha256"), "another checksum than when it was written"),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_a_changed_manifest_is_noticed(folder: Path, change: Any, message: str) -> None:
    commit(folder, writing({"a": b"1"}), None)
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IndexFolderError, match=message):
        read_manifest(folder)


LISTED = {"bytes": 1, "sha256": "0"}
HOSTILE: dict[str, tuple[dict[str, Any], str]] = {
    "absolute file": (
        {"files": {"/etc/hostname": LISTED}},
        "names '/etc/hostname', which does not lie within",
    ),
    "parent file": ({"files": {"../x.npy": LISTED}}, r"names '\.\./x\.npy', which does not lie within"),
    "windows parent": ({"files": {"..\\x.npy": LISTED}}, "which does not lie within"),
    "absolute folder": ({"folder": "/etc"}, "names '/etc', which does not lie within"),
    "other folder": ({"folder": "../other/generation-000001"}, "which does not lie within"),
    "linked folder": (
        {"folder": "link"},
        "names 'link', which does not lie within the folder. Put the files",
    ),
    "segment elsewhere": ({"segments": [{"first": 0, "file": "/x.npy"}]}, "which does not lie within"),
    "unlisted segment": ({"segments": [{"first": 0, "file": "x.npy"}]}, "is not listed in manifest.json"),
    "nothing listed": ({"files": {}}, r"tokens-a\.npy is not listed in manifest\.json"),
    "no files": ({"files": None}, "is incomplete"),
    "numbers": ({"folder": 3}, "is incomplete"),
}


@pytest.mark.parametrize(("changes", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_manifest_leads_nowhere_else(folder: Path, changes: dict[str, Any], message: str) -> None:
    """Also where its checksum is right, as an attacker makes it."""
    commit(folder, writing({"a": b"1"}), None)
    (folder / "link").symlink_to("/etc")
    manifest = read_manifest(folder)
    del manifest["format"], manifest["format_version"]
    manifest_module.write_manifest(folder, {**manifest, **changes})
    with pytest.raises(IndexFolderError, match=message):
        read_manifest(folder)


def test_damaged_files_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(folder, writing({"a": b"1234"}), None)
    path, manifest = folder / "generation-000001/tokens-a.npy", read_manifest(folder)
    path.write_bytes(b"123")
    with pytest.raises(
        IndexFolderError, match=r"tokens-a\.npy has 3 bytes instead of 4: it was cut off or changed"
    ):
        verify(folder, manifest["files"], False)
    path.write_bytes(b"1235")
    for thorough in (True, None):
        with pytest.raises(
            IndexFolderError, match=r"tokens-a\.npy has another checksum than when it was written"
        ):
            verify(folder, manifest["files"], thorough)
    verify(folder, manifest["files"], False)
    monkeypatch.setattr(checksums, "_QUICK_BYTES", 3)
    verify(folder, manifest["files"])  # too large to be read without being asked
    path.unlink()
    with pytest.raises(IndexFolderError, match=r"generation-000001 lacks its file tokens-a\.npy\. Restore"):
        verify(folder, manifest["files"], False)


def test_the_manifest_is_json_for_people(folder: Path) -> None:
    commit(folder, writing({"a": b"1"}), None)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest) == {
        "format",
        "format_version",
        "generation",
        "stamp",
        "folder",
        "content",
        "files",
        "segments",
        "sha256",
    }
    assert manifest["files"]["generation-000001/tokens-a.npy"]["bytes"] == 1
