"""``muvera encode``, ``load``, ``convert``, ``demo``, ``diagnose`` and ``tune``."""

import json
import os
import re
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
from muvera.data.demo_sample import load_demo_sample
from muvera.engines import EngineIndex
from muvera.texts.encoders.minilm import SampleEncoder

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
        assert "docs contains" in fails("encode", docs, target, "--encoder", "mean", *extra, "--overwrite")
    assert (docs / "tokens.npy").is_file()
    assert "--encoder FOLDER" in fails("encode", docs, out, "--side", "queries")
    MuveraIndex.build(some_texts(), path=tmp_path / "exact")
    assert "has no encoder" in fails("encode", docs, out, "--encoder", tmp_path / "exact")
    MultiVectors.from_arrays([np.ones((2, 4), np.float32)]).save(tmp_path / "narrow")
    answer("encode", docs, tmp_path / "d", *small(docs), "--save-encoder", tmp_path / "encoder")
    assert "4 columns" in fails("encode", tmp_path / "narrow", out, "--encoder", tmp_path / "encoder")
    assert "with your model first" in fails("encode", "What is a text?", out)
    assert not out.exists()


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


def test_texts_and_metadata_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    names = {"minilm": HashEncoder(name="minilm")}
    monkeypatch.setattr("muvera.texts.encoders.registry.load_text_encoder", names.__getitem__)
    metadata: list[dict[str, Any]] = [{"n": 1}, {}, {"n": 3}]
    for name in ("minilm", "words"):
        encoder, url = HashEncoder(name=name), f"lancedb:{tmp_path / 'lance'}#{name}"
        given = ["load", tmp_path / name, "--to", url, "--encoder", "mean"]
        texts = TextIndex.build(["a b", "", "c d"], encoder, ids=["x", "y", "z"], metadata=metadata)
        texts.update(["e f"], ids=["x"])
        texts.save(tmp_path / name)
        with TextIndex.open(tmp_path / name, encoder) as writer:
            writer.add(["g h"], ids=["j"], metadata=[{"n": 4}])
            if name == "minilm":
                assert answer(*given)["documents"] == 3
            else:  # the encoder of the texts in the journal is not loaded by its name
                assert "journal" in fails(*given)
    with EngineIndex(f"lancedb:{tmp_path / 'lance'}#minilm") as loaded:
        assert [one.metadata for one in loaded.documents(["x", "z", "j"])] == [{"n": 1}, {"n": 3}, {"n": 4}]
        assert [one.text for one in loaded.documents(["x", "z"])] == ["e f", "c d"]


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
        ("out", ["-o", "part"], "'--option' / '-o': it must be NAME=VALUE, got 'part'"),
        ("out", ["--pooling", "foo"], "colpali, got 'foo'"),
        ("out", ["--isolated", "--memory-limit", 1], "256"),
        ("out.parquet", [], "Give --to 'parquet' or another name"),  # the default would be a folder
    ):
        assert text in fails("convert", source, tmp_path / name, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


SAMPLE = load_demo_sample()


def test_the_sample_fits_together() -> None:
    encoder = SampleEncoder(SAMPLE)
    sides: Any = (
        ("document", SAMPLE.texts, SAMPLE.documents, SAMPLE.token_strings, encoder.encode_documents),
        ("query", SAMPLE.query_texts, SAMPLE.queries, SAMPLE.query_token_strings, encoder.encode_queries),
    )
    for side, texts, vectors, strings, encode in sides:
        np.testing.assert_array_equal(encode(texts).tokens, vectors.tokens)
        assert [len(words) for words in strings] == vectors.lengths.tolist()
        for text, pieces in zip(texts, strings, strict=True):
            spans = encoder.token_spans(text, side)
            assert spans is not None
            for (start, stop), piece in zip(spans, pieces, strict=True):
                word = text[start:stop].lower()
                assert word == piece.removeprefix("##") or (word == "" and piece in ("[CLS]", "[SEP]"))
    assert all(set(answers) <= set(SAMPLE.documents.ids.tolist()) for answers in SAMPLE.relevant)


def test_the_demo_in_text() -> None:
    code, out, err = muvera("demo")
    assert code == 0 and SAMPLE.query_texts[0] in out and SAMPLE.query_texts[1] in out
    assert "<- a labelled answer" in out and "JSON=json" in out and "##" not in out
    assert "677 texts" in out and "677 docstrings" in err and max(map(len, out.splitlines())) <= 80
    answered = re.search(r"(\d+) of 24 questions", out)
    assert answered is not None and 16 <= int(answered[1]) <= 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with 60 documents and 5 queries."""
    rng = np.random.default_rng(0)
    for name, count in (("docs", 60), ("queries", 5)):
        np.save(tmp_path / f"{name}_tokens.npy", rng.normal(size=(4 * count, 16)).astype(np.float32))
        np.save(tmp_path / f"{name}_lens.npy", np.full(count, 4))
    return tmp_path


def test_diagnose(folder: Path) -> None:
    assert "60" in muvera("diagnose", folder)[1].splitlines()[0]
    values = answer("diagnose", folder, "--queries", folder, "--format", "npy", "--sample", 40)
    assert (values["queries"], values["pseudo_queries"], values["source"]) == (5, False, str(folder))
    assert values["sampled_documents"] == 40
    assert answer("diagnose", folder, "-o", "part=queries")["documents"] == 5


def test_tune(tmp_path: Path) -> None:
    some_texts(200, 8).save(tmp_path / "docs")
    given = ["tune", tmp_path / "docs", "--sample", 80, "--max-bytes", 300, "--candidates", 10]
    facts = answer(*given, "--out", tmp_path / "tuned.json")
    config = facts["choice"]["config"]
    assert config["dimension"] == 8 and facts["source"] == str(tmp_path / "docs")
    given = ["--config", tmp_path / "tuned.json", "--exact-tokens", 0]
    built = answer("index", tmp_path / "docs", tmp_path / "index", *given)
    assert {**built["encoder"], **config} == built["encoder"]
    assert "does not exist" in fails("tune", tmp_path / "docs", "--out", tmp_path / "none" / "a.json")
    assert "--max-bytes 1" in fails("tune", tmp_path / "docs", "--max-bytes", 1)
