"""``muvera search``."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.command_line import answer, fails, muvera, some_texts
from builders.text_encoders import HashEncoder

from muvera import MultiVectors, MuveraIndex, TextIndex, top_k
from muvera.engines.base import SCHEMES

QUERIES = some_texts(6, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("search")
    MuveraIndex.build(some_texts(), exact_tokens=0, path=folder / "index")
    MuveraIndex.build(some_texts(ids=False), path=folder / "numbered")
    QUERIES.with_ids([f"q{i}" for i in range(6)]).save(folder / "queries")
    return folder


def test_rankings_are_those_of_exact_chamfer(folder: Path) -> None:
    found = answer("search", folder / "index", folder / "queries", "-k", 5)
    assert (found["k"], found["candidates"], found["mean"]) == (5, 100, False)
    expected = top_k(QUERIES[[0, 1, 2, 4, 5]], some_texts(), 5)
    assert [query["id"] for query in found["queries"]] == [f"q{i}" for i in range(6)]
    assert found["queries"][3]["results"] == []
    filled = [query for query in found["queries"] if query["id"] != "q3"]
    for query, best in zip(filled, expected, strict=True):
        assert [result["id"] for result in query["results"]] == best.ids.tolist()
        assert [result["score"] for result in query["results"]] == best.scores.tolist()


def test_text_for_people(folder: Path) -> None:
    code, out, err = muvera("search", folder / "index", folder / "queries", "-k", 2)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 6 + 5 * 2
    best = top_k(QUERIES[0], some_texts(), 1)[0]
    assert lines[0] == "query q0"
    assert lines[1].split() == ["1", f"{best.scores[0]:.4f}", best.ids[0]]
    assert "1 query has no tokens and gets an empty ranking: 'q3'." in err
    assert "6 queries among 30 documents in" in err
    assert muvera("search", folder / "index", folder / "queries", "-k", 2, "--quiet")[2] == ""


def test_means(folder: Path) -> None:
    sums = answer("search", folder / "index", folder / "queries")["queries"][0]["results"]
    means = answer("search", folder / "index", folder / "queries", "--mean")["queries"][0]["results"]
    assert [a["id"] for a in sums] == [b["id"] for b in means]
    tokens = len(QUERIES[0])
    np.testing.assert_allclose([b["score"] * tokens for b in means], [a["score"] for a in sums], rtol=1e-6)


def test_cheaper_reranking(folder: Path) -> None:
    given = ["search", folder / "index", folder / "queries", "-k", 3, "--candidates", 20]
    full = answer(*given)
    assert (full["ball_carving_tau"], full["patience"]) == (None, None)
    found = answer(*given, "--ball-carving-tau", 0.5, "--patience", 1)
    assert (found["ball_carving_tau"], found["patience"]) == (0.5, 1)
    index = MuveraIndex.load(folder / "index")
    filled = [query for query in found["queries"] if query["id"] != "q3"]
    expected = index.search(QUERIES[[0, 1, 2, 4, 5]], 3, candidates=20, ball_carving_tau=0.5, patience=1)
    for query, best in zip(filled, expected, strict=True):
        assert [(result["id"], result["score"]) for result in query["results"]] == list(best)
    assert found["queries"] != full["queries"]
    assert "--ball-carving-tau must be above 0 and at most 1" in fails(*given, "--ball-carving-tau", 2)
    assert "patience must be at least 1, got 0" in fails(*given, "--patience", 0)


def test_explained_similarities_add_up_to_the_score(folder: Path) -> None:
    found = answer("search", folder / "index", folder / "queries", "-k", 3, "--explain")
    documents = some_texts()
    for result in found["queries"][1]["results"]:
        assert sum(result["similarities"]) == pytest.approx(result["score"], abs=1e-5)
        tokens = documents[documents.ids.tolist().index(result["id"])]
        products = QUERIES[1] @ tokens.T
        assert result["tokens"] == products.argmax(axis=1).tolist()
    code, out, _ = muvera("search", folder / "index", folder / "queries", "-k", 1, "--explain")
    first = found["queries"][0]["results"][0]
    assert code == 0
    assert f"0={first['tokens'][0]} {first['similarities'][0]:.2f}" in out


def test_a_trec_run(folder: Path) -> None:
    code, out, _ = muvera("search", folder / "index", folder / "queries", "-k", 4, "--trec")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert len(rows) == 5 * 4
    best = top_k(QUERIES[0], some_texts(), 4)[0]
    assert [row[2] for row in rows[:4]] == best.ids.tolist()
    assert [np.float32(row[4]) for row in rows[:4]] == best.scores.tolist()
    assert {(row[1], row[5]) for row in rows} == {("Q0", "muvera")}
    assert [row[3] for row in rows[:4]] == ["1", "2", "3", "4"]
    for other in ("--json", "--explain"):
        assert "--trec prints a run" in fails("search", folder / "index", folder / "queries", "--trec", other)


def test_ids_with_spaces_do_not_fit_a_trec_run(folder: Path, tmp_path: Path) -> None:
    QUERIES.with_ids([f"question {i}" for i in range(6)]).save(tmp_path / "queries")
    code, out, err = muvera("search", folder / "index", tmp_path / "queries", "--trec", "-q")
    assert (code, out) == (2, "")
    assert "id 'question 0' has white space" in err


def test_a_filter_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("d5\n\nd7\r\nd9\nunknown\n")
    code, _, err = muvera(
        "search", folder / "index", folder / "queries", "--filter-file", tmp_path / "ids", "-k", 10, "--json"
    )
    assert code == 0
    assert "1 of 4 ids in" in err and "is not in the index: 'unknown'." in err
    found = answer("search", folder / "index", folder / "queries", "--filter-file", tmp_path / "ids")
    assert sorted(result["id"] for result in found["queries"][0]["results"]) == ["d5", "d7", "d9"]
    (tmp_path / "none").write_text("")
    found = answer("search", folder / "index", folder / "queries", "--filter-file", tmp_path / "none")
    assert all(query["results"] == [] for query in found["queries"])


def test_filters_of_an_index_with_integer_ids(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("5\n7\n")
    given = [folder / "numbered", folder / "queries", "--filter-file", tmp_path / "ids"]
    found = answer("search", *given)
    assert sorted(result["id"] for result in found["queries"][0]["results"]) == [5, 7]
    (tmp_path / "ids").write_text("5\nd7\n")
    assert "ids line 2: 'd7' is not an integer" in fails("search", *given)


def test_a_batch_in_one_file(folder: Path, tmp_path: Path) -> None:
    batch = np.random.default_rng(2).normal(size=(4, 5, 16)).astype(np.float32)
    np.save(tmp_path / "query_embedding.npy", batch)
    # What lies beside it belongs to other texts.
    some_texts().save(tmp_path / "docs")
    for file in (tmp_path / "docs").iterdir():
        file.rename(tmp_path / file.name)
    found = answer("search", folder / "index", tmp_path / "query_embedding.npy", "-k", 3)
    expected = top_k(list(batch), some_texts(), 3)
    assert [query["id"] for query in found["queries"]] == [0, 1, 2, 3]
    for query, best in zip(found["queries"], expected, strict=True):
        assert [result["id"] for result in query["results"]] == best.ids.tolist()


def test_folders_and_files_with_both_parts(folder: Path, tmp_path: Path) -> None:
    arrays: dict[str, Any] = {}
    for part, texts in (("docs", some_texts()), ("queries", QUERIES)):
        arrays |= {f"{part}_tokens": texts.tokens, f"{part}_lens": texts.lengths}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    np.savez(tmp_path / "both.npz", **arrays)
    for source in (tmp_path, tmp_path / "both.npz", tmp_path / "queries_tokens.npy"):
        assert len(answer("search", folder / "index", source)["queries"]) == 6
    assert len(answer("search", folder / "index", tmp_path, "--part", "docs")["queries"]) == 30
    # Damaged queries are an error, and not the documents instead.
    np.save(tmp_path / "queries_lens.npy", QUERIES.lengths[1:])
    assert "queries_lens" in fails("search", folder / "index", tmp_path)


def test_queries_from_a_plain_folder_and_from_tables(folder: Path, tmp_path: Path) -> None:
    plain = answer("search", folder / "index", folder / "queries", "--part", "docs")
    assert len(plain["queries"]) == 6
    pytest.importorskip("pyarrow", reason="reading Parquet needs pyarrow")
    code, _, err = muvera("convert", folder / "queries", tmp_path / "q.parquet", "--to", "parquet")
    assert code == 0, err
    assert answer("search", folder / "index", tmp_path / "q.parquet")["queries"] == plain["queries"]


def test_bad_input(folder: Path, tmp_path: Path) -> None:
    index, queries = folder / "index", folder / "queries"
    assert "k must be at least 1, got 0" in fails("search", index, queries, "-k", 0)
    assert "--candidates 3 must be at least k=10" in fails("search", index, queries, "--candidates", 3)
    assert "nowhere" in fails("search", index, queries, "--filter-file", "nowhere")
    assert "is not a muvera index" in fails("search", queries, queries)
    assert "does not exist" in fails("search", index, tmp_path / "nothing")
    narrow = MultiVectors.from_arrays([np.ones((2, 4), np.float32)])
    narrow.save(tmp_path / "narrow")
    assert "queries has 4 columns, but this index has dimension=16." in fails(
        "search", index, tmp_path / "narrow"
    )
    np.save(tmp_path / "flat.npy", np.ones((5, 16), np.float32))
    assert "nothing says where a document ends" in fails("search", index, tmp_path / "flat.npy")
    np.save(tmp_path / "bad.npy", np.full((2, 3, 16), np.inf, np.float32))
    assert "finite" in fails("search", index, tmp_path / "bad.npy")
    manifest = tmp_path / "damaged" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text("{")
    assert "manifest.json is damaged" in fails("search", manifest.parent, queries)


def test_a_question_to_an_index_of_texts_is_sent_to_its_command(tmp_path: Path) -> None:
    index = tmp_path / "texts"
    TextIndex.build(["a red apple"], HashEncoder(), path=index)
    message = fails("search", index, "what is red?")
    assert "There is no file 'what is red?', and this command takes token vectors." in message
    assert f"muvera texts search {index} 'what is red?' answers a question (--explain, --html)." in message


def test_urls_that_are_not_known(folder: Path) -> None:
    line = fails("search", "http://127.0.0.1:9/x", folder / "queries")
    assert "http://127.0.0.1:9/x is no URL that is known" in line
    assert all(f"{name}:" in line for name in SCHEMES)


def test_folders_that_are_no_index(folder: Path) -> None:
    assert "nowhere does not exist" in fails("search", folder / "nowhere", folder / "queries")
    line = fails("search", folder / "queries", folder / "queries")
    assert f"muvera index {folder / 'queries'} INDEX" in line


def test_questions_to_an_index_without_texts(folder: Path) -> None:
    line = fails("texts", "search", folder / "index", "pet")
    assert f"Search it with query embeddings: muvera search {folder / 'index'} QUERIES." in line
    assert "--unit must be document or sentence, got 'foo'." in fails(
        "texts", "search", folder / "index", "pet", "--unit", "foo"
    )


def test_a_file_of_texts_that_does_not_exist(folder: Path) -> None:
    line = fails("texts", "index", folder / "nope.jsonl", folder / "texts")
    assert "nope.jsonl does not exist." in line
