"""A real ColBERTv2 index: read, and ranked as an independent decoder ranks it."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from builders.paths import SHARED

from muvera.convert import convert
from muvera.data.multivectors import MultiVectors
from muvera.reranking.chamfer import top_k

INDEX = SHARED / "plaid-colbertv2-lotte500"

pytestmark = [
    pytest.mark.skipif(not INDEX.is_dir(), reason="needs ../shared/data/plaid-colbertv2-lotte500"),
    pytest.mark.compiled("scores 28 million pairs of tokens"),
]


def member(name: str, number: int, dtype: str) -> np.ndarray:
    """Return a tensor's bytes from its file, which is a zip."""
    with zipfile.ZipFile(INDEX / f"{name}.pt") as archive:
        inner = next(n for n in archive.namelist() if n.endswith(f"/data/{number}"))
        return np.frombuffer(archive.read(inner), dtype)


def decoded() -> tuple[np.ndarray, np.ndarray]:
    """Decode bit by bit in float64; return the tokens and the passages' lengths."""
    lengths = np.array(json.loads((INDEX / "doclens.0.json").read_text()), int)
    codes = member("0.codes", 0, "<i4")
    centroids = member("centroids", 0, "<f2").astype(float).reshape(-1, 128)
    packed = member("0.residuals", 0, "u1").reshape(len(codes), 32)
    weights = member("buckets", 1, "<f2").astype(float)
    bits = np.stack([(packed >> (7 - i)) & 1 for i in range(8)], axis=2).reshape(len(codes), 128, 2)
    tokens = centroids[codes] + weights[bits[..., 0] + 2 * bits[..., 1]]
    return tokens / np.linalg.norm(tokens, axis=1, keepdims=True), lengths


def test_exact_chamfer_ranks_the_decoded_index_as_an_independent_decode(tmp_path: Path) -> None:
    report = convert(INDEX, tmp_path / "out")
    assert report.to_dict()["read"] | {"norms": None} == {
        "documents": 500,
        "tokens": 56_658,
        "dimension": 128,
        "dtype": "float32",
        "ids": "positions",
        "empty_documents": 0,
        "zero_rows": 0,
        "norms": None,
        "normalized": True,
    }
    assert (report.format, report.lossy, report.nbits) == ("plaid", True, 2)
    documents = MultiVectors.load(tmp_path / "out")
    tokens, lengths = decoded()
    assert documents.lengths.tolist() == lengths.tolist()
    np.testing.assert_allclose(documents.tokens, tokens, atol=1e-6)

    queries = np.load(INDEX / "query_embedding.npy")
    rankings = top_k(list(queries), documents, k=10)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    for query, ranking in zip(queries.astype(float), rankings, strict=True):
        expected = np.maximum.reduceat(query @ tokens.T, starts, axis=1).sum(axis=0)
        best = np.argsort(-expected, kind="stable")[:10]
        # Float32 sums of 32 products of 128 numbers: rankings agree up to differences of 1e-4.
        np.testing.assert_allclose(ranking.scores, expected[best], atol=1e-4)
        np.testing.assert_allclose(expected[ranking.ids], expected[best], atol=1e-4)
