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


@pytest.mark.parametrize("prefix", ["", "query_"])
def test_vectors(prefix: str) -> None:
    tokens, lengths = np.load(SAMPLE / f"{prefix}tokens.npy"), np.load(SAMPLE / f"{prefix}lengths.npy")
    assert (tokens.dtype, lengths.dtype) == (np.float16, np.int32)
    assert tokens.shape == (lengths.sum(), 128)
    assert lengths.min() > 0
    # Half precision rounds each of 128 coordinates to 11 bits.
    np.testing.assert_allclose(np.linalg.norm(tokens.astype(np.float32), axis=1), 1.0, atol=1e-3)


def test_documents_and_queries_align() -> None:
    lengths, ids, strings = np.load(SAMPLE / "lengths.npy"), load("ids.json"), load("token_strings.json")
    texts, queries = load("texts.json"), load("queries.json")
    assert 500 <= len(ids) == len(set(ids)) == len(texts) == len(lengths) <= 700
    assert [len(one) for one in strings] == lengths.tolist()
    assert not any(is_punctuation(token) for one in strings for token in one)
    assert all(text.startswith(f"{one}: ") for one, text in zip(ids, texts, strict=True))
    counts = np.load(SAMPLE / "query_lengths.npy").tolist()
    assert [len(query["token_strings"]) for query in queries] == counts
    assert len({query["id"] for query in queries}) == len(queries)
    assert all(query["relevant"] and set(ids) >= set(query["relevant"]) for query in queries)


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
