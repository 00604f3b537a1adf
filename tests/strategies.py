"""Hypothesis strategies: ragged collections of token vectors in every form that a caller may pass."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from muvera import MultiVectors

#: Dimensions around the kernels' vector widths, and small and odd ones.
dimensions = st.one_of(st.integers(1, 70), st.sampled_from([1, 15, 16, 17, 31, 32, 33, 48, 64]))

dtypes = st.sampled_from([np.float32, np.float16])

seeds = st.integers(0, 2**32 - 1)


@st.composite
def token_arrays(
    draw: st.DrawFn, dimension: int, *, least: int = 0, most: int = 12, unit: bool = False
) -> np.ndarray:
    """One text's tokens, float32 (t, dim), some of them duplicates; of length 1 if `unit`.

    Values come from a seed: hypothesis shrinks the shape, and the seed is what repeats a failure.
    """
    count = draw(st.integers(least, most))
    rng = np.random.default_rng(draw(seeds))
    tokens = rng.standard_normal((count, dimension))
    if count and draw(st.booleans()):
        tokens = tokens[rng.integers(0, count, count)]
    if unit:
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return tokens.astype(np.float32)


@st.composite
def ragged_arrays(draw: st.DrawFn, dimension: int, *, most: int = 6) -> list[np.ndarray]:
    """A list of texts, at least one, of which some may be empty and some equal."""
    texts = draw(st.lists(token_arrays(dimension), min_size=1, max_size=most))
    if draw(st.booleans()):
        texts.append(texts[0])
    return texts


@st.composite
def multivectors(draw: st.DrawFn, dimension: int, *, most: int = 6) -> MultiVectors:
    """A collection of float32 or float16."""
    return MultiVectors.from_arrays(
        draw(ragged_arrays(dimension, most=most)), dimension=dimension, dtype=draw(dtypes)
    )


@st.composite
def disguised(draw: st.DrawFn, array: np.ndarray) -> Any:
    """The same values with other strides, byte order, writeability or alignment."""
    kind = draw(
        st.sampled_from(["plain", "fortran", "reversed", "strided", "read-only", "swapped", "offset"])
    )
    if kind == "fortran":
        return np.asfortranarray(array)
    if kind == "reversed":
        return array[::-1].copy()[::-1]
    if kind == "strided":
        wide = np.zeros((array.shape[0], 2 * array.shape[1]), array.dtype)
        wide[:, ::2] = array
        return wide[:, ::2]
    if kind == "read-only":
        array = array.copy()
        array.flags.writeable = False
    elif kind == "swapped":
        return array.astype(array.dtype.newbyteorder())
    elif kind == "offset":
        return np.concatenate([array[:1], array])[1:] if len(array) else array
    return array
