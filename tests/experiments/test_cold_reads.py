"""Reading from the disk: what is measured of each way, limits of memory, and the disk's read-ahead."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.bench import cold_reads, disk_settings, limited_memory

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files of Linux")

MACHINE = {"processor": "x", "cores": 2, "load": 0.5}


def test_every_way_is_measured_and_shown(tmp_path: Path) -> None:
    try:
        found = cold_reads.measure(tmp_path, megabytes=16, tokens=32, rounds=1)
    except RuntimeError as error:  # a file system in memory drops nothing
        pytest.skip(str(error))
    states = [f"{state}{way}" for state in ("warm", "cold") for way in ("", ", asked first", ", codes first")]
    assert list(found["milliseconds"]) == states
    assert found["documents"] == (16 << 20) // (32 * 256)


def test_pages_that_stay_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_reads, "resident_share", lambda array: 0.25)
    with pytest.raises(RuntimeError, match=r"25\.0% of the pages is still in memory.*Use another disk"):
        cold_reads.measure(tmp_path, megabytes=16, tokens=32, rounds=1)


def test_a_limit_counts_pages_of_files(tmp_path: Path) -> None:
    try:
        with limited_memory.limited_group(200 << 20):
            pass
    except OSError as error:
        pytest.skip(str(error))
    try:
        rows = limited_memory.under_limit(tmp_path, megabytes=64, tokens=64, memory=24, queries=60)
    except RuntimeError as error:  # nothing can be dropped here
        pytest.skip(str(error))
    assert [row["way"] for row in rows] == list(limited_memory.WAYS)
    assert all(0 < row["p50"] <= row["p95"] <= row["p99"] for row in rows)
    assert max(row["resident"] for row in rows) < 0.5  # 24 of 64 MB


def test_no_group_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited_memory, "_GROUPS", tmp_path / "missing")
    with (
        pytest.raises(OSError, match=r"No control group with a limit of memory can be made in .*missing"),
        limited_memory.limited_group(1),
    ):
        pass


def test_read_ahead_is_set_and_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_settings, "_DEVICES", tmp_path)
    with disk_settings.read_ahead_of(tmp_path) as kb:
        assert kb is None
    with (
        pytest.raises(OSError, match=r"read-ahead of .* cannot be set"),
        disk_settings.read_ahead_of(tmp_path, 8),
    ):
        pass
    number = tmp_path.stat().st_dev
    setting = tmp_path / f"{os.major(number)}:{os.minor(number)}" / "queue" / "read_ahead_kb"
    setting.parent.mkdir(parents=True)
    setting.write_text("4096\n")
    with disk_settings.read_ahead_of(tmp_path) as kb:
        assert kb == 4096
    failing: Any = pytest.raises(ZeroDivisionError)
    with failing, disk_settings.read_ahead_of(tmp_path, 128) as kb:
        assert (kb, setting.read_text()) == (128, "128")
        _ = 1 // 0
    assert setting.read_text() == "4096"
