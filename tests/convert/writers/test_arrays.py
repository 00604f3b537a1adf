"""Writers of tokens and of vectors: files read back the same.

They are written in a stream, completely or not at all.
"""

import gc
import json
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.token_collections import assert_same, collection, collections, cuts, everything
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muvera.convert import open_source, writers
from muvera.convert.pipeline import WRITERS
from muvera.convert.writers import VECTOR_WRITERS, Gathered, Writer, new_target, opensearch_index
from muvera.data.multivectors import MultiVectors
from muvera.engines import Engine

NAMES = {"npy": "out", **{name: f"out.{name}" for name in ("npz", "safetensors", "parquet")}}
Write = Callable[[Iterator[MultiVectors], Path], Path]


def write_documents(
    writer: Writer, batches: Iterator[MultiVectors], target: Path, overwrite: bool = False
) -> None:
    with new_target(target, overwrite, writer.files) as path:
        writer.write(Gathered(batches, "the source"), path)


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
        ([NAMED, collection([1], ids=[5]), NAMED], "4 .* 0 and 2"),
        ([HALF, PLAIN], "number 1 on have .*float32.*float16"),
        ([NAMED, collection([1], ids=["a"])], "int"),
    ],
)
def test_batches_that_do_not_fit(write: Write, tmp_path: Path, batches: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        write(iter(batches), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_batches_are_written_as_they_come(write: Write, tmp_path: Path) -> None:
    """At most two batches are in memory at a time.

    Float16 batches after float32 are converted.
    """
    alive: list[weakref.ref[np.ndarray]] = []

    def watched() -> Iterator[MultiVectors]:
        for i in range(6):
            gc.collect()
            assert sum(reference() is not None for reference in alive) <= 2
            batch = collection([4, 4], seed=i, dtype=np.float16 if i == 3 else np.float32)
            alive.append(weakref.ref(batch.tokens))
            yield batch
            del batch

    got = everything(open_source(write(watched(), tmp_path)))
    assert len(alive) == 6 and got.tokens.dtype == np.float32
    np.testing.assert_array_equal(got.tokens[24:32], collection([4, 4], seed=3, dtype=np.float16).tokens)


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


@pytest.mark.parametrize("ids", [None, [5, -7, 1], ["a", "b", "cé"], ["a long one", "", "é"]])
def test_numpy_and_safetensors_read_the_files(tmp_path: Path, ids: list[int] | list[str] | None) -> None:
    docs = collection([2, 0, 3], ids=ids, dtype=np.float16, dimension=3)
    for name in ("npy", "npz", "safetensors"):
        write_documents(WRITERS[name], cuts(docs, 2), tmp_path / NAMES[name])
    assert_same(MultiVectors.load(tmp_path / "out"), docs)
    with np.load(tmp_path / "out.npz") as archive:
        np.testing.assert_array_equal(archive["tokens"], docs.tokens)
        assert archive["lengths"].tolist() == [2, 0, 3]
        assert ids is None or archive["ids"].tolist() == ids
    library = pytest.importorskip("safetensors", reason="safetensors is not installed")
    with library.safe_open(tmp_path / "out.safetensors", "np") as opened:
        np.testing.assert_array_equal(opened.get_tensor("tokens"), docs.tokens)
        assert opened.get_tensor("offsets").tolist() == [0, 2, 2, 5]
        if ids and isinstance(ids[0], int):
            assert opened.get_tensor("ids").tolist() == ids
        elif ids:
            assert opened.get_tensor("ids_utf8").tobytes().decode() == "".join(map(str, ids))


# -- vectors for other searches ---------------------------------------------------

IDS: dict[str, list[Any]] = {"int": [5, -7, 2**40], "str": ["a", 'q"\\ \t', "é\n\u2028"]}
VECTORS = (np.random.default_rng(0).normal(size=(3, 16)) * 10.0 ** np.arange(-12, 4)).astype(np.float32)


def write_vectors(to: str, target: Path, ids: Any, vectors: Any = VECTORS, overwrite: bool = False) -> None:
    docs = MultiVectors.from_flat(vectors, np.ones(len(vectors), int), ids=ids)
    write_documents(VECTOR_WRITERS[to], cuts(docs, 2), target, overwrite=overwrite)


def bulk_documents(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the action's id and the document of every pair of lines."""
    pairs: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(folder.glob("bulk-*.ndjson")):
        content = path.read_text(encoding="utf-8")
        assert content.endswith("\n")
        lines = [json.loads(line) for line in content[:-1].split("\n")]
        pairs += [(a["index"]["_id"], d) for a, d in zip(lines[::2], lines[1::2], strict=True)]
    return pairs


every_kind_of_ids = pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())


@every_kind_of_ids
def test_vectors_as_arrays(tmp_path: Path, ids: list[Any]) -> None:
    write_vectors("npy", tmp_path / "npy", ids)
    stored = np.load(tmp_path / "npy" / "vectors.npy")
    assert stored.dtype == np.float32 and np.array_equal(stored, VECTORS)
    assert json.loads((tmp_path / "npy" / "ids.json").read_text(encoding="utf-8")) == ids


@every_kind_of_ids
def test_vectors_as_bulk_documents_of_opensearch(tmp_path: Path, ids: list[Any]) -> None:
    write_vectors("opensearch", tmp_path / "out", ids)
    documents = bulk_documents(tmp_path / "out")
    assert [name for name, _ in documents] == [str(name) for name in ids]
    assert [row["id"] for _, row in documents] == ids
    np.testing.assert_array_equal(np.array([row["vector"] for _, row in documents], np.float32), VECTORS)
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        write_vectors("opensearch", tmp_path / "out", ids, overwrite=True)


@pytest.mark.parametrize(("kind", "field"), [("int", "long"), ("str", "keyword")])
def test_the_mapping_of_opensearch(tmp_path: Path, kind: str, field: str) -> None:
    write_vectors("opensearch", tmp_path / "out", IDS[kind])
    body = json.loads((tmp_path / "out" / "mapping.json").read_text(encoding="utf-8"))
    assert body == opensearch_index(16, kind == "int")
    fields = body["mappings"]["properties"]
    assert fields["id"]["type"] == field
    assert fields["vector"]["method"]["space_type"] == "innerproduct"
    graph = {"m": Engine.links, "ef_construction": Engine.ef_construction}
    assert fields["vector"]["method"]["parameters"] == graph


@every_kind_of_ids
def test_vectors_as_a_parquet_file(tmp_path: Path, ids: list[Any]) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="the parquet extra is not installed")
    write_vectors("parquet", tmp_path / "out.parquet", ids)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("id").to_pylist() == ids
    np.testing.assert_array_equal(np.array(table.column("vector").to_pylist(), np.float32), VECTORS)


def test_bulk_files_stay_below_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = len("-1.2345678e-38,") * 16_000
    assert writers._BULK_CHARACTERS + 2 * longest < 100 << 20
    monkeypatch.setattr(writers, "_BULK_CHARACTERS", 1000)
    write_vectors("opensearch", tmp_path / "out", range(60), np.tile(VECTORS, (20, 1)))
    files = sorted((tmp_path / "out").glob("bulk-*"))
    assert len(files) > 3 and all(path.stat().st_size < 2000 for path in files)
    assert [row["id"] for _, row in bulk_documents(tmp_path / "out")] == list(range(60))


@pytest.mark.parametrize(
    ("to", "ids", "vectors", "message"),
    [
        ("opensearch", ["a", "é" * 257, "c"], VECTORS, "has 514"),
        ("opensearch", [1], np.ones((1, 16_001), np.float32), "16000 dimensions, but .* 16001"),
        ("npy", [1, 2, 3], np.where(np.arange(3)[:, None] == 2, np.inf, VECTORS), r"document 2 \(id 3\)"),
    ],
)
def test_bad_vectors_leave_nothing(tmp_path: Path, to: str, ids: Any, vectors: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_vectors(to, tmp_path / "out", ids, vectors)
    assert list(tmp_path.iterdir()) == []
