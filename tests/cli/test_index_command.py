"""Commands of token embeddings and indexes."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera, set_terminal, some_texts
from builders.paths import ROOT
from builders.text_encoders import HashEncoder, ShortModel

from muvera import FDEConfig, FDEEncoder, MultiVectors, MuveraIndex, TextIndex, top_k
from muvera.cli import printing, sources
from muvera.cli.sources import open_index
from muvera.convert import read
from muvera.engines import EngineIndex
from muvera.index import calibration
from muvera.texts.database import DocumentDatabase

SMALL: dict[str, Any] = {"num_repetitions": 3, "num_simhash_projections": 2, "projection_dimension": 4}
TINY: dict[str, Any] = {"num_landmarks": 16, "final_projection_dimension": 8}
FDE = FDEConfig.preset("simhash", 16, **SMALL)
VECTORS = FDEEncoder(FDE).fit(some_texts()).encode_documents(some_texts())
QUERIES = some_texts(6, seed=1)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    some_texts().save(tmp_path / "docs")
    QUERIES.save(tmp_path / "queries")
    return tmp_path / "docs"


def config(tmp_path: Path, **values: Any) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(values), "utf-8-sig")  # as some editors of Windows do
    return tmp_path / "config.json"


def assert_same(index: MuveraIndex, expected: MultiVectors) -> None:
    assert index.ids.tolist() == expected.ids.tolist()
    np.testing.assert_array_equal(index.tokens(index.ids).tokens, expected.tokens)


def test_a_long_index_is_announced(docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "about" not in muvera("index", docs, tmp_path / "short")[2]
    monkeypatch.setattr(printing, "_LONG_JOB", 0.0)
    for options in ([], ["--encoder", "mean", "--tokens", "2bit", "--exact-tokens", 0]):
        code, _, err = muvera("index", docs, tmp_path / "out", *options, "--overwrite")
        assert code == 0, err
        assert re.match(r"30 documents of \d+ tokens: this will take about \d+\.\d kB on disk", err), err


def test_options_and_a_file_of_parameters(docs: Path, tmp_path: Path) -> None:
    given = ["--encoder", "simhash", "--config", config(tmp_path, **SMALL, seed=7), "--exact-tokens", 0]
    given += ["--backend", "hnsw", "--tokens", "2bit", "--keep-exact"]
    facts = answer("index", docs, tmp_path / "out", *given)
    assert (facts["documents"], facts["empty_documents"], facts["index"]) == (30, 1, str(tmp_path / "out"))
    assert facts["vectors"]["kind"] == "hnsw"
    loaded = MuveraIndex.load(tmp_path / "out")
    assert loaded.config == FDEConfig.preset("simhash", 16, **SMALL, seed=7)
    assert (loaded.settings.tokens, loaded.settings.keep_exact) == ("2bit", True)
    words = " ".join(muvera("index", docs, tmp_path / "other", *given)[1].split())
    assert "65 floats (hnsw)" in words and "without exact tokens" in words


def test_an_encoder_is_fitted_on_all_batches(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Index and encode fit the same encoder, for any number of batches."""
    monkeypatch.setattr(sources, "_BATCH_BYTES", 16 * 4 * 300)
    texts = some_texts(400)
    drift = np.linspace(0, 3, texts.num_tokens, dtype=np.float32)[:, None]
    MultiVectors.from_flat(texts.tokens + drift, texts.lengths, ids=texts.ids).save(tmp_path / "drifting")
    source = tmp_path / "drifting"
    answer("index", source, tmp_path / "index", "--exact-tokens", 300, "--encoder", "fde")
    answer("encode", source, tmp_path / "all", "--encoder", "fde")
    answer("encode", source, tmp_path / "by", "--encoder", tmp_path / "index")
    first, second = (np.load(tmp_path / name / "vectors.npy") for name in ("by", "all"))
    np.testing.assert_array_equal(first, second)
    some_texts(ids=False).save(tmp_path / "numbered")
    monkeypatch.setattr(sources, "_BATCH_BYTES", 16 * 4 * 50)
    given = ["--encoder", "simhash", "--config", config(tmp_path, **SMALL)]
    answer("encode", tmp_path / "numbered", tmp_path / "npy", *given)
    np.testing.assert_allclose(vectors(tmp_path / "npy"), VECTORS, atol=1e-5)
    assert json.loads((tmp_path / "npy" / "ids.json").read_text()) == list(range(30))
    given = ["--encoder", "fde", "--config", config(tmp_path, **TINY), "--exact-tokens", 0]
    answer("index", source, tmp_path / "tiny", *given)
    assert MuveraIndex.load(tmp_path / "tiny").config == FDEConfig.preset("fde", 16, **TINY)


