"""``muvera load`` and ``muvera search URL``, into every engine that is here."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from builders.command_line import answer, fails, muvera, some_texts
from builders.paths import ROOT

from muvera import MuveraIndex

pytest.importorskip("lancedb", reason="lancedb is not installed")


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    some_texts(300).save(tmp_path / "docs")
    lines = [json.dumps({"year": 2000 + i % 10}) for i in range(300)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "docs"


def test_what_is_loaded_is_found(docs: Path, url: str, kind: str) -> None:
    if kind in ("qdrant", "milvus"):
        pytest.skip({"qdrant": "needs a server", "milvus": "keeps no tokens to rank by"}[kind])
    where = f"{url}#loaded"
    small = ("--preset", "mean", "--metadata", docs.parent / "metadata.jsonl")
    facts = answer("load", docs, "--to", where, *small, "--drop")
    assert (facts["added"], facts["without_tokens"], facts["documents"]) == (299, 1, 299)
    again = answer("load", docs, "--to", where, "--metadata", docs.parent / "metadata.jsonl")
    assert (again["added"], again["skipped"]) == (0, 299)
    some_texts(5).save(docs.parent / "queries")
    index = MuveraIndex.build(some_texts(300), exact_tokens=10**9)
    found = answer("search", where, docs.parent / "queries", "-k", 3, "--candidates", 299)
    expected = index.search(some_texts(5)[[0, 1, 2, 4]], 3)
    rankings = [[entry["id"] for entry in query["results"]] for query in found["queries"]]
    assert [row for row in rankings if row] == [ranking.ids.tolist() for ranking in expected]
    assert found["index"] == facts["location"] and "s3cret" not in json.dumps([found, facts])
    kept = answer(
        "search", where, docs.parent / "queries", "-k", 5, "--where", '{"year": 2003}', "--rerank", "none"
    )
    for query in kept["queries"]:
        assert all(int(entry["id"][1:]) % 10 == 3 for entry in query["results"])
    code, out, _ = muvera("search", where, docs.parent / "queries", "-k", 1, "--explain")
    assert code == 0 and "tokens (query=document similarity)" in out
    if kind == "pgvector":
        assert answer("load", docs, "--to", where, *small, "--drop")["added"] == 299
        from muvera.engines import EngineIndex

        with EngineIndex(where) as index_there:
            index_there.drop()


def test_an_index_is_loaded_with_its_encoder(docs: Path, tmp_path: Path) -> None:
    index = MuveraIndex.build(some_texts(300), "mean", exact_tokens=0, path=tmp_path / "index")
    facts = answer("load", tmp_path / "index", "--to", f"lancedb:{tmp_path / 'lance'}")
    assert facts["description"]["config"] == index.config.hash
    assert facts["location"] == f"lancedb:{tmp_path / 'lance'}#muvera"


KILLED = """
import sys, time
import muvera.engines.lancedb as module
from muvera.cli import main
import muvera.engines.engine_index as index
index._BATCH_BYTES = 100_000
before = module.LanceDBEngine.add
def slowly(self, rows):
    before(self, rows)
    print("batch", flush=True)
    time.sleep(0.5)
module.LanceDBEngine.add = slowly
sys.argv = ["muvera", "load", *sys.argv[1:], "--quiet"]
main()
"""


def test_a_killed_load_goes_on(docs: Path, tmp_path: Path) -> None:
    url = f"lancedb:{tmp_path / 'lance'}#killed"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, str(docs), "--to", url, "--preset", "mean"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "batch\n"
        process.send_signal(signal.SIGKILL)
    facts = answer("load", docs, "--to", url)
    assert facts["skipped"] >= 3 and facts["added"] > 0
    assert facts["added"] + facts["skipped"] == facts["documents"] == 299


BAD: list[tuple[list[Any], str]] = [
    (["--to", "mysql://host/x"], "An engine's URL begins with one of postgresql:"),
    (["--to", "lancedb:"], "names no folder"),
    (["--to", "lancedb:x#1a"], "'1a' is no name of a collection"),
    (["--to", "qdrant://127.0.0.1:1#x"], "qdrant://127.0.0.1:1#x cannot be read: "),
    (["--to", "lancedb:x", "--precision", "int8"], "--precision must be float32 or float16, got 'int8'"),
    (["--to", "lancedb:x", "--preset", "none"], "There is no preset 'none'"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD)
@pytest.mark.filterwarnings("ignore")
def test_bad_options(
    arguments: list[Any], sentence: str, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "qdrant" in arguments[1]:
        pytest.importorskip("qdrant_client")
    monkeypatch.chdir(docs.parent)
    assert sentence in fails("load", docs, *arguments)


def test_bad_metadata(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"a": 1}\n[2]\n')
    message = fails(
        "load", docs, "--to", f"lancedb:{tmp_path / 'x'}", "--metadata", tmp_path / "m.jsonl", "-q"
    )
    assert "m.jsonl line 2 must be a JSON object, got list." in message


def test_an_index_and_a_url_have_options_of_their_own(docs: Path, tmp_path: Path) -> None:
    MuveraIndex.build(some_texts(20), path=tmp_path / "index")
    some_texts(5).save(tmp_path / "queries")
    assert "belong to the URL of an engine" in fails(
        "search", tmp_path / "index", tmp_path / "queries", "--where", "{}"
    )
    url = f"lancedb:{tmp_path / 'none'}"
    assert "There is nothing in" in fails("search", url, tmp_path / "queries")
    assert "belong to an index" in fails("search", url, tmp_path / "queries", "--mean")
    assert "--where must be JSON" in fails("search", url, tmp_path / "queries", "--where", "{")
