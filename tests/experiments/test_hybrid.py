"""The measurement of vectors of two parts, on a small collection; its table."""

import pytest
from builders.realistic_collections import documents_like_real, queries_like_real

from experiments import hybrid
from experiments.datasets.collections import Collection
from experiments.measuring import recall_of_scores
from muvera import LearnedConfig, LearnedEncoder, chamfer_matrix


@pytest.mark.compiled("fits with thousands of landmarks")
def test_a_part_alone_is_the_encoder_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hybrid, "PAIRS", ((16, 0), (8, 8), (0, 16)))
    documents = documents_like_real(80)
    queries = queries_like_real(documents, 12)
    found = hybrid.measure(Collection("plaid-small", documents, queries, "0" * 16), 3)
    config = LearnedConfig(dimension=documents.dimension, vector_dimension=16, seed=3)
    alone = LearnedEncoder(config).fit(documents[hybrid.quarter(len(documents), 3)])
    scores = alone.encode_queries(queries) @ alone.encode_documents(documents).T
    assert found["0+16"] == recall_of_scores(chamfer_matrix(queries, documents), scores)
    assert set(found) == {"16+0", "8+8", "0+16"} and all(0 < value <= 1 for value in found.values())
    lines = hybrid.markdown({"collections": {"plaid-small": found}}).splitlines()
    assert lines[2] == "| compact + learned floats | small |"
    assert lines[5].startswith("| 8 + 8 | ")
    assert hybrid.table({"collections": {"plaid-small": found}}).splitlines()[0].endswith("small")
