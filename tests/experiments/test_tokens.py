"""The tables of token codecs: every codec and way has its row."""

import numpy as np

from experiments.bench.tokens import PLAID, measure
from experiments.datasets.collection import Collection, tokens_checksum
from muvera import MultiVectors


def test_every_codec_and_way_is_measured() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((900, 8)).astype(np.float32)
    documents = MultiVectors.from_flat(tokens, [6] * 150)
    queries = MultiVectors.from_arrays([documents[i][:3] for i in range(5)])
    names = [str(i) for i in range(150)]
    collection = Collection(
        "small", documents, queries, tokens_checksum(documents, queries), names, names[:5]
    )
    found = measure([collection], rounds=1)
    assert [row["codec"] for row in found["quality"]] == ["int8", "4bit", "2bit", "1bit", *PLAID]
    assert all(0 < row["recall_10"] <= row["recall_20"] <= 1 for row in found["quality"])
    assert [(row["way"], row["checked"]) for row in found["speed"]] == [
        ("float32", False),
        ("float16", False),
        *((name, checked) for name in ("int8", "4bit", "2bit", "1bit") for checked in (False, True)),
    ]
