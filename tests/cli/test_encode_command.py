"""``muvera encode``, ``muvera load`` and ``muvera convert``."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera, some_texts
from builders.paths import ROOT
from builders.text_encoders import HashEncoder

from muvera import FDEConfig, FDEEncoder, MomentsConfig, MultiVectors, MuveraIndex, TextIndex
from muvera.convert import read
from muvera.engines import EngineIndex

SMALL: dict[str, Any] = {"num_repetitions": 3, "num_simhash_projections": 2, "projection_dimension": 4}
CONFIG = FDEConfig(dimension=16, **SMALL)
VECTORS = FDEEncoder(CONFIG).fit(some_texts()).encode_documents(some_texts())
QUERIES = some_texts(5, seed=1)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    some_texts().save(tmp_path / "docs")
    QUERIES.save(tmp_path / "queries")
    (tmp_path / "small.json").write_text(json.dumps(SMALL))
    return tmp_path / "docs"


def small(docs: Path) -> list[Any]:
    return ["--encoder", "fde", "--config", docs.parent / "small.json"]


def vectors(folder: Path) -> Any:
    return np.load(folder / "vectors.npy")


def test_documents_and_queries(docs: Path, tmp_path: Path) -> None:
    assert answer("encode", docs, tmp_path / "m")["config"] == MomentsConfig(dimension=16).to_dict()
    code, out, err = muvera("encode", docs, tmp_path / "d", *small(docs))
    assert code == 0 and "vectors of documents, 65 floats each, 1 of them zero" in " ".join(out.split())
    assert "--save-encoder" in err
    assert vectors(tmp_path / "d").dtype == np.float32
    np.testing.assert_array_equal(vectors(tmp_path / "d"), VECTORS)
    assert json.loads((tmp_path / "d" / "ids.json").read_text()) == some_texts().ids.tolist()
    assert "--overwrite" in fails("encode", docs, tmp_path / "d", *small(docs))
    given = [*small(docs), "--overwrite", "--save-encoder", tmp_path / "encoder"]
    assert muvera("encode", docs, tmp_path / "d", *given)[2] == ""
    saved = ["--side", "queries", "--encoder", tmp_path / "encoder"]
    facts = answer("encode", tmp_path / "queries", tmp_path / "q", *saved)
    assert (facts["side"], facts["config"], facts["vectors"]) == ("queries", CONFIG.to_dict(), 5)
    expected = FDEEncoder(CONFIG).fit(some_texts()).encode_queries(QUERIES)
    np.testing.assert_array_equal(vectors(tmp_path / "q"), expected)


def test_batches_do_not_matter(docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.cli.sources._BATCH_BYTES", 16 * 4 * 50)
    some_texts(ids=False).save(tmp_path / "numbered")
    answer("encode", tmp_path / "numbered", tmp_path / "npy", *small(docs))
    np.testing.assert_allclose(vectors(tmp_path / "npy"), VECTORS, atol=1e-5)
    assert json.loads((tmp_path / "npy" / "ids.json").read_text()) == list(range(30))


def test_bad_options_encoders_and_sources(docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for target, extra in ((out, ["--save-encoder", docs]), (docs, [])):  # only own results are replaced
        assert "docs holds" in fails("encode", docs, target, "--encoder", "mean", *extra, "--overwrite")
    assert (docs / "tokens.npy").is_file()
    assert "--encoder FOLDER" in fails("encode", docs, out, "--side", "queries")
    MuveraIndex.build(some_texts(), path=tmp_path / "exact")
    assert "has no encoder" in fails("encode", docs, out, "--encoder", tmp_path / "exact")
    MultiVectors.from_arrays([np.ones((2, 4), np.float32)]).save(tmp_path / "narrow")
    answer("encode", docs, tmp_path / "d", *small(docs), "--save-encoder", tmp_path / "encoder")
    assert "4 columns" in fails("encode", tmp_path / "narrow", out, "--encoder", tmp_path / "encoder")
    assert "with your model first" in fails("encode", "What is a text?", out)
    assert not out.exists()


# -- load ----------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> Path:
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    some_texts(300).save(tmp_path / "many")
    QUERIES.save(tmp_path / "queries")
    return tmp_path / "many"


def test_loaded_documents_are_found(many: Path) -> None:
    where, queries = f"lancedb:{many.parent / 'engine'}#loaded", many.parent / "queries"
    facts = answer("load", many, "--to", where, "--encoder", "mean", "--drop")
    assert (facts["added"], facts["without_tokens"], facts["documents"]) == (299, 1, 299)
    again = answer("load", many, "--to", where)
    assert (again["added"], again["skipped"]) == (0, 299)
    index = MuveraIndex.build(some_texts(300), "mean", exact_tokens=0, path=many.parent / "index")
    found = answer("search", where, queries, "-k", 3, "--candidates", 299)
    expected = index.search(QUERIES, 3, candidates=300)
    rankings = [[entry["id"] for entry in query["results"]] for query in found["queries"]]
    assert rankings == [ranking.ids.tolist() for ranking in expected]
    # An index is loaded with its own encoder.
    location = f"lancedb:{many.parent / 'engine'}#muvera"
    assert (
        answer("load", many.parent / "index", "--to", location.removesuffix("#muvera"))["location"]
        == location
    )
    with EngineIndex(location) as loaded:
        assert loaded.encoder.config == index.config


KILLED = """
import sys, time
import muvera.engines.lancedb as module
from muvera.cli import main
import muvera.engines.engine_index as index
index._BATCH_BYTES = 10_000
before = module.LanceDBEngine.add
def slowly(self, *arguments):
    before(self, *arguments)
    print("batch", flush=True)
    time.sleep(0.5)
