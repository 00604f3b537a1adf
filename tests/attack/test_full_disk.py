"""Changes while the disk of the index, or of temporary files, is full."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk, or limits the size of files")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path | None]:
    """Yield a small disk, or None if it cannot be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    yield place if mounted else None
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("what", ["temporary", "folder"])
def test_a_full_disk_loses_nothing(what: str, disk: Path | None, tmp_path: Path) -> None:
    temporary = tmp_path if disk is None or what == "folder" else disk
    folder = (tmp_path if disk is None or what == "temporary" else disk) / "index"
    ended = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "attack" / "full_disk.py"), what, str(folder),
         "" if disk is None else str(disk / "filler")],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "SQLITE_TMPDIR": str(temporary)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
