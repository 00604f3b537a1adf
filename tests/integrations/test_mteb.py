"""MTEB evaluates an index on its own tasks for tests, which need no network."""

from pathlib import Path

import pytest
from builders.text_encoders import HashEncoder

pytest.importorskip("mteb", reason="mteb is not installed")

import mteb
from mteb.mocks import mock_tasks
from mteb.models.models_protocols import SearchProtocol

from muvera import chamfer
from muvera.integrations.mteb import MuveraSearch

TASKS = [
    "MockRetrievalTask",
    "MockMultilingualRetrievalTask",
    "MockInstructionRetrieval",
    "MockMultilingualInstructionRetrieval",
    "MockRerankingTask",
    "MockMultilingualRerankingTask",
    "MockInstructionReranking",
    "MockMultilingualInstructionReranking",
]


@pytest.mark.parametrize("name", TASKS)
def test_mtebs_own_tasks(name: str, tmp_path: Path) -> None:
    model = MuveraSearch(HashEncoder())
    assert isinstance(model, SearchProtocol)
    task = getattr(mock_tasks, name)()
    results = mteb.evaluate(model, task, cache=None, prediction_folder=tmp_path)
    scores = [one for split in results[0].scores.values() for one in split]
    assert scores
    assert all(0 <= one["main_score"] <= 1 for one in scores)
    assert results.model_name == "muvera/hash"


def test_scores_are_chamfer_similarities_and_reranking_keeps_to_its_documents() -> None:
    encoder = HashEncoder()
    corpus = [
        {"id": "a", "title": "fruit", "text": "a red apple"},
        {"id": "b", "title": "", "text": "a green pear"},
        {"id": "c", "title": None, "text": "red"},
    ]
    model = MuveraSearch(encoder)
    model.index(corpus)
    queries = [{"id": "q", "text": "red", "instruction": "apple"}]
    scores = model.search(queries, top_k=5)["q"]
    assert list(scores) == ["a", "c", "b"]
    expected = chamfer(
        encoder.encode_queries(["red apple"])[0], encoder.encode_documents(["fruit a red apple"])[0]
    )
    assert scores["a"] == pytest.approx(float(expected), abs=1e-5)
    ranked = model.search(queries, top_k=5, top_ranked={"q": ["b", "c"]})
    assert list(ranked["q"]) == ["c", "b"]


def test_what_is_refused() -> None:
    model = MuveraSearch(HashEncoder())
    with pytest.raises(RuntimeError, match="index"):
        model.search([], top_k=1)
    model.index([{"id": "a", "text": "red"}])
    with pytest.raises(TypeError, match="list"):
        model.search([{"id": "q", "text": [{"role": "user"}]}], top_k=1)
