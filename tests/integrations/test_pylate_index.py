"""The interface of PyLate's indexes, which its retriever calls by these names."""

import numpy as np
import pytest
from builders.tensors import FakeTensor

from muvera.integrations.pylate import MuveraPyLateIndex

DOCUMENTS = [np.eye(6, dtype=np.float32)[i : i + 2] for i in range(5)]
NAMES = ["a", "b", "c", "d", "e"]
QUERIES = np.stack([np.eye(6, dtype=np.float32)[i : i + 2] for i in (0, 3)])


def test_documents_are_found_replaced_and_removed() -> None:
    index = MuveraPyLateIndex()
    assert index(QUERIES, k=3) == [[], []]
    index.add_documents(documents_ids=NAMES, documents_embeddings=[FakeTensor(one) for one in DOCUMENTS])
    found = index(queries_embeddings=QUERIES, k=2)
    assert [rows[0]["id"] for rows in found] == ["a", "d"]
    assert found[0][0] == {"id": "a", "score": 2.0}
    assert [row["id"] for row in index(QUERIES[:1], k=2, subset=["b", "c"])[0]] == ["b", "c"]
    each = index(QUERIES, k=1, subset=[["c"], ["e"]])
    assert [rows[0]["id"] for rows in each] == ["c", "e"]
    index.add_documents("a", [DOCUMENTS[4]])
    np.testing.assert_array_equal(index.get_documents_embeddings([["a"]])[0][0], DOCUMENTS[4])
    index.remove_documents(["a", "unknown"])
    assert index(QUERIES[:1], k=1)[0][0]["id"] == "b"
    with pytest.raises(KeyError, match="The index is empty"):
        MuveraPyLateIndex().get_documents_embeddings([["a"]])
