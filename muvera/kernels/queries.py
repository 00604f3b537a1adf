"""Round query tokens to bytes, packed for the byte tile."""

import numpy as np

from .byte_tile import STEP
from .jit import kernel
from .tile import LANES

#: Largest absolute value of a byte.
MOST = 127


@kernel
def round_query(tokens, scales, shift, zero, depth, packed, biases, steps, products):
    """Write each scaled token as whole multiples of its step, which is a 127th of its largest entry.

    Parameters
    ----------
    tokens : float32 (m, n)
    scales, shift : float32 (n,)
        A token is multiplied by the scales; its product with the shift is also written.
    zero : float
        Byte that represents the value 0 in document tokens.
    depth : int
        Rows of a packed panel, a multiple of STEP, at least n.
    packed : int8
        Panels in the layout of :func:`muvera.kernels.byte_tile.pack_bytes`; zero before.
    biases : float32 (panels * LANES,)
        Receives the part of a product of bytes that comes from `zero`; zero before.
    steps, products : float32 (m,)
        Receive the steps and the products with the shift.
    """
    for i in range(tokens.shape[0]):
        product, peak = 0.0, np.float32(0)
        for j in range(tokens.shape[1]):
            value = tokens[i, j] * scales[j]
            product += np.float64(value) * np.float64(shift[j])
            peak = max(peak, abs(value))
        step = peak / np.float32(MOST) if peak > 0 else np.float32(1)
        inverse = np.float32(1) / step
        total = 0
        panel = i // LANES * depth * LANES + i % LANES * STEP
        for j in range(tokens.shape[1]):
            number = int(np.rint(tokens[i, j] * scales[j] * inverse))
            number = max(-MOST, min(MOST, number))
            packed[panel + j // STEP * LANES * STEP + j % STEP] = number
            total += number
        biases[i] = zero * total
        steps[i] = step
        products[i] = product
