"""The hybrid system against the first stages that it is made of."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.system_inputs import collection_material

from experiments.datasets.synthetic import synthetic_collection
from experiments.systems.base import Answers, Material, NotApplicableError
from experiments.systems.hybrid import Hybrid
from experiments.systems.registry import SYSTEMS

pytestmark = pytest.mark.compiled("searches whole collections")

COLLECTION = synthetic_collection("quick-wide", documents=60, queries=6)


def material(folder: Path) -> Material:
    return collection_material(COLLECTION, folder)


def ask(
    folder: Path, k: int = 5, name: str = "hybrid", build: dict[str, Any] | None = None, **query: Any
) -> Answers:
    system = SYSTEMS[name](**(build or {}))
    system.build(material(folder))
    return system.search(COLLECTION.queries, k, **query)


@pytest.mark.parametrize(("source", "name", "arguments"), [
    ("words", "bm25", {}), ("single", "pooled", {"vectors": "stored"}), ("vectors", "muvera", {"backend": "exact"}),
])  # fmt: skip
def test_one_source_ranked_exactly_is_that_system(
    tmp_path: Path, source: str, name: str, arguments: dict[str, Any]
) -> None:
    mine = ask(tmp_path, build={"sources": [source]}, candidates=5)
    theirs = ask(tmp_path, name=name, build=arguments, candidates=5)
    for own, other in zip(mine.ids, theirs.ids, strict=True):
        found = own[own >= 0]
        assert set(found) <= set(other)
        assert source == "words" or len(found) == 5


def test_the_weight_of_one_source_alone_keeps_its_order(tmp_path: Path) -> None:
    mine = ask(
        tmp_path,
        build={"sources": ["single"]},
        candidates=5,
        weights={"maxsim": 0, "single": 1},
        method="sum",
    )
    alone = ask(tmp_path, name="pooled", build={"vectors": "stored"}, rerank=False)
    np.testing.assert_array_equal(mine.ids, alone.ids)


def test_rare_tokens_and_feedback_change_the_scores(tmp_path: Path) -> None:
    plain = ask(tmp_path).scores
    assert not np.allclose(ask(tmp_path, build={"idf": True}).scores, plain)
    assert (ask(tmp_path, build={"feedback": 0.5}).scores[:, 0] > plain[:, 0]).all()


def test_what_a_collection_lacks_or_a_name_that_is_wrong(tmp_path: Path) -> None:
    whole = material(tmp_path)
    with pytest.raises(NotApplicableError, match="hybrid needs texts"):
        Hybrid().build(replace(whole, document_texts=None))
    with pytest.raises(NotApplicableError, match="no stored single vectors"):
        Hybrid(sources=["single"]).build(replace(whole, document_pooled=None))
    with pytest.raises(NotApplicableError, match="no vocabulary ids"):
        Hybrid(idf=True).build(replace(whole, query_token_ids=None))
    with pytest.raises(ValueError, match="some of vectors, words, single, got"):
        Hybrid(sources=["bm25"])
