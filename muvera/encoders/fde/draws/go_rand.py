"""The PCG generator of Go's ``math/rand/v2``, replayed in NumPy.

A 128-bit linear congruential generator whose words are its state mixed by DXSM.  NumPy's ``PCG64DXSM`` is
a cousin with another multiplier, so its words differ.
"""

import numpy as np
from numpy.typing import NDArray

_WORD = 2**64
_STATE = 2**128
# O'Neill's constants for the 128-bit generator and for the output function.
_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
_INCREMENT = 0x5851F42D4C957F2D14057B7EF767814F
_MIX = np.uint64(0xDA942042E4DD58B5)
_HALF = np.uint64(32)
_LOW_HALF = np.uint64(2**32 - 1)


def pcg_words(seed_high: int, seed_low: int, count: int) -> NDArray[np.uint64]:
    """First words of ``rand.NewPCG(seed_high, seed_low).Uint64()``.

    Parameters
    ----------
    seed_high, seed_low : int
        Halves of the start state, each modulo 2**64.
    count : int
        How many words.

    Returns
    -------
    ndarray of uint64, shape (count,)
    """
    high = np.empty(count, dtype=np.uint64)
    low = np.empty(count, dtype=np.uint64)
    state = (seed_high % _WORD) * _WORD + seed_low % _WORD
    state = (state * _MULTIPLIER + _INCREMENT) % _STATE
    high[:1], low[:1] = divmod(state, _WORD)
    # `factor` and `addend` jump `known` states ahead; each round applies the jump to all known states.
    factor, addend, known = _MULTIPLIER, _INCREMENT, 1
    while known < count:
        new = slice(known, min(2 * known, count))
        old = slice(0, new.stop - known)
        high[new], low[new] = _advance(high[old], low[old], factor, addend)
        factor, addend = factor * factor % _STATE, (factor + 1) * addend % _STATE
        known = new.stop
    mixed: NDArray[np.uint64] = high ^ (high >> _HALF)
    mixed *= _MIX
    mixed ^= mixed >> np.uint64(48)
    mixed *= low | np.uint64(1)
    return mixed


def float64_of(word: NDArray[np.uint64]) -> NDArray[np.float64]:
    """``Rand.Float64``: the low 53 bits over 2**53.

    Parameters
    ----------
    word : ndarray of uint64
        Words of the generator.

    Returns
    -------
    ndarray of float64, same shape
        Values in [0, 1).
    """
    uniform: NDArray[np.float64] = (word & np.uint64(2**53 - 1)).astype(np.float64) / 2.0**53
    return uniform


def _advance(
    high: NDArray[np.uint64], low: NDArray[np.uint64], factor: int, addend: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """State * factor + addend modulo 2**128, on 64-bit halves."""
    factor_high, factor_low = (np.uint64(half) for half in divmod(factor, _WORD))
    addend_high, addend_low = (np.uint64(half) for half in divmod(addend, _WORD))
    product = low * factor_low
    total = product + addend_low
    carry = total < product
    upper = _multiply_high(low, factor_low) + high * factor_low + low * factor_high + addend_high + carry
    return upper, total


def _multiply_high(a: NDArray[np.uint64], b: np.uint64) -> NDArray[np.uint64]:
    """Upper 64 bits of the 128-bit products, from 32-bit quarters."""
    a_low, a_high, b_low, b_high = a & _LOW_HALF, a >> _HALF, b & _LOW_HALF, b >> _HALF
    middle = a_high * b_low + (a_low * b_low >> _HALF)
    cross = a_low * b_high + (middle & _LOW_HALF)
    upper: NDArray[np.uint64] = a_high * b_high + (middle >> _HALF) + (cross >> _HALF)
    return upper
