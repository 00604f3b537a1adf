"""Ways of leaving candidates unscored: each has its row, and the exact ones find the exact best."""

import numpy as np

from experiments.bench import pruning
from experiments.datasets.collection import Collection, tokens_checksum
from muvera import MultiVectors


def test_every_way_has_a_row() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((1500, 16)).astype(np.float32)
    documents = MultiVectors.from_flat(tokens, [6] * 250)
    queries = MultiVectors.from_arrays([documents[i][:3] for i in range(5)])
    names = [str(i) for i in range(250)]
    checksum = tokens_checksum(documents, queries)
    collection = Collection("small", documents, queries, checksum, names, names[:5])
    rows = pruning.measure([collection], rounds=1, cache=None)
    ways = [row["way"] for row in rows]
    assert ways[:2] == ["all products", pruning.BASE] and len(ways) == 9
    by_way = {row["way"]: row for row in rows}
    for name in (pruning.BASE, "bounds, int8 codes' order", "bounds, 1bit codes' order"):
        assert by_way[name]["same"] == 1
        assert 0 < by_way[name]["products"] <= 1
    assert by_way["bounds, alpha 0.1"]["same"] <= by_way["bounds, alpha 0.5"]["same"] <= 1
