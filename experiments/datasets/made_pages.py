"""Generated pages: patches of one real page plus noise along their own directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .discovery import DATA

#: Vectors of a real page by ColPali: 32 x 32 patches, then 6 special vectors.
PAGE = DATA / "colpali-one-page" / "page_1030x128_float32.npy"
GRID = (32, 32)

#: Pages of a document.
DOCUMENT = 10

# Share of the patches' own deviation that is added to all pages of a document, and to
# one page.
_DOCUMENT_NOISE, _PAGE_NOISE = 0.5, 0.5

# Rows and columns of the patches of a query, and the noise of its vectors.
_QUERY, _QUERY_NOISE = (4, 5), 0.5


class MadePages:
    """Pages by number, made again for each call from a seed and the number.

    Patches of the real page that are alike stay alike: their noise is a random linear
    map of their deviation from the mean, one for each document and one for each page.
    Each patch also gets noise of its own, as large as its distance to the most similar
    patch of the real page, divided by the square root of 2.

    Parameters
    ----------
    path : Path
        float32 (1030, dimension), as :data:`PAGE`.
    seed : int
    """

    def __init__(self, path: Path = PAGE, seed: int = 0) -> None:
        self._seed = seed
        self.page: NDArray[np.float32] = np.load(path)
        self.patches = GRID[0] * GRID[1]
        self._centered = self.page - self.page[: self.patches].mean(axis=0)
        own = self._centered[: self.patches]
        values, vectors = np.linalg.eigh(own.T @ own / self.patches)
        # Random rows times this have the covariance of the patches.
        self._directions = ((vectors * np.sqrt(values.clip(0))) @ vectors.T).astype(np.float32)
        # A deviation times a random matrix of this scale keeps its length on average.
        self._scale = float(1 / np.sqrt(values.sum()))
        products = self.page @ self.page.T
        np.fill_diagonal(products, -1)
        nearest = np.sqrt(np.maximum(2 - 2 * products.max(axis=1), 0))
        self._own_noise = (nearest / np.sqrt(2 * values.sum())).astype(np.float32)[:, None]

    def _noise(self, rng: np.random.Generator, count: int) -> NDArray[np.float32]:
        """Return `count` vectors with the covariance of the page's patches."""
        rows = rng.standard_normal((count, self.page.shape[1]), np.float32)
        return np.asarray(rows @ self._directions, np.float32)

    def _map(self, rng: np.random.Generator) -> NDArray[np.float32]:
        random: NDArray[np.float32] = self._scale * self._noise(rng, self.page.shape[1])
        return random

    def vectors(self, number: int) -> NDArray[np.float32]:
        """Return the vectors of a page: patches in reading order, then special ones.

        Parameters
        ----------
        number : int
        """
        rng = np.random.default_rng((self._seed, 0, number))
        change = self._change(number, rng)
        made = self.page + self._centered @ change + self._own_noise * self._noise(rng, len(self.page))
        return _unit(made)

    def _change(self, number: int, rng: np.random.Generator) -> NDArray[np.float32]:
        of_document = self._map(np.random.default_rng((self._seed, 1, number // DOCUMENT)))
        change: NDArray[np.float32] = _DOCUMENT_NOISE * of_document + _PAGE_NOISE * self._map(rng)
        return change

    def pooled(self, numbers: Iterable[int], groups: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        """Yield the means of groups of pages' patches, and then the special vectors.

        They are computed from the means of the real page, which is faster than pooling:
        a linear map of a mean is the mean of a linear map.

        Parameters
        ----------
        numbers : iterable of int
        groups : int64 (1024,)
            Group of each patch.
        """
        sizes = np.append(np.bincount(groups), np.ones(len(self.page) - self.patches, np.int64))
        owners = np.append(groups, np.arange(groups.max() + 1, len(sizes)))
        means = np.zeros((len(sizes), len(self.page)), np.float32)
        means[owners, np.arange(len(owners))] = 1 / sizes[owners]
        page, centered, own = means @ self.page, means @ self._centered, means @ self._own_noise
        own /= np.sqrt(sizes)[:, None].astype(np.float32)
        for number in numbers:
            rng = np.random.default_rng((self._seed, 0, number))
            change = self._change(number, rng)
            yield _unit(page + centered @ change + own * self._noise(rng, len(sizes)))

    def query(self, number: int, page: int) -> NDArray[np.float32]:
        """Return a query: a block of patches of a page, with noise.

        Parameters
        ----------
        number : int
            Number of the query.
        page : int
            Number of the page.
        """
        rng = np.random.default_rng((self._seed, 2, number))
        row, column = (int(rng.integers(GRID[i] - _QUERY[i] + 1)) for i in range(2))
        grid = self.vectors(page)[: self.patches].reshape(*GRID, -1)
        own = grid[row : row + _QUERY[0], column : column + _QUERY[1]].reshape(_QUERY[0] * _QUERY[1], -1)
        return _unit(own + _QUERY_NOISE * self._noise(rng, len(own)))


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
