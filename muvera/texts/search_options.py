"""Options of a text search, and ranking by similarity and shared words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypedDict

from ..index.two_stage_search import SearchPlan
from ..metadata import Filter
from ..utils.checks import as_id_list, require_number
from .database import require_ids

#: Default weight of shared words, which are added to Chamfer similarity.
WORDS = 0.1

#: Default number of candidates.  Encoding a query takes longer than ranking another 100 texts.
CANDIDATES = 200

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
        SearchPlan(self.k, candidates=self.candidates, recall=self.recall, threads=self.threads)
        if not 0 <= require_number("words", self.words) < 1:
            raise ValueError(f"words must be a weight from 0 to below 1, got {self.words!r}.")
        if self.ids is not None:
            object.__setattr__(self, "ids", require_ids(as_id_list(self.ids)))


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
