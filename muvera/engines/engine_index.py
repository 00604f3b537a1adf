"""EngineIndex: token vectors in, exact rankings out, with a vector database as the first stage."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np

from ..convert.writers.store_limits import check_dimension
from ..data.filter_language import Filter
from ..data.metadata import encode_metadata
from ..data.multivectors import MultiVectors
from ..data.ranking import Ranking
from ..data.sampling import as_batches
from ..data.token_input import checked_texts
from ..data.validation import Ids, as_ids
from ..encoders.base import Encoder, EncoderConfig
from ..encoders.registry import as_config, make_encoder
from ..index.muvera_index import MuveraIndex
from ..index.quality import FirstStageRecall
from ..index.search_plan import DEFAULT_CANDIDATES, DEFAULT_K, as_id_list
from ..index.two_stage_search import MIN_FIT_DOCUMENTS
from ..reranking.chamfer import Explanation, explain, rerank, top_k
from ..utils.checks import require_choice, require_int
from .base import Description, Engine, EngineError, Found, GraphSettings, Rows, SearchOptions
from .encoder_bytes import encoder_from_bytes, encoder_hash, encoder_to_bytes
from .registry import open_engine

__all__ = ["AddReport", "EngineIndex", "EngineInfo"]

Rerank = Literal["auto", "here", "engine"]

#: Bytes of vectors and tokens that are written at a time.
_BATCH_BYTES = 8 << 20

# Queries whose candidates' tokens are in memory at once.
_QUERIES = 64


@dataclass(frozen=True)
class AddReport:
    """What an addition did.

    Parameters
    ----------
    added : int
        Documents that were written.
    skipped : int
        Documents that were there already.
    without_tokens : int
        Documents that were left out, since nothing can find them.
    """

    added: int = 0
    skipped: int = 0
    without_tokens: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class EngineInfo:
    """Facts of a collection in an engine.

    Parameters
    ----------
    engine : str
    location : str
        Without a password.
    documents : int
    description : Description or None
        None before the first documents.
    bytes : int or None
        Of documents and index, where the engine says.
    """

    engine: str
    location: str
    documents: int
    description: Description | None
    bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class EngineIndex:
    """A collection in a vector database, searched by vectors there and ranked by exact Chamfer similarity.

    The encoder that makes the vectors is fitted once and kept in the database beside the documents, so that
    any process can query; what was encoded by another one is refused.

    Parameters
    ----------
    engine : Engine or str
        A URL such as ``"postgresql://user@host/database#docs"`` or ``"lancedb:folder#docs"``, see
        :func:`muvera.engines.open_engine`.
    config : EncoderConfig or str, optional
        How vectors are made, for a new collection; compared with that of one that exists.  Default:
        "learned", whose 1,024 floats every engine's graph takes.
    encoder : Encoder, optional
        A fitted one to use, or to compare with the one that is there.
    tokens : "engine", MuveraIndex or None
        Where the tokens for exact ranking are: in the engine, in half precision, in a local index of the
        same documents, or nowhere.  Default: in the engine, where it keeps tokens.
    precision : {"float32", "float16"}, optional
        Of the vectors in a new collection.  Default: the engine's own.
    graph : GraphSettings, optional
        Of a new collection.

    Raises
    ------
    EngineError
        Where the engine cannot be reached, or holds something else or vectors of another encoder.
    TypeError, ValueError
        For a wrong setting.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> rng = np.random.default_rng(0)
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(5, 8)) for _ in range(3)], ids=["a", "b", "c"])
    >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
    ...     index = EngineIndex(f"lancedb:{folder}#docs", "default")
    ...     _ = index.add(documents, [{"year": 2001}, {"year": 2002}, {"year": 2003}])
    ...     index.search([documents[1]], k=1, where={"year": {"$gte": 2002}})[0].ids.tolist()
    ['b']
    """

    def __init__(
        self,
        engine: Engine | str,
        config: EncoderConfig | str | None = None,
        *,
        encoder: Encoder | None = None,
        tokens: Literal["engine"] | MuveraIndex | None = "engine",
        precision: Literal["float32", "float16"] | None = None,
        graph: GraphSettings | None = None,
    ) -> None:
        self._engine = open_engine(engine) if isinstance(engine, str) else engine
        if encoder is not None and encoder.needs_fit:
            raise ValueError("The encoder needs to be fitted before it can encode documents. Call its fit.")
        if precision is not None:
            require_choice("precision", precision, self._engine.precisions)
        if tokens == "engine" and not self._engine.keeps_tokens:
            tokens = None
        self._config, self._encoder = config, encoder
        self._tokens, self._precision = tokens, precision or self._engine.precisions[0]
        self._graph = graph or GraphSettings()
        try:
            self._description = self._engine.describe()
            if self._description is not None:
                self._require_same(self._description)
        except BaseException:
            if isinstance(engine, str):
                self._engine.close()
            raise

    def _require_same(self, there: Description) -> None:
        """Raise where the collection is of another encoder or configuration than was given."""
        where = self._engine.location
        if self._encoder is not None:
            mine = encoder_hash(encoder_to_bytes(self._encoder))
            if mine != there.encoder:
                raise EngineError(
                    f"{where} was filled by the encoder {there.encoder[:16]}, but the given one is {mine[:16]}: "
                    "their vectors cannot be compared. Leave the encoder out, or use another name."
                )
        if self._config is not None:
            wanted = as_config(self._config, there.token_dimension).hash
            if wanted != there.config:
                raise EngineError(
                    f"{where} was filled by configuration {there.config}, but {wanted} is given. Leave the "
                    "configuration out, or use another name."
                )
        if self._tokens == "engine" and not there.tokens:
            self._tokens = None

    # -- changing -------------------------------------------------------------

    def add(
        self,
        documents: Any,
        metadata: Iterable[Mapping[str, Any]] | None = None,
        *,
        resume: bool = False,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> AddReport:
        """Write documents in batches, in place of those with the same ids; the first ones make the collection.

        Parameters
        ----------
        documents : MultiVectors, a list of arrays, or an iterable of MultiVectors
            With ids; those without are numbered from 0, in an empty collection or where `resume` is set.
            A new collection's encoder is fitted on the first batch: give an iterable an encoder of its own.
        metadata : iterable of dict, optional
            One for each document, in their order; what `where` asks for.
        resume : bool
            Leave documents alone whose ids are there: an addition that was interrupted goes on.
        threads : int, optional
            Default: all usable cores.
        progress : callable, optional
            Called with the number of documents after each batch.

        Returns
        -------
        AddReport

        Raises
        ------
        TypeError, ValueError
            For documents or metadata that do not fit.  Batches before that one are kept.
        EngineError
            Where the engine fails.
        """
        values = None if metadata is None else iter(metadata)
        position = added = skipped = empty = 0
        for whole in as_batches(documents):
            for batch in _parts(whole, self._row_bytes(whole)):
                texts = batch if whole.has_ids else batch.with_ids(np.arange(position, position + len(batch)))
                if not whole.has_ids and not resume and position == 0 and len(self):
                    raise ValueError(
                        "The documents have no ids, and the collection has documents that they would replace. "
                        "Give them ids, or set resume to go on with an addition."
                    )
                rows = _metadata_of(values, texts, position)
                position += len(texts)
                self._prepare(whole, texts, threads)
                keep = texts.lengths > 0
                empty += int((~keep).sum())
                if resume:
                    there = self._engine.existing(texts.ids[keep])
                    new = keep & ~np.isin(texts.ids, _ids(list(there), texts.ids))
                    skipped += int(keep.sum() - new.sum())
                    keep = new
                chosen = np.flatnonzero(keep)
                if len(chosen):
                    self._write(texts[chosen], [rows[i] for i in chosen.tolist()], threads)
                    added += len(chosen)
                if progress is not None:
                    progress(len(texts))
        if values is not None and next(values, None) is not None:
            raise ValueError(f"There is more metadata than the {position} documents. Give one for each.")
        if self._description is not None:
            self._engine.finish()
        return AddReport(added, skipped, empty)

    def _row_bytes(self, documents: MultiVectors) -> int:
        mean = 2 * documents.dimension * documents.num_tokens // max(1, len(documents))
        return mean + 4 * (1024 if self._description is None else self._description.vector_dimension)

    def _prepare(self, whole: MultiVectors, texts: MultiVectors, threads: int | None) -> None:
        """Make the collection where there is none; compare the documents with it where there is."""
        integers = texts.ids.dtype.kind == "i"
        if self._description is None:
            self._create(whole, integers, threads)
        there = self._there()
        texts.require_dimension(there.token_dimension, "documents", str(self._engine.location))
        if there.integer_ids != integers:
            kinds = ("integers", "strings") if there.integer_ids else ("strings", "integers")
            raise TypeError(
                f"{self._engine.location} has {kinds[0]} as ids, and the documents have {kinds[1]}."
            )

    def _create(self, documents: MultiVectors, integers: bool, threads: int | None) -> None:
        encoder = self._encoder
        if encoder is None:
            config = as_config("learned" if self._config is None else self._config, documents.dimension)
            self._check_size(config, documents.dimension)
            encoder = make_encoder(config)
            if encoder.needs_fit:
                filled = documents[np.flatnonzero(documents.lengths > 0)]
                if config.needs_fit_sample and len(filled) < MIN_FIT_DOCUMENTS:
                    raise ValueError(
                        f"This configuration is learned from {MIN_FIT_DOCUMENTS} documents at least, and the first "
                        f"batch has {len(filled)}. Give more, a fitted encoder, or config='default'."
                    )
                encoder.fit(filled, threads=threads)
        self._check_size(encoder.config, documents.dimension)
        content = encoder_to_bytes(encoder)
        description = Description(
            vector_dimension=encoder.config.vector_dimension,
            token_dimension=encoder.config.dimension,
            tokens=self._tokens == "engine",
            integer_ids=integers,
            precision=self._precision,
            graph=self._graph,
            config=encoder.config.hash,
            encoder=encoder_hash(content),
        )
        documents.require_dimension(description.token_dimension, "documents", "the encoder")
        self._engine.create(description, content)
        self._encoder, self._description = encoder, description

    def _check_size(self, config: EncoderConfig, dimension: int) -> None:
        learned = {name: as_config(name, dimension).vector_dimension for name in ("learned", "compact")}
        half = self._precision == "float16" and len(self._engine.precisions) > 1
        check_dimension(config.vector_dimension, self._engine.kind, half=half, presets=learned)

    def _write(self, texts: MultiVectors, rows: list[Mapping[str, Any]], threads: int | None) -> None:
        vectors = self.encoder.encode_documents(texts, threads=threads)
        tokens = None
        if self._there().tokens:
            halves = texts.tokens.astype(np.float16, copy=False)
            if not np.isfinite(halves).all():
                raise ValueError("documents have a number beyond 65504, which half precision does not hold.")
            tokens = MultiVectors(halves, texts.offsets, texts.ids)
        self._engine.add(Rows(texts.ids, vectors, rows, tokens))

    def delete(self, ids: Iterable[Any]) -> None:
        """Delete documents by id; ids that are not there are ignored."""
        if self._description is not None:
            names = as_id_list(ids, "ids")
            self._engine.delete(_ids(names, _kind(self._description)))

    def drop(self) -> None:
        """Remove the collection with its encoder and its index."""
        self._engine.drop()
        self._description = None

    def close(self) -> None:
        """Free connections and files."""
        self._engine.close()

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
        candidates: int | None = None,
        rerank: Rerank | None = "auto",
        ef: int | None = None,
        threads: int | None = None,
    ) -> list[Ranking]:
        """Return the `k` best documents for each query.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
        k : int
            How many documents to return; of fewer, all.
        where : mapping, optional
            A condition on the metadata, see :mod:`muvera.data.filter_language`, answered by the engine.
        candidates : int, optional
            Documents that the engine proposes and exact Chamfer orders.  More find more and take longer.
            Default: 100, or k where that is more.
        rerank : {"auto", "here", "engine"} or None
            Who ranks the candidates: this process, the engine by its half-precision tokens, or nobody, which
            leaves the order and the scores of the vectors.  "auto": the engine where it can, for tokens that
            travel cost most of the time; else this process.
        ef : int, optional
            Candidates that the walk through the engine's graph keeps.  More find more and take longer.
            Default: 128, or `candidates` where that is more.
        threads : int, optional
            For encoding and ranking here.  Default: all usable cores.

        Returns
        -------
        list of Ranking
            One a query.  A query without tokens finds nothing.

        Raises
        ------
        TypeError, ValueError
            For queries that do not fit, or a wrong setting.
        FilterError
            For a condition that cannot be understood, or that this engine cannot answer.
        EngineError
            Where the engine fails, or has no tokens to rank by.
        """
        require_int("k", k, 1)
        count = max(DEFAULT_CANDIDATES, k) if candidates is None else require_int("candidates", candidates, 1)
        if count < k:
            raise ValueError(f"candidates={count} must be at least k={k}.")
        if rerank is not None:
            require_choice("rerank", rerank, ("auto", "here", "engine"))
        there = self._there()
        if rerank == "auto":
            rerank = "engine" if self._engine.reranks and self._tokens == "engine" else "here"
        if rerank == "here" and self._tokens is None:
            raise EngineError(
                f"{self._engine.location} keeps no tokens to rank by. Give tokens=MuveraIndex.load(...), a local "
                "index of the same documents, or rerank=None."
            )
        texts = checked_texts(queries, "queries", there.token_dimension, str(self._engine.location))
        walk = max(128, count) if ef is None else require_int("ef", ef, 1)
        options = SearchOptions(k if rerank is None else count, where, walk)
        none = Ranking(_ids([], _kind(there)), np.empty(0, np.float32))
        rankings = [none] * len(texts)
        filled = np.flatnonzero(texts.lengths > 0)
        for start in range(0, len(filled), _QUERIES):
            block = filled[start : start + _QUERIES]
            for i, ranking in zip(
                block.tolist(), self._ranked(texts[block], k, rerank, options, threads), strict=True
            ):
                rankings[i] = ranking
        return rankings

    def _ranked(
        self, texts: MultiVectors, k: int, how: Rerank | None, options: SearchOptions, threads: int | None
    ) -> list[Ranking]:
        vectors = self.encoder.encode_queries(texts, threads=threads)
        if how == "engine":
            return self._as_rankings(self._engine.search_and_rank(vectors, texts, k, options))
        found = self._engine.search(vectors, options)
        if how is None:
            return self._as_rankings(found)
        ids = [names for names, _ in found]
        if isinstance(self._tokens, MuveraIndex):
            return self._tokens.rerank(texts, ids, k, missing="ignore", threads=threads)
        every = list(dict.fromkeys(name for names in ids for name in names))
        if not every:
            return self._as_rankings(found)
        documents = self._engine.tokens(every)
        here = set(documents.ids.tolist())  # another process may have deleted some meanwhile
        kept = [[name for name in names if name in here] for names in ids]
        return rerank(texts, documents, kept, k, threads=threads)

    def _as_rankings(self, found: Found) -> list[Ranking]:
        # An engine's ids were checked when they went there.
        kind = np.int64 if self._there().integer_ids else np.str_
        return [Ranking(np.array(names, kind), scores) for names, scores in found]

    def explain(self, query: Any, id: Any) -> Explanation:
        """Find which token of the document `id` answers each token of one query.

        Raises
        ------
        KeyError
            For an id that is not there.
        EngineError
            Where there are no tokens.
        """
        if isinstance(self._tokens, MuveraIndex):
            return self._tokens.explain(query, id)
        found = self._engine.tokens([id])
        if len(found) == 0:
            raise KeyError(f"id {id!r} is not in {self._engine.location}.")
        return explain(query, found[0])

    def measure_recall(
        self,
        queries: Any,
        *,
        k: int = DEFAULT_K,
        candidates: int = DEFAULT_CANDIDATES,
        ef: int | None = None,
        threads: int | None = None,
    ) -> FirstStageRecall:
        """Return the share of the exact best documents among the candidates that the engine proposes.

        All tokens are read, from the engine or the local index, so that it takes as long as an exact search.

        Raises
        ------
        EngineError
            Where there are no tokens.
        """
        there = self._there()
        texts = checked_texts(queries, "queries", there.token_dimension, str(self._engine.location))
        texts = texts[np.flatnonzero(texts.lengths > 0)]
        if len(texts) == 0:
            raise ValueError("queries have no tokens at all, so that nothing can be measured. Give others.")
        best: list[list[tuple[float, Any]]] = [[] for _ in range(len(texts))]
        for documents in self._all_tokens():
            for kept, ranking in zip(best, top_k(texts, documents, k, threads=threads), strict=True):
                kept.extend((-score, name) for name, score in ranking)
                kept.sort()
                del kept[k:]
        found = self.search(texts, candidates, candidates=candidates, rerank=None, ef=ef, threads=threads)
        shares = [
            np.mean([name in set(proposed.ids.tolist()) for _, name in exact])
            for exact, proposed in zip(best, found, strict=True)
        ]
        return FirstStageRecall(float(np.mean(shares)), k, candidates, len(texts), False, len(self))

    def _all_tokens(self) -> Iterator[MultiVectors]:
        if isinstance(self._tokens, MuveraIndex):
            ids = self._tokens.ids.tolist()
            for start in range(0, len(ids), 1024):
                part = ids[start : start + 1024]
                yield self._tokens.tokens(part).with_ids(part)
            return
        yield from self._engine.all_tokens()

    # -- looking --------------------------------------------------------------

    def __len__(self) -> int:
        return 0 if self._description is None else len(self._engine)

    @property
    def engine(self) -> Engine:
        """The collection in the engine."""
        return self._engine

    @property
    def encoder(self) -> Encoder:
        """The fitted encoder, read from the engine where it is there.

        Raises
        ------
        EngineError
            Before the first documents.
        ValueError
            Where it is not the one that encoded the documents.
        """
        if self._encoder is None:
            there = self._there()
            place = str(self._engine.location)
            self._encoder = encoder_from_bytes(self._engine.read_encoder(), there.encoder, place)
        return self._encoder

    def metadata(self, ids: Iterable[Any]) -> list[dict[str, Any]]:
        """Return the metadata of documents, in the order of `ids`.

        Raises
        ------
        KeyError
            For an id that is not there.
        """
        names = as_id_list(ids, "ids")
        found = self._engine.metadata(names)
        missing = [name for name in names if name not in found]
        if missing:
            raise KeyError(f"id {missing[0]!r} is not in {self._engine.location}.")
        return [found[name] for name in names]

    def info(self) -> EngineInfo:
        """Return what is there, and how large it is."""
        size = None if self._description is None else self._engine.size_bytes()
        return EngineInfo(self._engine.kind, str(self._engine.location), len(self), self._description, size)

    def _there(self) -> Description:
        if self._description is None:
            raise EngineError(f"There is nothing in {self._engine.location} yet. Add documents first.")
        return self._description


def _parts(documents: MultiVectors, row_bytes: int) -> Iterator[MultiVectors]:
    step = max(1, _BATCH_BYTES // max(1, row_bytes))
    for start in range(0, len(documents), step):
        yield documents[start : start + step]


def _metadata_of(
    values: Iterator[Mapping[str, Any]] | None, texts: MultiVectors, position: int
) -> list[Mapping[str, Any]]:
    if values is None:
        return [{}] * len(texts)
    found = list(islice(values, len(texts)))
    if len(found) < len(texts):
        raise ValueError(
            f"There is metadata for {position + len(found)} documents, and there are at least "
            f"{position + len(texts)}. Give one for each."
        )
    for name, one in zip(texts.ids.tolist(), found, strict=True):
        encode_metadata(one, name)
    return found


def _kind(description: Description) -> Ids:
    return np.empty(0, np.int64 if description.integer_ids else np.str_)


def _ids(names: Sequence[Any], like: Ids) -> Ids:
    """Return ids as an array of the kind of `like`."""
    return as_ids(list(names), len(names)) if len(names) else like[:0]
