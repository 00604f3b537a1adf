"""SearchableIndex: everything that reads an index and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.multivectors import MultiVectors
from ..data.ranking import Ranking
from ..data.token_input import checked_texts
from ..data.validation import Ids, TokenArray
from ..encoders.base import Encoder, EncoderConfig
from ..reranking.chamfer import Explanation, explain
from ..reranking.codecs.base import CodedVectors
from ..reranking.pruning import RerankOptions
from .contents import IndexContents
from .id_map import Missing
from .info import IndexInfo
from .quality import FirstStageRecall
from .search_plan import DEFAULT_CANDIDATES, DEFAULT_K, Filter, SearchPlan, as_id_list
from .settings import IndexSettings

__all__ = ["Document", "SearchableIndex"]


@dataclass(frozen=True, eq=False)
class Document:
    """A document as an index holds it.

    Parameters
    ----------
    id : int or str
    tokens : float32 or float16 (n_tokens, dimension)
        A view: treat it as immutable.
    """

    id: int | str
    tokens: TokenArray


class SearchableIndex:
    """The reading half of :class:`muvera.MuveraIndex`; several threads may use it at once."""

    def __init__(self, contents: IndexContents) -> None:
        self._contents = contents

    @property
    def config(self) -> EncoderConfig:
        """How vectors are made."""
        return self._contents.config

    @property
    def settings(self) -> IndexSettings:
        """How vectors are searched."""
        return self._contents.settings

    def _checked(self, texts: Any, name: str) -> MultiVectors:
        return checked_texts(texts, name, self.config.dimension, "this index")

    # -- searching ------------------------------------------------------------

    def search(
        self,
        queries: Any,
        k: int | None = None,
        *,
        candidates: int | None = None,
        filter: Filter | None = None,
        patience: int | None = None,
        ef: int | None = None,
        rescore: int | None = None,
        threads: int | None = None,
    ) -> list[Ranking]:
        """Return the `k` best documents for each query.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
        k : int, optional
            How many documents to return; of fewer, all.  Default: 10.
        candidates : int, optional
            Documents that vectors propose and exact Chamfer orders, at least k.  More find more
            and take longer, in proportion.  Default: 100, or k where that is more.
        filter : collection of ids, or callable, optional
            Search only among these ids, or those for which the callable returns true.  An
            empty collection finds nothing; ids that are not in the index are ignored.
        patience : int, optional
            End the reranking once so many candidates in a row, best vector first, brought nothing
            new into the k best.  Smaller: fewer products, fewer of the best.  One query then
            runs on one thread.  It does not apply where all documents are read.
        ef : int, optional
            Candidates that the walk through a graph keeps; default: as the index was built.  More find
            more and take longer.  Searches with different `ef` wait for each other.
        rescore : int, optional
            For an index of codes that keeps exact tokens, too: up to so many best candidates by codes, at
            least k, are ordered by exact tokens.  More find more and read more from the disk.  Default:
            2 k + 10.  Fewer are scored where the next one would need an error of its codes of five standard
            deviations to be one of the k best, by the errors of those before it, of at least 8 and k.
            `patience` does not apply to codes.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of Ranking
            One a query, with at most k documents; ties go to the document that was added first.
            Documents without tokens are never returned, and a query without tokens finds nothing.

        Raises
        ------
        TypeError
            For queries that are no token vectors, or ids of another kind than the index has.
        ValueError
            For queries of another dimension, numbers that are not finite, or a wrong setting.
        """
        if k is None:
            k = max(1, min(DEFAULT_K, len(self)))
        plan = SearchPlan(
            k=k,
            candidates=candidates,
            filter=filter,
            patience=patience,
            ef=ef,
            rescore=rescore,
            threads=threads,
        )
        return self._contents.search(self._checked(queries, "queries"), plan)

    def rerank(
        self,
        queries: Any,
        ids: Sequence[Any],
        k: int | None = None,
        *,
        missing: Missing = "raise",
        threads: int | None = None,
    ) -> list[Ranking]:
        """Order documents that another search proposed by exact Chamfer similarity.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
        ids : sequence of collections of ids
            For each query, the documents to order.
        k : int, optional
            How many to return at most.  Default: all.
        missing : {"raise", "ignore"}
            What to do with ids that are not in the index.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of Ranking
            One a query; ties go to the document that was added first.

        Raises
        ------
        KeyError
            For an id that is not in the index, unless it is to be ignored.
        TypeError, ValueError
            As for :meth:`search`, and where there are not as many collections as queries.
        """
        asked = self._checked(queries, "queries")
        given = as_id_list(ids, "ids")
        if len(given) != len(asked):
            raise ValueError(f"There are {len(given)} collections of ids for {len(asked)} queries.")
        plan = SearchPlan(k=DEFAULT_K if k is None else k, threads=threads)
        contents = self._contents
        rows = [
            np.unique(np.array(contents.rows_of(as_id_list(one, f"ids[{i}]"), missing), np.int64))
            for i, one in enumerate(given)
        ]
        most = max(1, *map(len, rows)) if rows else 1
        how = RerankOptions(most if k is None else min(k, most))
        return contents.rank(asked, rows, how, plan.threads)

    def explain(self, query: Any, id: Any) -> Explanation:
        """Find which token of the document `id` answers each token of one query.

        Raises
        ------
        KeyError
            For an id that is not in the index.
        """
        return explain(query, self.tokens([id])[0])

    # -- looking --------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._contents.ids)

    def __contains__(self, id: object) -> bool:
        return id in self._contents.ids

    def __iter__(self) -> Iterator[int | str]:
        """Yield the ids of all documents, in the order they were added."""
        yield from self.ids.tolist()

    def __repr__(self) -> str:
        return f"MuveraIndex({len(self)} documents, dimension={self.config.dimension}, {self._contents.kind})"

    @property
    def ids(self) -> Ids:
        """Ids of all documents, in the order they were added."""
        contents = self._contents
        with contents.lock.shared():
            return contents.ids.of(contents.ids.live)

    def tokens(self, ids: Iterable[Any]) -> MultiVectors:
        """Return the token vectors of documents, in the order of `ids`, each once.

        Raises
        ------
        KeyError
            For an id that is not in the index.
        """
        contents = self._contents
        return contents.texts(list(dict.fromkeys(contents.rows_of(as_id_list(ids, "ids")))))

    def codes(self, ids: Iterable[Any]) -> CodedVectors:
        """Return the codes of documents' tokens with their codec, in the order of `ids`, each once.

        Raises
        ------
        KeyError
            For an id that is not in the index.
        ValueError
            Where the index keeps no codes.
        """
        contents = self._contents
        return contents.coded(list(dict.fromkeys(contents.rows_of(as_id_list(ids, "ids")))))

    def get(self, ids: Iterable[Any], missing: Missing = "raise") -> list[Document]:
        """Return documents by id, in the order of `ids`.

        Parameters
        ----------
        ids : iterable of int or of str
        missing : {"raise", "ignore"}
            What to do with ids that are not in the index.

        Raises
        ------
        KeyError
            For an id that is not in the index, unless it is to be ignored.
        """
        contents = self._contents
        rows = contents.rows_of(as_id_list(ids, "ids"), missing)
        places = {row: place for place, row in enumerate(dict.fromkeys(rows))}
        texts = contents.texts(list(places))
        names = texts.ids.tolist()
        return [Document(names[places[row]], texts[places[row]]) for row in rows]

    @property
    def encoder(self) -> Encoder | None:
        """The fitted encoder; None while the collection is searched exactly."""
        candidates = self._contents.candidates
        return None if candidates is None else candidates.encoder

    def measure_recall(
        self,
        queries: Any,
        *,
        k: int = 10,
        candidates: int = DEFAULT_CANDIDATES,
        threads: int | None = None,
    ) -> FirstStageRecall | None:
        """Return the share of the exact best documents among the candidates, for real queries.

        All tokens are read for each query, so that it takes as long as an exact search.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
            Those without tokens are left out.
        k : int
            Number of exact best documents to find.
        candidates : int
            Documents that the vectors propose for each query, at least k.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        FirstStageRecall or None
            None while all tokens are read, which finds everything.

        Raises
        ------
        TypeError, ValueError
            For wrong numbers, queries that do not fit, or queries without any token.
        """
        texts = self._checked(queries, "queries")
        texts = texts[np.flatnonzero(texts.lengths > 0)]
        if len(texts) == 0:
            raise ValueError("queries have no tokens at all, so that nothing can be measured. Give others.")
        plan = SearchPlan(k=k, candidates=candidates, threads=threads)
        contents = self._contents
        with contents.lock.shared():
            return contents.measure_first_stage(
                texts, k=plan.k, candidates=plan.num_candidates, threads=plan.threads
            )

    def info(self) -> IndexInfo:
        """Return sizes, settings, the measured recall of the graph, and warnings in words."""
        return self._contents.info()
