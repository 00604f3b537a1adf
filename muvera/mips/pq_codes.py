"""Search of product codes: all are read, through tables that are made once a query."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.ranking import best_first
from ..utils.atomic_files import read_array
from .flat import LABELS, Best, FlatSearch
from .int8 import BYTES, STEPS, int8_products, read_bytes, restored, write_bytes
from .product_quantizer import ProductQuantizer

__all__ = ["CENTROIDS_FILE", "CodeSearch"]

CENTROIDS_FILE, CODES = "vector_centroids.npy", "vector_codes.npy"


class CodeSearch(FlatSearch):
    """Search by the codes of a learned quantizer.

    Parameters
    ----------
    quantizer : ProductQuantizer
    rescore : int
        See :class:`muvera.mips.PQSearch`.
    """

    kind = "pq"

    def __init__(self, quantizer: ProductQuantizer, rescore: int) -> None:
        self.quantizer, self.rescore = quantizer, rescore
        columns: list[NDArray[Any]] = [np.empty((0, quantizer.groups), np.uint8)]
        if rescore:
            columns += [np.empty((0, quantizer.dimension), np.int8), np.empty(0, np.float32)]
        super().__init__(quantizer.dimension, columns)

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
        np.save(folder / CENTROIDS_FILE, self.quantizer.centroids)
        names = (CODES, BYTES, STEPS)[: len(self._columns)]
        for name, column in zip(names, self._columns, strict=True):
            np.save(folder / name, column[: self._count])
        np.save(folder / LABELS, self._labels[: self._count])

    @classmethod
    def load(cls, folder: Path, dimension: int, width: int, rescore: int) -> CodeSearch:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For files of another dimension or other groups, and for damaged ones.
        """
        path = folder / CENTROIDS_FILE
        try:
            quantizer = ProductQuantizer(read_array(path), dimension)
        except ValueError as error:
            raise ValueError(f"{path} does not fit: {error}") from error
        if quantizer.width != width:
            raise ValueError(f"{path} has groups of {quantizer.width} entries, but group={width} is wanted.")
        loaded = cls(quantizer, rescore)
        codes = (CODES, read_array(folder / CODES))
        loaded._restore(folder, [codes, *(restored(folder) if rescore else [])])
        return loaded

    def info(self) -> dict[str, Any]:
        """Return kind, size, bytes a vector, and those of the codebook, which are there once."""
        rescoring = self.dimension + 4 if self.rescore else 0
        return {
            "kind": self.kind,
            "vectors": len(self),
            "dimension": self.dimension,
            "bytes_per_vector": self.quantizer.groups + rescoring + 8,
            "codebook_bytes": 4 * self.quantizer.centroids.size,
        }
