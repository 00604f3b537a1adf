"""Scans over token vectors: is every number finite?"""

import numpy as np

from .jit import kernel


@kernel
def first_not_finite(bits, exponent):
    """Return the flat position of the first infinity or NaN, or -1.

    `bits` are the floats' bit patterns as unsigned integers, `exponent` the mask of their
    exponent: all its bits set means not finite.  Whole blocks are tested with one
    accumulated flag, which vectorises, and only a block that fails is searched.
    """
    block = 4096
    for start in range(0, bits.shape[0], block):
        stop = min(start + block, bits.shape[0])
        bad = np.uint8(0)
        for i in range(start, stop):
            bad |= np.uint8((bits[i] & exponent) == exponent)
        if bad:
            for i in range(start, stop):
                if (bits[i] & exponent) == exponent:
                    return i
    return -1
