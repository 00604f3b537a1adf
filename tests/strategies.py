"""Hypothesis strategies: ragged collections of token vectors, and conditions.

Collections have every form that a caller may pass.
"""

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
    """One text's tokens, float32 (t, dim), some of them duplicates.

    With `unit`, they have length 1.

    Values come from a seed: hypothesis shrinks the shape, and the seed is what repeats
    a failure.
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
    return MultiVectors.from_arrays(
        draw(ragged_arrays(dimension, most=most)), dimension=dimension, dtype=draw(dtypes)
    )


@st.composite
def disguised(draw: st.DrawFn, array: np.ndarray) -> Any:
    """The same values with other strides, byte order, writeability or alignment."""
    read_only = array.copy()
    read_only.flags.writeable = False
    fortran, swapped = np.asfortranarray(array), array.astype(array.dtype.newbyteorder())
    reversed_, strided = array[::-1].copy()[::-1], np.repeat(array, 2, axis=1)[:, ::2]
    offset = np.concatenate([array[:1], array])[1:] if len(array) else array
    return draw(st.sampled_from([array, fortran, reversed_, strided, read_only, swapped, offset]))


# -- metadata and conditions, which often match, because there are few fields and values

SCALARS = st.one_of(
    st.integers(-3, 3), st.sampled_from(["", "a", "b", "1"]), st.booleans(), st.sampled_from([0.5, -1.0, 2.0])
)
VALUES = st.one_of(SCALARS, st.none(), st.lists(st.one_of(SCALARS, st.none()), max_size=3))
METADATA = st.dictionaries(
    st.sampled_from(["x", "y"]),
    st.one_of(VALUES, st.dictionaries(st.sampled_from(["u", "v"]), VALUES)),
    max_size=2,
)
FIELDS = st.sampled_from(["x", "y", "x.u", "z"])
LIMITS = st.one_of(st.integers(-3, 3), st.sampled_from(["", "a", "b"]), st.sampled_from([0.5, 2.0]))
COMPARISONS = st.one_of(
    SCALARS,
    *(st.fixed_dictionaries({name: SCALARS}) for name in ("$eq", "$ne")),
    *(st.fixed_dictionaries({name: st.lists(SCALARS, max_size=3)}) for name in ("$in", "$nin")),
    *(st.fixed_dictionaries({name: LIMITS}) for name in ("$lt", "$lte", "$gt", "$gte")),
    st.fixed_dictionaries({"$exists": st.booleans()}),
    st.fixed_dictionaries({"$gte": st.integers(-3, 3), "$lt": st.integers(-3, 3)}),
)
CONDITIONS = st.recursive(
    st.dictionaries(FIELDS, COMPARISONS, max_size=2),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"$or": st.lists(inner, max_size=3)}),
        st.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=6,
)
