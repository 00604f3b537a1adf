"""The multi-vector evaluator of sentence-transformers, with scores from an index."""

from typing import Any

import numpy as np
import pytest
from builders.text_encoders import HashEncoder

pytest.importorskip(
    "sentence_transformers.multi_vector_encoder", reason="there is no MultiVectorEncoder here"
)

import torch
from sentence_transformers.multi_vector_encoder.evaluation import MultiVectorInformationRetrievalEvaluator
from sentence_transformers.util.similarity import maxsim

from muvera.integrations.sentence_transformers import IndexScores

WORDS = [f"word{i}" for i in range(40)]


class Model:
    """The part of a MultiVectorEncoder that the evaluator uses."""

    prompts: dict[str, str] = {}  # noqa: RUF012

    def __init__(self) -> None:
        self._encoder = HashEncoder()
        self.model_card_data = self

    def set_evaluation_metrics(self, *_: Any) -> None:
        """Ignore metrics for a model card."""

    def encode_query(self, texts: list[str], **_: Any) -> list[torch.Tensor]:
        return [torch.from_numpy(np.array(matrix)) for matrix in self._encoder.encode_queries(texts)]

    encode_document = encode_query


def evaluate(functions: dict[str, Any]) -> dict[str, float]:
    rng = np.random.default_rng(0)
    corpus = {f"d{i}": " ".join(rng.choice(WORDS, rng.integers(3, 9))) for i in range(200)}
    chosen = rng.choice(200, 20, replace=False).tolist()
    queries = {f"q{i}": " ".join(corpus[f"d{i}"].split()[:3]) for i in chosen}
    relevant = {f"q{i}": {f"d{i}"} for i in chosen}
    make: Any = MultiVectorInformationRetrievalEvaluator
    evaluator = make(
        queries, corpus, relevant, corpus_chunk_size=200, score_functions=functions, map_at_k=[10]
    )
    results: dict[str, float] = evaluator(Model())
    return results


def test_an_index_measures_what_maxsim_does_or_less_with_few_candidates() -> None:
    few = IndexScores(candidates=20, exact_tokens=0)
    results = evaluate({"maxsim": maxsim, "index": IndexScores(candidates=200), "few": few})
    measures = {name.removeprefix("maxsim_") for name in results if name.startswith("maxsim_")}
    assert "ndcg@10" in measures
    for name in measures:
        assert results[f"index_{name}"] == pytest.approx(results[f"maxsim_{name}"], abs=1e-6)
    assert 0.5 < results["few_ndcg@10"] <= 1
    assert few.index is not None and len(few.index) == 200


def test_padding_is_dropped_and_other_documents_score_minus_infinity() -> None:
    queries = torch.zeros(1, 3, 4)
    queries[0, 0] = torch.tensor([1.0, 0, 0, 0])
    documents = [torch.eye(4)[:1], torch.eye(4)[1:2], -torch.eye(4)[:1]]
    assert IndexScores(candidates=2)(queries, documents).tolist() == [[1.0, 0.0, float("-inf")]]
