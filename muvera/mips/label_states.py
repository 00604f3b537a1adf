"""LabelStates: which labels of a graph are in use, and which were, a byte each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FREE", "SPENT", "USED", "LabelStates"]

#: Never there, or taken out without a trace; found by searches; removed, and never to be used again.
FREE, USED, SPENT = 0, 1, 2


class LabelStates:
    """The states of labels 0, 1, ..., which are FREE until something else is said.

    Memory and the time of loading are those of an array: a set of a million numbers takes a hundred
    times as much.
    """

    def __init__(self) -> None:
        self._states = np.zeros(0, np.uint8)
        self._counts = np.zeros(3, np.int64)

    @property
    def num_used(self) -> int:
        """How many are in use."""
        return int(self._counts[USED])

    @property
    def num_spent(self) -> int:
        """How many are spent."""
        return int(self._counts[SPENT])

    @property
    def used(self) -> NDArray[np.int64]:
        """The labels in use, ascending."""
        return np.flatnonzero(self._states == USED)

    def of(self, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the states of any numbers."""
        found = np.zeros(len(labels), np.uint8)
        known = (labels >= 0) & (labels < len(self._states))
        found[known] = self._states[labels[known]]
        return found

    def put(self, labels: NDArray[np.int64], state: int) -> None:
        """Give labels, all different, a state."""
        if len(labels) == 0:
            return
        needed = int(labels.max()) + 1
        if needed > len(self._states):
            grown = np.zeros(max(needed, len(self._states) * 3 // 2), np.uint8)
            grown[: len(self._states)] = self._states
            self._states = grown
        self._counts -= np.bincount(self._states[labels], minlength=3)
        self._counts[state] += len(labels)
        self._states[labels] = state
