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


@pytest.mark.parametrize(
    "name", ["RetrievalTask", "MultilingualInstructionRetrieval", "RerankingTask", "InstructionReranking"]
)
def test_mtebs_own_tasks(name: str, tmp_path: Path) -> None:
    model = MuveraSearch(HashEncoder())
    assert isinstance(model, SearchProtocol)
    task = getattr(mock_tasks, f"Mock{name}")()
    results = mteb.evaluate(model, task, cache=None, prediction_folder=tmp_path)
    scores = [one["main_score"] for split in results[0].scores.values() for one in split]
    assert scores and all(0 <= score <= 1 for score in scores)
    assert results.model_name == "muvera/hash"


def test_scores_are_chamfer_similarities_and_reranking_is_limited() -> None:
    encoder = HashEncoder()
    model = MuveraSearch(encoder, words=0, tokens="float32")
    queries = [{"id": "q", "text": "red", "instruction": "apple"}]
    with pytest.raises(RuntimeError):
        model.search(queries, top_k=1)
    rows = [("a", "fruit", "a red apple"), ("b", "", "a green pear"), ("c", None, "red")]
    model.index([{"id": id, "title": title, "text": text} for id, title, text in rows])
    scores = model.search(queries, top_k=5)["q"]
    assert list(scores) == ["a", "c", "b"]
    query, document = encoder.encode_documents(["red apple", "fruit a red apple"])
    assert scores["a"] == pytest.approx(float(chamfer(query, document)), abs=1e-5)
    assert list(model.search(queries, top_k=5, top_ranked={"q": ["b", "c"]})["q"]) == ["c", "b"]
    with pytest.raises(TypeError, match=r"'q'.*list"):
        model.search([{"id": "q", "text": [{"role": "user"}]}], top_k=1)
