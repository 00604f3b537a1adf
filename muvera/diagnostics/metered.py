"""What a RecallMeter measures: searches of every kind of index, beside exact ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, as_multivectors
from ..data.ranking import Ranking
from ..engines.base import EngineError, slices
from ..engines.engine_index import EngineIndex
from ..index.calibration import DEFAULT_RECALL
from ..index.contents import IndexContents
from ..index.measuring import exact_scores
from ..index.muvera_index import MuveraIndex
from ..metadata import Filter
from ..pages.page_index import PageIndex
from ..reranking.chamfer import chamfer_matrix
from ..texts.encoders.base import encode_texts
from ..texts.engine_texts import EngineTexts
from ..texts.hit import SearchOptions
from ..texts.store import RANKED, TextStore
from ..texts.text_index import TextIndex
from ..utils.atomic_files import content_checksum
from ..utils.checks import as_id_list, counted, given
from .audit import share_found

# One document in this many must change before an interval restarts.
_PART = 16

# Documents whose tokens are read from a database together.
_DOCUMENTS = 500

# Columns of a query's tokens that decide if it is sampled: they tell queries apart.
_COLUMNS = 8

# Options of a search that decide what its exact best documents are, or what it finds.
_LIMITS = ("where", "ids", "candidates", "recall", "rescore", "ef", "rerank")

Query = NDArray[np.float32]
Scores = NDArray[np.float32]
Pause = Callable[[], None]


@dataclass(frozen=True)
class Contents:
    """What identifies the contents that an interval is about.

    Parameters
    ----------
    documents : int
        Number of documents.
    stage : str
        Names the calibration and the kind of search.
    rows : int, optional
        Number of documents that were ever added since the last rebuild; None if it is
        not known.
    deleted : int
        How many of these were deleted.
    """

    documents: int
    stage: str
    rows: int | None = None
    deleted: int = 0

    def is_new_beside(self, start: Contents) -> bool:
        """Return True if these differ enough from those at the start of an interval.

        More than a sixteenth of the documents changed, or there was a rebuild or a
        calibration.
        """
        if self.stage != start.stage or (self.rows is None) != (start.rows is None):
            return True
        changed = abs(self.documents - start.documents)
        if self.rows is not None and start.rows is not None:
            added, removed = self.rows - start.rows, self.deleted - start.deleted
            if min(added, removed) < 0:  # a rebuild renumbers the rows
                return True
            changed = max(added, removed)
        return _PART * changed > start.documents

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class Sampled(NamedTuple):
    """A search of the sample.

    Parameters
    ----------
    query : str, or ndarray (tokens, dimension)
        A text is encoded when it is measured.
    k : int
        Number of documents to find.
    limits : dict
        The other arguments of the search.
    found : list of ids, optional
        The answer, best first.  None: the search is repeated when it is measured.
    state : object
        The contents that were searched, if they are in this process.
    """

    query: Any
    k: int
    limits: dict[str, Any]
    found: list[Any] | None
    state: object

    @property
    def is_filtered(self) -> bool:
        """True if only some documents were searched."""
        return self.limits.get("where") is not None or self.limits.get("ids") is not None


class _Exact(Protocol):
    """An exact search, and what it tells about the contents."""

    def note(self) -> str | None:
        """Return why nothing can be missed, or None."""

    def contents(self) -> Contents:
        """Return what identifies the contents."""

    @property
    def state(self) -> object:
        """An object that every change replaces, or None."""

    @property
    def mark(self) -> object:
        """An object that a rebuild or a calibration replaces, or None."""

    @property
    def is_calibrated(self) -> bool:
        """True if a search without numbers promises :data:`DEFAULT_RECALL`."""

    def best(self, query: Query, k: int, limits: Mapping[str, Any], pause: Pause) -> Scores:
        """Return the scores of the exact `k` best, best first; pause between blocks."""

    def scores(self, query: Query, ids: list[Any]) -> Scores:
        """Return the exact scores of the known ids, in any order."""


class _InMemory:
    """The exact search of a MuveraIndex.

    `select` returns the ids that satisfy a condition.
    """

    def __init__(self, index: MuveraIndex, select: Callable[[Filter], list[Any]] | None = None) -> None:
        self._index = index
        self._select = select
        self._stage: tuple[object, str] | None = None

    @property
    def state(self) -> IndexContents:
        return self._index.contents

    @property
    def mark(self) -> object:
        candidates = self._index.contents.candidates
        return None if candidates is None else candidates.calibration or candidates.encoder

    @property
    def is_calibrated(self) -> bool:
        candidates = self._index.contents.candidates
        return candidates is not None and candidates.calibration is not None

    def note(self) -> str | None:
        contents = self._index.contents
        if contents.tokens.table is not None:
            return (
                "All texts are ranked by their tokens, which are rows of a table, so a search misses no "
                "text and there is no recall to measure."
            )
        if contents.candidates is None:
            return (
                f"A search reads all tokens of the {counted(len(contents.ids), 'document')}, so it misses "
                "no document and there is no recall to measure."
            )
        return None

    def contents(self) -> Contents:
        contents, mark = self._index.contents, self.mark
        if self._stage is None or self._stage[0] is not mark:
            candidates = contents.candidates
            calibration = None if candidates is None else candidates.calibration
            facts = {"calibration": None if calibration is None else calibration.to_dict()}
            self._stage = mark, content_checksum({**facts, "encoder": contents.config.to_dict()})[:16]
        rows, live = len(contents.tokens), len(contents.ids.live)
        return Contents(len(contents.ids), f"{contents.kind} {self._stage[1]}", rows, rows - live)

    def best(self, query: Query, k: int, limits: Mapping[str, Any], pause: Pause) -> Scores:
        contents = self._index.contents
        rows, ids, where = None, limits.get("ids"), limits.get("where")
        if where is not None and self._select is not None:
            allowed = None if ids is None else set(ids)
            ids = [id for id in self._select(where) if allowed is None or id in allowed]
        if ids is not None:
            rows = np.sort(contents.ids.rows(ids, "ignore"))
            rows = rows[contents.lengths[rows] > 0]
        return exact_scores(contents, as_multivectors(query), k, rows, pause)

    def scores(self, query: Query, ids: list[Any]) -> Scores:
        return self._index.rerank([query], [ids], missing="ignore", threads=1)[0].scores


class _InDatabase:
    """The exact search of an EngineIndex, by the tokens in its database.

    If a local index has the tokens, that index is searched.
    """

    state: object = None
    mark: object = None

    def __init__(self, index: EngineIndex) -> None:
        self._index = index
        place = index.token_place
        if place is None:
            raise EngineError(
                f"{index.engine.location} stores no tokens, so its recall cannot be measured. Give "
                "tokens=MuveraIndex.load(...), a local index of the same documents."
            )
        self._local = _InMemory(place, index.engine.ids) if isinstance(place, MuveraIndex) else None

    @property
    def is_calibrated(self) -> bool:
        stored = self._index.engine.description
        return stored is not None and bool(stored.candidates_by_recall)

    def note(self) -> str | None:
        return None

    def contents(self) -> Contents:
        stored = self._index.engine.description
        known = {} if stored is None else {"encoder": stored.encoder, "numbers": stored.candidates_by_recall}
        return Contents(len(self._index), content_checksum(known)[:16])

    def best(self, query: Query, k: int, limits: Mapping[str, Any], pause: Pause) -> Scores:
        if self._local is not None:
            return self._local.best(query, k, limits, pause)
        ids, among = self._index.engine.ids(limits.get("where") or {}), limits.get("ids")
        if among is not None:
            ids = list(set(ids).intersection(among))
        best = np.empty(0, np.float32)
        for some in slices(ids, _DOCUMENTS):
            best = np.sort(np.append(best, self.scores(query, some)))[::-1][:k]
            pause()
        return best

    def scores(self, query: Query, ids: list[Any]) -> Scores:
        if self._local is not None:
            return self._local.scores(query, ids)
        documents = self._index.engine.tokens(ids)
        if not len(documents):
            return np.empty(0, np.float32)
        scores = chamfer_matrix([query], documents, threads=1)[0]
        best: dict[Any, np.float32] = {}
        for id, score in zip(documents.ids.tolist(), scores, strict=True):  # a row for each part
            best[id] = max(score, best.get(id, score))
        return np.array([*best.values()], np.float32)


class Metered(ABC):
    """Searches of an index that are measured against its exact search."""

    def __init__(self, exact: _Exact) -> None:
        self.exact = exact

    @abstractmethod
    def search(self, queries: Any, k: int, options: dict[str, Any]) -> tuple[Any, list[tuple[Any, Any]]]:
        """Return the answer of a search, and pairs of each query and its ids.

        The ids are None if the search must be repeated without shared words.
        """

    @abstractmethod
    def found(self, sampled: Sampled) -> tuple[Query, list[Any]]:
        """Return the tokens of a query, and the ids that were found, best first."""

    def refusal(self) -> str | None:
        """Return why nothing can be calibrated, or None."""
        note = self.exact.note()
        return None if note is None else f"There is nothing to calibrate. {note}"

    @abstractmethod
    def calibrate(self, queries: list[Query], threads: int | None) -> None:
        """Calibrate ``recall=`` with the tokens of queries."""

    def promise(self, limits: Mapping[str, Any]) -> float | None:
        """Return the recall that a search with these arguments promises."""
        if limits.get("recall") is not None:
            return float(limits["recall"])
        return DEFAULT_RECALL if limits.get("candidates") is None and self.exact.is_calibrated else None

    def measure(self, sampled: Sampled, k: int, pause: Pause) -> tuple[Query, float | None] | None:
        """Return the tokens of a query, and the share of its exact best that was found.

        The share is None if there are no tokens or no exact best.  Return None if the
        contents changed since the search.
        """
        if sampled.state is not self.exact.state:
            return None
        query, ids = self.found(sampled)
        if not len(query):
            return query, None
        count = min(k, sampled.k)
        best = self.exact.best(query, count, sampled.limits, pause)
        scores = self.exact.scores(query, ids[:count])
        if sampled.state is not self.exact.state:
            return None
        return query, share_found(best, scores) if len(best) else None

    def share(self, query: Query, best: Scores, promise: float) -> float:
        """Return the share of the best that a search which promises a recall finds.

        Without a calibration, the search ranks its default number of candidates.
        """
        limits = {"recall": promise} if self.exact.is_calibrated else {}
        _, ids = self.found(Sampled(query, len(best), limits, None, None))
        return share_found(best, self.exact.scores(query, ids[: len(best)]))


class _Vectors(Metered):
    """Searches by token vectors: of a MuveraIndex, an EngineIndex, or any function."""

    def __init__(
        self, exact: _Exact, search: Callable[..., Any], calibrate: Callable[..., object] | None
    ) -> None:
        super().__init__(exact)
        self._search = search
        self._calibrate = calibrate

    def search(self, queries: Any, k: int, options: dict[str, Any]) -> tuple[Any, list[tuple[Any, Any]]]:
        texts = as_multivectors(queries, "queries")
        answers = self._search(texts, k, **options)
        if len(answers) != len(texts):
            raise ValueError(
                f"The search returned {len(answers)} answers for {counted(len(texts), 'query', 'queries')}. "
                "Return one for each."
            )
        return answers, list(zip(texts, answers, strict=True))

    def found(self, sampled: Sampled) -> tuple[Query, list[Any]]:
        answer: Any = sampled.found
        if answer is None:
            asked = MultiVectors.from_arrays([sampled.query])
            answer = self._search(asked, sampled.k, threads=1, **sampled.limits)[0]
        return np.asarray(sampled.query, np.float32), ids_of(answer)

    def promise(self, limits: Mapping[str, Any]) -> float | None:
        return None if self._calibrate is None else super().promise(limits)

    def calibrate(self, queries: list[Query], threads: int | None) -> None:
        assert self._calibrate is not None
        self._calibrate(queries, threads=threads)

    def refusal(self) -> str | None:
        if self._calibrate is not None:
            return super().refusal()
        return "The search is a function, which has no recall= to calibrate. Change its settings."


class _Texts(Metered):
    """Searches of a TextIndex.

    Shared words and mean vectors reorder what similarity finds, so the search is
    repeated without them: the recall is that of the similarity.
    """

    def __init__(self, exact: _Exact, index: TextIndex) -> None:
        super().__init__(exact)
        self._index = index

    def search(self, queries: Any, k: int, options: dict[str, Any]) -> tuple[Any, list[tuple[Any, Any]]]:
        answers = self._index.search(queries, k, **options)
        texts = [queries] if isinstance(queries, str) else list(queries)
        return answers, [(text, None) for text in texts]

    def found(self, sampled: Sampled) -> tuple[Query, list[Any]]:
        query = sampled.query
        if isinstance(query, str):
            query = encode_texts(self._index.encoder.encode_queries, [query])[0]
        # With a recall, a search for k ranks the best RANKED k by shared words.
        deep = RANKED if sampled.limits.get("recall") is not None else 1
        options = SearchOptions(deep * sampled.k, threads=1, **sampled.limits)
        encoded = MultiVectors.from_arrays([query])
        parts = self._index.texts.rank([""], encoded, options)[0] if len(query) else {}
        return np.asarray(query, np.float32), list(parts)

    def calibrate(self, queries: list[Query], threads: int | None) -> None:
        self._index.texts.calibrate(MultiVectors.from_arrays(queries), threads)


class _Pages(Metered):
    """Searches of a PageIndex, which are repeated by vectors, without shared words."""

    def __init__(self, exact: _Exact, index: PageIndex) -> None:
        super().__init__(exact)
        self._index = index

    def search(self, queries: Any, k: int, options: dict[str, Any]) -> tuple[Any, list[tuple[Any, Any]]]:
        answers = self._index.search(queries, k, **options)
        single = isinstance(queries, str) or getattr(queries, "ndim", 1) == 2
        return answers, [(query, None) for query in ([queries] if single else queries)]

    def found(self, sampled: Sampled) -> tuple[Query, list[Any]]:
        query = sampled.query
        if isinstance(query, str):
            query = encode_texts(self._index.encoder.encode_queries, [query])[0]
        query = np.asarray(query, np.float32)
        hits: Any = self._index.search(query, sampled.k, threads=1, **sampled.limits)
        return query, [hit.id for hit in hits]

    def promise(self, limits: Mapping[str, Any]) -> float | None:
        # Without numbers, a folder ranks many more pages than the calibration says.
        in_database = isinstance(self._index.texts, EngineTexts)
        return super().promise(limits) if in_database or limits.get("recall") is not None else None

    def calibrate(self, queries: list[Query], threads: int | None) -> None:
        self._index.calibrate(queries, threads=threads)


def metered(index: object, search: Callable[..., Any] | None) -> Metered:
    """Return the searches of an index, or of a function beside a MuveraIndex.

    Raise TypeError for another object, and EngineError for a collection without tokens.
    """
    if search is not None:
        if not callable(search) or not isinstance(index, MuveraIndex):
            raise TypeError(
                "search must be a function beside a MuveraIndex of the same documents, got "
                f"{given(search)} beside {given(index)}."
            )
        return _Vectors(_InMemory(index), search, None)
    if isinstance(index, MuveraIndex):
        return _Vectors(_InMemory(index), index.search, index.calibrate)
    if isinstance(index, EngineIndex):
        return _Vectors(_InDatabase(index), index.search, index.calibrate)
    if isinstance(index, (TextIndex, PageIndex)):
        store = index.texts
        exact: _Exact | None = None
        if isinstance(store, TextStore):
            exact = _InMemory(store.vectors, store.select)
        elif isinstance(store, EngineTexts):
            exact = _InDatabase(store.index)
        if exact is not None:
            return _Texts(exact, index) if isinstance(index, TextIndex) else _Pages(exact, index)
    raise TypeError(
        "The recall of a MuveraIndex, TextIndex, PageIndex or EngineIndex in this process or in a database "
        f"can be measured, got {given(index)}. Give search= for another search beside a MuveraIndex."
    )


def limits_of(options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments that limit a search, or None if it is not measured.

    Parts and groups are other answers than the best documents.
    """
    if options.get("group_by") is not None or options.get("group", "document") != "document":
        return None
    return {name: options[name] for name in _LIMITS if options.get(name) is not None}


def key_of(query: Any, k: int, limits: Mapping[str, Any]) -> bytes:
    """Return bytes that tell a search from others."""
    others = [(name, value) for name, value in limits.items() if name != "ids"]
    salt = repr((k, len(limits.get("ids", ())), others)).encode("utf-8", "surrogatepass")
    if isinstance(query, str):
        return salt + query.encode("utf-8", "surrogatepass")
    return salt + np.asarray(query)[:, :_COLUMNS].astype("<f4").tobytes()


def ids_of(answer: Ranking | Mapping[Any, float] | Iterable[Any]) -> list[Any]:
    """Return the ids of an answer, best first: as :func:`muvera.audit` accepts them."""
    if isinstance(answer, Ranking):
        return list(dict.fromkeys(answer.ids.tolist()))
    if isinstance(answer, Mapping):
        return sorted(answer, key=lambda id: -answer[id])
    return as_id_list(answer)
