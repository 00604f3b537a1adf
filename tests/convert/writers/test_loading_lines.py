"""The printed lines, run as they are: each store finds the best by inner product."""

from __future__ import annotations

import ast
import builtins
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from muvera.convert.writers.base import Vectors
from muvera.convert.writers.fdes import FORMATS, write_vectors
from muvera.convert.writers.loading_lines import Written, loading_lines

RNG = np.random.default_rng(0)
#: Of very different lengths, so that Euclidean and cosine distance find other documents.
VECTORS = (RNG.normal(size=(60, 8)) * RNG.uniform(0.1, 9, size=(60, 1))).astype(np.float32)
QUERY = RNG.normal(size=8).astype(np.float32)
BEST = np.argsort(-(VECTORS @ QUERY))[:10]


def ids(integers: bool) -> Any:
    return np.arange(100, 160) if integers else np.array([f"d'{i}" for i in range(60)])


def run(lines: str) -> list[Any]:
    found: dict[str, Any] = {"query": QUERY}
    exec(compile(lines, "lines", "exec"), found)
    return list(found["best"])


def written(tmp_path: Path, to: str, integers: bool) -> str:
    out = tmp_path / "the 'out'"
    write_vectors(iter([Vectors(VECTORS, ids(integers))]), out, to)
    return loading_lines(to, Written(str(out), 8, integers))


def test_other_distances_find_other_documents() -> None:
    nearest = np.argsort(np.linalg.norm(VECTORS - QUERY, axis=1))[:10]
    assert len(set(nearest) & set(BEST)) < 5


def test_one_array(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VECTORS)
    assert run(loading_lines(None, Written(str(tmp_path / "x.npy"), 8, True))) == BEST.tolist()


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize(
    ("to", "library"), [("npy", "numpy"), ("parquet", "pyarrow"), ("lancedb", "lancedb"), ("faiss", "faiss")]
)
def test_lines_of_python(tmp_path: Path, to: str, library: str, integers: bool) -> None:
    lines = written(tmp_path, to, integers)
    compile(lines, "lines", "exec")
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    expected = ids(integers)[BEST].tolist()
    assert run(lines) == expected if to != "faiss" or not integers else "found" in lines


@pytest.mark.parametrize("integers", [True, False])
def test_lines_of_qdrant(tmp_path: Path, integers: bool) -> None:
    lines = written(tmp_path, "qdrant", integers)
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    assert run(lines.replace("http://localhost:6333", ":memory:")) == ids(integers)[BEST].tolist()


def test_lancedb_without_its_line_finds_others(tmp_path: Path) -> None:
    """The default of LanceDB is why the line is there."""
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    lines = written(tmp_path, "lancedb", False)
    assert '.distance_type("dot")' in lines
    wrong = run(lines.replace('.distance_type("dot")', ""))
    assert len(set(wrong) & set(ids(False)[BEST].tolist())) < 5


@pytest.mark.parametrize("integers", [True, False])
def test_lines_of_milvus(integers: bool) -> None:
    lines = loading_lines("milvus", Written("out.json", 8, integers))
    compile(lines, "lines", "exec")
    assert lines.count('"IP"') == 2 and "dim=8" in lines
    assert ("DataType.INT64" in lines) == integers


@pytest.mark.parametrize("half", [True, False])
def test_lines_of_pgvector(half: bool) -> None:
    lines = loading_lines("pgvector", Written("it's.txt", 8, False, half))
    kind = "halfvec" if half else "vector"
    assert f"embedding {kind}(8));" in lines and f"{kind}_ip_ops" in lines and "<#>" in lines
    assert "id text PRIMARY KEY" in lines and "FROM 'it''s.txt'\n" in lines
    assert "id bigint" in loading_lines("pgvector", Written("x", 8, True))


@pytest.mark.parametrize("integers", [True, False])
@pytest.mark.parametrize("to", [each for each in FORMATS if each not in ("pgvector", "opensearch")])
def test_lines_name_nothing_that_they_do_not_import(to: str, integers: bool) -> None:
    """Also those of libraries that are not installed here; pgvector's are SQL, OpenSearch's of a shell."""
    known = {"query", *dir(builtins)}
    nodes = list(ast.walk(ast.parse(loading_lines(to, Written("out", 8, integers)))))
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            known |= {(name.asname or name.name).partition(".")[0] for name in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.add(node.id)
    assert {node.id for node in nodes if isinstance(node, ast.Name)} <= known


def test_every_format_has_its_lines() -> None:
    for to in FORMATS:
        assert loading_lines(to, Written("out", 8, True)).endswith("\n")
