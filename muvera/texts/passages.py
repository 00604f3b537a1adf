"""Rank long texts by their best passage.

Chamfer similarity grows with the number of tokens that it may choose from.  By all
their tokens, long texts would crowd out short ones.  So a long text has several parts,
which are rows of the index.  If tokens are rows of a table, or an older version built
the index, it is one row, whose passages overlap by half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors
from ..data.ranking import best_first
from ..data.validation import TokenArray
from ..index.contents import IndexContents
from ..index.searching import Proposal, best_rows, estimate
from ..index.token_store import Ranked, Rows
from ..reranking.chamfer import score_spans
from ..reranking.passages import passage_scores
from ..reranking.pruning import ranked
from ..reranking.table_search import NO_LOOKUPS, Lookups, best_texts, mean_similarities, score_all
from ..utils.parallel import run_in_ranges, split_by_count, threads_for_short_work

# Tokens of a passage if no row is longer than one.
_UNLIMITED = 1 << 40


def count_long_texts(contents: IndexContents, passage: int | None) -> int:
    """Return the number of texts that have more tokens than a passage.

    `passage` is the number of tokens of a passage; with None, no text is long.
    """
    if passage is None or not len(contents.ids):
        return 0
    starts = np.searchsorted(contents.ids.live, contents.ids.documents)
    lengths = np.add.reduceat(contents.lengths[contents.ids.live], starts)
    return int((lengths > passage).sum())


def has_long_texts(contents: IndexContents, passage: int | None) -> bool:
    """Return True if a row of the index has more tokens than a passage.

    :func:`count_long_texts` describes `passage`.
    """
    return passage is not None and int(contents.lengths.max(initial=0)) > passage


@dataclass(frozen=True)
class Similarities:
    """Chamfer similarities of texts to the queries of one search.

    `contents` has the token vectors of the texts.  The similarity of a text with
    several parts is the similarity of its best part, and the text is named by the row
    of its first part.  The similarity of a row with more than `passage` tokens is the
    similarity of its best passage.
    """

    contents: IndexContents
    queries: MultiVectors
    passage: int | None
    threads: int | None

    def best(self, proposal: Proposal, coded: bool) -> list[Ranked]:
        """Return the `k` best texts of a proposal and their similarities.

        They are computed from codes if `coded` is True, which is faster, and otherwise
        from floats.  The best text of each query comes first.
        """
        contents, rows, k = self.contents, proposal.rows, proposal.k
        in_parts = contents.ids.has_parts
        if coded and self.passage is None:
            every = max([1, *map(len, rows)]) if in_parts else k
            found = estimate(contents, self.queries, rows, every, self.threads)
            return [self._texts_of(*one, k) for one in found] if in_parts else found
        if not in_parts and self.passage is None:
            return best_rows(contents, self.queries, rows, k, self.threads, stops=proposal.stops)
        if proposal.stops:
            found = best_rows(contents, self.queries, rows, k, self.threads, stops=proposal.stops)
            rows = [best for best, _ in found]
        return self._best_passages(rows, k, coded)

    def _texts_of(self, rows: Rows, scores: NDArray[np.float32], k: int) -> Ranked:
        """Return the `k` best texts of rows, which have the best one first."""
        ids = self.contents.ids
        at = ids.best_parts(rows, k)
        return ids.first_rows(rows[at]), scores[at]

    def _best_passages(self, rows: Sequence[Rows], k: int, coded: bool) -> list[Ranked]:
        """Return the `k` best texts of each query's rows by their best passages."""
        tokens, ids = self.contents.tokens, self.contents.ids
        passage = _UNLIMITED if self.passage is None else self.passage
        best: list[Ranked] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(rows)

        def work(start: int, stop: int) -> None:
            for q in range(start, stop):
                query = np.asarray(self.queries[q], np.float32)
                if not len(query):
                    continue
                floats = [] if tokens.floats is None else tokens.floats.runs(rows[q])
                codes = [] if tokens.codes is None else tokens.codes.runs(rows[q])
                texts, owners = rows[q], None
                if ids.has_parts:
                    texts, owners = np.unique(ids.first_rows(rows[q]), return_inverse=True)
                scores = passage_scores(query, floats, codes, passage, not coded, owners=owners)
                order = best_first(scores, k)
                best[q] = texts[order], scores[order]

        run_in_ranges(work, split_by_count(len(rows), 1), self.threads)
        return best

    def of(self, rows: Sequence[Rows], coded: bool) -> list[Ranked]:
        """Return the similarities of texts, best first.

        Texts without tokens are left out.  `rows` has an array for each query, and
        :meth:`best` describes `coded`.
        """
        ascending = [self.contents.ids.whole(np.sort(some)) for some in rows]
        return self.best(Proposal(ascending, max([1, *map(len, rows)])), coded)

    def means(self, rows: Sequence[Rows]) -> list[NDArray[np.float32]] | None:
        """Return the products of mean tokens for each query, if they are known.

        `rows` are texts of :meth:`best` or :meth:`of` for each query.
        """
        return None


