"""Writers of arrays: their files read back the same, are written in a stream, and appear when complete."""

from __future__ import annotations

import gc
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, collections, cuts, everything
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muvera.convert import open_source
from muvera.convert.pipeline import WRITERS
from muvera.convert.writers.base import write_documents
from muvera.data.multivectors import MultiVectors

NAMES = {"npy": "out", "npz": "out.npz", "safetensors": "out.safetensors", "parquet": "out.parquet"}
Write = Callable[[Iterator[MultiVectors], Path], Path]


@pytest.fixture(params=list(NAMES))
def write(request: pytest.FixtureRequest) -> Write:
    """Return a function that writes batches into a folder, and returns the target."""
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="the parquet extra is not installed")

    def written(batches: Iterator[MultiVectors], folder: Path) -> Path:
        write_documents(WRITERS[request.param], batches, folder / NAMES[request.param])
        return folder / NAMES[request.param]

    return written


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(docs=collections(), size=st.integers(1, 4), max_tokens=st.integers(1, 9))
def test_a_round_trip_keeps_everything(write: Write, docs: MultiVectors, size: int, max_tokens: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = write(cuts(docs, size), Path(folder) / "new")
        source = open_source(target)
        assert (source.dimension, source.lossy, source.nbits) == (docs.dimension, False, None)
        assert_same(everything(source, max_tokens), docs)
        assert list(target.parent.iterdir()) == [target], "nothing else remains"


PLAIN, NAMED, HALF = collection([2]), collection([1], ids=[4]), collection([1], dtype=np.float16)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([PLAIN, collection([1], dimension=5)], "number 1 on have dimension=5.* dimension=4"),
        ([PLAIN, NAMED], "number 1 on have .* and ids, but .* no ids"),
        ([NAMED, NAMED], "4 .* 0 and 1"),
        ([HALF, PLAIN], "number 1 on have .*float32.*float16"),
        ([NAMED, collection([1], ids=["a"])], "int"),
    ],
)
def test_batches_that_do_not_fit_each_other(
    write: Write, tmp_path: Path, batches: list[MultiVectors], message: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        write(iter(batches), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_float16_batches_after_float32(write: Write, tmp_path: Path) -> None:
    parts = [PLAIN, HALF]
    assert_same(everything(open_source(write(iter(parts), tmp_path))), MultiVectors.concatenate(parts))


def test_batches_are_written_as_they_come(write: Write, tmp_path: Path) -> None:
    """At most two batches are in memory at a time."""
    alive: list[weakref.ref[np.ndarray]] = []

    def watched() -> Iterator[MultiVectors]:
        for i in range(6):
            gc.collect()
            assert sum(reference() is not None for reference in alive) <= 2
            batch = collection([4, 4], seed=i)
            alive.append(weakref.ref(batch.tokens))
            yield batch
            del batch

    write(watched(), tmp_path)
    assert len(alive) == 6


def test_a_full_disk_is_an_error_that_names_the_target(write: Write, tmp_path: Path) -> None:
    """A limit on file sizes stands in for the disk."""
    resource = pytest.importorskip("resource", reason="Windows has no limit of file sizes")
    docs = collection([64] * 64, dimension=16)  # 256 KiB
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(OSError, match=str(tmp_path)):
            write(iter([docs]), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_numpy_reads_npy_and_npz(tmp_path: Path) -> None:
    docs = collection([2, 0, 3], ids=["a", "b", "cé"])
    write_documents(WRITERS["npy"], cuts(docs, 1), tmp_path / "out")
    assert_same(MultiVectors.load(tmp_path / "out"), docs)
    write_documents(WRITERS["npz"], cuts(docs, 2), tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as archive:
        np.testing.assert_array_equal(archive["tokens"], docs.tokens)
        assert archive["lengths"].tolist() == [2, 0, 3]
        assert archive["ids"].tolist() == ["a", "b", "cé"]


@pytest.mark.parametrize("ids", [None, [5, -7, 1], ["a", "b", "cé"], ["a long one", "", "é"]])
def test_the_safetensors_library_reads_its_files(tmp_path: Path, ids: list[int] | list[str] | None) -> None:
    library = pytest.importorskip("safetensors", reason="safetensors is not installed")
    docs = collection([2, 0, 3], ids=ids, dtype=np.float16, dimension=3)
    path = tmp_path / "out.safetensors"
    write_documents(WRITERS["safetensors"], cuts(docs, 2), path)
    assert_same(everything(open_source(path)), docs)
    with library.safe_open(path, "np") as opened:
        np.testing.assert_array_equal(opened.get_tensor("tokens"), docs.tokens)
        assert opened.get_tensor("offsets").tolist() == [0, 2, 2, 5]
        if ids and isinstance(ids[0], int):
            assert opened.get_tensor("ids").tolist() == ids
        elif ids:
            assert opened.get_tensor("ids_utf8").tobytes().decode() == "".join(map(str, ids))
