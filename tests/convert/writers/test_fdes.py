"""FDEs for other stores: what they read, and the limits that they have."""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muvera.convert.writers.base import Vectors
from muvera.convert.writers.fde_text_rows import qdrant_id
from muvera.convert.writers.fdes import FORMATS, write_vectors
from muvera.convert.writers.store_limits import LIMITS, check_dimension, fitting_sizes

IDS = {"int": [5, 0, 7], "str": ["a", 'q"\\ \t', "é\n"]}
FDES = (np.random.default_rng(0).normal(size=(3, 16)) * 10.0 ** np.arange(-12, 4)).astype(np.float32)


def batches(ids: Any = None, vectors: Any = FDES, size: int = 2) -> Iterator[Vectors]:
    named = np.asarray(IDS["int"] if ids is None else ids)
    for start in range(0, len(vectors), size):
        yield Vectors(vectors[start : start + size], named[start : start + size])


@pytest.fixture(params=list(IDS))
def ids(request: pytest.FixtureRequest) -> Any:
    return IDS[request.param]


def test_npy_and_faiss(tmp_path: Path, ids: Any) -> None:
    for form in ("npy", "faiss"):
        assert write_vectors(batches(ids), tmp_path / form, form) == 3
        vectors = np.load(tmp_path / form / "vectors.npy")
        assert vectors.flags.c_contiguous
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, FDES)
    assert json.loads((tmp_path / "npy" / "ids.json").read_text(encoding="utf-8")) == ids
    numbers = np.load(tmp_path / "faiss" / "ids.npy")
    assert numbers.dtype == np.int64
    if isinstance(ids[0], int):
        assert numbers.tolist() == ids
    else:
        named = json.loads((tmp_path / "faiss" / "ids.json").read_text(encoding="utf-8"))
        assert [named[i] for i in numbers] == ids


def test_faiss_takes_them(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    write_vectors(batches(), tmp_path / "out", "faiss")
    index = faiss.IndexIDMap(faiss.IndexFlatIP(16))
    index.add_with_ids(np.load(tmp_path / "out/vectors.npy"), np.load(tmp_path / "out/ids.npy"))
    assert index.ntotal == 3


def test_parquet(tmp_path: Path, ids: Any) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="the parquet extra is not installed")
    write_vectors(batches(ids), tmp_path / "out.parquet", "parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column("id").to_pylist() == ids
    np.testing.assert_array_equal(np.array(table.column("fde").to_pylist(), np.float32), FDES)


def test_lancedb(tmp_path: Path, ids: Any) -> None:
    lancedb = pytest.importorskip("lancedb", reason="the lancedb extra is not installed")
    write_vectors(batches(ids), tmp_path / "db", "lancedb")
    table = lancedb.connect(str(tmp_path / "db")).open_table("fdes")
    rows = table.to_arrow().to_pylist()
    assert [row["id"] for row in rows] == ids
    np.testing.assert_array_equal(np.array([row["vector"] for row in rows], np.float32), FDES)
    best = table.search(FDES[1].tolist()).metric("l2").limit(1).to_list()[0]
    assert best["id"] == ids[1]


def test_pgvector(tmp_path: Path, ids: Any) -> None:
    """An independent reading of COPY's text format: backslash escapes, tab between columns."""
    write_vectors(batches(ids), tmp_path / "out.tsv", "pgvector")
    lines = (tmp_path / "out.tsv").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    escapes = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}
    for line, identity, vector in zip(lines, ids, FDES, strict=True):
        name, text = line.split("\t")
        assert re.sub(r"\\.", lambda match: escapes[match[0]], name) == str(identity)
        np.testing.assert_array_equal(np.array(json.loads(text), np.float32), vector)


def test_pgvector_in_half_precision(tmp_path: Path) -> None:
    write_vectors(batches(), tmp_path / "out.tsv", "pgvector", half=True)
    text = (tmp_path / "out.tsv").read_text().splitlines()[0].split("\t")[1]
    np.testing.assert_array_equal(np.array(json.loads(text), np.float16), FDES[0].astype(np.float16))
    large = np.full((1, 4), 70_000, np.float32)
    with pytest.raises(
        ValueError, match=r"document 0 \(id 5\) is not finite in half precision, which ends at"
    ):
        write_vectors(batches([5], large), tmp_path / "large.tsv", "pgvector", half=True)


