"""Arrow arrays of lists of vectors: round trips, and refused arrays."""

from typing import Any

import numpy as np
import pytest

from muvera import MultiVectors

pa = pytest.importorskip("pyarrow")


def texts(dtype: Any = np.float32) -> MultiVectors:
    tokens = np.random.default_rng(0).standard_normal((9, 4)).astype(dtype)
    return MultiVectors.from_flat(tokens, [3, 0, 5, 1], ids=["a", "b", "c", "d"])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_round_trip_without_a_copy(dtype: Any) -> None:
    original = texts(dtype)
    array = original.to_arrow()
    assert array.type == pa.list_(pa.list_(pa.float32() if dtype == np.float32 else pa.float16(), 4))
    back = MultiVectors.from_arrow(array, ids=original.ids)
    assert back.tokens.dtype == dtype and back.lengths.tolist() == [3, 0, 5, 1]
    np.testing.assert_array_equal(back.tokens, original.tokens)
    assert np.shares_memory(back.tokens, original.tokens)


def test_slices_and_chunks_of_columns() -> None:
    array = texts().to_arrow()
    part = MultiVectors.from_arrow(array[2:])
    assert part.lengths.tolist() == [5, 1] and part.ids.tolist() == [0, 1]
    np.testing.assert_array_equal(part.tokens, texts().tokens[3:])
    table = pa.concat_tables([pa.table({"tokens": array[1:]}), pa.table({"tokens": array[:1]})])
    both = MultiVectors.from_arrow(table["tokens"])
    assert both.lengths.tolist() == [0, 5, 1, 3]
    np.testing.assert_array_equal(both[3], texts()[0])
    assert len(MultiVectors.from_arrow(pa.chunked_array([], array.type))) == 0
    assert MultiVectors.from_arrow(array[:0]).dimension == 4


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.list_(pa.float32())),
        pa.large_list(pa.large_list(pa.float64())),
        pa.large_list(pa.list_(pa.float64(), 2)),
    ],
    ids=str,
)
def test_other_kinds_of_lists(kind: Any) -> None:
    found = MultiVectors.from_arrow(pa.array([[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]], kind))
    assert found.lengths.tolist() == [1, 2] and found.tokens.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert found.tokens.dtype == np.float32


NESTED = pa.list_(pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("array", "kind", "words"),
    [
        ([[[1.0]]], TypeError, "got list"),
        (pa.array([[1.0]]), TypeError, "list<item: double>"),
        (pa.array([[[1]]]), TypeError, "int64"),
        (pa.array([[[1.0]], None], NESTED), TypeError, "without nulls"),
        (pa.array([[[1.0], None]], NESTED), TypeError, "without nulls"),
        (pa.array([[[1.0, None]]], NESTED), TypeError, "without nulls"),
        (pa.array([[[1.0], [1.0, 2.0]]], NESTED), ValueError, r"of \[1, 2\] floats"),
        (pa.array([[]], NESTED), ValueError, "of no floats"),
    ],
)
def test_refused_arrays(array: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        MultiVectors.from_arrow(array)
