"""Calibration of the blocks: coefficients that also hold for documents unlike the sample."""

from typing import Any

import numpy as np

from muvera import FDEConfig, MeanConfig, MultiVectors
from muvera.encoders.registry import make_encoder


def alike(count: int, dimension: int = 20) -> MultiVectors:
    """Documents of two tokens, all equally long, whose means are equally long up to rounding."""
    rng = np.random.default_rng(0)
    bases = rng.standard_normal((count, dimension))
    bases *= 3 / np.linalg.norm(bases, axis=1, keepdims=True)
    return MultiVectors.from_arrays(
        [np.stack([base, np.zeros(dimension)]).astype(np.float32) for base in bases]
    )


def test_a_term_that_is_the_same_for_all_documents_gets_no_weight() -> None:
    """Lengths that differ by rounding alone got coefficients of thousands, which buried other documents."""
    documents = alike(160)
    others = MultiVectors.from_arrays(np.random.default_rng(1).standard_normal((80, 3, 20)) * 0.3)
    small: dict[str, Any] = {"num_repetitions": 40, "projection_dimension": 8}
    for config in (MeanConfig(dimension=20), FDEConfig(dimension=20, **small)):
        encoder: Any = make_encoder(config).fit(documents)
        assert np.abs(encoder.blocks.coefficients).max() < 3
        vectors = encoder.encode_documents([*documents, *others])
        queries = encoder.encode_queries([text[:1] for text in documents])
        assert ((queries @ vectors.T).argmax(axis=1) == np.arange(160)).all()


def test_equal_documents_leave_the_default_coefficients() -> None:
    encoder: Any = make_encoder(MeanConfig(dimension=4)).fit([np.eye(4, dtype=np.float32)] * 30)
    np.testing.assert_allclose(encoder.blocks.coefficients, (0.5, 0.5, 1, 0, 0, 0, 0), atol=1e-6)
