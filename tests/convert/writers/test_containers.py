"""Every writer: what it wrote is read back the same, streamed, and appears only when complete."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, collections, cuts, everything
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import muvera.convert.readers.npy
import muvera.convert.readers.npz
import muvera.convert.readers.parquet
import muvera.convert.readers.safetensors
import muvera.convert.writers.npy
import muvera.convert.writers.npz
import muvera.convert.writers.parquet
import muvera.convert.writers.safetensors
from muvera.data.multivectors import MultiVectors

PAIRS = {
    "npy": (muvera.convert.writers.npy, muvera.convert.readers.npy, "out"),
    "npz": (muvera.convert.writers.npz, muvera.convert.readers.npz, "out.npz"),
    "safetensors": (
        muvera.convert.writers.safetensors,
        muvera.convert.readers.safetensors,
        "out.safetensors",
    ),
    "parquet": (muvera.convert.writers.parquet, muvera.convert.readers.parquet, "out.parquet"),
}


@pytest.fixture(params=list(PAIRS))
def pair(request: pytest.FixtureRequest) -> tuple[ModuleType, ModuleType, str]:
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    return PAIRS[request.param]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(docs=collections(), size=st.integers(1, 4), max_tokens=st.integers(1, 9))
def test_a_round_trip_keeps_everything(
    pair: tuple[ModuleType, ModuleType, str], docs: MultiVectors, size: int, max_tokens: int
) -> None:
    writer, reader, name = pair
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "new" / name
        writer.write(cuts(docs, size), target, overwrite=False)
        assert reader.matches(target)
        source = reader.open_source(target)
        assert (source.name, source.dimension, source.lossy, source.nbits) == (
            writer.NAME,
            docs.dimension,
            False,
            None,
        )
        assert_same(everything(source, max_tokens), docs)
        assert [path.name for path in target.parent.iterdir()] == [name], "nothing else is left"


def test_no_documents_keep_the_dimension(pair: tuple[ModuleType, ModuleType, str], tmp_path: Path) -> None:
    writer, reader, name = pair
    writer.write(cuts(collection([], dimension=6), 1), tmp_path / name, overwrite=False)
    source = reader.open_source(tmp_path / name)
    assert source.dimension == 6
    assert sum(len(batch) for batch in source.batches(10)) == 0


def test_an_existing_target_is_kept_unless_told(
    pair: tuple[ModuleType, ModuleType, str], tmp_path: Path
) -> None:
    writer, reader, name = pair
    old, new = collection([1, 2]), collection([3], seed=1)
    writer.write(cuts(old, 9), tmp_path / name, overwrite=False)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        writer.write(cuts(new, 9), tmp_path / name, overwrite=False)
    assert_same(everything(reader.open_source(tmp_path / name)), old)
    writer.write(cuts(new, 9), tmp_path / name, overwrite=True)
    assert_same(everything(reader.open_source(tmp_path / name)), new)


def test_interrupted_work_leaves_nothing(pair: tuple[ModuleType, ModuleType, str], tmp_path: Path) -> None:
    writer, _, name = pair

    def failing() -> Iterator[MultiVectors]:
        yield collection([2, 1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.write(failing(), tmp_path / name, overwrite=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("batches", "sentence"),
    [
        ([], "There is nothing to write: the source has no documents."),
        (
            [collection([2]), collection([1], dimension=5)],
            "the source: the documents from number 1 on have dimension=5, but those before have dimension=4.",
        ),
        ([collection([2]), collection([1], ids=[4])], "have ids, but those before had none"),
        ([collection([2], ids=[4]), collection([1])], "have no ids, but those before had some"),
        ([collection([2], ids=[4]), collection([1], ids=[4])], "must be unique, but 4 stands at"),
        ([collection([1], dtype=np.float16), collection([1])], "Convert with dtype="),
    ],
)
def test_batches_that_do_not_fit_each_other(
    pair: tuple[ModuleType, ModuleType, str], tmp_path: Path, batches: list[MultiVectors], sentence: str
) -> None:
    writer, _, name = pair
    with pytest.raises(ValueError, match=sentence.replace(".", r"\.")):
        writer.write(iter(batches), tmp_path / name, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_int_and_str_ids_do_not_mix(pair: tuple[ModuleType, ModuleType, str], tmp_path: Path) -> None:
    writer, _, name = pair
    batches = iter([collection([1], ids=[4]), collection([1], ids=["a"])])
    with pytest.raises(TypeError, match="int"):
        writer.write(batches, tmp_path / name, overwrite=False)


def test_single_precision_takes_half(pair: tuple[ModuleType, ModuleType, str], tmp_path: Path) -> None:
    writer, reader, name = pair
    parts = [collection([2], ids=["a"]), collection([1], ids=["b"], dtype=np.float16, seed=2)]
    writer.write(iter(parts), tmp_path / name, overwrite=False)
    assert_same(everything(reader.open_source(tmp_path / name)), MultiVectors.concatenate(parts))


def test_batches_are_written_as_they_come(pair: tuple[ModuleType, ModuleType, str], tmp_path: Path) -> None:
    """No batch is held: each is gone before the next but one is asked for."""
    import gc
    import weakref

    writer, _, name = pair
    alive: list[weakref.ref[np.ndarray]] = []

    def watched() -> Iterator[MultiVectors]:
        for i in range(6):
            gc.collect()
            assert sum(reference() is not None for reference in alive) <= 2
            batch = collection([4, 4], seed=i)
            alive.append(weakref.ref(batch.tokens))
            yield batch
            del batch

    writer.write(watched(), tmp_path / name, overwrite=False)
    assert len(alive) == 6


def test_the_default_is_our_own_folder(tmp_path: Path) -> None:
    docs = collection([2, 0, 3], ids=["a", "b", "c"])
    muvera.convert.writers.npy.write(cuts(docs, 1), tmp_path / "out", overwrite=False)
    assert_same(MultiVectors.load(tmp_path / "out"), docs)


def test_numpy_reads_the_npz(tmp_path: Path) -> None:
    docs = collection([2, 0, 3], ids=["a", "b", "cé"])
    muvera.convert.writers.npz.write(cuts(docs, 2), tmp_path / "out.npz", overwrite=False)
    with np.load(tmp_path / "out.npz") as archive:
        np.testing.assert_array_equal(archive["tokens"], docs.tokens)
        assert archive["lengths"].tolist() == [2, 0, 3]
        assert archive["ids"].tolist() == ["a", "b", "cé"]


@pytest.mark.parametrize("ids", [None, [5, -7, 1], ["a", "b", "cé"]])
def test_the_library_reads_the_safetensors(tmp_path: Path, ids: list[int] | list[str] | None) -> None:
    library = pytest.importorskip("safetensors", reason="safetensors is not installed")
    docs = collection([2, 0, 3], ids=ids, dtype=np.float16, dimension=3)
    path = tmp_path / "out.safetensors"
    muvera.convert.writers.safetensors.write(cuts(docs, 2), path, overwrite=False)
    with library.safe_open(path, "np") as opened:
        np.testing.assert_array_equal(opened.get_tensor("tokens"), docs.tokens)
        assert opened.get_tensor("offsets").tolist() == [0, 2, 2, 5]
        if ids and isinstance(ids[0], int):
            assert opened.get_tensor("ids").tolist() == ids
        elif ids:
            assert json.loads(opened.metadata()["ids"]) == ids


def test_very_long_ids_become_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("safetensors", reason="safetensors is not installed")
    monkeypatch.setattr(muvera.convert.writers.safetensors, "_METADATA_IDS", 10)
    docs = collection([2, 0, 3], ids=["a long one", "", "é"])
    path = tmp_path / "out.safetensors"
    muvera.convert.writers.safetensors.write(cuts(docs, 2), path, overwrite=False)
    assert_same(everything(muvera.convert.readers.safetensors.open_source(path)), docs)
    with library.safe_open(path, "np") as opened:
        assert "ids" not in opened.metadata()


def test_a_full_disk_is_one_sentence(pair: tuple[ModuleType, ModuleType, str], tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    resource = pytest.importorskip("resource", reason="Windows limits no sizes of files")
    writer, _, name = pair
    docs = collection([64] * 64, dimension=16)  # 256 KiB
    least, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, most))
    try:
        with pytest.raises(OSError, match="could not be written") as caught:
            writer.write(iter([docs]), tmp_path / name, overwrite=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, most))
    assert str(caught.value).startswith(str(tmp_path)) and str(caught.value).endswith((".", "?"))
    assert list(tmp_path.iterdir()) == []
