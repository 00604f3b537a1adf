"""Token pooling gives the vectors of each library."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.paths import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from muvera.convert.pooling import RULES, pool_tokens
from muvera.data.multivectors import MultiVectors

# Multiples of 1/4, whose products are exact: there are many ties.
exact_tokens = st.integers(1, 24).flatmap(
    lambda n: arrays(np.int8, (n, 4), elements=st.integers(-3, 3)).map(lambda a: a.astype(np.float32) / 4)
)


@pytest.mark.parametrize("name", RULES)
def test_golden_vectors_of_each_library(name: str) -> None:
    golden = np.load(GOLDEN / "pooling.npz")
    documents = MultiVectors.from_flat(golden["tokens"], golden["lengths"])
    cases = [key for key in golden.files if key.startswith(f"{name}/") and key.endswith("/tokens")]
    assert cases
    for case in cases:
        factor, protected = map(int, case.split("/")[1:3])
        pooled = pool_tokens(documents, factor, replace(RULES[name], protected=protected))
        np.testing.assert_array_equal(pooled.lengths, golden[case.replace("tokens", "lengths")])
        # Means of unit vectors summed in another order: a few units of float32's last place.
        np.testing.assert_allclose(pooled.tokens, golden[case], rtol=0, atol=3e-7)


@settings(max_examples=30)
@given(
    texts=st.lists(exact_tokens | st.just(np.zeros((0, 4), np.float32)), min_size=1, max_size=5),
    name=st.sampled_from(list(RULES)),
    half=st.booleans(),
)
def test_a_document_is_pooled_the_same_alone(texts: list[np.ndarray], name: str, half: bool) -> None:
    dtype = np.float16 if half else np.float32
    documents = MultiVectors.from_arrays(
        [text.astype(dtype) for text in texts], ids=list(range(5, 5 + len(texts))), dimension=4
    )
    together = pool_tokens(documents, 2, name)
    assert together.ids.tolist() == documents.ids.tolist()
    assert together.tokens.dtype == documents.tokens.dtype
    for i, text in enumerate(documents):
        alone = pool_tokens(MultiVectors.from_arrays([text], dimension=4), 2, name)
        np.testing.assert_array_equal(alone.tokens, together[i])


def test_renormalized_means_have_unit_length_and_protected_tokens_stay_first() -> None:
    tokens = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    pooled = pool_tokens(MultiVectors.from_arrays([tokens]), 3)
    assert len(pooled[0]) == 1 + 8 // 3
    np.testing.assert_allclose(np.linalg.norm(pooled.tokens, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(pooled[0][0], tokens[0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule": "cluster"}, "'cluster'"),
        ({"factor": 0.5}, r"at least 1, got 0\.5"),
        ({"documents": np.full((3, 2), np.nan, np.float32)}, r"documents\[0\].*finite"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str) -> None:
    given = {"documents": np.ones((2, 2), np.float32), **change}
    given["documents"] = MultiVectors.from_arrays([given["documents"]])
    with pytest.raises(ValueError, match=message):
        pool_tokens(**given)
