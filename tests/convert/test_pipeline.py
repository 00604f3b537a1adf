"""From source to target: whole, in bounded memory, or not at all."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import collection

from muvera.convert import convert, read, survey
from muvera.convert.registry import WRITERS
from muvera.data.multivectors import MultiVectors

NAMES = {
    "npy": "out",
    "npz": "out.npz",
    "safetensors": "out.safetensors",
    "parquet": "out.parquet",
    "plaid": "out",
}
DOCUMENTS = collection([3, 0, 5, 1], ids=["a", "b", "c", "d"])


def require(to: str) -> None:
    if to == "parquet":
        pytest.importorskip("pyarrow")


@pytest.mark.parametrize("to", [name for name in WRITERS if name != "plaid"])  # which keeps directions, coded
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_what_is_written_is_read_back(to: str, dtype: str, tmp_path: Path) -> None:
    require(to)
    report = convert(DOCUMENTS, tmp_path / NAMES[to], to, max_tokens=4, dtype=dtype)
    found = read(tmp_path / NAMES[to])
    np.testing.assert_array_equal(found.tokens, DOCUMENTS.tokens.astype(dtype))
    assert found.offsets.tolist() == DOCUMENTS.offsets.tolist()
    assert found.ids.tolist() == DOCUMENTS.ids.tolist()
    assert report.written.dtype == dtype
    assert (report.to, report.target) == (to, str(tmp_path / NAMES[to]))


@pytest.mark.parametrize("to", WRITERS)
@pytest.mark.parametrize("error", [ValueError("truncated"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_work_that_stops_leaves_nothing(to: str, error: BaseException, tmp_path: Path) -> None:
    require(to)

    def stops() -> Iterator[np.ndarray]:
        yield np.ones((3, 4), np.float32)
        yield np.ones((3, 4), np.float32)
        raise error

    with pytest.raises(type(error)):
        convert(stops(), tmp_path / NAMES[to], to, max_tokens=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", WRITERS)
def test_an_old_target_stays_until_the_new_one_is_complete(to: str, tmp_path: Path) -> None:
    require(to)
    target = tmp_path / NAMES[to]
    convert([np.ones((2, 4))], target, to)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        convert(DOCUMENTS, target, to)
    with pytest.raises(ValueError, match="finite"):
        convert([np.ones((1, 4)), np.full((1, 4), np.nan)], target, to, overwrite=True)
    assert len(read(target)) == 1
    convert(DOCUMENTS, target, to, overwrite=True)
    assert read(target).ids.tolist() == ["a", "b", "c", "d"]
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[to]]


class Watched:
    """A source that says how much was asked of it at once."""

    name, dimension, num_documents, num_tokens, lossy, nbits = "watched", 128, 10**9, 10**12, True, 2
    note = "exact vectors lie beside"
    dropped_rows = 7

    def __init__(self) -> None:
        self.asked: list[int] = []

    def batches(self, max_tokens: int) -> Iterator[MultiVectors]:
        self.asked.append(max_tokens)
        yield collection([2, 2], dimension=128)


def test_memory_is_bounded_and_the_report_says_what_the_source_says(tmp_path: Path) -> None:
    source = Watched()
    report = convert(source, tmp_path / "out", drop_zero_rows="all")
    assert source.asked == [64 * 2**20 // (4 * 128)]
    content = report.to_dict()
    assert (content["format"], content["lossy"], content["nbits"]) == ("watched", True, 2)
    assert content["dropped_rows"] == 7
    assert content["notes"] == ["exact vectors lie beside"]
    assert content["options"] == {"drop_zero_rows": "all"}
    text = report.text
    assert "watched (lossy, 2 bits a coordinate): 2 documents, 4 tokens, dimension 128, float32" in text
    assert "dropped  7 padding rows" in text and "note     exact vectors lie beside" in text


def test_a_bar_counts_tokens_or_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(DOCUMENTS, tmp_path / "a", progress=True)
    assert "9.00/9.00 [" in capsys.readouterr().err
    convert(iter([np.ones((1, 4))]), tmp_path / "b", progress=True)
    assert "1.00 texts" in capsys.readouterr().err
    convert(DOCUMENTS, tmp_path / "c")
    assert capsys.readouterr() == ("", "")


def test_no_documents_carry_the_dimension_on(tmp_path: Path) -> None:
    nothing = MultiVectors(np.empty((0, 5), np.float32), [0])
    report = convert(nothing, tmp_path / "out")
    assert report.written.to_dict()["documents"] == 0
    assert MultiVectors.load(tmp_path / "out").dimension == 5
    assert read(nothing).dimension == 5


def test_a_memory_map_that_is_not_changed_stays_one(tmp_path: Path) -> None:
    DOCUMENTS.save(tmp_path / "docs")
    assert isinstance(read(tmp_path / "docs").tokens, np.memmap)
    assert survey(tmp_path / "docs").read.tokens == 9


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        ({"to": "faiss"}, ValueError, "to must be one of npy, npz, safetensors, parquet, plaid, got 'faiss'"),
        ({"normalised": True}, TypeError, "The memory reader has no option 'normalised'"),
        ({"pooling": "x"}, ValueError, "pooling must be one of"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    change: dict[str, Any], kind: type[Exception], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=sentence):
        convert(DOCUMENTS, tmp_path / "out", **change)
    assert list(tmp_path.iterdir()) == []
