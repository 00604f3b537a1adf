"""Scores from an index for the evaluators of sentence-transformers."""

import pytest

from muvera.integrations.sentence_transformers import IndexScores


def test_padding_is_dropped_and_other_documents_score_minus_infinity() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    queries = torch.zeros(1, 3, 4)
    queries[0, 0] = torch.tensor([1.0, 0, 0, 0])
    documents = [torch.eye(4)[:1], torch.eye(4)[1:2], -torch.eye(4)[:1]]
    scores = IndexScores(candidates=2)
    assert scores(queries, documents).tolist() == [[1.0, 0.0, float("-inf")]]
    assert scores.index is not None and len(scores.index) == 3
