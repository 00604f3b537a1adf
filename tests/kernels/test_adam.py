"""Steps of Adam against its definition."""

import numpy as np

from muvera.kernels.adam import adam_step


def test_steps_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(50).astype(np.float32)
    expected = weights.astype(np.float64)
    first, second = np.zeros((2, 50), np.float32)
    moments = np.zeros((2, 50))
    for step in range(1, 6):
        gradient = rng.standard_normal(50).astype(np.float32)
        gradient[7] = 0
        adam_step(weights, gradient, first, second, step, np.float32(0.1 / step))
        moments[0] = 0.9 * moments[0] + 0.1 * gradient
        moments[1] = 0.999 * moments[1] + 0.001 * gradient.astype(np.float64) ** 2
        mean, square = moments[0] / (1 - 0.9**step), moments[1] / (1 - 0.999**step)
        expected -= 0.1 / step * mean / (np.sqrt(square) + 1e-8)
        np.testing.assert_allclose(weights, expected, rtol=1e-4, atol=1e-5)
