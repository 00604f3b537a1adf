"""Collections to write and read back, and comparisons of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from muvera.convert.sources import Source
from muvera.data.multivectors import MultiVectors


def collection(
    lengths: list[int], dimension: int = 4, ids: Any = None, dtype: Any = np.float32, seed: int = 0
) -> MultiVectors:
    """Return random tokens, none of them zero."""
    random = np.random.default_rng(seed)
    tokens = random.normal(size=(sum(lengths), dimension)).astype(dtype)
    tokens[tokens == 0] = 1
    return MultiVectors.from_flat(tokens, np.asarray(lengths, np.int64), ids=ids)


@st.composite
def collections(draw: st.DrawFn, min_tokens: int = 0) -> MultiVectors:
    """Collections with empty documents, in both precisions.

    Ids are integers, strings or absent.
    """
    lengths = draw(st.lists(st.integers(0, 5), min_size=1, max_size=8).filter(lambda v: sum(v) >= min_tokens))
    count = len(lengths)
    texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(lambda v: v[-1:] != "\0")
    numbers = st.integers(-(2**63), 2**63 - 1)
    some = [st.lists(kind, min_size=count, max_size=count, unique=True) for kind in (numbers, texts)]
    ids, dimension = draw(st.one_of(st.none(), *some)), draw(st.sampled_from([1, 3, 8, 128]))
    dtype = draw(st.sampled_from([np.float32, np.float16]))
    return collection(lengths, dimension, ids, dtype, draw(st.integers(0, 99)))


def cuts(docs: MultiVectors, size: int) -> Iterator[MultiVectors]:
    """Yield `size` documents at a time, with ids only if `docs` has ids."""
    for start in range(0, max(len(docs), 1), size):
        bounds = docs.offsets[start : start + size + 1]
        ids = docs.ids[start : start + size] if docs.has_ids else None
        yield MultiVectors(docs.tokens[bounds[0] : bounds[-1]], bounds - bounds[0], ids)


def everything(source: Source, max_tokens: int = 7) -> MultiVectors:
    """Join all batches, and check the guarantees of every source."""
    parts = list(source.batches(max_tokens))
    for part in parts:
        assert part.dimension == source.dimension
        assert part.num_tokens <= max_tokens or len(part) == 1
        assert part.has_ids == parts[0].has_ids or not len(part)
    whole = MultiVectors.concatenate(parts)
    assert source.num_documents in (None, len(whole))
    assert source.num_tokens in (None, whole.num_tokens)
    return whole


def assert_same(got: MultiVectors, wanted: MultiVectors, exact_dtype: bool = True) -> None:
    assert got.lengths.tolist() == wanted.lengths.tolist()
    assert got.has_ids == wanted.has_ids
    assert got.ids.tolist() == wanted.ids.tolist()
    if exact_dtype:
        assert got.tokens.dtype == wanted.tokens.dtype
    np.testing.assert_array_equal(got.tokens, wanted.tokens.astype(got.tokens.dtype))


def three(dtype: Any = np.float32) -> MultiVectors:
    return MultiVectors.from_flat(np.arange(20, dtype=dtype).reshape(5, 4), [2, 0, 3], ids=["a", "b", "c"])


def ragged(
    dimension: int, count: int = 40, seed: int = 0, longest: int = 30, dtype: Any = np.float32
) -> MultiVectors:
    """Return texts of 1 to `longest` tokens around a common direction.

    Their lengths are about 1; the middle text is empty.
    """
    rng = np.random.default_rng([seed, dimension])
    lengths = rng.integers(1, longest + 1, count)
    lengths[count // 2] = 0
    tokens = (rng.standard_normal((lengths.sum(), dimension)) + 0.5) / np.sqrt(dimension)
    return MultiVectors.from_flat(tokens.astype(dtype), lengths)


def assert_close(actual: np.ndarray, wanted: np.ndarray, rounding: float = 5e-6) -> None:
    """Compare up to rounding errors of float32 sums of some hundred terms.

    Errors are relative to the largest entry.
    """
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=rounding * max(1.0, np.abs(wanted).max()))


def random_texts(count: int, seed: int = 0, dimension: int = 20, most: int = 9) -> MultiVectors:
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(int(rng.integers(1, most + 1)), dimension)) for _ in range(count)]
    return MultiVectors.from_arrays([a / np.linalg.norm(a, axis=1, keepdims=True) for a in arrays])


def write_tokens(folder: Path) -> None:
    """Write token vectors of documents and queries as `tokens` and `queries`."""
    rng = np.random.default_rng(0)
    words = rng.normal(size=(60, 32))
    texts = [words[rng.integers(0, 60, 12)] + 0.5 * rng.normal(size=(12, 32)) for _ in range(160)]
    MultiVectors.from_arrays(texts).save(folder / "tokens")
    queries = [texts[i][:6] + 0.2 * rng.normal(size=(6, 32)) for i in range(40)]
    MultiVectors.from_arrays(queries).save(folder / "queries")
