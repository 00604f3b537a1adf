"""The bundled demo sample is consistent, and its scores are those in its README; no model is needed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.demo.make_demo_sample import SAMPLE, best_ranks, collect_documents, write_sample
from muvera.texts.encoders.minilm import is_punctuation


def load(name: str) -> Any:
    return json.loads((SAMPLE / name).read_text(encoding="utf-8"))


def test_documents_and_queries_align() -> None:
    lengths, ids, strings = np.load(SAMPLE / "lengths.npy"), load("ids.json"), load("token_strings.json")
    texts, queries = load("texts.json"), load("queries.json")
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
    documents = collect_documents(load("ids.json"))
    assert all(text.startswith(f"{name}: ") for name, text in documents.items())
    for name, value in (("ids", ["json.loads"]), ("queries", [{"text": "q", "relevant": ["json.dumps"]}])):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=r"not among the documents: json\.dumps"):
        write_sample(tmp_path)
