"""Landmark cells: maxima of documents, soft weights of queries, centered rows."""

from typing import Any

import numpy as np
import strategies as some
from builders.fdes import fitted, landmarks_of
from builders.token_collections import ragged
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from muvera import FDEConfig, FDEEncoder, MultiVectors
from muvera.fde.landmark_kernels import landmark_queries
from muvera.fde.landmarks import Landmarks, draw_landmarks
from muvera.fde.tasks import Tokens

ENCODER = fitted("landmarks")
DIMENSION, COUNT = ENCODER.config.dimension, ENCODER.config.num_landmarks
DIRECTIONS, CENTER = landmarks_of(ENCODER, "queries")

#: Texts of up to 12 tokens, some of them equal.
texts = some.token_arrays(DIMENSION, least=1)


def documents_of(*tokens: np.ndarray) -> NDArray[np.float64]:
    """Return the cells of documents in float64, (n, M)."""
    return ENCODER.encode_documents(list(tokens)).astype(np.float64)


def weights_of(tokens: np.ndarray, sharpness: float = 12.0, landmarks: Landmarks | None = None) -> Any:
    """Return the weights of a query's cells before they are centered, float64 (M,)."""
    landmarks = landmarks or ENCODER.landmarks
    assert landmarks is not None
    out = np.empty((1, landmarks.count), np.float32)
    none = np.empty((0, tokens.shape[1]), np.uint16)
    given_tokens = Tokens(np.ascontiguousarray(tokens, np.float32), none, np.array([0, len(tokens)]))
    landmark_queries(given_tokens, 0, 1, landmarks.columns, landmarks.inverse_lengths, sharpness, out)
    return out[0].astype(np.float64)


def rounding(*documents: np.ndarray) -> float:
    """Return a bound on the error of a cell: half a unit of each entry, times a landmark's entries."""
    assert ENCODER.landmarks is not None
    unit = max(np.abs(tokens - ENCODER.landmarks.mean).max(initial=0) for tokens in documents) / 127
    return float(0.51 * unit * np.abs(DIRECTIONS).sum(axis=1).max())


# -- documents ----------------------------------------------------------------------------


@given(texts)
def test_a_documents_cells_are_its_largest_products(tokens: np.ndarray) -> None:
    """max_x <x, l_j> up to a constant per cell; each entry is off by half of a 127th at most."""
    (cells,) = documents_of(tokens)
    assert ENCODER.landmarks is not None
    largest = ((tokens.astype(np.float64) - ENCODER.landmarks.mean) @ DIRECTIONS.T).max(axis=0)
    assert np.abs(cells - (largest - largest.mean())).max() <= 2 * rounding(tokens) + 1e-5


@given(texts, st.integers(-18, 18))
def test_documents_cells_scale_with_tokens(tokens: np.ndarray, exponent: int) -> None:
    """Tokens need no unit length: short ones are not rounded with the unit of long ones.  Exact."""
    scale, sample = np.float32(2.0**exponent), ragged(DIMENSION, 8)
    config = FDEConfig(dimension=DIMENSION, num_landmarks=10, moments=None, final_projection=None)
    usual = draw_landmarks(sample, config)
    scaled = draw_landmarks(MultiVectors.from_flat(sample.tokens * scale, sample.lengths), config)
    wanted = FDEEncoder(config, landmarks=usual).encode_documents(tokens)
    found = FDEEncoder(config, landmarks=scaled).encode_documents(tokens * scale)
    np.testing.assert_array_equal(found, wanted * scale)
