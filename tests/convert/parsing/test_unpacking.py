"""Compressed files may become a hundred times larger, not more."""

import gzip
from pathlib import Path

import pytest

from muvera.convert.parsing.index_files import read_json
from muvera.convert.parsing.unpacking import ALWAYS_UNPACKED, open_gzip, require_unpackable


def test_the_limit() -> None:
    require_unpackable(ALWAYS_UNPACKED, 0, "a.gz")
    require_unpackable(100 << 20, 1 << 20, "a.gz")
    with pytest.raises(ValueError, match=r"a\.gz unpacks 1048576 bytes to more than 104857600, .* Store it"):
        require_unpackable((100 << 20) + 1, 1 << 20, "a.gz")


def test_a_small_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b" " * (64 << 20), 9))
    with (
        open_gzip(path) as stream,
        pytest.raises(ValueError, match=r"a\.json\.gz unpacks \d+ bytes to more than"),
    ):
        stream.read()
    with pytest.raises(ValueError, match=r"a\.json\.gz is damaged or truncated \(.*unpacks \d+ bytes"):
        read_json(path)
    path.write_bytes(gzip.compress(b'{"a": [1, 2]}'))
    assert read_json(path) == {"a": [1, 2]}


def test_json_that_hides_something(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, message in (
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' stands twice in one object"),
        ("[" * 100_000, "recursion"),
        ('{"a": ', "Expecting value"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"a\.json is damaged or truncated \(.*{message}"):
            read_json(path)
    with pytest.raises(FileNotFoundError, match=r"b\.json is missing"):
        read_json(tmp_path / "b.json")
