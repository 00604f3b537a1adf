"""Rank long texts by their best passage.

Chamfer similarity grows with the number of tokens that it may choose from.  By all
their tokens, long texts would crowd out short ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..data.ranking import best_first
from ..data.validation import TokenArray
from ..index.contents import IndexContents
from ..index.searching import Proposal, estimate, rank
from ..index.token_store import Rows
from ..reranking.chamfer import score_spans
from ..reranking.pruning import ranked
from ..reranking.table_search import NO_SCORES, TableScores, mean_similarities
from ..utils.parallel import run_in_ranges, split_by_count, threads_for_short_work


def count_long_texts(contents: IndexContents, passage: int | None) -> int:
    """Return the number of texts that have more tokens than a passage.

    `passage` is the number of tokens of a passage; with None, no text is long.
    """
    return 0 if passage is None else int((contents.lengths[contents.ids.live] > passage).sum())


def has_long_texts(contents: IndexContents, passage: int | None) -> bool:
    """Return True if a text has more tokens than a passage.

    :func:`count_long_texts` describes `passage`.
    """
    return passage is not None and int(contents.lengths.max(initial=0)) > passage


@dataclass(frozen=True)
class Similarities:
    """Chamfer similarities of texts to the queries of one search.

    `contents` has the token vectors of the texts.  The similarity of a text with more
    than `passage` tokens is the similarity of its best passage.
    """

    contents: IndexContents
    queries: MultiVectors
    passage: int | None
    threads: int | None

    def of_rows(self, proposal: Proposal, coded: bool) -> list[dict[Any, float]]:
        """Return the similarities of the `k` best rows of a proposal, by id.

        They are computed from codes if `coded` is True, which is faster, and otherwise
        from floats.  The best text of each query comes first.
        """
        if coded:
            found = estimate(self.contents, self.queries, proposal.rows, proposal.k, self.threads)
        else:
            rankings = rank(self.contents, self.queries, proposal, self.threads)
            found = [dict(ranking) for ranking in rankings]
        if self.passage is None:
            return found
        return [
            best_passages(tokens, known, self.contents, self.passage)
            for tokens, known in zip(self.queries, found, strict=True)
        ]

    def means(self, ids: Sequence[Iterable[Any]]) -> list[dict[Any, float]] | None:
        """Return the products of mean tokens by id for each query, if they are known.

        `ids` are texts of :meth:`of_rows` or :meth:`of_ids` for each query.
        """
        return None

    def of_ids(self, ids: Sequence[list[Any]], coded: bool) -> list[dict[Any, float]]:
        """Return the similarities of texts by id; ids that are not there are left out.

        `ids` has a list for each query.  :meth:`of_rows` describes `coded`.
        """
        rows = [np.sort(self.contents.ids.rows(some, "ignore")) for some in ids]
        return self.of_rows(Proposal(rows, max([1, *map(len, rows)])), coded)


@dataclass(frozen=True)
class LookedUp(Similarities):
    """Similarities of texts whose tokens are rows of a table.

    All rows of a proposal are scored, and their scores are kept.
    """

    # For each query: ascending rows, and their scores.
    _kept: list[tuple[Rows, TableScores]] = field(default_factory=list, init=False, repr=False)

    def of_rows(self, proposal: Proposal, coded: bool) -> list[dict[Any, float]]:
        """Return the similarities of the `k` best rows of a proposal, by id.

        The rows of the proposal must be ascending.
        """
        tokens, count = self.contents.tokens, len(self.queries)
        empty: Rows = np.empty(0, np.int64)
        found = [(empty, NO_SCORES)] * count
        best = [(empty, NO_SCORES.scores)] * count
        threads = threads_for_short_work(self.threads) if count == 1 else 1

        def work(start: int, stop: int) -> None:
            for q in range(start, stop):
                query, rows = self.queries[q], proposal.rows[q]
                if not coded:
                    best[q] = tokens.rank_rows(query, rows, proposal.k, self.passage, threads)
                    continue
                found[q] = rows, tokens.look_up(query, rows, passage=self.passage, threads=threads)
                best[q] = ranked(rows, found[q][1].scores, proposal.k)

        run_in_ranges(work, split_by_count(count, 1), self.threads)
        if coded:
            self._kept[:] = found
        return [
            dict(zip(self.contents.ids.of(rows).tolist(), scores.tolist(), strict=True))
            for rows, scores in best
        ]

    def of_ids(self, ids: Sequence[list[Any]], coded: bool) -> list[dict[Any, float]]:
        """Return the similarities of texts by id; unknown ids are left out."""
        found = []
        for q, names in enumerate(ids):
            rows = self._rows_of(q, names)
            if coded:
                own, kept = self._kept[q]
                scores = kept.scores[np.searchsorted(own, rows)]
            else:
                scores = self.contents.tokens.look_up(
                    self.queries[q], rows, passage=self.passage, exact=True
                ).scores
            order = best_first(scores, len(scores))  # without texts that have no tokens
            names = self.contents.ids.of(rows[order]).tolist()
            found.append(dict(zip(names, scores[order].tolist(), strict=True)))
        return found

    def means(self, ids: Sequence[Iterable[Any]]) -> list[dict[Any, float]] | None:
        """Return the products of mean tokens of queries and of texts' best passages."""
        found = []
        for q, names in enumerate(ids):
            rows = self._rows_of(q, list(names))
            scored, scores = self._kept[q]
            products = mean_similarities(scores, np.searchsorted(scored, rows))
            found.append(dict(zip(self.contents.ids.of(rows).tolist(), products.tolist(), strict=True)))
        return found

    def _rows_of(self, query: int, ids: list[Any]) -> Rows:
        """Return the ascending rows of ids that were scored for a query."""
        rows = np.sort(self.contents.ids.rows(ids, "ignore"))
        return rows[np.isin(rows, self._kept[query][0], assume_unique=True)] if self._kept else rows


def best_passages(
    query: TokenArray, scores: dict[Any, float], contents: IndexContents, passage: int
) -> dict[Any, float]:
    """Return scores by id, best first: a long text has the score of its best passage.

    `query` is float32 or float16 (query tokens, dimension), and `scores` are Chamfer
    similarities by id.  A text that is not in `contents` keeps its score.  A passage
    has `passage` tokens.  Passages overlap by half, so that one of them has most of the
    context of an answer.
    """
    ids = [id for id in scores if id in contents.ids]
    rows = contents.ids.rows(ids)
    long = [(id, row) for id, row in zip(ids, rows.tolist(), strict=True) if contents.lengths[row] > passage]
    found = dict(scores)
    for id, row in long:  # one at a time, because they may be large
        [matrix] = contents.tokens.rows(np.array([row], np.int64))
        found[id] = best_passage(query, matrix, passage)[0]
    return dict(sorted(found.items(), key=lambda one: -one[1]))


def best_passage(query: TokenArray, matrix: TokenArray, passage: int) -> tuple[float, TokenArray]:
    """Return the similarity of a long text's best passage, and its tokens.

    Parameters
    ----------
    query : float32 or float16 (query tokens, dimension)
    matrix : float32 or float16 (tokens, dimension)
        More tokens than a passage has.
    passage : int
        Tokens of a passage.
    """
    half = max(1, passage // 2)
    starts = np.arange(0, len(matrix) - half, half)
    spans = np.stack([starts, np.minimum(starts + 2 * half, len(matrix))], axis=1)
    scores = score_spans(query, matrix, spans)
    best = int(np.argmax(scores))
    return float(scores[best]), matrix[slice(*spans[best])]
