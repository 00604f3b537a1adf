"""Search of product codes: all are read, through tables that are made once a query."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.ranking import best_first
from ..utils.atomic_files import save_array
from ..utils.npy_files import load_npy
from .base import SavedState
from .flat import Best, FlatSearch
from .int8 import byte_columns, int8_products, read_bytes, write_bytes
from .product_quantizer import ProductQuantizer

__all__ = ["CENTROIDS_FILE", "CodeSearch"]

CENTROIDS_FILE, CODES = "vector_centroids.npy", "vector_codes.npy"


class CodeSearch(FlatSearch):
    """Search by the codes of a learned quantizer.

    Parameters
    ----------
    quantizer : ProductQuantizer
    rescore : int
        See :class:`muvera.mips.PQSettings`.
    """

    kind = "pq"

    def __init__(self, quantizer: ProductQuantizer, rescore: int) -> None:
        self.quantizer, self.rescore = quantizer, rescore
        codes = {CODES: np.empty((0, quantizer.groups), np.uint8)}
        super().__init__(quantizer.dimension, codes | (byte_columns(quantizer.dimension) if rescore else {}))

    def _write(self, start: int, vectors: NDArray[np.float32], threads: int | None) -> None:
        self._columns[0][start : start + len(vectors)] = self.quantizer.encode(vectors, threads)
        if self.rescore:
            write_bytes(self._columns[1], self._columns[2], start, vectors, threads)

    def _products(
        self, queries: NDArray[np.float32], picked: NDArray[np.int64] | None, threads: int | None
    ) -> NDArray[np.float32]:
        positions = np.arange(self._count) if picked is None else picked
        return self.quantizer.products(self._columns[0], positions, queries, threads)

    def _best(
        self, queries: NDArray[np.float32], picked: NDArray[np.int64] | None, k: int, threads: int | None
    ) -> Iterator[Best]:
        if not self.rescore:
            yield from super()._best(queries, picked, k, threads)
            return
        _, numbers, steps = self._columns
        ranked = super()._best(queries, picked, max(k, self.rescore), threads)
        for query, (places, _) in enumerate(ranked):
            places = np.sort(places)  # so that ties go to the earlier one
            positions = places if picked is None else picked[places]
            products = int8_products(numbers, steps, positions, queries[query : query + 1], threads)[:, 0]
            best = best_first(products, k)
            yield places[best], products[best]

    def _read(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        if self.rescore:
            return read_bytes(self._columns[1], self._columns[2], positions)
        return self.quantizer.decode(self._columns[0][positions])

    def save(self, folder: Path) -> None:
        """Write the centroids, the codes, the bytes for rescoring and the labels."""
        save_array(folder / CENTROIDS_FILE, self.quantizer.centroids)
        super().save(folder)

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> CodeSearch:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For files of another dimension or other groups, and for damaged ones.
        """
        path, settings = folder / CENTROIDS_FILE, saved.settings
        try:
            quantizer = ProductQuantizer(load_npy(path, mmap=False), dimension)
        except ValueError as error:
            raise ValueError(f"{path} does not fit: {error}") from error
        if quantizer.width != settings.subvector_size:
            raise ValueError(
                f"{path} has subvectors of {quantizer.width} floats, but "
                f"subvector_size={settings.subvector_size} is wanted."
            )
        loaded = cls(quantizer, settings.rescore)
        loaded._restore(folder)
        return loaded

    def info(self) -> dict[str, Any]:
        """Return kind, size, bytes a vector, and those of the codebook, which are there once."""
        rescoring = self.dimension + 4 if self.rescore else 0
        return {
            **super().info(),
            "bytes_per_vector": self.quantizer.groups + rescoring + 8,
            "codebook_bytes": 4 * self.quantizer.centroids.size,
        }
