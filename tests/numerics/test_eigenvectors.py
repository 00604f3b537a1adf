"""Leading eigenvectors against a full decomposition."""

import numpy as np

from muvera.encoders.matmul import leading_eigenvectors


def test_equals_the_full_decomposition() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(300, 300)))[0]
    values = 0.97 ** np.arange(300)
    matrix = (basis * values @ basis.T).astype(np.float32)
    found, vectors = leading_eigenvectors(matrix, 20, np.random.SeedSequence(1))
    np.testing.assert_allclose(found, values[:20], rtol=1e-4)
    np.testing.assert_allclose(np.abs(np.einsum("ij,ij->j", vectors, basis[:, :20])), 1, atol=1e-2)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(20), atol=1e-5)


def test_small_and_empty_matrices() -> None:
    found, vectors = leading_eigenvectors(
        np.diag([1.0, 4.0]).astype(np.float32), 5, np.random.SeedSequence(0)
    )
    np.testing.assert_allclose(found, [4, 1], rtol=1e-5)
    assert vectors.shape == (2, 2)
    found, _ = leading_eigenvectors(np.zeros((3, 3), np.float32), 2, np.random.SeedSequence(0))
    np.testing.assert_array_equal(found, [0, 0])
