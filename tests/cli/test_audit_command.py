"""muvera audit: reports, settings and errors in sentences."""

import json
from pathlib import Path

import pytest
from builders.command_line import answer, fails, muvera
from builders.realistic_collections import documents_like_real, queries_like_real

from muvera import top_k

DOCUMENTS = documents_like_real(120)
QUERIES = queries_like_real(DOCUMENTS, 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    DOCUMENTS.save(tmp_path / "tokens")
    QUERIES.save(tmp_path / "queries")
    best = [ranking.ids[::-1].tolist() for ranking in top_k(QUERIES, DOCUMENTS, 40)]
    (tmp_path / "run.json").write_text(json.dumps(best))
    return tmp_path


def test_the_report_of_a_run_says_what_would_help(folder: Path) -> None:
    files = ["audit", folder / "run.json", "--queries", folder / "queries", "--documents", folder / "tokens"]
    words = " ".join(muvera(*files)[1].split())
    assert "recall@10 against exact Chamfer: 0.000" in words
    assert "rank the first 40 ids of each answer by all tokens" in words
    report = answer(*files, "-k", 40)
    assert (report["recall"], report["k"]) == (1.0, 40)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run.json"], "Give --documents."),
        (["none.json", "--documents", "tokens"], "none.json"),
        (["lancedb:nowhere#docs"], "nowhere#docs does not exist"),
        (["run.json", "--documents", "tokens", "-s", "ef=3"], "Settings belong to a collection"),
    ],
)
def test_errors_are_sentences(
    arguments: list[str], part: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert part in fails("audit", *arguments, "--queries", "queries")
