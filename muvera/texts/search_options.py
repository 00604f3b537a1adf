"""Options of a text search, and ranking by similarity and shared words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypedDict

from ..data.multivectors import MultiVectors
from ..index.muvera_index import MuveraIndex
from ..index.recall import require_recall
from ..metadata.filters import Filter
from ..utils.checks import as_id_list, require_int, require_number
from .database import DocumentDatabase, require_ids

#: Default weight of shared words beside Chamfer similarity.
WORDS = 0.1

#: Default number of candidates.  Encoding a query takes longer than ranking another 100 texts.
CANDIDATES = 200

# With ``recall=``, words reorder the best _RANKED * k texts by similarity.
_RANKED = 3

#: Parts of each text's score by id, best text first.
Parts = dict[Any, dict[str, float]]


class SearchKeywords(TypedDict, total=False):
    """Keyword arguments of :meth:`muvera.TextIndex.search`."""

    where: Filter | None
    ids: Iterable[int | str] | None
    candidates: int | None
    recall: float | None
    words: float
    explain: bool
    threads: int | None


@dataclass(frozen=True)
class SearchOptions:
    """Checked arguments of :meth:`muvera.TextIndex.search`."""

    k: int
    where: Filter | None = None
    ids: Any = None  # an iterable, replaced by a list
    candidates: int | None = None
    recall: float | None = None
    words: float = WORDS
    explain: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        require_int("k", self.k, 1)
        if not 0 <= require_number("words", self.words) < 1:
            raise ValueError(f"words must be a weight from 0 to below 1, got {self.words!r}.")
        if self.ids is not None:
            object.__setattr__(self, "ids", require_ids(as_id_list(self.ids)))
        require_recall(self.recall, self.candidates)


def rank_texts(
    index: MuveraIndex,
    database: DocumentDatabase,
    queries: list[str],
    encoded: MultiVectors,
    options: SearchOptions,
) -> list[Parts]:
    """Return the best `options.k` texts for each query."""
    k, where, within, threads = options.k, options.where, options.ids, options.threads
    if where:
        allowed = None if within is None else set(within)
        within = [id for id in database.select(where) if allowed is None or id in allowed]
    count = max(k, CANDIDATES if options.candidates is None else options.candidates)
    limits: dict[str, Any] = {"candidates": count}
    ranked = count
    if options.recall is not None:
        limits, ranked = {"recall": options.recall}, _RANKED * k
    rankings = index.search(encoded, ranked if options.words else k, ids=within, threads=threads, **limits)
    if not options.words:
        return [{id: {"maxsim": score} for id, score in ranking} for ranking in rankings]
    matches = [dict(database.match_words(query, 2 * count, where, options.ids)) for query in queries]
    maxsim = [dict(ranking) for ranking in rankings]
    others = [
        list(islice((id for id in shared if id not in known and id in index), count // 4))
        for shared, known in zip(matches, maxsim, strict=True)
    ]
    more = index.rerank(encoded, others, missing="ignore", threads=threads)
    return [
        add_words({**known, **dict(added)}, shared, options.words, k)
        for known, added, shared in zip(maxsim, more, matches, strict=True)
    ]


def add_words(maxsim: dict[Any, float], words: dict[Any, float], weight: float, k: int) -> Parts:
    """Return the best `k` texts by Chamfer similarity plus shared words.

    The text with the highest BM25 score gains ``weight / (1 - weight)`` of the range of the similarities.
    """
    if not maxsim:
        return {}
    most = max(words.values(), default=1.0)
    spread = max(maxsim.values()) - min(maxsim.values())
    unit = weight / (1 - weight) * spread / most
    parts = {id: {"maxsim": score, "words": unit * words.get(id, 0.0)} for id, score in maxsim.items()}
    best = sorted(parts, key=lambda id: -sum(parts[id].values()))[:k]
    return {id: parts[id] for id in best}
