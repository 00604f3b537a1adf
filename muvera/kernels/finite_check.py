"""Scan of float arrays for infinities, NaN and numbers too large for products."""

import numpy as np

from .jit import kernel


@kernel
def first_beyond(bits, magnitude, limit):
    """Return the flat position of the first number of at least `limit`, an infinity or a NaN, or -1.

    `bits` are the floats' bit patterns as unsigned integers, `magnitude` the mask of all bits but
    the sign, and `limit` the bit pattern of the smallest number that is too large: patterns order
    as the numbers do, with infinities and NaN at the end.  Whole blocks are tested with one
    accumulated flag, which vectorizes, and only a block that fails is searched.
    """
    block = 4096
    for start in range(0, bits.shape[0], block):
        stop = min(start + block, bits.shape[0])
        bad = np.uint8(0)
        for i in range(start, stop):
            bad |= np.uint8((bits[i] & magnitude) >= limit)
        if bad:
            for i in range(start, stop):
                if (bits[i] & magnitude) >= limit:
                    return i
    return -1