@dataclass(frozen=True)
class LookedUp(Similarities):
    """Similarities of texts whose tokens are rows of a table.

    All rows of a proposal are scored, and their scores are kept.
    """

    # For each query: ascending rows, and what scores them.
    _kept: list[tuple[Rows, Lookups]] = field(default_factory=list, init=False, repr=False)

    def best(self, proposal: Proposal, coded: bool) -> list[Ranked]:
        """Return the `k` best rows of a proposal and their similarities.

        The rows of the proposal must be ascending.
        """
        tokens, count = self.contents.tokens, len(self.queries)
        empty: Rows = np.empty(0, np.int64)
        found = [(empty, NO_LOOKUPS)] * count
        best = [(empty, np.empty(0, np.float32))] * count
        threads = threads_for_short_work(self.threads) if count == 1 else 1

        def work(start: int, stop: int) -> None:
            for q in range(start, stop):
                query, rows = self.queries[q], proposal.rows[q]
                if not coded:
                    best[q] = tokens.rank_rows(query, rows, proposal.k, self.passage, threads)
                    continue
                lookups = tokens.look_up(query, rows, passage=self.passage, threads=threads)
                found[q] = rows[: len(lookups)], lookups
                positions, scores = best_texts(lookups, proposal.k, threads)
                best[q] = rows[positions], scores

        run_in_ranges(work, split_by_count(count, 1), self.threads)
        if coded:
            self._kept[:] = found
        return best

    def of(self, rows: Sequence[Rows], coded: bool) -> list[Ranked]:
        """Return the similarities of rows, best first.

        With `coded`, rows that were not scored are left out.
        """
        found = []
        for q, some in enumerate(rows):
            ascending = np.sort(some)
            if coded:
                ascending, at = self._kept_at(q, ascending)
                scores = score_all(self._kept[q][1].of(at)).scores
            else:
                scores = self.contents.tokens.exact_scores(self.queries[q], ascending, self.passage)
            found.append(ranked(ascending, scores, len(scores)))
        return found

    def means(self, rows: Sequence[Rows]) -> list[NDArray[np.float32]] | None:
        """Return the products of mean tokens of queries and of texts' best passages."""
        found = []
        for q, some in enumerate(rows):
            order = np.argsort(some)
            products = np.empty(len(some), np.float32)
            products[order] = mean_similarities(self._kept[q][1], self._kept_at(q, some[order])[1])
            found.append(products)
        return found

    def _kept_at(self, query: int, rows: Rows) -> tuple[Rows, Rows]:
        """Return which of ascending `rows` were scored, and their positions."""
        own = self._kept[query][0]
        if not len(own):
            return own, own
        at = np.minimum(np.searchsorted(own, rows), len(own) - 1)
        scored = own[at] == rows
        return rows[scored], at[scored]


def best_passage(query: TokenArray, matrix: TokenArray, passage: int) -> tuple[float, TokenArray]:
    """Return the similarity of a long text's best passage, and its tokens.

    `query` and `matrix` have a token per row.  The text has more than `passage` tokens.
    """
    half = max(1, passage // 2)
    starts = np.arange(0, len(matrix) - half, half)
    spans = np.stack([starts, np.minimum(starts + 2 * half, len(matrix))], axis=1)
    scores = score_spans(query, matrix, spans)
    best = int(np.argmax(scores))
    return float(scores[best]), matrix[slice(*spans[best])]
