"""Documents made of real ones: the same whatever their number, and of the same lengths of tokens."""

import numpy as np

from experiments.bench.growth import BLOCK, TOKENS, grown_batches
from experiments.datasets.collection import Collection, tokens_checksum
from muvera import MultiVectors


def test_more_documents_begin_with_the_same_ones() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((60, 8)).astype(np.float32)
    documents = MultiVectors.from_flat(tokens / np.linalg.norm(tokens, axis=1, keepdims=True), [5] * 12)
    collection = Collection(
        "small",
        documents,
        documents[:1],
        tokens_checksum(documents, documents[:1]),
        [str(i) for i in range(12)],
        ["0"],
    )
    few = MultiVectors.concatenate(list(grown_batches(collection, BLOCK + 3)))
    many = MultiVectors.concatenate(list(grown_batches(collection, BLOCK + 40)))
    assert (len(few), len(many)) == (BLOCK + 3, BLOCK + 40)
    assert few.ids.tolist() == list(range(BLOCK + 3))
    for a, b in zip(few, many, strict=False):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(np.asarray(few[3], np.float32), documents[3], atol=1e-3)
    assert set(few.lengths[12:].tolist()) == {TOKENS}
    norms = np.linalg.norm(few.tokens.astype(np.float32), axis=1)
    np.testing.assert_allclose(norms, 1, atol=2e-3)
    other = next(iter(grown_batches(collection, 20, seed=1)))
    assert not np.array_equal(other[15], few[15])
