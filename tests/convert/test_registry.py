"""Which format a path is in."""

import re
from pathlib import Path

import numpy as np
import pytest

from muvera.convert import formats, open_source, read
from muvera.convert.registry import READERS, WRITERS, find_reader, reader, writer
from muvera.data.multivectors import MultiVectors


def test_the_tables_name_the_modules_as_they_name_themselves() -> None:
    assert [reader(name).NAME for name in READERS] == list(READERS)
    assert [writer(name).NAME for name in WRITERS] == list(WRITERS)
    assert all(formats().values())


@pytest.mark.parametrize("name", READERS)
def test_no_detection_raises_or_claims_what_is_not_its_own(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"\x80 a text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.bin").touch()
    for path in [*tmp_path.iterdir(), tmp_path, tmp_path / "missing"]:
        assert not reader(name).matches(path)


def test_our_own_folder_is_found(tmp_path: Path) -> None:
    MultiVectors.from_arrays([np.ones((2, 3))], ids=["a"]).save(tmp_path / "docs")
    assert find_reader(tmp_path / "docs").NAME == "npy"
    source = open_source(str(tmp_path / "docs"))
    assert (source.name, source.dimension, source.num_documents, source.lossy) == ("npy", 3, 1, False)
    assert read(tmp_path / "docs", format="npy").ids.tolist() == ["a"]


def test_an_unknown_folder_is_one_sentence_with_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").touch()
    with pytest.raises(
        ValueError, match=r"is in no known format\. It has weights.bin\. muvera.convert.formats\(\) lists"
    ):
        read(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    for format in (None, "npy"):
        with pytest.raises(
            FileNotFoundError, match=f"{re.escape(str(missing))} does not exist.* model first"
        ):
            read(missing, format=format)
    with pytest.raises(ValueError, match=r"format must be one of pylate, .*, got 'faiss'"):
        read(tmp_path, format="faiss")
    with pytest.raises(TypeError, match="format='npy' belongs to a path, but got list"):
        read([np.ones((1, 2))], format="npy")


def test_an_option_that_the_reader_does_not_have(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", tokens=np.ones((2, 3), np.float32), lengths=[2])
    with pytest.raises(TypeError, match="The npz reader has no option 'collumn'; it has part"):
        read(tmp_path / "a.npz", collumn="x")
