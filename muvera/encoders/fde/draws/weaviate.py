"""Draws of Weaviate's MUVERA encoder (Go).

One generator runs through all repetitions: the hyperplanes of repetition 0, its projection, the hyperplanes
of repetition 1, and so on.  So repetition r does not depend on R, but it does depend on k, p and d.
Weaviate has no seed setting: its two seed words are constants of the program, and our `seed` is the first.
"""

import numpy as np
from numpy.typing import NDArray

from . import go_rand
from .sizes import DrawSizes

#: First seed word of Weaviate, the one that gives its own FDEs.
DEFAULT_SEED = 0x532CA5105169B1DF

_SECOND_SEED = 0x385AB5285169B1AC


def hyperplanes(sizes: DrawSizes) -> NDArray[np.float32]:
    """Gaussian hyperplane normals, a repetition a block.

    Parameters
    ----------
    sizes : DrawSizes
        Its seed is the first seed word, modulo 2**64; the p projections are drawn from the same stream,
        between the hyperplanes of two repetitions.

    Returns
    -------
    ndarray of float32, shape (R, k, d)
        Equal to the draws of Go 1.24 on amd64 to the bit (checked on two million).
    """
    normal_words, _ = _words(sizes)
    uniform = go_rand.float64_of(normal_words)
    radius = np.sqrt(-2.0 * np.log(uniform[..., 0]))
    return (radius * np.cos(2.0 * np.pi * uniform[..., 1])).astype(np.float32)


def projections(sizes: DrawSizes) -> NDArray[np.float32]:
    """Dense sign projections with their scale; Weaviate projects even when p = d.

    Parameters
    ----------
    sizes : DrawSizes
        As for the hyperplanes.

    Returns
    -------
    ndarray of float32, shape (R, p, d)
        Entries -1 and 1 over the square root of p.  Weaviate scales after the dot product, which rounds
        differently in the last bits.
    """
    _, sign_words = _words(sizes)
    scale = np.float32(1) / np.float32(np.sqrt(sizes.projection_dimension))
    signed: NDArray[np.float32] = np.where(sign_words & np.uint64(1), scale, -scale)
    return signed


def _words(sizes: DrawSizes) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Words of the hyperplanes (R, k, d, 2) and of the signs (R, p, d)."""
    # A Gaussian takes two words (Box and Muller, the cosine half only), a sign one.
    for_normals = 2 * sizes.num_simhash_projections * sizes.dimension
    for_signs = sizes.projection_dimension * sizes.dimension
    shape = (sizes.num_repetitions, for_normals + for_signs)
    words = go_rand.pcg_words(sizes.seed, _SECOND_SEED, shape[0] * shape[1]).reshape(shape)
    return (
        words[:, :for_normals].reshape(*sizes.hyperplanes_shape, 2),
        words[:, for_normals:].reshape(sizes.projections_shape),
    )
