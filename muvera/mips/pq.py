"""PQSearch: vectors as product codes, once enough have come to learn the codes from."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Found, Guard, SavedState, VectorSearch
from .exact import ExactSearch
from .pq_codes import CENTROIDS_FILE, CodeSearch
from .product_quantizer import CENTROIDS, ProductQuantizer
from .settings import PQSettings

__all__ = ["PQSearch"]


class PQSearch(VectorSearch):
    """Search of product codes (PQ-256-G): a byte for every `subvector_size` floats.

    The first vectors are kept as floats and searched exactly.  Once there are `train_size`, or at
    :meth:`train`, the codes are learned from them, all are coded and the floats dropped; later
    ones are coded as they come.  An index learns at the end of its build, or of the first addition
    that makes 256.  The codes are never learned again: give the first ones in random order.
    Adding one costs about as much as its product with 256 * `dimension` floats.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    settings : PQSettings, optional
        How the codes are made.
    """

    kind = "pq"

    def __init__(self, dimension: int, settings: PQSettings | None = None) -> None:
        super().__init__(dimension)
        self.settings = PQSettings() if settings is None else settings
        self._fitted_on = 0
        self._rows: ExactSearch | CodeSearch = ExactSearch(dimension)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def fitted_on(self) -> int:
        """How many vectors the codes were learned from; 0 before that."""
        return self._fitted_on

    @property
    def ready_to_train(self) -> bool:
        """Whether vectors are kept as floats of which there are as many as centroids.

        Fewer take less memory as floats than a codebook does.
        """
        return isinstance(self._rows, ExactSearch) and len(self._rows) >= CENTROIDS

    def train(self, threads: int | None = None) -> None:
        """Learn the codes from what is there, code it and drop the floats, where :attr:`ready_to_train`.

        Takes a minute or more for many vectors; meanwhile the floats and the codes are in memory.
        """
        held = self._rows
        if isinstance(held, CodeSearch) or not self.ready_to_train:
            return
        how = self.settings
        quantizer = ProductQuantizer.train(
            held.floats, how.subvector_size, most=how.train_size, seed=how.seed, threads=threads
        )
        coded = CodeSearch(quantizer, how.rescore)
        coded.add(held.in_order, held.floats, threads)
        self._fitted_on = min(len(held), how.train_size)
        self._rows = coded

    # -- changing -------------------------------------------------------------

    def add(
        self,
        labels: NDArray[np.int64],
        vectors: NDArray[np.float32],
        threads: int | None = None,
        guard: Guard = nullcontext,
    ) -> None:
        """Add vectors under new labels; the one that makes up `train_size` waits for the learning."""
        self._rows.add(labels, vectors, threads, guard)
        if isinstance(self._rows, ExactSearch) and len(self._rows) >= self.settings.train_size:
            try:
                self.train(threads)
            except BaseException:
                with guard():
                    self._rows.remove(labels)
                raise

    def can_add(self, labels: NDArray[np.int64]) -> bool:
        """Whether :meth:`add` would take all of these labels."""
        return self._rows.can_add(labels)

    def existing(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of `labels` that a search can return, ascending."""
        return self._rows.existing(labels)

    def remove(self, labels: NDArray[np.int64]) -> None:
        """Drop vectors; the others keep their order, and the codes their meaning."""
        self._rows.remove(labels)

    # -- searching ------------------------------------------------------------

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.int64] | None = None,
        threads: int | None = None,
        *,
        ef: int | None = None,
    ) -> Found:
        """Return the k best labels and their inner products, as exact as the last order is."""
        return self._rows.search(queries, k, allowed, threads)

    # -- looking --------------------------------------------------------------

    def labels(self) -> NDArray[np.int64]:
        """Return the labels that a search can return, ascending."""
        return self._rows.labels()

    def vectors(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of `labels`, as exactly as they are kept."""
        return self._rows.vectors(labels)

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings, bytes a vector, and how many the codes were learned from."""
        facts = {**self._rows.info(), "kind": self.kind}
        return {**facts, **self.settings.to_dict(), "fitted_on": self.fitted_on}

    def warnings(self) -> list[str]:
        """Return a sentence where the codes were learned from few, and less than half of what there is."""
        if not 0 < self.fitted_on < min(self.settings.train_size, len(self) / 2):
            return []
        return [
            f"The product codes were learned from only {self.fitted_on} of now {len(self)} documents: "
            "rebuild() learns them again."
        ]

    # -- keeping --------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the codes and their codebook, or the floats where nothing is learned yet."""
        self._rows.save(folder)

    @classmethod
    def load(cls, folder: Path, dimension: int, saved: SavedState) -> PQSearch:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For files of another dimension or other subvectors, and for damaged ones.
        """
        loaded = cls(dimension, saved.settings)
        loaded._fitted_on = saved.fitted_on
        if saved.fitted_on or (folder / CENTROIDS_FILE).exists():
            loaded._rows = CodeSearch.load(folder, dimension, saved)
        else:
            loaded._rows = ExactSearch.load(folder, dimension, saved)
        return loaded
