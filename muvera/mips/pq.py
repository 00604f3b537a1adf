"""PQSearch: vectors as product codes, once enough have come to learn the codes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Found, checked_dimension
from .exact import ExactSearch
from .pq_codes import CENTROIDS_FILE, CodeSearch
from .product_quantizer import CENTROIDS, ProductQuantizer

__all__ = ["PQSearch"]

#: Floats of a group at most: 256 centroids say little of so many.
MOST_GROUP = 64

#: Codes are learned from at most this many vectors.
MOST_TRAINING = 100_000


class PQSearch:
    """Search of product codes (PQ-256-G): a byte for every `group` floats.

    The first vectors are kept as floats and searched exactly.  Once there are `train`, or at
    :meth:`learn`, the codes are learned from them, all are coded and the floats dropped; later
    ones are coded as they come.  An index learns at the end of its build, or of the first addition
    that makes 256.  The codes are never learned again: give the first ones in random order.
    Adding one costs about as much as its product with 256 * `dimension` floats.

    Parameters
    ----------
    dimension : int
        Floats of a vector.
    group : int
        Floats a byte stands for, 1 to 64: 8 is a 32nd of their memory.  Fewer raise recall, memory and
        time in proportion.
    rescore : int
        0: the order by codes is the answer.  Else so many best by codes, or k where that is more,
        are ordered by a copy of one byte a float, which costs ``dimension + 4`` more bytes a vector
        and makes up for what the codes lose.
    train : int
        Vectors to learn from, and to keep as floats at most: 256 to 100,000.  More raise the
        time of learning and the memory until then in proportion, and recall a little.
    seed : int
        Of the vectors that the centroids begin as.
    """

    kind = "pq"

    def __init__(
        self, dimension: int, *, group: int = 8, rescore: int = 0, train: int = 16384, seed: int = 42
    ) -> None:
        limits = (
            ("group", group, 1, MOST_GROUP),
            ("rescore", rescore, 0, None),
            ("train", train, CENTROIDS, MOST_TRAINING),
            ("seed", seed, 0, None),
        )
        for name, value, least, most in limits:
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or value < least or (most is not None and value > most):
                wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
                raise ValueError(f"{name} must be an int {wanted}, got {value!r}.")
        self.dimension = checked_dimension(dimension)
        self.group, self.rescore, self.train, self.seed = group, rescore, train, seed
        self.fitted_on = 0
        self._rows: ExactSearch | CodeSearch = ExactSearch(dimension)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def ready_to_train(self) -> bool:
        """Whether vectors are kept as floats of which there are as many as centroids.

        Fewer take less memory as floats than a codebook does.
        """
        return isinstance(self._rows, ExactSearch) and len(self._rows) >= CENTROIDS

    @property
    def fitted_on_too_few(self) -> bool:
        """Whether the codes were learned from few, and from less than half of what there is."""
        return 0 < self.fitted_on < min(self.train, len(self) / 2)

    def learn(self, threads: int | None = None) -> None:
        """Learn the codes from what is there, code it and drop the floats, where :attr:`ready_to_train`.

        Takes a minute or more for many vectors; meanwhile the floats and the codes are in memory.
        """
        held = self._rows
        if isinstance(held, CodeSearch) or not self.ready_to_train:
            return
        quantizer = ProductQuantizer.train(
            held.floats, self.group, most=self.train, seed=self.seed, threads=threads
        )
        coded = CodeSearch(quantizer, self.rescore)
        coded.add(held.in_order, held.floats, threads)
        self.fitted_on = min(len(held), self.train)
        self._rows = coded

    # -- changing -------------------------------------------------------------

    def add(
        self, labels: NDArray[np.int64], vectors: NDArray[np.float32], threads: int | None = None
    ) -> None:
        """Add vectors under new labels; the one that makes up `train` waits for the learning."""
        self._rows.add(labels, vectors, threads)
        if isinstance(self._rows, ExactSearch) and len(self._rows) >= self.train:
            try:
                self.learn(threads)
            except BaseException:
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
    ) -> Found:
        """Return the k best labels and their inner products, as exact as the last order is."""
        return self._rows.search(queries, k, allowed, threads)

    def labels(self) -> NDArray[np.int64]:
        """Return the labels that a search can return, ascending."""
        return self._rows.labels()

    def vectors(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of `labels`, as exactly as they are kept."""
        return self._rows.vectors(labels)

    # -- keeping --------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the codes and their codebook, or the floats where nothing is learned yet."""
        self._rows.save(folder)

    def settings(self) -> dict[str, Any]:
        """Return what :meth:`load` needs beside the files."""
        return {"group": self.group, "rescore": self.rescore, "train": self.train, "seed": self.seed}

    @classmethod
    def load(cls, folder: Path, dimension: int, settings: dict[str, Any], fitted_on: int) -> PQSearch:
        """Read what :meth:`save` wrote.

        Raises
        ------
        ValueError
            For files of another dimension or other groups, and for damaged ones.
        """
        loaded = cls(dimension, **settings)
        loaded.fitted_on = fitted_on
        if fitted_on or (folder / CENTROIDS_FILE).exists():
            loaded._rows = CodeSearch.load(folder, dimension, loaded.group, loaded.rescore)
        else:
            loaded._rows = ExactSearch.load(folder, dimension)
        return loaded

    def info(self) -> dict[str, Any]:
        """Return kind, size, settings, bytes a vector, and how many the codes were learned from."""
        facts = {**self._rows.info(), "kind": self.kind}
        return {**facts, **self.settings(), "fitted_on": self.fitted_on}
