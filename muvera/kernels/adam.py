"""One step of Adam (Kingma and Ba, arXiv 1412.6980), in place."""

import numpy as np

from .jit import kernel


@kernel
def adam_step(weights, gradient, first, second, step, rate):
    """Move `weights` (n,) against the gradient (n,); `first` and `second` (n,) are its running moments.

    `step` counts from 1, for the moments' bias.
    """
    first_keep, second_keep = np.float32(0.9), np.float32(0.999)
    one = np.float32(1.0)
    first_bias = np.float32(1.0 / (1.0 - 0.9**step))
    second_bias = np.float32(1.0 / (1.0 - 0.999**step))
    floor = np.float32(1e-8)
    for i in range(weights.shape[0]):
        value = gradient[i]
        first[i] = first_keep * first[i] + (one - first_keep) * value
        second[i] = second_keep * second[i] + (one - second_keep) * value * value
        weights[i] -= rate * first[i] * first_bias / (np.sqrt(second[i] * second_bias) + floor)
