"""EngineIndex: an index whose first stage is a vector database.

EngineTexts: the texts of a TextIndex there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import repeat
from typing import Any, Literal, NoReturn, TypeVar, get_args

import numpy as np

from ..data.batches import as_batches
from ..data.multivectors import MultiVectors, checked_texts
from ..data.ranking import Ranking
from ..fde.config import FDEConfig
from ..fde.encoder import FDEEncoder
from ..fde.files import as_encoder
from ..index.id_map import Missing
from ..index.muvera_index import MuveraIndex
from ..index.recall import BEST, MAX_RANKED, numbers_of, with_enough_tokens
from ..index.settings import FirstStageRecall
from ..index.two_stage_search import DEFAULT_CANDIDATES, DEFAULT_K, MIN_FIT_DOCUMENTS, SearchPlan
from ..metadata import TEXT, Filter, encode_metadata
from ..reranking.chamfer import rerank
from ..texts.database import DocumentDatabase, TextDocument
from ..texts.encoders.base import NoEncoder, TextEncoder
from ..texts.encoders.registry import as_text_encoder, required_encoder
from ..texts.hit import Parts, SearchOptions, add_words
from ..utils.checks import as_id_list, given, require_choice
from ..utils.hints import Argument, Hint, Message
from .base import (
    AddReport,
    Column,
    Description,
    Engine,
    EngineError,
    EngineInfo,
    Hits,
    Search,
    open_engine,
    slices,
)

_Read = TypeVar("_Read")

Rerank = Literal["auto", "here"]

# Bytes of vectors and tokens in one write.
_BATCH_BYTES = 8 << 20

_UNEQUAL = "metadata and texts must have one entry per document, got {}. Give one for each."

# Names of the types of ids, by Description.integer_ids.
_KINDS = {True: "integers", False: "strings"}

# Queries whose candidates' tokens are in memory at once.
_QUERIES = 64

_NO_LIST = Message(
    "is a database, which does not list its texts. ",
    Hint("give_ids_or_search", "Give their ids, or search with where=."),
)
_NO_VECTORS = "is a database, so index, info and rebuild are not available. Use EngineIndex instead."


class EngineIndex:
    """A collection in a vector database, searched by vectors there and ranked by exact Chamfer similarity.

    The encoder is fitted once and stored in the database, so any process can search.
    Vectors of another encoder are refused.

    Parameters
    ----------
    engine : Engine or str
        Such as ``"postgresql://user@host/database#docs"`` or ``"lancedb:folder#docs"``,
        see :func:`muvera.engines.open_engine`.
    encoder : str, configuration or fitted encoder, optional
        Makes the vectors of a new collection.  An existing collection must have the
        same encoder.  Default: the stored encoder, or "fde" for a new collection.
    tokens : "engine", MuveraIndex or None
        Where the tokens for exact ranking are: in the engine, in a local index of the
        same documents, or nowhere. Default: in the engine with half precision, or
        nowhere if the engine cannot store tokens.
    text_encoder : str, optional
        Name of the text encoder of a new collection with texts, for
        :meth:`muvera.TextIndex.open`.

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
    ) -> None:
        if not isinstance(engine, (str, Engine)):
            raise TypeError(
                f"engine must be a URL such as 'lancedb:FOLDER#NAME', or an Engine, got {given(engine)}."
            )
        #: The collection in the engine.
        self.engine = open_engine(engine) if isinstance(engine, str) else engine
        self._text_encoder, self._requested = text_encoder, encoder
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
        """Raise if the collection has another encoder or configuration than the requested one."""
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
                    f"{self.engine.location} was filled with another encoder than the given one (configuration "
                    f"{config.hash[:16]}): their vectors are not comparable. Omit ",
                    Argument("encoder", ""),
                    ", or use another collection.",
                )
            )

    # -- changing -------------------------------------------------------------

    def add(
        self,
        documents: Any,
        metadata: Iterable[Mapping[str, Any]] | None = None,
        *,
        texts: Iterable[str] | None = None,
        resume: bool = False,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> AddReport:
        """Write documents in batches and replace those with the same ids; the first call creates the collection.

        Parameters
        ----------
        documents : MultiVectors, a list of arrays, or an iterable of MultiVectors
            With ids.  Documents without ids are numbered from 0, if the collection is
            empty or `resume` is set.  A new collection's encoder is fitted on the first
            batch; for an iterable, give a fitted encoder.
        metadata : iterable of dict, optional
            One for each document, in order, for `where`.
        texts : iterable of str, optional
            One for each document, in order; :meth:`documents` returns them.
        resume : bool
            Skip documents whose ids exist, to continue an interrupted addition.
        threads : int, optional
            Default: all usable cores.
        progress : callable, optional
            Called with the number of documents after each batch.

        Raises
        ------
        TypeError, ValueError
            For documents or metadata that do not fit the collection.  Earlier batches
            stay written.
        EngineError
            If the engine fails.
        """
        every: Any = repeat({}) if metadata is None else metadata
        pairs = zip(every, repeat(None) if texts is None else texts, strict=False)
        report, position = AddReport(), 0
        for batch in as_batches(documents):
            if not batch.has_ids:
                if not resume and position == 0 and len(self):
                    raise ValueError(
                        "The documents have no ids and would replace documents of the collection. Give them ids, or "
                        "resume=True to continue an addition."
                    )
                batch = batch.with_ids(np.arange(position, position + len(batch)))
            rows = [_row(id, *pair) for id, pair in zip(batch.ids.tolist(), pairs, strict=False)]
            position += len(rows)
            if len(rows) < len(batch):
                raise ValueError(_UNEQUAL.format(f"only {position}"))
            if self.engine.description is None:
                self._create(batch, threads)
            self._require_kind(batch)
            tokens = batch.dimension * batch.num_tokens // max(1, len(batch))
            step = max(1, _BATCH_BYTES // (4 * self.engine.stored.vector_dimension + 2 * tokens))
            for some, values in zip(slices(batch, step), slices(rows, step), strict=True):
                counts = self._write(some, values, resume, threads)
                report = AddReport(*map(sum, zip(report, counts, strict=True)))
                if progress is not None:
                    progress(len(some))
        if (metadata, texts) != (None, None) and next(pairs, None) is not None:
            raise ValueError(_UNEQUAL.format(f"more than {position}"))
        if self.engine.description is not None:
            self.engine.finish()
        return report

    def _write(
        self, documents: MultiVectors, rows: list[Mapping[str, Any]], resume: bool, threads: int | None
    ) -> AddReport:
        """Encode and write documents with their metadata and texts."""
        names, filled = documents.ids.tolist(), np.flatnonzero(documents.lengths > 0).tolist()
        known = self.engine.read([names[i] for i in filled], "id") if resume else {}
        new = [i for i in filled if names[i] not in known]
        if new:
            texts = documents[new]
            vectors = self.encoder.encode_documents(texts, threads=threads)
            self.engine.add(texts, vectors, [rows[i] for i in new])
        return AddReport(len(new), len(filled) - len(new), len(names) - len(filled))

    def _require_kind(self, documents: MultiVectors) -> None:
        """Raise unless the documents have the dimension and the kind of ids of the collection."""
        stored, location = self.engine.stored, self.engine.location
        documents.require_dimension(stored.token_dimension, "documents", location)
        if stored.integer_ids != (documents.ids.dtype.kind == "i"):
            raise TypeError(
                f"{location} has {_KINDS[stored.integer_ids]} as ids, but the documents have "
                f"{_KINDS[not stored.integer_ids]}. Convert the ids, or use another collection."
            )

    def _create(self, documents: MultiVectors, threads: int | None) -> None:
        config, encoder = as_encoder(self._requested, documents.dimension)
        self.engine.require_dimension(config.vector_dimension)
        if encoder is None:
            encoder = FDEEncoder(config)
            filled = documents[np.flatnonzero(documents.lengths > 0)]
            if config.needs_fit_sample and len(filled) < MIN_FIT_DOCUMENTS:
                raise ValueError(
                    Message(
                        f"This encoder is fitted on at least {MIN_FIT_DOCUMENTS} documents, but the first batch has "
                        f"{len(filled)}. Give more, a fitted encoder, or ",
                        Argument("encoder", "'mean'"),
                        ".",
                    )
                )
            if encoder.needs_fit:
                encoder.fit(filled, threads=threads)
        integer_ids = documents.ids.dtype.kind == "i"
        self.engine.create(encoder, self._tokens == "engine", integer_ids, self._text_encoder)

    def delete(self, ids: Iterable[Any], *, missing: Missing = "raise") -> None:
        """Delete documents by id.

        For an unknown id, nothing is deleted and KeyError is raised, unless
        ``missing="ignore"``.
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
        queries: Any,
        k: int = DEFAULT_K,
        *,
        where: Filter | None = None,
        ids: Iterable[Any] | None = None,
        candidates: int | None = None,
        recall: float | None = None,
        rerank: Rerank | None = "auto",
        threads: int | None = None,
    ) -> list[Ranking]:
        """Return the `k` best documents for each query.

        Parameters
        ----------
        queries, k, ids, candidates, threads
            As for :meth:`muvera.MuveraIndex.search`.
        where : mapping, optional
            A condition on the metadata that the engine evaluates, see
            :mod:`muvera.metadata`.
        recall : float, optional
            Instead of `candidates`: the mean share of the exact best to find, such as
            0.95.  It needs a calibration by :meth:`calibrate`, or of the local index in
            ``tokens=``.  All queries rank the same number of candidates.
        rerank : {"auto", "here"} or None
            Where to rank the candidates.  "here": in this process.  "auto": in the
            engine if it can rank its half-precision tokens, because sending tokens
            would dominate the latency.  None: keep the order and scores of the vectors.

        Returns
        -------
        list of Ranking
            One per query.  A query without tokens has an empty ranking.

        Raises
        ------
        TypeError, ValueError
            For queries of another dimension, a wrong setting, or `recall` without a
            calibration.  FilterError for a condition that is invalid, or that this
            engine cannot answer.
        EngineError
            If the engine fails, or stores no tokens to rank by.
        """
        count = self._depth(SearchPlan(k, candidates=candidates, recall=recall, threads=threads))
        texts = self._checked(queries)
        if rerank is not None:
            require_choice("rerank", rerank, ("auto", "here"))
            if self._tokens is None:
                raise EngineError(
                    Message(
                        f"{self.engine.location} stores no tokens to rank by. ",
                        Hint(
                            "rank",
                            "Give tokens=MuveraIndex.load(...), a local index of the same documents, or rerank=None.",
                        ),
                    )
                )
        engine_ranks = rerank == "auto" and self.engine.reranks and self._tokens == "engine"
        allowed = None if ids is None else as_id_list(ids)
        rankings = self._as_rankings([([], [])] * len(texts))
        for rows in slices(np.flatnonzero(texts.lengths > 0), _QUERIES):
            block = texts[rows]
            vectors = self.encoder.encode_queries(block, threads=threads)
            depth, tokens = k if rerank is None else count, block if engine_ranks else None
            hits = self.engine.search(Search(vectors, depth, tokens, k), where, allowed)
            final = engine_ranks or rerank is None
            best = self._as_rankings(hits) if final else self._rank(block, hits, k, threads)
            for i, ranking in zip(rows.tolist(), best, strict=True):
                rankings[i] = ranking
        return rankings

    def _depth(self, plan: SearchPlan | SearchOptions) -> int:
        """Return the number of candidates of a search."""
        if plan.recall is None:
            return plan.candidates or max(DEFAULT_CANDIDATES, plan.k)
        numbers = dict(self.engine.stored.candidates_by_recall)
        if not numbers and isinstance(self._tokens, MuveraIndex):
            numbers = self._tokens.candidates_by_recall
        if not numbers:
            raise ValueError(
                Message(
                    Argument("recall", f"{plan.recall}"),
                    " needs a calibration. ",
                    Hint("calibrate", "Call calibrate first, or give candidates=."),
                )
            )
        return max(plan.k, next(number for target, number in numbers.items() if target >= plan.recall))

    def calibrate(self, queries: Any, *, threads: int | None = None) -> None:
        """Measure how many candidates ``search(recall=)`` needs, and store the result in the collection.

        `queries` are those of :meth:`search`: at least 64 with tokens, typical of later
        ones.  Errors are the same.
        """
        texts = with_enough_tokens(self._checked(queries))
        proposed = self.search(texts, MAX_RANKED, candidates=MAX_RANKED, rerank=None, threads=threads)
        exact = self.search(texts, BEST, candidates=MAX_RANKED, threads=threads)
        width = min(len(ranking) for ranking in proposed)
        best = np.stack([np.isin(a.ids[:width], b.ids) for a, b in zip(proposed, exact, strict=True)])
        numbers = list(numbers_of(best).items())
        self.engine.change_description(replace(self.engine.stored, candidates_by_recall=numbers))

    def _checked(self, queries: Any) -> MultiVectors:
        dimension = self.engine.stored.token_dimension
        return checked_texts(queries, "queries", dimension, self.engine.location)

    def _rank(self, queries: MultiVectors, hits: Hits, k: int, threads: int | None) -> list[Ranking]:
        """Rank candidates by exact Chamfer similarity in this process."""
        proposals = [ids for ids, _ in hits]
        if isinstance(self._tokens, MuveraIndex):
            return self._tokens.rerank(queries, proposals, k, missing="ignore", threads=threads)
        documents = self.engine.tokens(list(dict.fromkeys(id for ids in proposals for id in ids)))
        present = set(documents.ids.tolist()) if len(documents) else set()
        # Another process may have deleted some since the search.
        proposals = [[id for id in ids if id in present] for ids in proposals]
        return rerank(queries, documents, proposals, k, threads=threads)

    def _as_rankings(self, hits: Hits) -> list[Ranking]:
        kind = np.int64 if self.engine.stored.integer_ids else np.str_
        return [Ranking(np.array(ids, kind), np.array(scores, np.float32)) for ids, scores in hits]

    def measure_recall(
        self,
        queries: Any,
        *,
        k: int = DEFAULT_K,
        candidates: int = DEFAULT_CANDIDATES,
        threads: int | None = None,
    ) -> FirstStageRecall:
        """Return the share of the exact best documents among the candidates that the engine proposes.

        The exact best are those among the first 1,000 documents by vectors, or the
        first `candidates` if that is more. Arguments and errors are those of
        :meth:`search`; queries without tokens do not count.
        """
        texts = self._checked(queries)
        texts = texts[np.flatnonzero(texts.lengths > 0)]
        if len(texts) == 0:
            raise ValueError("queries have no tokens, so there is nothing to measure. Give others.")
        best = self.search(texts, k, candidates=max(candidates, MAX_RANKED), threads=threads)
        proposed = self.search(texts, candidates, candidates=candidates, rerank=None, threads=threads)
        shares = [np.isin(a.ids, b.ids).mean() for a, b in zip(best, proposed, strict=True)]
        return FirstStageRecall(float(np.mean(shares)), k, candidates, len(texts), False, len(self))

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
        """Return texts and metadata by id, in the order of `ids`; the text is "" if there is none.

        For an unknown id, raise KeyError, or skip it with ``missing="ignore"``.
        """
        names = as_id_list(ids)
        values = self._read(names, "metadata", missing)
        texts = {name: own.pop(TEXT, "") for name, own in values.items()}
        return [TextDocument(name, texts[name], values[name]) for name in names if name in values]

    def info(self) -> EngineInfo:
        """Return the collection's description and number of documents."""
        return EngineInfo(self.engine.kind, self.engine.location, len(self), self.engine.description)


# -- texts --------------------------------------------------------------------


class EngineTexts(EngineIndex):
    """A collection of texts, with the methods of :class:`muvera.texts.store.TextStore`.

    Shared words change only the order of the candidates.
    """

    #: No lock: the database orders concurrent changes.
    changing: AbstractContextManager[object] = nullcontext()

    def __repr__(self) -> str:
        return self.engine.location

    def __contains__(self, id: object) -> bool:
        return isinstance(id, (int, str)) and bool(self.get([id], "ignore"))

    def __iter__(self) -> Iterator[TextDocument]:
        self._refuse(_NO_LIST)

    def get(self, ids: list[int | str], missing: Missing = "raise") -> list[TextDocument]:
        """Return texts and metadata in the order of `ids`."""
        return self.documents(ids, missing=missing)

    def select(self, where: Filter) -> list[int | str]:
        """Raise EngineError: databases answer conditions only in a search."""
        self._refuse(_NO_LIST)

    def tokens(self, ids: list[Any]) -> MultiVectors:
        """Return the token vectors of texts."""
        return self.engine.tokens(ids)

    @property
    def vectors(self) -> MuveraIndex:
        """Raise EngineError: the token vectors are in the database."""
        self._refuse(_NO_VECTORS)

    def on_one_state(self, read: Callable[[], _Read]) -> _Read:
        """Return ``read()``.

        Other programs can change the database between its reads.
        """
        return read()

    def rank(self, queries: list[str], encoded: MultiVectors, options: SearchOptions) -> list[Parts]:
        """Return the score parts of the best `options.k` texts for each query."""
        if self.engine.description is None:
            return [{} for _ in queries]
        k, words, count = options.k, options.words, self._depth(options)
        limits: Any = {"where": options.where, "ids": options.ids, "threads": options.threads}
        best = self.search(encoded, count if words else k, candidates=count, **limits)
        scores = [dict(ranking) for ranking in best]
        if not words:
            return [{id: {"maxsim": score} for id, score in own.items()} for own in scores]
        return [
            add_words(own, self._shared_words(query, list(own)), words, k)
            for query, own in zip(queries, scores, strict=True)
        ]

    def _shared_words(self, query: str, candidates: list[Any]) -> dict[Any, float]:
        """Return the BM25 scores of candidates, with word frequencies among the candidates."""
        documents = self.get(candidates, "ignore")
        database = DocumentDatabase()
        texts = [document.text for document in documents]
        database.put([document.id for document in documents], texts, [{}] * len(documents))
        return dict(database.match_words(query, len(documents) or 1))

    def put(
        self,
        encoded: MultiVectors,
        texts: list[str],
        metadata: Sequence[Mapping[str, Any]],
        threads: int | None,
        update: bool = False,
    ) -> list[int | str]:
        """Add texts; with `update`, also replace those with the same ids.

        Return the ids.
        """
        if not encoded.has_ids:
            raise ValueError(Message("Texts in a database need ids. ", Hint("give_ids", "Give ids=.")))
        names: list[int | str] = encoded.ids.tolist()
        if not update:
            for used in self.get(names, "ignore"):
                raise ValueError(f"id {used.id!r} is in the index already. Use update, or another id.")
        empty = np.flatnonzero(encoded.lengths == 0)
        if len(empty):
            raise ValueError(
                f"The text of {names[empty[0]]!r} is blank, and a database cannot find blank texts. Remove it."
            )
        self.add(encoded, metadata, texts=texts, threads=threads)
        return names

    def put_metadata(self, documents: list[TextDocument], metadata: list[dict[str, Any]]) -> None:
        """Replace the metadata of stored texts."""
        tokens = self.tokens([document.id for document in documents])
        self.add(tokens, metadata, texts=[document.text for document in documents])

    def rebuild(self, threads: int | None) -> None:
        """Raise EngineError: the token vectors are in the database."""
        self._refuse(_NO_VECTORS)

    def save(self, path: str | os.PathLike[str] | None, overwrite: bool = False) -> None:
        """Do nothing without a path, since changes are durable.

        Raise EngineError for a path.
        """
        if path is not None:
            self._refuse("has no folder. Build a TextIndex to save one.")

    def _refuse(self, reason: str) -> NoReturn:
        raise EngineError(Message(f"{self.engine.location} ", reason))


def open_texts(engine: Engine | str, encoder: TextEncoder | str | None) -> tuple[EngineTexts, TextEncoder]:
    """Open a collection of texts, or an empty one, and its encoder.

    See :meth:`muvera.TextIndex.open`.
    """
    texts = EngineTexts(engine)
    stored, location = texts.engine.description, texts.engine.location
    try:
        if stored is None:
            if encoder is None or isinstance(encoder, NoEncoder):
                raise EngineError(
                    f"{location} does not exist. Load texts with muvera load, or give an encoder to create it."
                )
            model = as_text_encoder(encoder)
        elif stored.text_encoder is None:
            raise EngineError(f"{location} has no texts. Load an index of texts with muvera load.")
        else:
            model = required_encoder(stored.text_encoder, encoder, location)
    except BaseException:
        if isinstance(engine, str):
            texts.close()
        raise
    texts._text_encoder = model.name
    return texts, model


def _row(id: Any, metadata: Mapping[str, Any], text: str | None) -> Mapping[str, Any]:
    """Return the metadata to store in the engine, with the text.

    Raise an error for wrong metadata.
    """
    encode_metadata(metadata, id)
    return metadata if text is None else {**metadata, TEXT: text}
