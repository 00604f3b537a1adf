"""Ranking: the result of a search, and how it is ordered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from .validation import Ids

_SORTED = 256  # scores; up to this number, sorting all is faster than first selecting the best


@dataclass(frozen=True, eq=False)
class Ranking:
    """The best texts for one query, best first.

    Parameters
    ----------
    ids : int64 or str (n,)
        External ids.
    scores : float32 (n,)
        Chamfer similarities, summed over query tokens; higher is better.
    exact : bool
        True if the scores are computed from the original tokens, False if from decoded
        ones.
    expected_recall : float, optional
        Expected share of the exact best documents in this ranking.  1 if every document
        was ranked.  With ``recall=``, the mean recall of the calibration's queries that
        also stopped early, or also did not.  None if unknown.
    parts : int64 (n,), optional
        The part of each document that has this score, counted from 0.  None if no
        document has several parts.

    Examples
    --------
    >>> import numpy as np
    >>> ranking = Ranking(np.array(["b", "a"]), np.array([2.5, 1.0], np.float32))
    >>> list(ranking)
    [('b', 2.5), ('a', 1.0)]
    >>> ranking[0]
    ('b', 2.5)
    >>> dict(ranking)
    {'b': 2.5, 'a': 1.0}
    """

    ids: Ids
    scores: NDArray[np.float32]
    exact: bool = True
    expected_recall: float | None = None
    parts: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[tuple[int | str, float]]:
        yield from zip(self.ids.tolist(), self.scores.tolist(), strict=True)

    @overload
    def __getitem__(self, key: int) -> tuple[int | str, float]: ...

    @overload
    def __getitem__(self, key: slice) -> Ranking: ...

    def __getitem__(self, key: int | slice) -> tuple[int | str, float] | Ranking:
        """Return (id, score) at a rank from 0, or the ranking of a slice of ranks."""
        if isinstance(key, slice):
            parts = None if self.parts is None else self.parts[key]
            return Ranking(self.ids[key], self.scores[key], self.exact, self.expected_recall, parts)
        return self.ids[key : key + 1 or None].tolist()[0], float(self.scores[key])

    def to_dict(self) -> dict[str, list[Any]]:
        """Return lists, ready for JSON.

        Returns
        -------
        dict
            The lists "ids" and "scores", best first, and "parts" if there are several.
        """
        parts = {} if self.parts is None else {"parts": self.parts.tolist()}
        return {"ids": self.ids.tolist(), "scores": self.scores.tolist(), **parts}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name!r}: {score:.4g}" for name, score in list(self)[:3])
        decoded = "" if self.exact else ", decoded tokens"
        return f"Ranking({{{shown}{', ...' if len(self) > 3 else ''}}}{decoded})"


def best_first(scores: NDArray[np.floating[Any]], k: int) -> NDArray[np.int64]:
    """Return the positions of the `k` best scores, best first.

    Ties go to the lower position.  A score of -inf is never returned, so there can be
    fewer positions.
    """
    if k < len(scores) and len(scores) > _SORTED:
        edge = np.partition(scores, len(scores) - k)[len(scores) - k]
        positions = np.flatnonzero(scores >= edge)
        best = positions[(-scores[positions]).argsort(kind="stable")][:k]
    else:
        best = (-scores).argsort(kind="stable")[:k]
    if len(best) and scores[best[-1]] == -np.inf:  # the lowest of them
        best = best[scores[best] > -np.inf]
    return best
