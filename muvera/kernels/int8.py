"""Inner products of 8-bit vectors with 12-bit queries in integers: exact in any order.

Sizes: n vectors `codes` (n, width) int8 and m `queries` (m, width) int16 within +-MAX_QUERY_ENTRY.
"""

import numpy as np

from .jit import kernel

#: Largest entry of a vector and of a query.
MAX_VECTOR_ENTRY, MAX_QUERY_ENTRY = 127, 2047

# Number of entries whose products always add up within 32 bits.
_SPAN = 8192


@kernel
def integer_products(codes, rows, queries, out):
    """Write the products of the vectors at positions `rows` with all queries to `out` (rows, m)."""
    width = codes.shape[1]
    for i in range(rows.shape[0]):
        for query in range(queries.shape[0]):
            total = np.int64(0)
            for start in range(0, width, _SPAN):
                a = codes[rows[i], start : min(start + _SPAN, width)]
                b = queries[query, start : min(start + _SPAN, width)]
                part = np.int32(0)
                for j in range(a.shape[0]):
                    part = np.int32(part + np.int32(a[j]) * np.int32(b[j]))
                total += part
            out[i, query] = total
