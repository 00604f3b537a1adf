"""Faults of a system's answers.

Rankings may be invalid, or scores not exact Chamfer as claimed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from muvera import MultiVectors, rerank

from ..systems.base import Answers

# Relative and absolute error of a float32 sum over a few hundred tokens.
_TOLERANCE = 1e-3


def require_answers(answers: Answers, queries: int, k: int, documents: int) -> None:
    """Raise ValueError unless every row is a ranking.

    A ranking has distinct existing documents, best scores first, then -1.

    Parameters
    ----------
    answers : Answers
        Answers of a system.
    queries : int
        Number of queries: rows that the answers must have.
    k : int
        Number of columns that the answers must have.
    documents : int
        Number of documents: positions must be smaller.

    Raises
    ------
    ValueError
        The message begins with "returned" and names the first fault.
    """
    for name, array, shape in (
        ("ids", answers.ids, (queries, k)),
        ("scores", answers.scores, (queries, k)),
        ("seconds", answers.seconds, (queries,)),
    ):
        if np.shape(array) != shape:
            raise ValueError(f"returned {name} of shape {np.shape(array)} instead of {shape}.")
    ids = answers.ids
    if len(ids) and (ids.min() < -1 or ids.max() >= documents):
        wrong = ids[(ids < -1) | (ids >= documents)][0]
        raise ValueError(f"returned document {wrong}, but there are {documents}.")
    for i, row in enumerate(ids):
        returned = row[row >= 0]
        if (row[: len(returned)] < 0).any():
            raise ValueError(f"returned documents after a -1 for query {i}.")
        values, counts = np.unique(returned, return_counts=True)
        if (counts > 1).any():
            raise ValueError(
                f"returned document {values[counts > 1][0]} {counts.max()} times for query {i}: a ranking "
                "contains a document once."
            )
    scores = np.where(ids >= 0, answers.scores, -np.inf)
    if np.isnan(scores).any():
        raise ValueError("returned a score that is not a number.")
    rising = np.argwhere(scores[:, 1:] > scores[:, :-1] + _TOLERANCE)
    if len(rising):
        raise ValueError(f"returned scores that rise in query {rising[0][0]}: best must be first.")


def too_few(answers: Answers, documents: int) -> str | None:
    """Return a description if queries got fewer documents than k, otherwise None."""
    wanted = min(answers.ids.shape[1], documents)
    counts = (answers.ids >= 0).sum(axis=1)
    short = counts < wanted
    if not short.any():
        return None
    return f"returned fewer than {wanted} documents for {short.sum()} queries, at worst {counts.min()}."


def chamfer_of(ids: NDArray[np.int64], queries: MultiVectors, documents: MultiVectors) -> NDArray[np.float32]:
    """Return exact Chamfer of the returned documents.

    Parameters
    ----------
    ids : NDArray[np.int64]
        Positions of documents (n, k), filled up with -1.
    queries : MultiVectors
        Token vectors of the n queries.
    documents : MultiVectors
        Token vectors of all documents.

    Returns
    -------
    NDArray[np.float32]
        Similarities (n, k), higher is better; -inf for ids of -1.
    """
    out = np.full(ids.shape, -np.inf, np.float32)
    rankings = rerank(queries, documents, [row[row >= 0] for row in ids], threads=1)
    for i, ranking in enumerate(rankings):
        scores = dict(zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True))
        out[i] = [scores.get(position, -np.inf) for position in ids[i].tolist()]
    return out


def score_fault(answers: Answers, chamfer: NDArray[np.float32]) -> str | None:
    """Return how scores that should be exact Chamfer are not, otherwise None."""
    counted = answers.ids >= 0
    wrong = counted & ~np.isclose(answers.scores, chamfer, rtol=_TOLERANCE, atol=_TOLERANCE)
    if not wrong.any():
        return None
    i, j = np.argwhere(wrong)[0]
    return (
        f"claims that its scores are exact Chamfer, but {wrong.sum()} of {counted.sum()} are not: query {i}, "
        f"document {answers.ids[i, j]} has {chamfer[i, j]:.6g}, not {answers.scores[i, j]:.6g}."
    )
