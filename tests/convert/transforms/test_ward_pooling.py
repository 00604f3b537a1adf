"""Token pooling: equal clusters to SciPy's, equal vectors to each library's."""

from typing import Any

import numpy as np
import pytest
from builders.paths import GOLDEN, SHARED
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.cluster import hierarchy
from scipy.spatial import distance

from muvera.convert.transforms.ward_pooling import (
    RULES,
    PoolingRule,
    pool_tokens,
    pooling_rule,
    token_clusters,
)
from muvera.data.multivectors import MultiVectors

FILE = GOLDEN / "pooling.npz"
CRANFIELD = SHARED / "embeddings" / "cranfield-minilm"

BARE = PoolingRule(protected=0)
POINTS = PoolingRule(protected=0, rows_as_points=True)

# Multiples of 1/4 of few columns: their products are exact, so that SciPy sees the same
# distances to the bit and every tie among them.
exact_tokens = st.integers(1, 24).flatmap(
    lambda n: arrays(np.int8, (n, 4), elements=st.integers(-3, 3)).map(lambda a: a.astype(np.float32) / 4)
)


def scipy_labels(tokens: np.ndarray, clusters: int, as_points: bool) -> np.ndarray:
    """Cluster as the libraries do; a square matrix of points goes through pdist in linkage too."""
    if len(tokens) <= clusters:
        return np.arange(len(tokens))
    far = 1 - tokens @ tokens.T
    condensed = distance.pdist(far) if as_points else far.clip(0, 2)[np.triu_indices(len(tokens), 1)]
    return hierarchy.fcluster(hierarchy.linkage(condensed, "ward"), clusters, "maxclust") - 1


@pytest.mark.parametrize("rule", [BARE, POINTS], ids=["distances", "points"])
@given(tokens=exact_tokens, factor=st.sampled_from([1.0, 1.5, 2, 3, 7, 100]))
def test_clusters_and_their_numbers_are_scipys(rule: PoolingRule, tokens: np.ndarray, factor: float) -> None:
    documents = MultiVectors.from_arrays([tokens])
    labels, counts = token_clusters(documents, factor, rule)
    expected = scipy_labels(tokens, max(int(len(tokens) // factor), 1), rule.rows_as_points)
    np.testing.assert_array_equal(labels, expected)
    assert counts.tolist() == [expected.max() + 1]


@pytest.mark.compiled("loops over 10,000 tokens")
@pytest.mark.skipif(not CRANFIELD.is_dir(), reason="needs ../shared/data/embeddings/cranfield-minilm")
@pytest.mark.parametrize("rule", [BARE, POINTS], ids=["distances", "points"])
def test_clusters_of_real_documents_are_scipys(rule: PoolingRule) -> None:
    lengths = np.load(CRANFIELD / "docs_lens.npy")[:60]
    tokens = np.load(CRANFIELD / "docs_tokens.npy", mmap_mode="r")[: lengths.sum()]
    documents = MultiVectors.from_flat(tokens.astype(np.float32), lengths)
    labels, _ = token_clusters(documents, 2, rule)
    for i, document in enumerate(documents):
        expected = scipy_labels(document, max(len(document) // 2, 1), rule.rows_as_points)
        np.testing.assert_array_equal(labels[documents.offsets[i] : documents.offsets[i + 1]], expected)


@pytest.mark.parametrize("name", RULES)
def test_vectors_and_their_order_are_the_librarys(name: str) -> None:
    golden = np.load(FILE)
    documents = MultiVectors.from_flat(golden["tokens"], golden["lengths"])
    cases = [key for key in golden.files if key.startswith(f"{name}/") and key.endswith("/tokens")]
    assert cases
    for case in cases:
        factor, protected = map(int, case.split("/")[1:3])
        pooled = pool_tokens(documents, factor, name, protected=protected)
        np.testing.assert_array_equal(pooled.lengths, golden[case.replace("tokens", "lengths")])
        # Means of unit vectors summed in another order: a few units of float32's last place.
        np.testing.assert_allclose(pooled.tokens, golden[case], rtol=0, atol=3e-7)


@given(
    texts=st.lists(exact_tokens | st.just(np.zeros((0, 4), np.float32)), min_size=1, max_size=6),
    name=st.sampled_from(list(RULES)),
    half=st.booleans(),
)
def test_a_document_is_pooled_the_same_alone_and_on_two_threads(
    texts: list[np.ndarray], name: str, half: bool
) -> None:
    dtype = np.float16 if half else np.float32
    documents = MultiVectors.from_arrays(
        [t.astype(dtype) for t in texts], ids=list(range(5, 5 + len(texts))), dimension=4
    )
    together = pool_tokens(documents, 2, name, threads=2)
    assert together.ids.tolist() == documents.ids.tolist()
    assert together.tokens.dtype == documents.tokens.dtype
    for i, text in enumerate(documents):
        alone = pool_tokens(MultiVectors.from_arrays([text], dimension=4), 2, name)
        np.testing.assert_array_equal(alone.tokens, together[i])


@given(tokens=exact_tokens)
def test_the_mean_of_all_is_kept_where_every_token_stays_in_a_mean(tokens: np.ndarray) -> None:
    documents = MultiVectors.from_arrays([tokens])
    labels, counts = token_clusters(documents, 2, BARE)
    pooled = pool_tokens(documents, 2, BARE)
    sizes = np.bincount(labels, minlength=counts[0])
    np.testing.assert_allclose(sizes @ pooled.tokens, tokens.sum(axis=0), atol=1e-5)


def test_renormalized_means_have_unit_length_and_protected_tokens_stay_first() -> None:
    random = np.random.default_rng(0)
    tokens = random.standard_normal((9, 8)).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    pooled = pool_tokens(MultiVectors.from_arrays([tokens]), 3)
    assert len(pooled[0]) == 1 + 8 // 3
    np.testing.assert_allclose(np.linalg.norm(pooled.tokens, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(pooled[0][0], tokens[0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "kind", "sentence"),
    [
        ({"rule": "cluster"}, ValueError, "pooling must be one of sentence-transformers, pylate"),
        ({"factor": 0.5}, ValueError, "factor must be at least 1, got 0.5"),
        ({"protected": -2}, ValueError, "protected must be at least 0, got -2"),
        ({"protected": 1.0}, TypeError, "protected must be an int, got float"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    documents = MultiVectors.from_arrays([np.ones((2, 2), np.float32)])
    with pytest.raises(kind, match=sentence):
        pool_tokens(documents, **change)


def test_nothing_is_not_a_number() -> None:
    documents = MultiVectors.from_arrays([np.full((3, 2), np.nan, np.float32)])
    with pytest.raises(ValueError, match=r"documents\[0\].*must be finite"):
        pool_tokens(documents)


def test_a_rule_can_be_changed() -> None:
    assert pooling_rule("pylate", renormalize=True) == RULES["sentence-transformers"]