def test_qdrant(tmp_path: Path, ids: Any) -> None:
    qdrant = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    write_vectors(batches(ids), tmp_path / "points.jsonl", "qdrant")
    lines = (tmp_path / "points.jsonl").read_text(encoding="utf-8").splitlines()
    points = [qdrant.models.PointStruct(**json.loads(line)) for line in lines]
    assert [point.payload["id"] for point in points] == ids
    client = qdrant.QdrantClient(":memory:")
    client.create_collection("docs", {"fde": qdrant.models.VectorParams(size=16, distance="Dot")})
    client.upsert("docs", points)
    found = {
        point.payload["id"]: point.vector["fde"] for point in client.scroll("docs", with_vectors=True)[0]
    }
    client.close()
    np.testing.assert_array_equal(np.array([found[i] for i in ids], np.float32), FDES)


@given(st.one_of(st.integers(-(2**63), 2**63 - 1), st.text()))
def test_qdrant_ids_are_what_it_takes(identity: Any) -> None:
    point = qdrant_id(identity)
    assert point == qdrant_id(identity)
    if isinstance(identity, int) and identity >= 0:
        assert point == identity
    else:
        assert str(uuid.UUID(str(point))) == point


def test_milvus(tmp_path: Path, ids: Any) -> None:
    write_vectors(batches(ids), tmp_path / "rows.json", "milvus")
    content = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["id"] for row in content["rows"]] == ids
    np.testing.assert_array_equal(np.array([row["fde"] for row in content["rows"]], np.float32), FDES)


@pytest.mark.parametrize("form", list(FORMATS))
def test_a_full_disk_is_one_sentence(tmp_path: Path, form: str) -> None:
    """A limit on the size of files stands in for the disk."""
    resource = pytest.importorskip("resource", reason="Windows limits no sizes of files")
    for module in {"parquet": ["pyarrow"], "lancedb": ["pyarrow", "lancedb"]}.get(form, []):
        pytest.importorskip(module, reason=f"the {form} extra is not installed")
    vectors = np.random.default_rng(0).normal(size=(512, 64)).astype(np.float32)  # 128 KiB
    least, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, most))
    try:
        with pytest.raises(OSError, match="could not be written") as caught:
            write_vectors(iter([Vectors(vectors, np.arange(512))]), tmp_path / "out", form)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (least, most))
    message = str(caught.value)
    assert message.startswith(str(tmp_path)) and message.endswith((".", "?")) and "\n" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", list(FORMATS))
def test_what_every_form_refuses(tmp_path: Path, form: str) -> None:
    if form in ("parquet", "lancedb"):
        pytest.importorskip("pyarrow", reason=f"the {form} extra is not installed")
    if form == "lancedb":
        pytest.importorskip("lancedb", reason="the lancedb extra is not installed")
    target = tmp_path / "out"
    bad = FDES.copy()
    bad[2, 3] = np.nan
    with pytest.raises(ValueError, match=r"The FDE of document 2 \(id 7\) is not finite. Repair its tokens"):
        write_vectors(batches(vectors=bad), target, form)
    with pytest.raises(ValueError, match="must be unique, but 5 stands at positions 0 and 2"):
        write_vectors(batches([5, 1, 5]), target, form)
    with pytest.raises(ValueError, match="There is nothing to write"):
        write_vectors(iter([]), target, form)
    with pytest.raises(
        ValueError, match=r"from number 2 on have shape \(1, 5\) with 1 ids, but must have 16"
    ):
        mixed = [Vectors(FDES[:2], np.array([1, 2])), Vectors(FDES[:1, :5], np.array([3]))]
        write_vectors(iter(mixed), target, form)
    assert list(tmp_path.iterdir()) == [], "no half output"
    write_vectors(batches(), target, form)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        write_vectors(batches(), target, form)
    assert write_vectors(batches([1], FDES[:1]), target, form, overwrite=True) == 1
    assert list(tmp_path.iterdir()) == [target]


