"""Arrow's lists of fixed-size lists: there and back, and what is refused."""

from typing import Any

import numpy as np
import pytest

from muvera import MultiVectors

pa = pytest.importorskip("pyarrow")


def texts(dtype: Any = np.float32) -> MultiVectors:
    tokens = np.random.default_rng(0).standard_normal((9, 4)).astype(dtype)
    return MultiVectors.from_flat(tokens, [3, 0, 5, 1], ids=["a", "b", "c", "d"])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_there_and_back_without_a_copy(dtype: Any) -> None:
    array = texts(dtype).to_arrow()
    assert array.type == pa.list_(pa.list_(pa.float32() if dtype == np.float32 else pa.float16(), 4))
    back = MultiVectors.from_arrow(array, ids=["a", "b", "c", "d"])
    assert back.tokens.dtype == dtype and back.lengths.tolist() == [3, 0, 5, 1]
    np.testing.assert_array_equal(back.tokens, texts(dtype).tokens)
    held = texts(dtype)
    assert np.shares_memory(MultiVectors.from_arrow(held.to_arrow()).tokens, held.tokens)


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
    assert len(MultiVectors.from_arrow(array[:0])) == 0 and MultiVectors.from_arrow(array[:0]).dimension == 4


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
    array = pa.array([[[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]], kind)
    found = MultiVectors.from_arrow(array)
    assert found.lengths.tolist() == [1, 2] and found.tokens.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert found.tokens.dtype == np.float32


NESTED = pa.list_(pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("array", "kind", "message"),
    [
        ([[[1.0]]], TypeError, "array must be an Arrow array of lists of lists of floats, got list"),
        (
            pa.array([[1.0]]),
            TypeError,
            "must be an Arrow array of lists of lists of floats, got list<item: double>",
        ),
        (pa.array([[[1]]]), TypeError, "array must hold floats, got int64"),
        (
            pa.array([[[1.0]], None], NESTED),
            ValueError,
            "a null instead of a text's vectors, the first at position 1",
        ),
        (
            pa.array([[[1.0], None]], NESTED),
            ValueError,
            "a null instead of a vector, the first at position 1",
        ),
        (
            pa.array([[[1.0, None]]], NESTED),
            ValueError,
            "a null instead of a number, the first at position 1",
        ),
        (
            pa.array([[[1.0], [1.0, 2.0]]], NESTED),
            ValueError,
            "vectors of one width, got vectors of 1 and of 2 floats",
        ),
        (pa.array([[]], NESTED), ValueError, "vectors of one width, got no vectors"),
    ],
)
def test_what_is_refused(array: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        MultiVectors.from_arrow(array)
