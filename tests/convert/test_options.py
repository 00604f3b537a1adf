"""Transforms between source and target, and that they do not depend on the batches."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muvera.convert.options import Options, cast, drop_zero_rows, normalize, truncate_dimension
from muvera.convert.report import Measure
from muvera.data.batches import collection_batches
from muvera.data.multivectors import MultiVectors

WORDS = ["[CLS]", "a", "##b", "c"]


def documents(*rows: list[list[float]], ids: Any = None) -> MultiVectors:
    return MultiVectors.from_arrays([np.array(r, np.float32).reshape(-1, 2) for r in rows], ids, dimension=2)


Z = [0.0, 0.0]
DIRTY = documents([Z, [1, 2], Z, [3, 4], Z], [Z, Z], [[5, 6]], [])


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ("all", documents([[1, 2], [3, 4]], [], [[5, 6]], [])),
        ("trailing", documents([Z, [1, 2], Z, [3, 4]], [], [[5, 6]], [])),
        ("leading", documents([[1, 2], Z, [3, 4], Z], [], [[5, 6]], [])),
    ],
)
def test_zero_rows(which: str, expected: MultiVectors) -> None:
    found = drop_zero_rows(DIRTY, which)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    assert found.lengths.tolist() == expected.lengths.tolist()


def test_zero_rows_as_an_error() -> None:
    clean = documents([[1, 2]], [])
    assert drop_zero_rows(clean, "error") is clean
    with pytest.raises(ValueError, match=r"documents\[3\] \(id 'y'\) token 1 is entirely zero"):
        drop_zero_rows(documents([[1, 2]], [[1, 1], Z], ids=["x", "y"]), "error", first=2)
    with pytest.raises(ValueError, match="got 'b'"):
        drop_zero_rows(clean, "b")


def test_normalize() -> None:
    found = normalize(documents([[3, 4]], [[0, 2]], ids=["x", "y"]))
    np.testing.assert_allclose(np.asarray(found.tokens), np.array([[0.6, 0.8], [0, 1]]), atol=1e-7)
    assert found.ids.tolist() == ["x", "y"]
    with pytest.raises(ValueError, match=r"documents\[5\] token 1 "):
        normalize(documents([[1, 1], Z]), first=5)


def test_truncate_dimension_renormalizes() -> None:
    tokens = np.array([[3, 4, 12]], np.float32) / 13
    found = truncate_dimension(MultiVectors.from_arrays([tokens]), 2)
    np.testing.assert_allclose(found.tokens, [[0.6, 0.8]], atol=1e-7)
    with pytest.raises(ValueError, match=r"truncate_dimension=4 .* dimension=3"):
        truncate_dimension(MultiVectors.from_arrays([tokens]), 4)
    with pytest.raises(TypeError, match="truncate_dimension must be an int, got float"):
        truncate_dimension(MultiVectors.from_arrays([tokens]), 2.0)  # type: ignore[arg-type]


def test_cast() -> None:
    found = cast(documents([[1, 2]]), "float16")
    assert found.tokens.dtype == np.float16
    assert cast(found, "float16") is found
    with pytest.raises(ValueError, match=r"documents\[0\] \(id 0\) token 1 has a number beyond 65504"):
        cast(documents([[1, 2], [1e5, 0]]), "float16")
    with pytest.raises(ValueError, match="got 'int8'"):
        cast(found, "int8")


CHANGES: list[dict[str, Any]] = [
    {"drop_zero_rows": "trailing"},
    {"drop_zero_rows": "all", "normalize": True},
    {"drop_zero_rows": "all", "truncate_dimension": 2, "dtype": "float16"},
    {"drop_zero_rows": "leading", "pooling": "colbert"},
    {"drop_zero_rows": "all", "normalize": True, "pooling": "sentence-transformers", "pool_factor": 1.5},
    {"drop_zero_rows": "all", "pooling": "whole-word"},
    {"pooling": "colberter"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
@settings(max_examples=15)
@given(data=st.data())
def test_results_do_not_depend_on_the_batches(change: dict[str, Any], data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=8))
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    tokens = random.standard_normal((sum(lengths), 3)).astype(np.float32)
    tokens[random.random(len(tokens)) < 0.3] = 0
    whole = MultiVectors.from_flat(tokens, lengths, ids=[f"d{i}" for i in range(len(lengths))])
    if "pooling" in change and change["pooling"] in ("whole-word", "colberter"):
        change = {**change, "token_ids": random.integers(0, 4, len(tokens)), "vocabulary": WORDS}
    options = Options(**change)
    expected, dropped = options.apply(whole)
    parts, lost, seen = [], 0, Measure()
    for batch in collection_batches(whole, data.draw(st.integers(1, 20))):
        part, missing = options.apply(batch, seen.documents, seen.tokens)
        seen.add(batch)
        parts.append(part)
        lost += missing
    found = MultiVectors.concatenate(parts)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.offsets, expected.offsets)
    assert found.ids.tolist() == expected.ids.tolist()
    assert lost == dropped
    once = Measure()
    once.add(whole)
    assert seen.to_dict() == once.to_dict()


def test_normalized_output_after_a_pooling_that_does_not() -> None:
    random = np.random.default_rng(0)
    batch = MultiVectors.from_arrays([random.standard_normal((9, 4)).astype(np.float32)])
    pooled, _ = Options(normalize=True, pooling="pylate").apply(batch)
    np.testing.assert_allclose(np.linalg.norm(pooled.tokens, axis=1), 1, atol=1e-6)


def test_measures() -> None:
    measure = Measure()
    measure.add(documents([[3, 4], Z], [], [[0, 1]]))
    assert measure.to_dict() == {
        "documents": 3,
        "tokens": 3,
        "dimension": 2,
        "dtype": "float32",
        "ids": "positions",
        "empty_documents": 1,
        "zero_rows": 1,
        "norms": {"min": 1.0, "mean": 3.0, "max": 5.0},
        "normalized": False,
    }
    assert Measure().normalized is None


@pytest.mark.parametrize(("norm", "expected"), [(1.003, True), (0.995, False)])
def test_normalized_is_measured(norm: float, expected: bool) -> None:
    measure = Measure()
    measure.add(documents([[1, 0], [0, norm]]))
    assert measure.normalized is expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop_zero_rows": "both"}, "'both'"),
        ({"dtype": "int8"}, "float32, float16, got 'int8'"),
        ({"pooling": "mean"}, "'mean'"),
        ({"pooling": "pylate", "pool_factor": 0}, "pool_factor must be at least 1, got 0"),
        ({"pooling": "whole-word"}, "token_ids and vocabulary"),
    ],
)
def test_bad_options(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**change)


def test_token_ids_that_do_not_fit() -> None:
    options = Options(pooling="whole-word", token_ids=[0, 1], vocabulary=WORDS)
    with pytest.raises(ValueError, match="2 entries, but the source has at least 3"):
        options.apply(documents([[1, 1], [1, 1], [1, 1]]))
    with pytest.raises(ValueError, match="2 entries, but the source has 1"):
        options.require_all_used(1)
