"""``muvera search`` and ``muvera serve``."""

from pathlib import Path

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera, some_texts
from builders.text_encoders import HashEncoder

from muvera import MultiVectors, MuveraIndex, TextIndex, top_k

QUERIES = some_texts(6, seed=1)
FILLED = QUERIES[[0, 1, 2, 4, 5]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    MuveraIndex.build(some_texts(), exact_tokens=0, path=folder / "index")
    QUERIES.with_ids([f"q{i}" for i in range(6)]).save(folder / "queries")
    return folder


def test_rankings_are_those_of_exact_chamfer(folder: Path, tmp_path: Path) -> None:
    given = ["search", folder / "index", folder / "queries", "-k", 4]
    content = answer(*given)
    assert (content["k"], content["candidates"]) == (4, 100)
    assert [query["id"] for query in content["queries"]] == [f"q{i}" for i in range(6)]
    rankings = [[(hit["id"], hit["score"]) for hit in query["results"]] for query in content["queries"]]
    assert rankings.pop(3) == [] and rankings == list(map(list, top_k(FILLED, some_texts(), 4)))
    best = top_k(QUERIES[0], some_texts(), 4)[0]
    code, out, err = muvera(*given)
    lines = out.splitlines()
    assert code == 0 and len(lines) == 6 + 5 * 4 and lines[0] == "query q0"
    assert lines[1].split() == ["1", f"{best.scores[0]:.4f}", best.ids[0]]
    assert "6 queries among 30 documents" in err
    code, out, _ = muvera(*given, "--trec")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0 and len(rows) == 5 * 4
    assert [(row[2], np.float32(row[4])) for row in rows[:4]] == list(best)
    assert {(row[1], row[5]) for row in rows} == {("Q0", "muvera")}
    assert [row[3] for row in rows[:4]] == ["1", "2", "3", "4"]
    assert "--trec" in fails(*given, "--trec", "--json")
    QUERIES.with_ids([f"question {i}" for i in range(6)]).save(tmp_path / "queries")
    assert "'question 0'" in fails("search", folder / "index", tmp_path / "queries", "--trec")


def test_recall(folder: Path) -> None:
    given = ["search", folder / "index", folder / "queries", "-k", 3, "--recall", 0.9]
    found = answer(*given)
    assert found["recall"] == 0.9 and found["candidates"] is None
    expected = MuveraIndex.load(folder / "index").search(QUERIES, 3, recall=0.9)
    rankings = [[(hit["id"], hit["score"]) for hit in query["results"]] for query in found["queries"]]
    assert rankings == list(map(list, expected))
    assert "--recall 0.9 or --candidates 20, not both" in fails(*given, "--candidates", 20)


def test_sources_of_queries(folder: Path, tmp_path: Path) -> None:
    index = folder / "index"
    for part, texts in (("docs", some_texts()), ("queries", QUERIES)):
        np.save(tmp_path / f"{part}_tokens.npy", texts.tokens)
        np.save(tmp_path / f"{part}_lens.npy", texts.lengths)
    for source in (tmp_path, tmp_path / "queries_tokens.npy"):
        assert len(answer("search", index, source)["queries"]) == 6
    assert len(answer("search", index, tmp_path, "-o", "part=docs")["queries"]) == 30
    assert len(answer("search", index, folder / "queries", "-o", "part=docs")["queries"]) == 6
    # Damaged queries are an error; the documents do not replace them.
    np.save(tmp_path / "queries_lens.npy", QUERIES.lengths[1:])
    assert "queries_lens" in fails("search", index, tmp_path)


def test_bad_input(folder: Path, tmp_path: Path) -> None:
    index, queries = folder / "index", folder / "queries"
    MultiVectors.from_arrays([np.ones((2, 4), np.float32)]).save(tmp_path / "narrow")
    for arguments, text in (
        ([index, queries, "-k", 0], "--k must be at least 1, got 0"),
        ([index, queries, "--candidates", 3], "--candidates 3 must be at least --k 10"),
        ([index, queries, "--where", "{}"], "--where and --rerank need the URL"),
        ([queries, queries], f"muvera index {queries} INDEX"),
        ([folder / "nowhere", queries], "nowhere does not exist"),
        ([index, tmp_path / "nothing"], "nothing does not exist"),
        ([index, tmp_path / "narrow"], "4 columns"),
    ):
        assert text in fails("search", *arguments)


def test_texts_and_vectors_are_told_apart(folder: Path, tmp_path: Path) -> None:
    TextIndex.build(["a red apple"], HashEncoder(), path=tmp_path / "texts")
    line = fails("search", tmp_path / "texts", "what is red?")
    assert f"muvera texts search {tmp_path / 'texts'} 'what is red?'" in line
    assert "Use muvera search." in fails("texts", "search", folder / "index", "pet")
    assert "--encoder" in fails("texts", "search", tmp_path / "texts", "pet")


@pytest.mark.parametrize(("token", "warned"), [("short", True), ("0123456789abcdef", False)])
def test_serve(folder: Path, monkeypatch: pytest.MonkeyPatch, token: str, warned: bool) -> None:
    pytest.importorskip("fastapi", reason="the serve extra is not installed")
    pytest.importorskip("uvicorn", reason="the serve extra is not installed")
    from muvera.serve import run

    with run.listen("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        assert "Give another --port" in fails("serve", folder / "index", "--port", port)  # not announced
    for host in ("no.such.host.invalid", "192.0.2.1"):
        with pytest.raises(OSError, match=host):
            run.listen(host, 0)
    monkeypatch.setattr(run, "serve", lambda *_, announce, **__: announce())
    monkeypatch.setenv("MUVERA_TOKEN", token)
    code, out, err = muvera("serve", folder / "index", "--writable")
    assert code == 0 and "30 documents at http://127.0.0.1:8080/" in out
    assert ("5 characters and could be guessed" in err) == warned == bool(err)
    assert "Other machines" in muvera("serve", folder / "index", "--host", "0.0.0.0")[2]
