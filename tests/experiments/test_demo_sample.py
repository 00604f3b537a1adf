"""The demo's sample is consistent, its scores are those in its README, and the README's picture can be drawn."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from experiments.demo.make_demo_sample import SAMPLE, best_ranks, collect_documents, write_sample
from muvera.texts.encoders.minilm import is_punctuation


def test_documents_and_queries_align() -> None:
    names = ("ids", "token_strings", "texts", "queries")
    ids, strings, texts, queries = (
        json.loads((SAMPLE / f"{name}.json").read_text("utf-8")) for name in names
    )
    lengths = np.load(SAMPLE / "lengths.npy")
    assert 500 <= len(ids) == len(set(ids)) == len(texts) == len(lengths) <= 700
    assert not any(is_punctuation(token) for one in strings for token in one)
    assert all(text.startswith(f"{one}: ") for one, text in zip(ids, texts, strict=True))
    assert len({query["id"] for query in queries}) == len(queries)
    assert all(query["relevant"] for query in queries)


def test_the_readmes_numbers_the_size_and_the_texts(tmp_path: Path) -> None:
    ranks, readme = best_ranks(SAMPLE), (SAMPLE / "README.md").read_text(encoding="utf-8")
    for depth in (1, 3, 10):
        assert f"{sum(rank <= depth for rank in ranks)} of {len(ranks)}" in readme
    assert sum(rank <= 3 for rank in ranks) > len(ranks) / 2
    assert sum(path.stat().st_size for path in SAMPLE.iterdir()) < 5_000_000
    # Other ids of the sample do not exist in every version of Python.
    documents = collect_documents(["json.loads", "str.upper", "collections.Counter.most_common"])
    assert all(text.startswith(f"{name}: ") for name, text in documents.items())
    for name, value in (("ids", ["json.loads"]), ("queries", [{"text": "q", "relevant": ["json.dumps"]}])):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"not among the documents: json\.dumps"):
        write_sample(tmp_path)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium is installed")
def test_the_picture_of_the_readme_is_drawn(tmp_path: Path) -> None:
    for name in ("uvicorn", "fastapi", "playwright"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    from experiments.demo.draw_answer import WIDTH, draw

    draw(tmp_path / "answer.png")
    width, height = struct.unpack(">II", (tmp_path / "answer.png").read_bytes()[16:24])
    assert width == WIDTH and 400 < height < 800  # three answers, and nothing below them