@pytest.mark.parametrize(
    "command",
    [
        ("index", "DOCS", "URL"),
        ("encode", "DOCS", "URL"),
        ("encode", "DOCS", "vectors", "--save-encoder", "URL"),
        ("convert", "DOCS", "URL"),
        ("convert", "DOCS", "URL", "--to", "npz"),
        ("tune", "DOCS", "--out", "URL"),
        ("texts", "index", "TEXTS", "URL"),
        ("pages", "index", "TEXTS", "URL"),
        ("pages", "search", "INDEX", "words", "--pictures", "URL"),
    ],
    ids=lambda command: " ".join(command),
)
def test_a_url_as_output_leaves_no_password_behind(
    command: tuple[str, ...], docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in a message nor as a folder of that name."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    (tmp_path / "a.txt").write_text("text")
    places: dict[str, object] = {"DOCS": docs, "TEXTS": tmp_path / "a.txt"}
    error = fails(*(places.get(part, part.replace("URL", "postgresql://u:secret@h/d")) for part in command))
    assert "got a URL of postgresql" in error and "secret" not in error
    assert list((tmp_path / "work").iterdir()) == []


def test_an_encoder_becomes_an_onnx_file(docs: Path, tmp_path: Path) -> None:
    """From the folder of an encoder, or of an index with one."""
    answer("encode", docs, tmp_path / "vectors", "--encoder", "mean")
    answer("index", docs, tmp_path / "index", "--encoder", "mean", "--exact-tokens", 0)
    out = tmp_path / "queries.onnx"
    facts = answer("onnx", tmp_path / "vectors.encoder", out)
    assert (facts["side"], facts["dimension"], facts["bytes"]) == ("queries", 17, out.stat().st_size)
    assert "--overwrite to replace it" in fails("onnx", tmp_path / "index", out)
    assert (
        answer("onnx", tmp_path / "index", out, "--side", "documents", "--overwrite")["side"] == "documents"
    )
    assert "docs is not the folder of an index or of encode --save-encoder" in fails("onnx", docs, out)


def test_bad_options_of_an_index_are_named(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    for arguments, text in (
        (["--encoder", "best"], "fde, moments, mean, simhash, paper, reference, or the folder"),
        (["--keep-codes"], "needs a PLAID index, got the format npy. Omit --keep-codes"),
        (["--exact-tokens", -1], "--exact-tokens must be at least 0, got -1."),
        (["--config", "nowhere.json"], "nowhere.json"),
        (["--config", tmp_path / "list.json"], "JSON object of parameters, got list"),
        (["--config", config(tmp_path, dimension=4)], "16 columns"),
    ):
        assert text in fails("index", docs, tmp_path / "out", "--exact-tokens", 0, *arguments)
    typo = ["--config", config(tmp_path, num_repetition=4)]
    assert "Did you mean 'num_repetitions'?" in fails("index", docs, tmp_path / "out", *typo)
    assert not (tmp_path / "out").exists()


def test_sources_that_are_no_token_vectors_are_named(docs: Path, tmp_path: Path) -> None:
    assert "OUT must be a folder" in fails("index", docs, "lancedb:x#y")
    url = "postgresql://u:secret@h/d"
    error = fails("index", url, "x")
    assert "must be a folder" in error and "secret" not in error
    assert "A URL of postgresql is not a file. Give CSV" in fails("texts", "index", url, "x")
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "a.bin").write_bytes(b"\0\1")
    some_texts()[:0].save(tmp_path / "empty")
    for name, text in (
        ("a.txt", "muvera texts index"),
        ("a.bin", "give --format"),
        ("a.bin", "muvera formats"),
        ("empty", "no documents"),
    ):
        assert text in fails("index", tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("named", [True, False], ids=["names", "numbers"])
def test_commands_read_an_index(named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_DOCUMENTS", 13)
    texts = some_texts(60, ids=named)
    index = MuveraIndex.build(texts, path=tmp_path / "index")
    index.delete([texts.ids[7].item(), texts.ids[20].item()])
    index.save(tmp_path / "index")
    rest = np.setdiff1d(np.arange(60), [7, 20])
    left = texts[rest].with_ids(texts.ids[rest])
    source = open_index(tmp_path / "index")
    assert (source.num_documents, source.num_tokens) == (58, left.num_tokens)
    assert all(batch.num_tokens <= 20 or len(batch) == 1 for batch in source.batches(20))
    code, out, err = muvera("index", tmp_path / "index", tmp_path / "again")
    assert (code, err) == (0, "") and "searches read all tokens" in " ".join(out.split())
    assert_same(MuveraIndex.load(tmp_path / "again"), left)
    answer("convert", tmp_path / "index", tmp_path / "tokens")
    assert read(tmp_path / "tokens").ids.tolist() == left.ids.tolist()
    answer("index", tmp_path / "index", tmp_path / "index", "--overwrite", "--exact-tokens", 0)
    assert_same(MuveraIndex.load(tmp_path / "index"), left)
    code, out, _ = muvera("search", tmp_path / "index", tmp_path / "index", "-k", 1)
    assert (code, out.count("query ")) == (0, 58)
    for given in (["-o", "part=docs"], ["--option", "column=a"]):
        assert "Omit --option" in fails("diagnose", tmp_path / "index", *given)


def test_info_of_an_index(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"exact_tokens": 0, "backend": "hnsw"}
    index = MuveraIndex.build(some_texts(300), FDE, path=tmp_path / "index", **settings)
    facts = answer("info", tmp_path / "index", "--full")
    expected = json.loads(json.dumps(index.info().to_dict()))
    assert {name: facts[name] for name in expected} == expected
    assert (facts["kind"], facts["verified"]) == ("index", True)
    assert facts["bytes_on_disk"] > some_texts(300).num_tokens * 16 * 4
    out = muvera("info", tmp_path / "index")[1]
    assert "verified False documents 300 empty documents 1 " in " ".join(out.split())
    assert "vectors\n  kind                    hnsw\n" in out and max(map(len, out.splitlines()[1:])) <= 40
    tokens = next((tmp_path / "index").rglob("tokens-*.npy"))
    content = bytearray(tokens.read_bytes())
    content[-1] ^= 1
    tokens.write_bytes(content)
    assert "checksum" in fails("info", tmp_path / "index", "--full")


def test_info_of_texts_and_encoders(docs: Path, tmp_path: Path) -> None:
    TextIndex.build(["red apple", "green pear"], HashEncoder(name="words"), path=tmp_path / "texts")
    facts = answer("info", tmp_path / "texts")
    assert (facts["texts"], facts["text_encoder"]) == (2, "words")
    out = muvera("info", tmp_path / "texts")[1]  # so few texts are searched without vectors
    assert "exact up to (tokens)      20,000\nencoder (not in use)\n" in out
    answer("encode", docs, tmp_path / "a", "--save-encoder", tmp_path / "encoder")
    assert answer("info", tmp_path / "encoder")["encoder"]["vector_dimension"] == 512


def test_info_surveys_embeddings_with_full(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = some_texts().num_tokens
    facts = answer("info", docs, "--full")
    assert (facts["kind"], facts["format"], facts["lossy"]) == ("embeddings", "npy", False)
    assert (facts["documents"], facts["tokens"], facts["dimension"]) == (30, count, 16)
    assert facts["survey"]["read"]["empty_documents"] == 1 and facts["survey"]["read"]["normalized"] is True
    set_terminal(monkeypatch, 80)
    out = muvera("info", docs, "--full")[1]
    assert "normalized, 1 empty document" in " ".join(out.split())
    assert max(map(len, out.splitlines()[1:])) <= 80  # the first line has the path


def test_info_does_not_read_all_embeddings_without_full(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text(json.dumps({"id": "a", "embedding": [[1.0, 2.0]]}) + "\n")
    assert "--full" in muvera("info", tmp_path / "docs.jsonl")[2]
    assert answer("info", tmp_path / "docs.jsonl")["tokens"] is None


def test_info_of_nothing_is_an_error(tmp_path: Path) -> None:
    assert "does not exist" in fails("info", tmp_path / "nothing")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    MuveraIndex.build(some_texts(), exact_tokens=0, path=folder / "index")
    QUERIES.with_ids([f"q{i}" for i in range(6)]).save(folder / "queries")
    return folder


@pytest.fixture(scope="module")
def searching(folder: Path) -> list[Any]:
    """Arguments of a search for the best four."""
    return ["search", folder / "index", folder / "queries", "-k", 4]


def test_rankings_are_those_of_exact_chamfer(searching: list[Any]) -> None:
    content = answer(*searching)
    assert (content["k"], content["candidates"]) == (4, None)  # the index chooses the number
    assert [query["id"] for query in content["queries"]] == [f"q{i}" for i in range(6)]
    rankings = [[(hit["id"], hit["score"]) for hit in query["results"]] for query in content["queries"]]
    expected = list(map(list, top_k(QUERIES[[0, 1, 2, 4, 5]], some_texts(), 4)))
    assert rankings.pop(3) == [] and rankings == expected


def test_a_target_recall_replaces_candidates(searching: list[Any]) -> None:
    found = answer(*searching, "--recall", 0.9)
    assert found["recall"] == 0.9 and found["candidates"] is None
    error = fails(*searching, "--recall", 0.9, "--candidates", 20)
    assert "--recall 0.9 or --candidates 20, not both" in error


def test_printed_rankings(searching: list[Any]) -> None:
    best = top_k(QUERIES[0], some_texts(), 4)[0]
    code, out, err = muvera(*searching)
    lines = out.splitlines()
    assert code == 0 and len(lines) == 6 + 5 * 4 and lines[0] == "query q0"
    assert lines[1].split() == ["1", f"{best.scores[0]:.4f}", best.ids[0]]
    assert "6 queries among 30 documents" in err


def test_rankings_in_the_format_of_trec(searching: list[Any]) -> None:
    best = top_k(QUERIES[0], some_texts(), 4)[0]
    code, out, _ = muvera(*searching, "--trec")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0 and len(rows) == 5 * 4
    assert [(row[2], np.float32(row[4])) for row in rows[:4]] == list(best)
    assert {(row[1], row[5]) for row in rows} == {("Q0", "muvera")}
    assert [row[3] for row in rows[:4]] == ["1", "2", "3", "4"]


def test_parts_of_documents_are_shown(folder: Path, tmp_path: Path) -> None:
    names = [f"d{i // 5}" for i in range(30)]
    index = MuveraIndex.build(some_texts().with_ids(names), path=tmp_path / "parts")
    arguments = ["search", tmp_path / "parts", folder / "queries", "-k", 4]
    groups: tuple[Literal["document", "part"], ...] = ("document", "part")
    for group in groups:
        expected = index.search(QUERIES[0], 4, group=group)[0].to_dict()
        hits = answer(*arguments, "--group", group)["queries"][0]["results"]
        columns = {"ids": "id", "scores": "score", "parts": "part"}
        assert {name: [hit[column] for hit in hits] for name, column in columns.items()} == expected
        best = f"{expected['ids'][0]} part {expected['parts'][0]}"
        assert muvera(*arguments, "--group", group)[1].splitlines()[1].split()[2:] == best.split()
    assert "each document once" in fails(*arguments, "--group", "part", "--trec")
    assert len(muvera(*arguments, "--trec")[1].splitlines()[0].split()) == 6


def test_trec_excludes_json_and_ids_with_blanks(searching: list[Any], tmp_path: Path) -> None:
    assert "--trec" in fails(*searching, "--trec", "--json")
    QUERIES.with_ids([f"question {i}" for i in range(6)]).save(tmp_path / "queries")
    assert "'question 0'" in fails("search", searching[1], tmp_path / "queries", "--trec")


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A folder with documents and queries."""
    for part, texts in (("docs", some_texts()), ("queries", QUERIES)):
        np.save(tmp_path / f"{part}_tokens.npy", texts.tokens)
        np.save(tmp_path / f"{part}_lens.npy", texts.lengths)
    return tmp_path


def test_sources_of_queries(folder: Path, parts: Path) -> None:
    index = folder / "index"
    for source in (parts, parts / "queries_tokens.npy"):
        assert len(answer("search", index, source)["queries"]) == 6
    assert len(answer("search", index, parts, "-o", "part=docs")["queries"]) == 30
    assert len(answer("search", index, folder / "queries", "-o", "part=docs")["queries"]) == 6
    # Damaged queries are an error; the documents do not replace them.
    np.save(parts / "queries_lens.npy", QUERIES.lengths[1:])
    assert "queries_lens" in fails("search", index, parts)


def test_bad_searches(folder: Path, tmp_path: Path) -> None:
    index, queries = folder / "index", folder / "queries"
    MultiVectors.from_arrays([np.ones((2, 4), np.float32)]).save(tmp_path / "narrow")
    TextIndex.build(["a red apple"], HashEncoder(), path=tmp_path / "texts")
    for arguments, text in (
        ([index, queries, "-k", 0], "--k must be at least 1, got 0"),
        ([index, queries, "--where", "{}"], "--where and --rerank need the URL"),
        ([queries, queries], f"muvera index {queries} INDEX"),
        ([index, tmp_path / "nothing"], "nothing does not exist"),
        ([index, tmp_path / "narrow"], "4 columns"),
        ([tmp_path / "texts", "what is red?"], f"muvera texts search {tmp_path / 'texts'} 'what is red?'"),
    ):
        assert text in fails("search", *arguments)
    assert "Use muvera search." in fails("texts", "search", index, "pet")
    assert "--encoder" in fails("texts", "search", tmp_path / "texts", "pet")


@pytest.mark.parametrize(("token", "warned"), [("short", True), ("0123456789abcdef", False)])
def test_serve(folder: Path, monkeypatch: pytest.MonkeyPatch, token: str, warned: bool) -> None:
    pytest.importorskip("fastapi", reason="the serve extra is not installed")
    pytest.importorskip("uvicorn", reason="the serve extra is not installed")
    from muvera.serve import listen

    with listen("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        assert "Give another --port" in fails("serve", folder / "index", "--port", port)  # not announced
    for host in ("no.such.host.invalid", "192.0.2.1"):
        with pytest.raises(OSError, match=host):
            listen(host, 0)
    monkeypatch.setattr("muvera.serve.serve", lambda *_, announce, **__: announce())
    monkeypatch.setenv("MUVERA_TOKEN", token)
    code, out, err = muvera("serve", folder / "index", "--writable")
    assert code == 0 and "30 documents at http://127.0.0.1:8080/" in out
    assert ("5 characters and could be guessed" in err) == warned == bool(err)
    assert "Other machines" in muvera("serve", folder / "index", "--host", "0.0.0.0")[2]
    assert "--root is the folder of a page index's documents" in fails(
        "serve", folder / "index", "--root", folder
    )


def test_serve_names_the_page_after_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="the serve extra is not installed")
    names: list[str] = []
    monkeypatch.setattr("muvera.serve.serve", lambda *_, name, **__: names.append(name))
    assert muvera("serve", folder / "index")[0] == 0 and names == ["index"]


def test_changes_are_saved_when_a_server_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muvera.texts.encoders.registry.load_text_encoder", lambda _: HashEncoder())
    monkeypatch.setattr("muvera.serve.serve", lambda index, *_, **__: index.add(["a green pear"]))
    monkeypatch.setenv("MUVERA_TOKEN", "0123456789abcdef")
    TextIndex.build(["a red apple"], HashEncoder(), path=tmp_path / "texts")
    given = ["serve", tmp_path / "texts", "--encoder", "hash", "--writable"]
    assert muvera(*given) == (0, "", "") and list((tmp_path / "texts").glob("journal-*")) == []
    monkeypatch.setattr(DocumentDatabase, "save", lambda *_: (tmp_path / "none" / "x").touch())
    code, _, err = muvera(*given)
    assert code == 1 and "journal keeps all changes" in err
    assert len(TextIndex.load(tmp_path / "texts", HashEncoder())) == 3


@pytest.fixture
def small(tmp_path: Path) -> list[Any]:
    return ["--encoder", "simhash", "--config", config(tmp_path, **SMALL)]


def vectors(folder: Path) -> Any:
    return np.load(folder / "vectors.npy")


def test_encoded_documents(docs: Path, small: list[Any], tmp_path: Path) -> None:
    assert answer("encode", docs, tmp_path / "m")["config"] == FDEConfig(16).to_dict()
    code, out, err = muvera("encode", docs, tmp_path / "d", *small)
    assert code == 0 and "vectors of documents, 65 floats each, 1 of them zero" in " ".join(out.split())
    assert "--save-encoder" in err
    assert vectors(tmp_path / "d").dtype == np.float32
    np.testing.assert_array_equal(vectors(tmp_path / "d"), VECTORS)
    assert json.loads((tmp_path / "d" / "ids.json").read_text()) == some_texts().ids.tolist()


def test_queries_are_encoded_by_the_saved_encoder(docs: Path, small: list[Any], tmp_path: Path) -> None:
    muvera("encode", docs, tmp_path / "d", *small)
    assert "--overwrite" in fails("encode", docs, tmp_path / "d", *small)
    given = [*small, "--overwrite", "--save-encoder", tmp_path / "encoder"]
    assert muvera("encode", docs, tmp_path / "d", *given)[2] == ""
    saved = ["--side", "queries", "--encoder", tmp_path / "encoder"]
    facts = answer("encode", tmp_path / "queries", tmp_path / "q", *saved)
    assert (facts["side"], facts["config"], facts["vectors"]) == ("queries", FDE.to_dict(), 6)
    expected = FDEEncoder(FDE).fit(some_texts()).encode_queries(QUERIES)
    np.testing.assert_array_equal(vectors(tmp_path / "q"), expected)


def test_encode_writes_a_fitted_encoder_beside_the_vectors(
    docs: Path, small: list[Any], tmp_path: Path
) -> None:
    facts = answer("encode", docs, tmp_path / "d", *small)
    assert facts["encoder"] == str(tmp_path / "d.encoder")
    given = ["--side", "queries", "--encoder", tmp_path / "d.encoder"]
    facts = answer("encode", tmp_path / "queries", tmp_path / "q", *given)
    assert facts["encoder"] is None and not (tmp_path / "q.encoder").exists()
    expected = FDEEncoder(FDE).fit(some_texts()).encode_queries(QUERIES)
    np.testing.assert_array_equal(vectors(tmp_path / "q"), expected)


def test_encode_does_not_replace_the_encoder_of_other_vectors(docs: Path, tmp_path: Path) -> None:
    answer("encode", docs, tmp_path / "d")
    (tmp_path / "d").rename(tmp_path / "moved")
    assert "d.encoder exists" in fails("encode", docs, tmp_path / "d")
    assert not (tmp_path / "d").exists()
    answer("encode", docs, tmp_path / "d", "--overwrite")


def test_encode_replaces_only_its_own_results(docs: Path, tmp_path: Path) -> None:
    for target, extra in ((tmp_path / "out", ["--save-encoder", docs]), (docs, [])):
        assert "docs contains" in fails("encode", docs, target, "--encoder", "mean", *extra, "--overwrite")
    assert (docs / "tokens.npy").is_file()
    assert not (tmp_path / "out").exists()


def test_encoders_that_do_not_fit(docs: Path, small: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "--encoder FOLDER" in fails("encode", docs, out, "--side", "queries")
    MuveraIndex.build(some_texts(), path=tmp_path / "exact")
    assert "has no encoder" in fails("encode", docs, out, "--encoder", tmp_path / "exact")
    MultiVectors.from_arrays([np.ones((2, 4), np.float32)]).save(tmp_path / "narrow")
    answer("encode", docs, tmp_path / "d", *small, "--save-encoder", tmp_path / "encoder")
    fitted = ["--encoder", tmp_path / "encoder"]
    assert "4 columns" in fails("encode", tmp_path / "narrow", out, *fitted)
    assert "is fitted already" in fails("encode", docs, out, *fitted, *small[2:])
    assert not out.exists()


def test_encode_takes_no_sentence(tmp_path: Path) -> None:
    assert "with your model first" in fails("encode", "What is a text?", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def many(tmp_path: Path) -> Path:
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    some_texts(300).save(tmp_path / "many")
    return tmp_path / "many"


def test_loaded_documents_are_found(many: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, queries = f"lancedb:{many.parent / 'engine'}#loaded", folder / "queries"
    monkeypatch.setattr(printing, "_LONG_JOB", 0.0)
    code, _, err = muvera("load", many, "--to", where, "--encoder", "mean")
    assert code == 0 and "this will take about" in err
    monkeypatch.undo()
    facts = answer("load", many, "--to", where, "--encoder", "mean", "--drop")
    assert (facts["added"], facts["without_tokens"], facts["documents"]) == (299, 1, 299)
    again = answer("load", many, "--to", where)
    assert (again["added"], again["skipped"]) == (0, 299)
    index = MuveraIndex.build(some_texts(300), "mean", exact_tokens=0, path=many.parent / "index")
    found = answer("search", where, queries, "-k", 3, "--candidates", 299)
    expected = index.search(QUERIES, 3, candidates=300)
    rankings = [[entry["id"] for entry in query["results"]] for query in found["queries"]]
    assert rankings == [ranking.ids.tolist() for ranking in expected]


def test_an_index_is_loaded_with_its_encoder_and_calibration(many: Path) -> None:
    index = MuveraIndex.build(some_texts(300), "mean", exact_tokens=0, path=many.parent / "index")
    location = f"lancedb:{many.parent / 'engine'}#muvera"
    facts = answer("load", many.parent / "index", "--to", location.removesuffix("#muvera"))
    assert facts["location"] == location
    with EngineIndex(location) as loaded:
        assert loaded.encoder.config == index.config
        assert index.candidates_by_recall
        assert dict(loaded.engine.stored.candidates_by_recall) == index.candidates_by_recall


def test_a_large_collection_is_calibrated(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    location = f"lancedb:{many.parent / 'engine'}#calibrated"
    answer("load", many, "--to", location, "--encoder", "mean")
    with EngineIndex(location) as small:
        assert not small.engine.stored.candidates_by_recall
    monkeypatch.setattr(calibration, "MAX_RANKED", 298)
    assert answer("load", many, "--to", location)["skipped"] == 299
    with EngineIndex(location) as large:
        numbers = dict(large.engine.stored.candidates_by_recall)
        assert 10 <= numbers[0.8] <= numbers[0.95] <= 298  # without the window's document


def test_default_vectors_are_sized_for_the_collection(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sized(config: FDEConfig, documents: int, tokens: int) -> FDEConfig:
        assert tokens == some_texts(300).num_tokens
        return replace(config, seed=documents)

    monkeypatch.setattr(FDEConfig, "sized", sized)
    assert answer("encode", many, many.parent / "vectors")["config"]["seed"] == 300
    url = f"lancedb:{many.parent / 'engine'}#sized"
    answer("load", many, "--to", url)
    with EngineIndex(url) as loaded, EngineIndex(f"{url}_by_add") as added:
        assert loaded.encoder.config.seed == 300
        added.add(some_texts(300))
        assert added.encoder.config.seed == 299  # one has no tokens


def test_a_load_with_replace_writes_documents_again(many: Path) -> None:
    given = ["--to", f"lancedb:{many.parent / 'engine'}#replaced", "--encoder", "mean", "--replace"]
    for _ in range(2):
        facts = answer("load", many, *given)
        assert (facts["added"], facts["skipped"], facts["documents"]) == (299, 0, 299)
    numbered = many.parent / "vectors.npy"
    np.save(numbered, np.ones((3, 4, 16), np.float32))
    given[1] = f"lancedb:{many.parent / 'engine'}#numbered"
    assert answer("load", numbered, *given)["added"] == 3
    assert "no ids, and the collection is not empty. Give them ids." in fails("load", numbered, *given)


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


def test_the_parts_of_long_texts_are_loaded_and_searched(tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="lancedb is not installed")
    folder, url = tmp_path / "texts", f"lancedb:{tmp_path / 'lance'}#long"
    texts = TextIndex.build(["red apple " * 40, "a pear"], ShortModel(), ids=["long", "short"], path=folder)
    assert answer("load", folder, "--to", url, "--encoder", "mean")["documents"] == 2
    parts = texts.index.tokens(["long"])
    with EngineIndex(url) as loaded:
        assert len(loaded.engine.tokens(["long"])) == len(parts) > 1
        assert [one.text for one in loaded.documents(["long", "short"])] == ["red apple " * 40, "a pear"]
    parts[:1].with_ids(["query"]).save(tmp_path / "query")
    found = answer("search", url, tmp_path / "query", "--group", "part")["queries"][0]["results"]
    assert sorted((hit["id"], hit["part"]) for hit in found)[:2] == [("long", 0), ("long", 1)]


def test_an_interrupted_load_says_what_is_stored(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = EngineIndex.add

    def interrupted(index: EngineIndex, documents: Any, *args: Any, **options: Any) -> None:
        add(index, next(iter(documents))[:100], *args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(EngineIndex, "add", interrupted)
    url = f"lancedb:{many.parent / 'engine'}#interrupted"
    code, _, err = muvera("load", many, "--to", url, "--encoder", "mean")
    assert code == 130 and "has 99 documents: the same command loads the rest." in err
    monkeypatch.undo()
    assert answer("load", many, "--to", url)["documents"] == 299


def test_documents_without_tokens_are_reported(tmp_path: Path) -> None:
    np.save(tmp_path / "zeros.npy", np.zeros((3, 5, 16), np.float32))
    code, _, err = muvera("index", tmp_path / "zeros.npy", tmp_path / "index")
    assert code == 0 and "warning: The documents have no tokens" in err


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


def test_convert(docs: Path, tmp_path: Path) -> None:
    code, out, err = muvera("convert", docs, tmp_path / "out", "--normalize", "--dtype", "float16")
    assert (code, err) == (0, "")
    count = some_texts().num_tokens
    assert f"30 documents, {count} tokens, dimension 16, float32, str ids" in " ".join(out.split())
    assert "normalize=True, dtype=float16" in out
    assert np.allclose(np.linalg.norm(read(tmp_path / "out").tokens, axis=1), 1, atol=1e-3)
    limits = ["--time-limit", 60, "--memory-limit", 1024]  # in a process with limits
    report = answer("convert", docs, tmp_path / "out.npz", "--to", "npz", "--pooling", "pylate", *limits)
    facts = report["to"], report["read"]["tokens"], report["options"]
    assert facts == ("npz", count, {"pooling": "pylate"})
    assert report["written"]["tokens"] == read(tmp_path / "out.npz").num_tokens < count


def test_bad_conversions(docs: Path, tmp_path: Path) -> None:
    for name, arguments, text in (
        ("out", ["--to", "plaid", "--nbits", 3], "--nbits must be one of"),
        ("out", ["-o", "part"], "'--option' / '-o': it must be NAME=VALUE, got 'part'"),
        ("out", ["--pooling", "foo"], "colpali, got 'foo'"),
        ("out", ["--isolated", "--memory-limit", 1], "256"),
        ("out.parquet", [], "Give --to parquet or another name"),  # the default would be a folder
    ):
        assert text in fails("convert", docs, tmp_path / name, *arguments)
        assert not (tmp_path / name).exists()


def test_diagnose(parts: Path) -> None:
    assert "30" in muvera("diagnose", parts)[1].splitlines()[0]
    values = answer("diagnose", parts, "--queries", parts, "--format", "npy", "--sample", 20)
    assert (values["queries"], values["pseudo_queries"], values["source"]) == (5, False, str(parts))
    assert values["sampled_documents"] == 20
    assert answer("diagnose", parts, "-o", "part=queries")["documents"] == 6


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
