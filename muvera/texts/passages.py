"""Rank long texts by their best passage.

Chamfer similarity grows with the number of tokens that it may choose from.  By all
their tokens, long texts would crowd out short ones.  So a long text has several parts,
which are rows of the index.  If tokens are rows of a table, or an older version built
the index, it is one row, whose passages overlap by half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from ..reranking.table_search import Gains, best_texts, mean_cosines, score_all
from ..utils.parallel import run_in_ranges, split_by_count
from .arrays import TextArrays
from .encoders.base import ScoreWeights
from .ranking import Candidates, query_unit
from .words import QueryWords

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


@dataclass(frozen=True)
class LookedUp:
    """The ranking of texts whose tokens are rows of a table: all are scored.

    `arrays` are the words and lengths of `contents`.
    """

    contents: IndexContents
    arrays: TextArrays
    weights: ScoreWeights
    passage: int | None

    def best(
        self, query: TokenArray, rows: Rows, k: int, words: QueryWords | None, threads: int | None
    ) -> tuple[Rows, Candidates]:
        """Return the `k` best of ascending `rows`, and a few more, by all parts.

        The best by 16-bit integers are scored by floats.
        """
        tokens, table = self.contents.tokens, self.contents.tokens.table
        assert table is not None
        query, unit = np.asarray(query, np.float32), query_unit(query)
        length = float(np.linalg.norm(query.sum(axis=0)))
        scale = unit / (1 - self.weights.words - self.weights.mean)
        scores, most, norms = None, 1.0, None
        if words is not None:
            scores, most = self.arrays.words.scores(words, self.contents.ids)
        if self.weights.mean:
            norms = self.arrays.norms(table, self.contents)
        count, best = tokens.num_rescored(k), rows
        if len(rows) > count:
            lookups = tokens.look_up(query, rows, passage=self.passage, threads=threads)
            gains = Gains(scores, self.weights.words * scale / most, self.weights.mean * scale, length, norms)
            gains = gains if len(rows) == self.contents.ids.num_rows else gains.of(rows)
            best = np.sort(rows[best_texts(lookups, count, threads, gains)[0]])
        exact = tokens.look_up_exactly(query, best, self.passage)
        best = best[: len(exact)]
        shares = None if scores is None else scores[best] / most
        means = None if norms is None else mean_cosines(exact, length, norms[best])
        return best, Candidates.of(unit, score_all(exact), shares, means)


def best_passage(query: TokenArray, matrix: TokenArray, passage: int) -> float:
    """Return the similarity of a long text's best passage.

    `query` and `matrix` have a token per row.  The text has more than `passage` tokens.
    """
    half = max(1, passage // 2)
    starts = np.arange(0, len(matrix) - half, half)
    spans = np.stack([starts, np.minimum(starts + 2 * half, len(matrix))], axis=1)
    return float(score_spans(query, matrix, spans).max())
