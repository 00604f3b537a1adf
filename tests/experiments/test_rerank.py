"""The rerank command's parts on a tiny collection."""

import numpy as np
import pytest
from builders.realistic_collections import DIM, documents_like_real, queries_like_real

from experiments import rerank
from experiments.datasets.collections import Collection
from muvera import MultiVectors


@pytest.fixture(scope="module")
def collection() -> Collection:
    documents = documents_like_real(90)
    documents = MultiVectors.from_arrays([text for text in documents if len(text)])
    short = list(queries_like_real(documents, 30))
    queries = [np.concatenate(short[i : i + 5]) for i in range(0, 30, 5)]
    return Collection("tiny", documents, MultiVectors.from_arrays(queries, dimension=DIM), "checksum")


def test_what_is_saved_and_kept(collection: Collection) -> None:
    found = rerank.measure(collection, queries=4, repeat=1, candidates=(40, 1000))
    assert (found["documents"], found["queries"]) == (85, 4)
    rows = {(row["way"], row["candidates"]): row for row in found["rows"]}
    assert len(rows) == 2 * (len(rerank.WAYS) + 1)
    for count in (40, 85):
        for exact in (rerank.MATRIX, "all products", "early exit (default)"):
            assert rows[exact, count]["kept"] == 1
        assert rows[rerank.MATRIX, count]["saved"] == rows["all products", count]["saved"] == 0
        assert rows["all products", count]["time"] == 1
        early, hasty = rows["early exit (default)", count], rows["patience 10", count]
        assert 0 <= early["saved"] <= hasty["saved"] < 1
        assert 0 < hasty["kept"] <= 1
        assert all(row["milliseconds"] > 0 for row in rows.values())


def test_tables_have_a_line_a_way(collection: Collection) -> None:
    found = rerank.measure(collection, queries=2, repeat=1, candidates=(20,))
    text = rerank.table({"collections": {"tiny": found}})
    assert "tiny: 85 documents of" in text and "20 candidates" in text
    assert text.count("\n") == 2 + len(rerank.WAYS) + 1
    markdown = rerank.markdown(
        {"machine": {"processor": "a processor"}, "repeat": 1, "collections": {"tiny": found}}
    )
    assert "one thread; a processor." in markdown
    assert "| all products | 0.00, 1.00x, 1.000 |" in markdown