def test_an_unknown_form(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"form must be one of npy, faiss, .*, got 'annoy'\."):
        write_vectors(batches(), tmp_path / "out", "annoy")


@pytest.mark.parametrize(
    ("target", "half", "largest"),
    [
        ("pgvector", False, 2000),
        ("pgvector", True, 4000),
        ("qdrant", False, 65_535),
        ("milvus", False, 32_768),
        ("opensearch", False, 16_000),
        ("lancedb", False, None),
        ("faiss", False, None),
        ("npy", False, None),
        ("parquet", False, None),
    ],
)
def test_limits(target: str, half: bool, largest: int | None) -> None:
    if largest is None:
        check_dimension(10**6, target, half=half)
        return
    check_dimension(largest, target, half=half)
    with pytest.raises(ValueError, match=f"takes at most {largest} dimensions") as raised:
        check_dimension(largest + 1, target, half=half, token_dimension=128)
    message = str(raised.value)
    assert f"these FDEs have {largest + 1}" in message
    assert f"final_projection_dimension={largest - 129} or less" in message
    sizes = re.findall(
        r"num_repetitions=(\d+), num_simhash_projections=(\d+), projection_dimension=(\d+) \((\d+) dim",
        message,
    )
    assert len(sizes) == 3
    for size in sizes:
        repetitions, projections, width, dimension = map(int, size)
        assert repetitions * 2**projections * width + 129 == dimension <= largest
    with pytest.raises(ValueError, match="Encode with smaller num_repetitions, num_simhash_projections or"):
        check_dimension(largest + 1, target, half=half)


def test_presets_that_fit_are_proposed() -> None:
    presets = {"default": 10240, "compact": 1024, "learned": 2000, "paper": 20480}
    with pytest.raises(
        ValueError, match=r"Presets that fit: compact \(1024\), learned \(2000\)\. Or encode with"
    ):
        check_dimension(10240, "pgvector", presets=presets)
    with pytest.raises(ValueError, match=r"have 70000\. Encode with num_repetitions"):
        check_dimension(70000, "qdrant", presets={"default": 70000}, token_dimension=128)


def test_half_precision_is_proposed_where_it_is_enough() -> None:
    with pytest.raises(ValueError, match="half=True takes 4000, enough here"):
        check_dimension(3000, "pgvector")
    with pytest.raises(ValueError, match=r"half=True takes 4000\.$"):
        check_dimension(9000, "pgvector")
    with pytest.raises(ValueError, match=r"Milvus has no half precision here"):
        check_dimension(10, "milvus", half=True)


def test_what_is_proposed_is_a_configuration_that_fits() -> None:
    from muvera.encoders.fde.config import FDEConfig

    for repetitions, projections, width, dimension in fitting_sizes(2000, 128):
        config = FDEConfig(
            dimension=128,
            num_repetitions=repetitions,
            num_simhash_projections=projections,
            projection_dimension=width,
        )
        assert config.vector_dimension == dimension
    mapped = FDEConfig(dimension=128, final_projection="rademacher", final_projection_dimension=2000 - 129)
    check_dimension(mapped.vector_dimension, "pgvector")


@given(st.integers(1, 100_000), st.integers(1, 1024))
def test_proposed_sizes_fit(limit: int, tokens: int) -> None:
    for repetitions, projections, width, dimension in fitting_sizes(limit, tokens):
        assert repetitions * 2**projections * width + tokens + 1 == dimension <= limit
        assert repetitions >= 10


def test_every_form_has_its_limit() -> None:
    assert set(LIMITS) == set(FORMATS)


def test_too_large_is_known_before_anything_is_written(tmp_path: Path) -> None:
    wide = np.ones((1, 2001), np.float32)
    with pytest.raises(ValueError, match="pgvector's HNSW index takes at most 2000"):
        write_vectors(batches([1], wide), tmp_path / "out.tsv", "pgvector")
    assert list(tmp_path.iterdir()) == []


def test_missing_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pyarrow", "lancedb"):
        monkeypatch.setitem(sys.modules, name, None)
    for form in ("parquet", "lancedb"):
        with pytest.raises(ImportError, match=rf"pip install 'muvera-toolkit\[{form}\]'"):
            write_vectors(batches(), tmp_path / "out", form)
