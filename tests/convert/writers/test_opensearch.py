"""OpenSearch's mapping and bulk files, and the printed lines, run as they are against a small server."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.small_opensearch import running_opensearch

from muvera.convert.writers.base import Vectors
from muvera.convert.writers.fdes import write_vectors
from muvera.convert.writers.loading_lines import Written, loading_lines
from muvera.convert.writers.opensearch import PART_SIZE, index_body, write_bulk
from muvera.engines.base import GraphSettings

RNG = np.random.default_rng(0)
#: Of very different lengths, so that other distances find other documents.
VECTORS = (RNG.normal(size=(60, 8)) * RNG.uniform(0.1, 9, size=(60, 1))).astype(np.float32)
QUERY = RNG.normal(size=8).astype(np.float32)
NAMES: dict[str, Any] = {
    "int": np.arange(-3, 57),
    "str": np.array([f"""d{i}'"\\ \t\né\u2028""" for i in range(60)]),
}


def batches(ids: Any, size: int = 7) -> list[Vectors]:
    return [Vectors(VECTORS[i : i + size], ids[i : i + size]) for i in range(0, len(VECTORS), size)]


def documents_of(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for part in sorted(folder.glob("bulk-*.ndjson")):
        content = part.read_text(encoding="utf-8")
        assert content.endswith("\n")
        lines = [json.loads(line) for line in content[:-1].split("\n")]
        actions = [action["index"]["_id"] for action in lines[::2]]
        found += list(zip(actions, lines[1::2], strict=True))
    return found


@pytest.mark.parametrize("kind", list(NAMES))
def test_what_is_written(tmp_path: Path, kind: str) -> None:
    ids = NAMES[kind]
    assert write_vectors(iter(batches(ids)), tmp_path / "out", "opensearch") == 60
    found = documents_of(tmp_path / "out")
    assert [name for name, _ in found] == [str(each) for each in ids.tolist()]
    assert [document["id"] for _, document in found] == ids.tolist()
    np.testing.assert_array_equal(np.array([row["fde"] for _, row in found], np.float32), VECTORS)
    body = json.loads((tmp_path / "out" / "mapping.json").read_text(encoding="utf-8"))
    assert body == index_body(8, kind == "int")
    fields = body["mappings"]["properties"]
    assert fields["id"]["type"] == {"int": "long", "str": "keyword"}[kind]
    assert fields["fde"]["type"] == "knn_vector" and fields["fde"]["dimension"] == 8
    method = fields["fde"]["method"]
    assert (method["name"], method["engine"], method["space_type"]) == ("hnsw", "faiss", "innerproduct")
    assert body["settings"]["index"]["knn"] is True


def test_the_graph_is_that_of_the_engines() -> None:
    parameters = index_body(8, True)["mappings"]["properties"]["fde"]["method"]["parameters"]
    graph = GraphSettings()
    assert parameters == {"m": graph.m, "ef_construction": graph.ef_construction}


def test_parts_stay_below_the_limit_of_a_request(tmp_path: Path) -> None:
    write_bulk(iter(batches(NAMES["int"])), tmp_path, part_size=1000)
    parts = sorted(tmp_path.iterdir())
    largest = max(map(len, (tmp_path / "bulk-00000.ndjson").read_text().split("\n")))
    assert len(parts) > 3 and all(path.stat().st_size < 1000 + 2 * largest + 50 for path in parts)
    assert [document["id"] for _, document in documents_of(tmp_path)] == NAMES["int"].tolist()
    longest = len("-1.2345678e-38,") * 16_000
    assert PART_SIZE + 2 * longest < 100 << 20


@pytest.mark.parametrize(("name", "shown"), [("", "'' has 0"), ("é" * 257, "'é+' has 514")])
def test_ids_that_opensearch_refuses(tmp_path: Path, name: str, shown: str) -> None:
    one = Vectors(VECTORS[:2], np.array(["a", name]))
    with pytest.raises(ValueError, match=f"OpenSearch takes ids of 1 to 512 bytes, but {shown}. Give the"):
        write_vectors(iter([one]), tmp_path / "out", "opensearch")
    assert list(tmp_path.iterdir()) == []
    write_vectors(iter([Vectors(VECTORS[:1], np.array(["é" * 256]))]), tmp_path / "out", "opensearch")


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    write_vectors(iter(batches(NAMES["int"])), tmp_path / "out", "opensearch")
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(FileExistsError, match=r"holds notes\.txt"):
        write_vectors(iter(batches(NAMES["int"])), tmp_path / "out", "opensearch", overwrite=True)


@pytest.mark.parametrize("kind", list(NAMES))
def test_the_printed_lines(tmp_path: Path, kind: str) -> None:
    """Run by a shell with curl: the best by inner product come back."""
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("curl or bash is not installed")
    ids, out = NAMES[kind], tmp_path / "the 'out'"
    np.save(tmp_path / "queries.npy", QUERY[None])
    write_vectors(iter(batches(ids)), out, "opensearch")
    shutil.move(out / "bulk-00000.ndjson", out / "bulk-00001.ndjson")
    lines = (out / "bulk-00001.ndjson").read_text(encoding="utf-8").split("\n")
    for part, some in enumerate((lines[:40], lines[40:-1])):
        text = "".join(f"{line}\n" for line in some)
        (out / f"bulk-{part:05d}.ndjson").write_text(text, encoding="utf-8", newline="\n")
    printed = loading_lines("opensearch", Written(str(out), 8, kind == "int"))
    with running_opensearch() as (url, store):
        assert "http://localhost:9200" in printed
        here = f'python() {{ "{sys.executable}" "$@"; }}\n'
        there = here + printed.replace("http://localhost:9200", url)
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", there],
            capture_output=True,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[1:3] == [{"errors": False}] * 2
    best = ids[np.argsort(-(VECTORS @ QUERY))[:10]].tolist()
    assert [hit["_source"]["id"] for hit in answers[-1]["hits"]["hits"]] == best
    assert len(store.documents) == 60
    assert {sent for _, path, sent in store.requests if "_bulk" in path} == {"application/x-ndjson"}
