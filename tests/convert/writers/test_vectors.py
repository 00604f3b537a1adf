"""Vectors for other searches: npy, Parquet, and OpenSearch's files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera.convert.writers import vectors as writers
from muvera.convert.writers.base import write_documents
from muvera.convert.writers.vectors import FORMATS, opensearch_index
from muvera.data.multivectors import MultiVectors
from muvera.engines import Engine

IDS = {"int": [5, -7, 2**40], "str": ["a", 'q"\\ \t', "é\n\u2028"]}
VECTORS = (np.random.default_rng(0).normal(size=(3, 16)) * 10.0 ** np.arange(-12, 4)).astype(np.float32)


def batches(ids: Any = None, vectors: Any = VECTORS, size: int = 2) -> Iterator[MultiVectors]:
    names = np.asarray(IDS["int"] if ids is None else ids)
    for start in range(0, len(vectors), size):
        part = vectors[start : start + size]
        yield MultiVectors.from_flat(part, np.ones(len(part), int), ids=names[start : start + size])


def bulk_documents(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the action's id and the document of every pair of lines."""
    pairs: list[tuple[str, dict[str, Any]]] = []
    for path in sorted(folder.glob("bulk-*.ndjson")):
        content = path.read_text(encoding="utf-8")
        assert content.endswith("\n")
        lines = [json.loads(line) for line in content[:-1].split("\n")]
        pairs += [(a["index"]["_id"], d) for a, d in zip(lines[::2], lines[1::2], strict=True)]
    return pairs


@pytest.mark.parametrize("ids", IDS.values(), ids=list(IDS))
def test_npy_and_parquet(tmp_path: Path, ids: Any) -> None:
    write_documents(FORMATS["npy"], batches(ids), tmp_path / "out")
    stored = np.load(tmp_path / "out" / "vectors.npy")
    assert stored.dtype == np.float32 and stored.flags.c_contiguous
    np.testing.assert_array_equal(stored, VECTORS)
    assert json.loads((tmp_path / "out" / "ids.json").read_text(encoding="utf-8")) == ids
    pq = pytest.importorskip("pyarrow.parquet", reason="the parquet extra is not installed")
    write_documents(FORMATS["parquet"], batches(ids), tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("id").to_pylist() == ids
    np.testing.assert_array_equal(np.array(table.column("vector").to_pylist(), np.float32), VECTORS)


@pytest.mark.parametrize("kind", IDS)
def test_opensearch(tmp_path: Path, kind: str) -> None:
    write_documents(FORMATS["opensearch"], batches(IDS[kind]), tmp_path / "out")
    documents = bulk_documents(tmp_path / "out")
    assert [name for name, _ in documents] == [str(name) for name in IDS[kind]]  # type: ignore[attr-defined]
    assert [row["id"] for _, row in documents] == IDS[kind]
    np.testing.assert_array_equal(np.array([row["vector"] for _, row in documents], np.float32), VECTORS)
    body = json.loads((tmp_path / "out" / "mapping.json").read_text(encoding="utf-8"))
    assert body == opensearch_index(16, kind == "int")
    fields = body["mappings"]["properties"]
    assert fields["id"]["type"] == {"int": "long", "str": "keyword"}[kind]
    assert fields["vector"]["method"]["space_type"] == "innerproduct"
    graph = {"m": Engine.links, "ef_construction": Engine.ef_construction}
    assert fields["vector"]["method"]["parameters"] == graph
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        (tmp_path / "out" / "notes.txt").touch()
        write_documents(FORMATS["opensearch"], batches(IDS[kind]), tmp_path / "out", overwrite=True)


def test_bulk_files_stay_below_the_limit_of_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = len("-1.2345678e-38,") * 16_000
    assert writers._BULK_CHARACTERS + 2 * longest < 100 << 20
    monkeypatch.setattr(writers, "_BULK_CHARACTERS", 1000)
    many = np.tile(VECTORS, (20, 1))
    write_documents(FORMATS["opensearch"], batches(range(60), many), tmp_path / "out")
    files = sorted((tmp_path / "out").glob("bulk-*"))
    assert len(files) > 3 and all(path.stat().st_size < 2000 for path in files)
    assert [row["id"] for _, row in bulk_documents(tmp_path / "out")] == list(range(60))


@pytest.mark.parametrize(
    ("to", "ids", "vectors", "message"),
    [
        ("opensearch", ["a", "é" * 257, "c"], VECTORS, "has 514"),
        ("opensearch", [1], np.ones((1, 16_001)), "16000 dimensions, but these vectors have 16001"),
        ("npy", [1, 2, 3], np.where(np.arange(3)[:, None] == 2, np.inf, VECTORS), r"document 2 \(id 3\)"),
    ],
)
def test_bad_input_leaves_nothing(tmp_path: Path, to: str, ids: Any, vectors: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_documents(FORMATS[to], batches(ids, vectors), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
