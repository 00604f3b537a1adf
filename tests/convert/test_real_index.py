"""A real ColBERTv2 index: decoded and ranked as an independent decoder does."""

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
    pytest.mark.shared,
    pytest.mark.skipif(not INDEX.is_dir(), reason="needs ../shared/data/plaid-colbertv2-lotte500"),
    pytest.mark.compiled("scores 28 million pairs of tokens"),
]


def member(name: str, number: int, dtype: str) -> np.ndarray:
    """Return a tensor's bytes from its .pt file, which is a zip."""
    with zipfile.ZipFile(INDEX / f"{name}.pt") as archive:
        inner = next(n for n in archive.namelist() if n.endswith(f"/data/{number}"))
        return np.frombuffer(archive.read(inner), dtype)


def test_exact_chamfer_ranks_as_an_independent_decoder(tmp_path: Path) -> None:
    codes, packed = member("0.codes", 0, "<i4"), member("0.residuals", 0, "u1").reshape(-1, 32)
    centroids = member("centroids", 0, "<f2").astype(float).reshape(-1, 128)
    bits = np.stack([(packed >> (7 - i)) & 1 for i in range(8)], axis=2).reshape(-1, 128, 2)
    tokens = centroids[codes] + member("buckets", 1, "<f2").astype(float)[bits[..., 0] + 2 * bits[..., 1]]
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    lengths = json.loads((INDEX / "doclens.0.json").read_text())

    report = convert(INDEX, tmp_path / "out")
    assert (report.format, report.lossy, report.nbits) == ("plaid", True, 2)
    assert (report.read.documents, report.read.tokens, report.read.dimension) == (500, 56_658, 128)
    documents = MultiVectors.load(tmp_path / "out")
    assert documents.lengths.tolist() == lengths
    np.testing.assert_allclose(documents.tokens, tokens, atol=1e-6)

    queries = np.load(INDEX / "query_embedding.npy")
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    for query, ranking in zip(queries.astype(float), top_k(list(queries), documents, k=10), strict=True):
        scores = np.maximum.reduceat(query @ tokens.T, starts, axis=1).sum(axis=0)
        best = np.argsort(-scores, kind="stable")[:10]
        # Float32 sums of 32 products of 128 numbers: rankings agree up to differences of 1e-4.
        np.testing.assert_allclose(ranking.scores, scores[best], atol=1e-4)
        np.testing.assert_allclose(scores[ranking.ids], scores[best], atol=1e-4)
