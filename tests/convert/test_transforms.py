"""Transforms between source and target, which do not depend on the batch size.

Pooling as each library does it.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.paths import GOLDEN
from builders.token_collections import assert_same
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.convert.pipeline import Measure
from muvera.convert.transforms import RULES, Options, pool_tokens
from muvera.data.batches import collection_batches
from muvera.data.multivectors import MultiVectors


def documents(*rows: list[list[float]], ids: Any = None) -> MultiVectors:
    return MultiVectors.from_arrays([np.array(r, np.float32).reshape(-1, 2) for r in rows], ids, dimension=2)


Z = [0.0, 0.0]


def applied(batch: MultiVectors, first: int = 0, **options: Any) -> MultiVectors:
    return Options(**options).apply(batch, first)[0]


def test_each_transform() -> None:
    dirty = documents([Z, [1, 2], Z, [3, 4], Z], [Z, Z], [[5, 6]], [])
    assert_same(applied(dirty, drop_zero_rows=True), documents([[1, 2], [3, 4]], [], [[5, 6]], []))
    result = applied(documents([[3, 4]], [[0, 2]], ids=["x", "y"]), normalize=True)
    np.testing.assert_allclose(result.tokens, np.array([[0.6, 0.8], [0, 1]]), atol=1e-7)
    assert result.ids.tolist() == ["x", "y"]
    wide = MultiVectors.from_arrays([np.array([[3, 4, 12]], np.float32) / 13])
    np.testing.assert_allclose(applied(wide, truncate_dimension=2).tokens, [[0.6, 0.8]], atol=1e-7)
    assert applied(documents([[0, 2]]), truncate_dimension=1, drop_zero_rows=True).num_tokens == 0
    half = applied(documents([[1, 2]]), dtype="float16")
    assert half.tokens.dtype == np.float16 and applied(half, dtype="float16") is half
    clean = documents([[1, 2]], [])
    assert applied(clean, drop_zero_rows=True) is clean


@pytest.mark.parametrize(
    ("options", "batch", "message"),
    [
        ({"normalize": True}, documents([[1, 1]], [], [[1, 1], Z]), r"documents\[4\] token 1"),
        ({"truncate_dimension": 3}, documents([[1, 1]]), "truncate_dimension=3 .* dimension=2"),
        ({"dtype": "float16"}, documents([[1, 2], [1e5, 0]]), r"documents\[2\] .*token 1 .* 65504"),
        ({"pooling": "cluster"}, documents([[1, 2]]), "'cluster'"),
        ({"pooling": "colbert", "pool_factor": 0.5}, documents([[1, 2]]), r"at least 1, got 0\.5"),
        ({"pooling": "colbert"}, documents([[np.nan, 1]]), r"documents\[0\].*finite"),
    ],
)
def test_refused_documents_and_options(options: dict[str, Any], batch: MultiVectors, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        applied(batch, first=2, **options)


CHANGES: list[dict[str, Any]] = [
    {"drop_zero_rows": True, "normalize": True},
    {"drop_zero_rows": True, "truncate_dimension": 2, "dtype": "float16"},
    {"drop_zero_rows": True, "normalize": True, "pooling": "sentence-transformers", "pool_factor": 1.5},
    *({"pooling": rule} for rule in RULES),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
@settings(max_examples=12)
@given(data=st.data())
def test_results_do_not_depend_on_the_batches(change: dict[str, Any], data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=8))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    dtype = data.draw(st.sampled_from([np.float32, np.float16]))
    # Multiples of 1/4, whose products are exact: there are many ties.
    tokens = random.integers(-3, 4, (sum(lengths), 3)).astype(dtype) / 4
    tokens[random.random(len(tokens)) < 0.3] = 0
    whole = MultiVectors.from_flat(tokens, lengths, ids=[f"d{i}" for i in range(len(lengths))])
    options = Options(**change)
    expected, dropped = options.apply(whole)
    assert expected.tokens.dtype == change.get("dtype", dtype)
    parts, lost, seen, once = [], 0, Measure(), Measure()
    for batch in collection_batches(whole, data.draw(st.integers(1, 20))):
        part, missing = options.apply(batch, seen.documents)
        seen.add(batch)
        parts.append(part)
        lost += missing
    assert_same(MultiVectors.concatenate(parts), expected)
    once.add(whole)
    assert (lost, seen.to_dict()) == (dropped, once.to_dict())


def test_measures() -> None:
    measure = Measure()
    measure.add(documents([[3, 4], Z], [], [[0, 1]]))
    assert measure.to_dict() == {
        "documents": 3, "tokens": 3, "dimension": 2, "dtype": "float32", "ids": "positions",
        "empty_documents": 1, "zero_rows": 1, "norms": {"min": 1.0, "mean": 3.0, "max": 5.0},
        "normalized": False,
    }  # fmt: skip


@pytest.mark.parametrize(("norm", "expected"), [(1.003, True), (0.995, False)])
def test_norms_near_one_are_normalized(norm: float, expected: bool) -> None:
    measure = Measure()
    assert measure.normalized is None
    measure.add(documents([[1, 0], [0, norm]]))
    assert measure.normalized is expected


def golden_pooling() -> Any:
    return np.load(GOLDEN / "pooling.npz")


POOLINGS = sorted(key.removesuffix("/tokens") for key in golden_pooling().files if key.endswith("/tokens"))


def test_every_rule_has_golden_vectors() -> None:
    assert {case.partition("/")[0] for case in POOLINGS if "/" in case} == set(RULES)


@pytest.mark.parametrize("case", [case for case in POOLINGS if "/" in case])
def test_golden_vectors_of_each_library(case: str) -> None:
    golden = golden_pooling()
    documents = MultiVectors.from_flat(golden["tokens"], golden["lengths"])
    name, factor, protected = case.split("/")[:3]
    pooled = pool_tokens(documents, int(factor), replace(RULES[name], protected=int(protected)))
    np.testing.assert_array_equal(pooled.lengths, golden[f"{case}/lengths"])
    # Means of unit vectors summed in another order: a few units of float32's last
    # place.
    np.testing.assert_allclose(pooled.tokens, golden[f"{case}/tokens"], rtol=0, atol=3e-7)


def test_means_are_scaled_if_the_rule_or_the_options_normalize() -> None:
    tokens = np.random.default_rng(0).standard_normal((9, 8)).astype(np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    batch = MultiVectors.from_arrays([tokens])
    pooled = pool_tokens(batch, 3)
    assert len(pooled[0]) == 1 + 8 // 3
    np.testing.assert_allclose(pooled[0][0], tokens[0], atol=1e-6)  # protected
    for own in (pooled, applied(batch, normalize=True, pooling="pylate")):  # which does not scale them
        np.testing.assert_allclose(np.linalg.norm(own.tokens, axis=1), 1, atol=1e-6)
    for factor, rule, message in ((2, "cluster", "'cluster'"), (0.5, "colbert", r"at least 1, got 0\.5")):
        with pytest.raises(ValueError, match=message):
            pool_tokens(batch, factor, rule)


@pytest.mark.parametrize("number", [65504.0, 65505.0, 1e5])
def test_float16_refuses_large_numbers_of_both_signs(number: float) -> None:
    for value in (number, -number):
        batch = documents([[1, 2], [0, value]])
        if number == 65504.0:
            assert applied(batch, dtype="float16").tokens[1, 1] == value
        else:
            with pytest.raises(ValueError, match="beyond 65504"):
                applied(batch, dtype="float16")