module.LanceDBEngine.add = slowly
sys.argv = ["muvera", "load", *sys.argv[1:]]
main()
"""


def test_an_index_of_texts_is_loaded_with_texts_and_metadata(tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    metadata: list[dict[str, Any]] = [{"n": 1}, {}, {"n": 3}]
    texts = TextIndex.build(["a b", "", "c d"], HashEncoder(), ids=["x", "y", "z"], metadata=metadata)
    texts.update(["e f"], ids=["x"])
    texts.save(tmp_path / "index")
    url = f"lancedb:{tmp_path / 'lance'}#texts"
    answer("load", tmp_path / "index", "--to", url, "--encoder", "mean")
    with EngineIndex(url) as loaded:
        assert [one.metadata for one in loaded.documents(["x", "z"])] == [{"n": 1}, {"n": 3}]
    with TextIndex.open(url, HashEncoder()) as opened:
        assert [(hit.id, hit.text) for hit in opened.search("e f", where={"n": {"$lt": 3}})] == [("x", "e f")]


def test_changes_in_a_journal_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    names = {"minilm": HashEncoder(name="minilm")}
    monkeypatch.setattr("muvera.texts.encoders.registry.load_text_encoder", names.__getitem__)
    for name in ("minilm", "words"):
        TextIndex.build(["a b"], HashEncoder(name=name), path=tmp_path / name)
        with TextIndex.open(tmp_path / name, HashEncoder(name=name)) as writer:
            writer.add(["c d"], metadata=[{"n": 1}])
            url = f"lancedb:{tmp_path / 'lance'}#{name}"
            given = ["load", tmp_path / name, "--to", url, "--encoder", "mean"]
            if name == "minilm":
                assert answer(*given)["documents"] == 2
            else:
                assert "journal" in fails(*given)
    with EngineIndex(f"lancedb:{tmp_path / 'lance'}#minilm") as loaded:
        assert [one.metadata for one in loaded.documents([0, 1])] == [{}, {"n": 1}]


def test_a_killed_load_continues(many: Path, tmp_path: Path) -> None:
    url = f"lancedb:{tmp_path / 'lance'}#killed"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, str(many), "--to", url, "--encoder", "mean"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "batch\n"
        process.send_signal(signal.SIGKILL)
    facts = answer("load", many, "--to", url)
    assert facts["skipped"] >= 3 and facts["added"] > 0
    assert facts["added"] + facts["skipped"] == facts["documents"] == 299


@pytest.mark.filterwarnings("ignore")
def test_bad_loads(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, arguments, text in (
        ("mysql://host/x", [], "postgresql:"),
        ("lancedb:x", ["--encoder", "none"], "'none'"),
    ):
        assert text in fails("load", many, "--to", url, *arguments)
    assert "none" in fails("search", f"lancedb:{tmp_path / 'none'}", many)


# -- convert -------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rows = [np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32) for n in (3, 0, 5)]
    MultiVectors.from_arrays(rows, ids=["a", "b", "c"]).save(tmp_path / "source")
    return tmp_path / "source"


def test_convert(source: Path, tmp_path: Path) -> None:
    code, out, err = muvera("convert", source, tmp_path / "out", "--normalize", "--dtype", "float16")
    assert (code, err) == (0, "")
    assert "3 documents, 8 tokens, dimension 4, float32, str ids" in " ".join(out.split())
    assert "normalize=True, dtype=float16" in out
    assert np.allclose(np.linalg.norm(read(tmp_path / "out").tokens, axis=1), 1, atol=1e-3)
    limits = ["--time-limit", 60, "--memory-limit", 1024]  # in a process with limits
    report = answer("convert", source, tmp_path / "out.npz", "--to", "npz", "--pooling", "pylate", *limits)
    assert (report["to"], report["read"]["tokens"], report["options"]) == ("npz", 8, {"pooling": "pylate"})
    assert report["written"]["tokens"] == 2 + 3 == read(tmp_path / "out.npz").num_tokens


def test_bad_conversions(source: Path, tmp_path: Path) -> None:
    for name, arguments, text in (
        ("out", ["--to", "plaid", "--nbits", 1], "--nbits 1"),
        ("out", ["--truncate-dimension", 9], "--truncate-dimension 9"),
        ("out", ["-o", "part"], "'--option' / '-o': it must be NAME=VALUE, got 'part'"),
        ("out", ["--pooling", "foo"], "colpali, got 'foo'"),
        ("out", ["--isolated", "--memory-limit", 1], "256"),
        ("out.parquet", [], "Give --to 'parquet' or another name"),  # the default would be a folder
    ):
        assert text in fails("convert", source, tmp_path / name, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
