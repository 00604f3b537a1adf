"""SearchedEngine: everything that reads a collection in a vector database and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy as np

from ..data.multivectors import MultiVectors, checked_texts
from ..data.ranking import Ranking
from ..data.validation import Ids
from ..encoders.base import Encoder, EncoderConfig
from ..encoders.registry import as_config
from ..index.info import FirstStageRecall
from ..index.muvera_index import MuveraIndex
from ..index.two_stage_search import DEFAULT_CANDIDATES, DEFAULT_K
from ..metadata.filters import Filter
from ..reranking.chamfer import Explanation, explain, rerank, top_k
from ..utils.checks import as_id_list, require_choice, require_int
from .base import Description, Engine, EngineError, Found, GraphSettings, SearchOptions
from .encoder_bytes import encoder_from_bytes, encoder_hash, encoder_to_bytes
from .registry import open_engine
from .reports import EngineInfo

__all__ = ["SearchedEngine", "no_ids"]

Rerank = Literal["auto", "here", "engine"]

# Queries whose candidates' tokens are in memory at once.
_QUERIES = 64


class SearchedEngine:
    """A collection in a vector database, searched by vectors there and ranked by exact Chamfer similarity.

    Parameters and errors are those of :class:`muvera.engines.EngineIndex`.
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
            A condition on the metadata, see :mod:`muvera.metadata.filters`, answered by the engine.
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
        none = Ranking(no_ids(there), np.empty(0, np.float32))
        rankings = [none] * len(texts)
        filled = np.flatnonzero(texts.lengths > 0)
        for start in range(0, len(filled), _QUERIES):
            block = filled[start : start + _QUERIES]
            asked = texts if len(block) == len(texts) else texts[block]
            for i, ranking in zip(
                block.tolist(), self._ranked(asked, k, rerank, options, threads), strict=True
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


def no_ids(description: Description) -> Ids:
    """Return an empty array of the kind of a collection's ids."""
    return np.empty(0, np.int64 if description.integer_ids else np.str_)
