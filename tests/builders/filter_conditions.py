"""Metadata and conditions that often match, because there are few fields and values."""

from hypothesis import strategies as st

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
    st.fixed_dictionaries({"$eq": SCALARS}),
    st.fixed_dictionaries({"$ne": SCALARS}),
    st.fixed_dictionaries({"$in": st.lists(SCALARS, max_size=3)}),
    st.fixed_dictionaries({"$nin": st.lists(SCALARS, max_size=3)}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
    st.builds(lambda name, limit: {name: limit}, st.sampled_from(["$lt", "$lte", "$gt", "$gte"]), LIMITS),
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
