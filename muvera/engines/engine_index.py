"""EngineIndex: an index whose first stage is a vector database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, repeat
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ..data.batches import DocumentsLike, as_batches, token_batches
from ..data.multivectors import MultiVectors, MultiVectorsLike, checked_texts, join_parts
from ..data.ranking import Ranking
from ..data.validation import repeats_before
from ..fde.config import FDEConfig
from ..fde.encoder import FDEEncoder
from ..fde.files import as_encoder
from ..index.calibration import (
    BEST,
    DEFAULT_RECALL,
    MAX_RANKED,
    MIN_QUERIES,
    numbers_of,
    with_enough_tokens,
)
from ..index.contents import MIN_FIT_DOCUMENTS, default_preset
from ..index.id_map import Missing
from ..index.muvera_index import MuveraIndex
from ..index.searching import DEFAULT_K, SearchPlan
from ..index.searching import Group as HitGroup
from ..index.settings import DEFAULT_CANDIDATES, FirstStageRecall, num_candidates
from ..metadata import TEXT, Filter, TextDocument, comparable_values, encode_metadata
from ..metadata.groups import MOST_FIELDS, Group, best_of_groups, group_of, require_field, unknown_field
from ..reranking.chamfer import rerank
from ..utils.checks import as_id_list, given, require_choice
from ..utils.hints import Argument, Hint, Message
from ..utils.intervals import share_interval
from .base import (
    AddReport,
    Column,
    Description,
    Engine,
    EngineError,
    EngineInfo,
    Hits,
    SearchRequest,
    Vectors,
    open_engine,
    slices,
)

#: Where candidates are ranked: in the engine if it can, or in this process.
Rerank = Literal["auto", "here"]

# Bytes of vectors and tokens in one write.
_BATCH_BYTES = 8 << 20

# Queries whose candidates' tokens are in memory at once, with DEFAULT_CANDIDATES each.
_QUERIES = 64

# The same for pages, which have about 20 times as many tokens as texts.
_QUERIES_OF_PAGES = 4

# Tokens of the windows that calibrate without queries, one after another.
_LENGTHS = (8, 16, 32)

# Pages that a search ranks by default: at least _PAGES, and one in _SHARE_OF_PAGES, up
# to MAX_RANKED.  On generated pages, the "simhash" vectors need that share for 95% of
# the ten best.
_PAGES, _SHARE_OF_PAGES = 200, 4

_UNEQUAL = "metadata and texts must have one entry per document, got {}. Give one for each."

# What an addition does about an id in use.
_Used = Literal["refuse", "skip", "replace"]

# Names of the types of ids, by Description.integer_ids.
_KINDS = {True: "integers", False: "strings"}


class _Stage(NamedTuple):
    """How all queries of a search are ranked, and among which documents."""

    k: int
    rerank: Rerank | None
    where: Filter | None
    ids: list[Any] | None
    threads: int | None


class EngineIndex:
    """A collection in a vector database, with exact Chamfer similarity as the ranking.

    The vectors find candidates in the database.  The encoder is fitted once and stored
    there, so any process can search.  Vectors of another encoder are refused.

    Texts that follow each other with the same id are the parts of a document.  Each
    part has its own vector.  A search returns each document by its best part.

    Parameters
    ----------
    engine : Engine or str
        Such as ``"postgresql://user@host/database#docs"`` or ``"lancedb:folder#docs"``,
        see :func:`muvera.engines.open_engine`.
    encoder : str, configuration or fitted encoder, optional
        Makes the vectors of a new collection.  An existing collection must have the
        same encoder.  Default: the stored encoder, or "fde" for a new collection; with
        `pages`, "simhash".
    tokens : "engine", MuveraIndex or None
        Where the tokens for exact ranking are: in the engine, in a local index of the
        same documents, or nowhere. Default: in the engine with half precision, or
        nowhere if the engine cannot store tokens.
    text_encoder : str, optional
        Name of the text encoder of a new collection with texts, for
        :meth:`muvera.TextIndex.open`; with `pages`, of the page encoder.
    pages : str, optional
        Folder of the documents of a new collection with pages, for
        :meth:`muvera.PageIndex.open`; "" if it is not known.

    Raises
    ------
    EngineError
        If the engine cannot be reached, or the collection contains other data or
        vectors of another encoder.
    TypeError, ValueError
        For a wrong setting.
    """

    def __init__(
        self,
        engine: Engine | str,
        encoder: str | FDEConfig | FDEEncoder | None = None,
        *,
        tokens: Literal["engine"] | MuveraIndex | None = "engine",
        text_encoder: str | None = None,
        pages: str | None = None,
    ) -> None:
        if not isinstance(engine, (str, Engine)):
            raise TypeError(
                f"engine must be a URL such as 'lancedb:FOLDER#NAME', or an Engine, got {given(engine)}."
            )
        #: The collection in the engine.
        self.engine = open_engine(engine) if isinstance(engine, str) else engine
        self._text_encoder = text_encoder
        self._pages = pages
        self._requested = encoder
        try:
            stored = self.engine.describe()
            keeps_tokens = self.engine.keeps_tokens if stored is None else stored.tokens
            self._tokens = None if tokens == "engine" and not keeps_tokens else tokens
            if stored is not None:
                self._require_same_encoder(stored)
        except BaseException:
            if isinstance(engine, str):
                self.engine.close()
            raise

    def _require_same_encoder(self, stored: Description) -> None:
        """Raise EngineError if another encoder was requested than the stored one."""
        if self._text_encoder is not None and (self._pages is None) != (stored.pages is None):
            kinds = ("texts", "pages") if stored.pages is None else ("pages", "texts")
            raise EngineError(
                f"{self.engine.location} has {kinds[0]}, not {kinds[1]}. Use another collection."
            )
        if self._text_encoder not in (None, stored.text_encoder):
            raise EngineError(
                f"{self.engine.location} has texts of the encoder {stored.text_encoder!r}, not "
                f"{self._text_encoder!r}. Use that encoder, or another collection."
            )
        if self._requested is None:
            return
        config, encoder = as_encoder(self._requested, stored.token_dimension)
        if not (config == self.encoder.config if encoder is None else self.engine.has_encoder(encoder)):
            raise EngineError(
                Message(
                    f"{self.engine.location} was filled with another encoder than the given one "
                    f"(configuration {config.hash[:16]}): their vectors are not comparable. Omit ",
                    Argument("encoder", ""),
                    ", or use another collection.",
                )
            )

    # -- changing -------------------------------------------------------------

    def add(
        self,
        documents: DocumentsLike,
        metadata: Iterable[Mapping[str, Any]] | None = None,
        *,
        texts: Iterable[str] | None = None,
        resume: bool = False,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> AddReport:
        """Write documents under new ids, in batches.

        The first call creates the collection.

        Parameters
        ----------
        documents : MultiVectors, a list of arrays, or an iterable of MultiVectors
            With ids.  Documents without ids are numbered from 0, if the collection is
            empty or `resume` is set.  A new collection's encoder is fitted on the first
            batch, and sized for it (:meth:`.FDEConfig.sized`); for an iterable, give a
            fitted encoder.  Milvus, and collections that an older version of muvera
            made, take only documents with one part.
        metadata : iterable of dict, optional
            One for each document, in order, for `where`.
        texts : iterable of str, optional
            One for each document, in order; :meth:`documents` returns them.
        resume : bool
            Skip documents whose ids exist, to continue an interrupted addition.
        threads : int, optional
            Default: all usable cores.
        progress : callable, optional
            Called with the number of documents in each batch, after it.  Parts count
            one by one.

        Returns
        -------
        AddReport
            The numbers of documents that were added, skipped, or have no tokens.

        Raises
        ------
        TypeError, ValueError
            For an id in use without `resume`, or documents or metadata that do not fit
            the collection.  A MultiVectors with an id in use is not written at all;
            earlier batches stay written.
        EngineError
            If the engine fails.
        """
        used: _Used = "skip" if resume else "refuse"
        return self._put(documents, metadata, texts, used, threads, progress)

    def update(
        self,
        documents: DocumentsLike,
        metadata: Iterable[Mapping[str, Any]] | None = None,
        *,
        texts: Iterable[str] | None = None,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> AddReport:
        """Write documents in batches, and replace those whose id is in use.

        All parts of a document are replaced.

        Parameters
        ----------
        documents : MultiVectors, or an iterable of MultiVectors
            With ids.  Documents without ids are numbered from 0, if the collection is
            empty.
        metadata : iterable of dict, optional
            As for :meth:`add`.  Documents without metadata lose their stored metadata.
        texts : iterable of str, optional
            As for :meth:`add`.  Documents without texts lose their stored texts.
        threads : int, optional
            Default: all usable cores.
        progress : callable, optional
            As for :meth:`add`.

        Returns
        -------
        AddReport
            The numbers of documents that were written, or have no tokens.

        Raises
        ------
        TypeError, ValueError
            For documents without ids if the collection is not empty, or as for
            :meth:`add`.
        EngineError
            If the engine fails.
        """
        return self._put(documents, metadata, texts, "replace", threads, progress)

    def _put(
        self,
        documents: DocumentsLike,
        metadata: Iterable[Mapping[str, Any]] | None,
        texts: Iterable[str] | None,
        used: _Used,
        threads: int | None,
        progress: Callable[[int], object] | None,
    ) -> AddReport:
        """Write documents; `used` decides about ids in use: refuse, replace or skip."""
        values_of_all = iter(repeat({}) if metadata is None else metadata)
        texts_of_all = iter(repeat(None) if texts is None else texts)
        report = AddReport()
        position = 0
        for batch in _whole_documents(as_batches(documents)):
            if not batch.has_ids:
                if used != "skip" and position == 0 and len(self):
                    way_out = ", or resume=True to continue an addition" if used == "refuse" else ""
                    raise ValueError(
                        f"The documents have no ids, and the collection is not empty. Give them ids{way_out}."
                    )
                batch = batch.with_ids(np.arange(position, position + len(batch)))
            self._require_parts(batch)
            starts = _starts(batch)
            values = list(islice(values_of_all, len(starts)))
            contents = list(islice(texts_of_all, len(starts)))
            least = min(len(values), len(contents))
            if least < len(starts):
                raise ValueError(_UNEQUAL.format(f"only {position + least}"))
            rows = list(map(_row, batch.ids[starts].tolist(), values, contents))
            position += len(rows)
            if self.engine.description is None:
                self._create(batch, threads)
            self._require_kind(batch)
            tokens = batch.dimension * batch.num_tokens // max(1, len(batch))
            step = max(1, _BATCH_BYTES // (4 * self.engine.stored.vector_dimension + 2 * tokens))
            known = set() if used == "replace" else self._known(batch, used)
            bounds = np.append(starts, len(batch))
            for first, last in token_batches(bounds, step):
                some = batch[bounds[first] : bounds[last]]
                report = report.plus(self._write(some, rows[first:last], known, threads))
                if used == "replace":
                    self._delete_later_parts(some)
                if progress is not None:
                    progress(len(some))
        sources = ((metadata, values_of_all), (texts, texts_of_all))
        if any(every is not None and list(islice(rest, 1)) for every, rest in sources):
            raise ValueError(_UNEQUAL.format(f"more than {position}"))
        if self.engine.description is not None:
            self.engine.finish()
        return report

    def _known(self, documents: MultiVectors, used: _Used) -> set[Any]:
        """Return the documents' ids that are in use; raise ValueError to refuse one."""
        filled = documents.ids[documents.lengths > 0].tolist()
        known = set(self.engine.read(filled, "id"))
        if known and used == "refuse":
            first = next(id for id in filled if id in known)
            raise ValueError(
                Message(
                    f"id {first!r} is in {self.engine.location} already. ",
                    Hint("update", "Use update to replace it."),
                    Hint("resume", " EngineIndex.add(resume=True) skips ids that are in use."),
                )
            )
        return known

    def _write(
        self, documents: MultiVectors, rows: list[Mapping[str, Any]], known: set[Any], threads: int | None
    ) -> AddReport:
        """Encode and write documents, except `known` ids, with metadata and texts."""
        starts = _starts(documents)
        names = documents.ids[starts].tolist()
        filled = np.flatnonzero(np.add.reduceat(documents.lengths, starts) > 0).tolist() if names else []
        new = [i for i in filled if names[i] not in known]
        if new:
            bounds = np.append(starts, len(documents))
            texts = documents[np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in new])]
            vectors = self.encoder.encode_documents(texts, threads=threads)
            self.engine.add(texts, vectors, [rows[i] for i in new])
        return AddReport(len(new), len(filled) - len(new), len(names) - len(filled))

    def _delete_later_parts(self, documents: MultiVectors) -> None:
        """Delete the parts that replaced documents had beyond the new ones."""
        filled = documents.ids[documents.lengths > 0].tolist()
        by_count: dict[int, list[Any]] = {}
        for id, count in Counter(filled).items():
            by_count.setdefault(count, []).append(id)
        for count, ids in by_count.items():
            self.engine.delete(ids, count)

    def _require_parts(self, documents: MultiVectors) -> None:
        """Raise ValueError unless the engine can store the parts of documents."""
        if not self.engine.takes_parts:
            documents.require_single_parts(self.engine.location)
        if documents.has_parts:
            starts = _starts(documents)
            filled = np.add.reduceat(documents.lengths, starts) > 0
            owners = np.repeat(filled, np.diff(np.append(starts, len(documents))))
            blank = np.flatnonzero(owners & (documents.lengths == 0))
            if len(blank):
                id = documents.ids[blank[:1]].tolist()[0]
                raise ValueError(
                    f"A part of document {id!r} has no tokens, and a database cannot find it. Remove that part."
                )

    def _require_kind(self, documents: MultiVectors) -> None:
        """Raise unless the documents fit the collection's dimension and kind of ids."""
        stored = self.engine.stored
        location = self.engine.location
        documents.require_dimension(stored.token_dimension, "documents", location)
        if stored.integer_ids != (documents.ids.dtype.kind == "i"):
            raise TypeError(
                f"{location} has {_KINDS[stored.integer_ids]} as ids, but the documents have "
                f"{_KINDS[not stored.integer_ids]}. Convert the ids, or use another collection."
            )

    def _create(self, documents: MultiVectors, threads: int | None) -> None:
        requested = self._requested
        if requested is None and self._pages is not None:
            requested = encoder_of_pages(documents.dimension, self.engine)
        elif requested is None:
            requested = default_preset(documents)
        config, encoder = as_encoder(requested, documents.dimension)
        if encoder is None:
            filled = documents[np.flatnonzero(documents.lengths > 0)]
            config = config.sized(len(filled), filled.num_tokens)
            self.engine.require_dimension(config.vector_dimension)
            if config.needs_fit_sample and len(filled) < MIN_FIT_DOCUMENTS:
                few = (
                    f"The encoder of vectors is fitted on at least {MIN_FIT_DOCUMENTS} documents, but the "
                    f"first batch has {len(filled)}. "
                )
                if self._text_encoder is not None:
                    raise ValueError(few + "Add more at first, or load a text index with muvera load.")
                way_out = "Give more, a fitted encoder, or ", Argument("encoder", "'mean'"), "."
                raise ValueError(Message(few, *way_out))
            encoder = FDEEncoder(config)
            if encoder.needs_fit:
                encoder.fit(filled, threads=threads)
        self.engine.require_dimension(config.vector_dimension)
        integer_ids = documents.ids.dtype.kind == "i"
        stores = self._tokens == "engine"
        self.engine.create(encoder, stores, integer_ids, self._text_encoder, self._pages)

    def delete(self, ids: Iterable[Any], *, missing: Missing = "raise") -> None:
        """Delete documents by id.

        Parameters
        ----------
        ids : collection of ids
            The documents to delete.
        missing : {"raise", "ignore"}
            For an unknown id, raise KeyError and delete nothing, or ignore it.

        Raises
        ------
        KeyError
            See `missing`.
        EngineError
            If the engine fails.
        """
        names = as_id_list(ids)
        known = self._read(names, "id", missing)
        if known:
            self.engine.delete(list(known))

    def _read(self, ids: list[Any], column: Column, missing: Missing) -> dict[Any, Any]:
        """Return the values of a column by id."""
        require_choice("missing", missing, get_args(Missing))
        stored = self.engine.description
        values = {} if stored is None else self.engine.read(ids, column)
        unknown = next((id for id in ids if id not in values), None)
        if unknown is not None and missing == "raise":
            kind = "" if stored is None else f", which has {_KINDS[stored.integer_ids]} as ids"
            raise KeyError(f"id {unknown!r} is not in {self.engine.location}{kind}.")
        return values

    def drop(self) -> None:
        """Remove the collection with its encoder and its graph."""
        self.engine.drop()

    def close(self) -> None:
        """Close connections and files."""
        self.engine.close()

    def __enter__(self) -> EngineIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- searching ------------------------------------------------------------

    def search(
        self,
        queries: MultiVectorsLike,
        k: int = DEFAULT_K,
        *,
        where: Filter | None = None,
        ids: Iterable[Any] | None = None,
        candidates: int | None = None,
        recall: float | None = None,
        rerank: Rerank | None = "auto",
        group: HitGroup = "document",
        group_by: str | None = None,
        threads: int | None = None,
    ) -> list[Ranking]:
        """Return the `k` best documents for each query.

        A document with several parts has the score of its best part.

        Parameters
        ----------
        queries : MultiVectors or list of arrays
            As for :meth:`muvera.MuveraIndex.search`.
        k : int
            As for :meth:`muvera.MuveraIndex.search`.
        where : mapping, optional
            A condition on the metadata that the engine evaluates, see
            :mod:`muvera.metadata`.
        ids : collection of ids, optional
            As for :meth:`muvera.MuveraIndex.search`.
        candidates : int, optional
            As for :meth:`muvera.MuveraIndex.search`.  Default: 100, or a quarter of
            the pages, from 200 to 1,000.  After :meth:`calibrate`, as many as contain
            95% of the ten best, but at least 100 (pages: 200).  And at least k.
        recall : float, optional
            Instead of `candidates`: the mean share of the exact best to find, such as
            0.95.  It needs a calibration by :meth:`calibrate`, or of the local index in
            ``tokens=``.  All queries rank the same number of candidates.
        rerank : {"auto", "here"} or None
            Where to rank the candidates.  "here": in this process.  "auto": in the
            engine if it can rank its half-precision tokens, because sending tokens
            would dominate the latency.  None: keep the order and scores of the vectors.
        group : {"document", "part"}
            As for :meth:`muvera.MuveraIndex.search`.  "part" needs tokens in the
            engine, or ``rerank=None``, if documents have several parts.
        group_by : str, optional
            A metadata field: return only the best document of each value, see
            :meth:`muvera.TextIndex.search`.  All candidates are ranked.
        threads : int, optional
            As for :meth:`muvera.MuveraIndex.search`.

        Returns
        -------
        list of Ranking
            One per query.  A query without tokens has an empty ranking.

        Raises
        ------
        TypeError, ValueError
            For queries of another dimension, a wrong setting, `recall` without a
            calibration, or a `group_by` field in which no document has a value, or with
            ``group="part"``.
            FilterError for a condition that is invalid, or that this engine cannot
            answer.
        EngineError
            If the engine fails, or stores no tokens to rank by.
        """
        SearchPlan(k, candidates=candidates, recall=recall, threads=threads, group=group)  # checks them
        count = self.num_candidates(k, candidates, recall)
        texts = self._checked(queries)
        if group_by is not None:
            require_field(group_by)
            if group == "part":
                raise ValueError("group_by returns documents, not parts. Omit one of group_by and group.")
            ranked = self.search(
                texts, count, where=where, ids=ids, candidates=count, rerank=rerank, threads=threads
            )
            groups = read_groups(self, group_by, list({id: None for one in ranked for id, _ in one}))
            return [_best_of(ranking, groups, k) for ranking in ranked]
        if rerank is not None:
            require_choice("rerank", rerank, ("auto", "here"))
            if self._tokens is None:
                raise EngineError(
                    Message(
                        f"{self.engine.location} stores no tokens to rank by. ",
                        Hint(
                            "rank",
                            "Give tokens=MuveraIndex.load(...), a local index of the same documents, or "
                            "rerank=None.",
                        ),
                    )
                )
            if group == "part" and self._ranks_locally and self.engine.stored.parts:
                raise EngineError(
                    "The local index ranks documents, not parts. Omit group, or search the local index."
                )
        allowed = None if ids is None else as_id_list(ids)
        stage = _Stage(k, rerank, where, allowed, threads)
        rankings = self._as_rankings([([], [])] * len(texts))
        count_at_once = max(1, _QUERIES * DEFAULT_CANDIDATES // max(count, DEFAULT_CANDIDATES))
        if self.engine.stored.pages is not None:
            count_at_once = min(count_at_once, _QUERIES_OF_PAGES)
        for rows in slices(np.flatnonzero(texts.lengths > 0), count_at_once):
            found = self._ranked(texts[rows], count, candidates is not None, group, stage)
            for row, ranking in zip(rows.tolist(), found, strict=True):
                rankings[row] = ranking
        return rankings

    def _ranked(
        self, queries: MultiVectors, count: int, fixed: bool, group: HitGroup, stage: _Stage
    ) -> list[Ranking]:
        """Rank `count` candidates of each query that has tokens.

        The best rows can be parts of few documents.  Then more of them are ranked, and
        more candidates are found, unless their number is `fixed`.
        """
        vectors = self.encoder.encode_queries(queries, threads=stage.threads)
        rankings = self._as_rankings([([], [])] * len(queries))
        left = np.arange(len(queries))
        several = group == "document" and bool(self.engine.stored.parts)
        wanted, limit = self._enough(2 * stage.k if several else stage.k, count, fixed, stage)
        while len(left):
            found = self._best_rows(queries[left], vectors[left], wanted, limit, stage)
            short = np.zeros(len(left), bool)
            for i, (ranking, more) in enumerate(found):
                best = ranking if group == "part" else _best_parts(ranking, stage.k)
                rankings[left[i]] = best
                short[i] = more and len(best) < stage.k
            left = left[:0] if group == "part" or (fixed and wanted == limit) else left[short]
            wanted, limit = self._enough(2 * wanted, limit, fixed, stage)
        return rankings

    def _enough(self, wanted: int, limit: int, fixed: bool, stage: _Stage) -> tuple[int, int]:
        """Return how many rows to rank, and how many the vectors find.

        `limit` grows unless it is `fixed`.  A local index ranks all of these rows.
        """
        limit = limit if fixed else max(limit, wanted)
        local = self._ranks_locally and stage.rerank is not None
        return limit if local else min(wanted, limit), limit

    @property
    def token_place(self) -> Literal["engine"] | MuveraIndex | None:
        """Where the tokens for exact ranking are: the argument `tokens`."""
        return self._tokens

    @property
    def _ranks_locally(self) -> bool:
        """True if a local index has the tokens."""
        return isinstance(self._tokens, MuveraIndex)

    def _best_rows(
        self, queries: MultiVectors, vectors: Vectors, wanted: int, limit: int, stage: _Stage
    ) -> list[tuple[Ranking, bool]]:
        """Return up to `wanted` best rows of each query, and if there can be more.

        The vectors find `limit` candidates.  A local index ranks documents instead.
        """
        if stage.rerank is None:
            hits = self.engine.search(SearchRequest(vectors, wanted, None, None, stage.where, stage.ids))
            best = self._as_rankings(hits)
        elif stage.rerank == "auto" and self.engine.reranks and self._tokens == "engine":
            request = SearchRequest(vectors, limit, queries, wanted, stage.where, stage.ids)
            best = self._as_rankings(self.engine.search(request))
        else:
            hits = self.engine.search(SearchRequest(vectors, limit, None, None, stage.where, stage.ids))
            best = self._rank(queries, hits, stage.k if self._ranks_locally else wanted, stage.threads)
            if self._ranks_locally:
                return [(one, len(keys) == limit) for one, (keys, _) in zip(best, hits, strict=True)]
        return [(ranking, len(ranking) == wanted) for ranking in best]

    def num_candidates(self, k: int, candidates: int | None = None, recall: float | None = None) -> int:
        """Return the number of documents that a search ranks for each query.

        Parameters
        ----------
        k : int
            As for :meth:`search`.
        candidates : int, optional
            As for :meth:`search`.
        recall : float, optional
            As for :meth:`search`.

        Returns
        -------
        int
            `candidates` if given, or else the default of :meth:`search`.

        Raises
        ------
        TypeError, ValueError
            For a wrong argument, or a recall without a calibration.
        EngineError
            For a recall, if the collection does not exist.
        """
        SearchPlan(k, candidates=candidates, recall=recall)  # checks them
        stored = self.engine.description
        if recall is None:
            return num_candidates(
                k, candidates, DEFAULT_CANDIDATES if stored is None else self._usual(stored)
            )
        numbers = dict(self.engine.stored.candidates_by_recall)
        if not numbers and isinstance(self._tokens, MuveraIndex):
            numbers = self._tokens.candidates_by_recall
        if not numbers:
            raise ValueError(
                Message(
                    Argument("recall", f"{recall}"),
                    " needs a calibration. ",
                    Hint("calibrate", "Call calibrate first, or give candidates=."),
                )
            )
        return max(k, next(number for target, number in numbers.items() if target >= recall))

    def _usual(self, stored: Description) -> int:
        """Return the number of candidates that a search for few documents ranks."""
        least = DEFAULT_CANDIDATES if stored.pages is None else _PAGES
        if stored.candidates_by_recall:
            return max(least, dict(stored.candidates_by_recall)[DEFAULT_RECALL])
        return least if stored.pages is None else min(max(least, len(self) // _SHARE_OF_PAGES), MAX_RANKED)

    def calibrate(self, queries: MultiVectorsLike | None = None, *, threads: int | None = None) -> None:
        """Measure how many candidates ``search(recall=)`` needs.

        The result is stored in the collection.  Later searches rank as many candidates
        as contain 95% of the ten best, but at least 100.

        Parameters
        ----------
        queries : MultiVectors or a list of arrays, optional
            At least 64 queries with tokens, typical of later ones.  Default: windows of
            8, 16 or 32 tokens of 64 stored documents, which do not count themselves.
        threads : int, optional
            Default: all usable cores.

        Raises
        ------
        TypeError, ValueError
            For fewer queries or documents, or queries of another dimension.
        EngineError
            If the engine fails, or stores no tokens to rank by.
        """
        own: list[Any] = []
        if queries is None:
            queries, own = self._windows()
        texts = with_enough_tokens(self._checked(queries))
        proposed = self._rows(texts, MAX_RANKED, candidates=MAX_RANKED, rerank=None, threads=threads)
        exact = self._rows(texts, 2 * BEST, candidates=MAX_RANKED, threads=threads)
        if own:
            proposed, exact = (list(map(_without, each, own)) for each in (proposed, exact))
        width = min(len(ranking) for ranking in proposed)
        pairs = zip(proposed, exact, strict=True)
        best = [_are_in(_at(a, slice(width)), _at(b, slice(BEST))) for a, b in pairs]
        numbers = list(numbers_of(np.stack(best)).items())
        self.engine.change_description(replace(self.engine.stored, candidates_by_recall=numbers))

    def _windows(self) -> tuple[MultiVectors, list[Any]]:
        """Return windows of stored documents as queries, and the documents' ids."""
        local = self._tokens if isinstance(self._tokens, MuveraIndex) else None
        stream = np.random.default_rng(0)
        ids = self.engine.ids({}) if local is None else local.ids.tolist()
        picked = stream.permutation(len(ids))[: 2 * MIN_QUERIES].tolist()  # some can have no tokens
        some = [ids[i] for i in picked]
        documents = join_parts(self.engine.tokens(some) if local is None else local.tokens(some))
        windows = []
        own: list[Any] = []
        for i in np.flatnonzero(documents.lengths)[:MIN_QUERIES].tolist():
            length = _LENGTHS[len(own) % len(_LENGTHS)]
            start = stream.integers(0, max(0, len(documents[i]) - length) + 1)
            windows.append(documents[i][start : start + length])
            own.append(documents.ids[i])
        return MultiVectors.from_arrays(windows, dimension=documents.dimension), own

    def _rows(self, queries: MultiVectors, k: int, **options: Any) -> list[Ranking]:
        """Search for parts, or for documents if a local index has the tokens."""
        if not self._ranks_locally:
            return self.search(queries, k, group="part", **options)
        # The vectors and the local index can prefer different parts of a document.
        return [replace(ranking, parts=None) for ranking in self.search(queries, k, **options)]

    def _checked(self, queries: MultiVectorsLike) -> MultiVectors:
        dimension = self.engine.stored.token_dimension
        return checked_texts(queries, "queries", dimension, self.engine.location)

    def _rank(self, queries: MultiVectors, hits: Hits, k: int, threads: int | None) -> list[Ranking]:
        """Rank candidates by exact Chamfer similarity in this process."""
        proposals = [keys for keys, _ in hits]
        if isinstance(self._tokens, MuveraIndex):
            ids = [list(dict.fromkeys(id for id, _ in keys)) for keys in proposals]
            return self._tokens.rerank(queries, ids, k, missing="ignore", threads=threads)
        distinct = list(dict.fromkeys(key for keys in proposals for key in keys))
        tokens = self.engine.tokens_of_rows(distinct)
        # Another process may have deleted some since the search.
        present = [key for key in distinct if key in tokens]
        place = {key: i for i, key in enumerate(present)}
        documents = MultiVectors.from_arrays(
            [tokens[key] for key in present], dimension=self.engine.stored.token_dimension
        )
        places = [[place[key] for key in keys if key in place] for keys in proposals]
        ranked = rerank(queries, documents, places, k, threads=threads)
        return self._as_rankings(
            [([present[i] for i in one.ids.tolist()], one.scores.tolist()) for one in ranked]
        )

    def _as_rankings(self, hits: Hits) -> list[Ranking]:
        stored = self.engine.stored
        kind = np.int64 if stored.integer_ids else np.str_
        rankings = []
        for keys, scores in hits:
            ids = np.array([id for id, _ in keys], kind)
            parts = np.array([part for _, part in keys], np.int64) if stored.parts else None
            rankings.append(Ranking(ids, np.array(scores, np.float32), parts=parts))
        return rankings

    def measure_recall(
        self,
        queries: MultiVectorsLike,
        *,
        k: int = DEFAULT_K,
        candidates: int = DEFAULT_CANDIDATES,
        threads: int | None = None,
    ) -> FirstStageRecall:
        """Measure the share of the exact best documents that the engine proposes.

        The exact best documents are taken from the first 1,000 documents by vectors, or
        the first `candidates` if that is more.

        Parameters
        ----------
        queries : MultiVectors or a list of arrays
            Queries without tokens do not count.
        k : int
            Number of exact best documents to find.  Parts count one by one.
        candidates : int
            Number of documents that the engine proposes.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        FirstStageRecall
            The mean share, and the numbers that it was measured with.

        Raises
        ------
        TypeError, ValueError
            For queries of another dimension, or without any tokens.
        EngineError
            If the engine fails, or stores no tokens to rank by.
        """
        texts = self._checked(queries)
        texts = texts[np.flatnonzero(texts.lengths > 0)]
        if len(texts) == 0:
            raise ValueError("queries have no tokens, so there is nothing to measure. Give others.")
        best = self._rows(texts, k, candidates=max(candidates, MAX_RANKED), threads=threads)
        proposed = self._rows(texts, candidates, candidates=candidates, rerank=None, threads=threads)
        shares = np.array([_are_in(a, b).mean() for a, b in zip(best, proposed, strict=True)])
        return FirstStageRecall(
            float(shares.mean()), k, candidates, len(texts), False, len(self), share_interval(shares)
        )

    # -- reading --------------------------------------------------------------

    def __len__(self) -> int:
        return 0 if self.engine.description is None else len(self.engine)

    def __repr__(self) -> str:
        return f"EngineIndex({self.engine.location!r})"

    @property
    def encoder(self) -> FDEEncoder:
        """The fitted encoder, read from the engine if necessary.

        Raise EngineError if the collection does not exist, and ValueError if the stored
        encoder was changed.
        """
        return self.engine.encoder

    def documents(self, ids: Iterable[Any], *, missing: Missing = "raise") -> list[TextDocument]:
        """Return texts and metadata by id.

        Parameters
        ----------
        ids : collection of ids
            The documents to read.
        missing : {"raise", "ignore"}
            For an unknown id, raise KeyError, or skip it.

        Returns
        -------
        list of TextDocument
            In the order of `ids`.  A text is "" if none is stored.

        Raises
        ------
        KeyError
            See `missing`.
        EngineError
            If the engine fails.
        """
        names = as_id_list(ids)
        values = self._read(names, "metadata", missing)
        texts = {name: metadata.pop(TEXT, "") for name, metadata in values.items()}
        return [TextDocument(name, texts[name], values[name]) for name in names if name in values]

    def info(self) -> EngineInfo:
        """Return the collection's description and number of documents.

        Returns
        -------
        EngineInfo
        """
        return EngineInfo(self.engine.kind, self.engine.location, len(self), self.engine.description)


def encoder_of_pages(dimension: int, engine: Engine) -> FDEConfig:
    """Return the default configuration of a new collection with pages.

    "simhash" hardly depends on the first pages, which later ones may not resemble.  It
    has fewer repetitions if the engine does not accept its vectors.
    """
    config = FDEConfig.preset("simhash", dimension)
    count = config.to_dict()["num_repetitions"]
    while config.vector_dimension > engine.max_dimension and count > 1:
        count -= 1
        config = FDEConfig.preset("simhash", dimension, num_repetitions=count)
    return config


def read_groups(index: EngineIndex, field: str, ids: Sequence[Any]) -> dict[Any, Group]:
    """Return the values of a metadata field by id, without ids that have none.

    Raise ValueError if no document has the field.
    """
    documents = index.documents(ids, missing="ignore")
    groups = {one.id: group for one in documents if (group := group_of(one.metadata, field))}
    if not groups and len(index):
        find = partial(
            index.search, [np.ones((1, index.engine.stored.token_dimension), np.float32)], rerank=None
        )
        if field.startswith("$") or not len(find(1, where={field: {"$exists": True}})[0]):
            some = index.documents(find(MOST_FIELDS)[0].ids.tolist(), missing="ignore")
            fields = {name for one in (*documents, *some) for name, _, _ in comparable_values(one.metadata)}
            raise unknown_field(field, sorted(fields)[:MOST_FIELDS])
    return groups


def _best_of(ranking: Ranking, groups: Mapping[Any, Group], k: int) -> Ranking:
    """Return the best document of each group, at most `k`."""
    return _at(ranking, best_of_groups(ranking.ids.tolist(), groups, k))


def _best_parts(ranking: Ranking, k: int) -> Ranking:
    """Return the best part of each document, at most `k`."""
    if ranking.parts is None:
        return ranking
    return _at(ranking, np.sort(np.unique(ranking.ids, return_index=True)[1])[:k])


def _without(ranking: Ranking, id: Any) -> Ranking:
    """Return a ranking without one document."""
    return _at(ranking, np.flatnonzero(ranking.ids != id))


def _at(ranking: Ranking, at: NDArray[np.int64] | list[int] | slice) -> Ranking:
    parts = None if ranking.parts is None else ranking.parts[at]
    return replace(ranking, ids=ranking.ids[at], scores=ranking.scores[at], parts=parts)


def _are_in(ranking: Ranking, other: Ranking) -> NDArray[np.bool_]:
    """Return which rows of a ranking are in another one."""
    if ranking.parts is None or other.parts is None:
        return np.isin(ranking.ids, other.ids)
    known = set(zip(other.ids.tolist(), other.parts.tolist(), strict=True))
    keys = zip(ranking.ids.tolist(), ranking.parts.tolist(), strict=True)
    return np.array([key in known for key in keys], bool)


def _starts(documents: MultiVectors) -> NDArray[np.int64]:
    """Return the first text of each document."""
    return np.flatnonzero(~repeats_before(documents.ids))


def _whole_documents(batches: Iterable[MultiVectors]) -> Iterator[MultiVectors]:
    """Yield batches that begin with a document's first part.

    A batch can end between two parts of a document; the batch before gets the rest.
    """
    earlier: MultiVectors | None = None
    for batch in batches:
        if earlier is not None and earlier.has_ids and batch.has_ids and len(earlier) and len(batch):
            more = int(np.append(batch.ids != earlier.ids[-1], True).argmax())
            if more:
                earlier = MultiVectors.concatenate([earlier, batch[:more]])
                batch = batch[more:]
                if not len(batch):
                    continue
        if earlier is not None:
            yield earlier
        earlier = batch
    if earlier is not None:
        yield earlier


def _row(id: int | str, metadata: Mapping[str, Any], text: str | None) -> Mapping[str, Any]:
    """Return the metadata to store in the engine, with the text.

    Raise an error for wrong metadata.
    """
    encode_metadata(metadata, id)
    return metadata if text is None else {**metadata, TEXT: text}
