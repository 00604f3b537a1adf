"""MuveraIndex: from token vectors to exactly ranked results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from threading import RLock
from typing import Any

from ..data.multivectors import MultiVectors, as_multivectors
from ..data.ranking import Ranking
from ..data.sampling import MAX_FIT_DOCUMENTS, as_batches
from ..data.validation import Ids
from ..encoders.base import Encoder, EncoderConfig
from ..encoders.registry import as_config, require_config
from ..reranking.ball_carving import require_tau
from ..reranking.chamfer import Explanation, explain, require_k, require_query_tokens
from ..reranking.pruning import require_patience
from ..utils.parallel import thread_count
from .candidates import Backend, CandidateSearch
from .contents import Filter, IndexContents, as_list
from .generations import Generation, staging_beside
from .persistence import read_contents, write_contents

__all__ = ["MuveraIndex"]

#: Up to this many tokens an exact search of all of them is as fast as the two stages
#: (`python -m experiments run crossover` measures where), so no FDEs are made.
EXACT_TOKENS = 20_000

_DEFAULT_K = 10


class MuveraIndex:
    """A searchable collection of token sets: FDE candidates, exact Chamfer ranking.

    Small collections are searched exactly, without FDEs; once they outgrow `exact_tokens`,
    FDEs are made of everything, and what is learned from documents (the mean token, the
    maps of a ``compact_dimension`` or of a :class:`LearnedConfig`) is learned then and frozen.
    Maps need 256 documents at least; until there are so many, all tokens are read.  A build
    from an iterator of batches learns from the first 4,096: give it the documents in random
    order, or an encoder that is fitted on a sample of all.

    Searching from several threads at once is safe, also while another one saves or compacts.
    Adding, updating and deleting are not safe while another thread searches; changes among
    themselves wait for each other.

    Parameters
    ----------
    config : FDEConfig or LearnedConfig
        How FDEs are made.
    backend : {"auto", "exact", "hnsw", "int8", "pq"}
        How FDEs are searched, see :class:`muvera.index.candidates.CandidateSearch`.
    hnsw : dict, optional
        Settings of :class:`muvera.mips.HNSWSearch`: m, ef_construction, ef, space, seed.
    pq : dict, optional
        Settings of :class:`muvera.mips.PQSearch`: group, rescore, train, seed.
    exact_tokens : int
        Search exactly up to this many tokens, also within a filter.  0: never.
    encoder : FDEEncoder or LearnedEncoder, optional
        A fitted encoder to use instead of learning from the documents.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(5, 8)) for _ in range(3)], ids=["a", "b", "c"])
    >>> index = MuveraIndex.build(documents)
    >>> index.search([documents[1]], k=1)[0].ids
    array(['b'], dtype='<U1')
    """

    def __init__(
        self,
        config: EncoderConfig,
        *,
        backend: Backend = "auto",
        hnsw: dict[str, Any] | None = None,
        exact_tokens: int = EXACT_TOKENS,
        encoder: Encoder | None = None,
        pq: dict[str, Any] | None = None,
    ) -> None:
        if isinstance(exact_tokens, bool) or not isinstance(exact_tokens, int) or exact_tokens < 0:
            raise ValueError(f"exact_tokens must be an int of at least 0, got {exact_tokens!r}.")
        require_config(config)
        if encoder is not None and encoder.config != config:
            raise ValueError("The encoder's configuration is another than the index's.")
        CandidateSearch.check_settings(backend, hnsw, pq)
        self._contents = IndexContents(
            config, backend=backend, hnsw=dict(hnsw or {}), exact_tokens=exact_tokens, encoder=encoder, pq=pq
        )
        self._changed = RLock()
        self._home: Path | None = None
        self._generation: Generation | None = None

    @property
    def config(self) -> EncoderConfig:
        """How FDEs are made."""
        return self._contents.config

    @property
    def exact_tokens(self) -> int:
        """Up to how many tokens a search reads them all."""
        return self._contents.exact_tokens

    # -- building -------------------------------------------------------------

    @classmethod
    def build(
        cls,
        documents: Any,
        config: EncoderConfig | str | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
        **settings: Any,
    ) -> MuveraIndex:
        """Build an index.

        Parameters
        ----------
        documents : MultiVectors, a list of arrays, or an iterable of MultiVectors
            An iterable is read once, a batch at a time.
        config : FDEConfig, LearnedConfig or str, optional
            A configuration, or a preset's name, such as "learned" (:data:`muvera.encoders.registry.PRESETS`).
            Default: "default", the default ``FDEConfig``.
        path : path, optional
            Save there too.  Token vectors then go to the disk as they come, so that memory
            holds a batch, the FDEs and their graph.
        threads : int, optional
            Default: all usable cores.  Only the HNSW graph depends on it.
        progress : callable, optional
            Called with the number of documents after each batch.
        **settings
            As for the class.

        Returns
        -------
        MuveraIndex
        """
        with ExitStack() as stack:
            staging = None
            if path is not None:
                target = _absolute(path)
                _require_free(target)
                staging = stack.enter_context(staging_beside(target))
            batches = as_batches(documents)
            first = next(batches, None)
            if first is None:
                raise ValueError("There are no documents to build an index of. Give at least one batch.")
            index = cls(as_config(config, first.dimension), **settings)
            index._contents.store.staging = staging
            least, index._contents.min_fit_documents = index._contents.min_fit_documents, MAX_FIT_DOCUMENTS
            for batch in chain([first], batches):
                index._add(batch, threads)
                if progress is not None:
                    progress(len(batch))
            index._contents.min_fit_documents = least
            index._contents.encode_if_large_enough(threads)
            index._contents.measure(threads)
            if path is not None:
                index._contents.store.flush()
                index.save(path)
                index._contents.store.staging = None
        return index

    def add(self, documents: Any, *, threads: int | None = None) -> None:
        """Add documents under new ids.

        Parameters
        ----------
        documents : MultiVectors or a list of arrays
            Without ids of their own they get the next integers.
        threads : int, optional

        Raises
        ------
        ValueError
            For an id that is in use (see :meth:`update`), another dimension, or a number
            that is not finite; nothing is added then.
        """
        with self._changed:
            self._add(documents, threads)
            self._contents.measure(threads)

    def _add(self, documents: Any, threads: int | None) -> None:
        documents = self._checked(documents)
        self._contents.append(self._contents.names.new_ids(documents), documents, threads)

    def update(self, documents: MultiVectors, *, threads: int | None = None) -> None:
        """Add documents, replacing those whose id is in use.

        Parameters
        ----------
        documents : MultiVectors
            With ids.
        """
        documents = self._checked(documents)
        if not documents.has_ids:
            raise ValueError("update needs documents with ids, which say what they replace. Use add.")
        with self._changed:
            self._contents.names.require_kind(documents.ids)
            self._contents.append(documents.ids, documents, threads)
            self._contents.measure(threads)

    def delete(self, ids: Iterable[Any]) -> None:
        """Delete documents by id.

        Raises
        ------
        KeyError
            For an id that is not in the index; nothing is deleted then.
        """
        with self._changed:
            self._contents.remove(self._contents.names.rows(as_list(ids, "ids")))

    def compact(self, *, threads: int | None = None) -> None:
        """Drop the memory of deleted documents: rows are numbered anew and FDEs made again.

        Maps that were learned from few documents, as :meth:`info` warns, and product codes are
        learned again, so that candidates may differ from before.

        All tokens are in memory until the next :meth:`save`, beside the old ones while it runs.
        """
        with self._changed:
            self._contents = self._contents.compacted(threads)

    def _checked(self, documents: Any) -> MultiVectors:
        checked = as_multivectors(documents, "documents")
        checked.require_dimension(self.config.dimension, "documents", "this index")
        checked.require_finite("documents")
        return checked

    # -- searching ------------------------------------------------------------

    def search(
        self,
        queries: Any,
        k: int | None = None,
        *,
        candidates: int = 100,
        filter: Filter | None = None,
        mean: bool = False,
        ball_carving_tau: float | None = None,
        patience: int | None = None,
        threads: int | None = None,
    ) -> list[Ranking]:
        """Return the `k` best documents for each query.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
        k : int, optional
            At most the number of documents that have tokens.  Default: 10, or all where there are
            fewer.
        candidates : int
            Documents that FDEs propose and exact Chamfer orders, at least k.  More find more
            and take longer, in proportion.
        filter : collection of ids, or callable, optional
            Search only among these ids, or those for which the callable returns true.  An
            empty collection finds nothing; ids that are not in the index are ignored.
        mean : bool
            Scores divided by the number of query tokens; the order is the same.
        ball_carving_tau : float, optional
            Choose the k best candidates by the carved query, whose tokens with a cosine of at
            least this are summed (:func:`muvera.carve_queries`; the paper takes 0.7).  Lower:
            fewer products, fewer of the best.  Scores stay those of the whole query.
        patience : int, optional
            End the reranking once so many candidates in a row, best FDE first, brought nothing
            new into the k best.  Smaller: fewer products, fewer of the best.  One query then
            runs on one thread.  Where all documents are read, neither this nor `ball_carving_tau` applies.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of Ranking
            One a query, with at most k documents (fewer only where `filter` allows fewer);
            ties go to the document that was added first.  Documents without tokens are never
            returned.
        """
        queries = as_multivectors(queries, "queries")
        queries.require_dimension(self.config.dimension, "queries", "this index")
        queries.require_finite("queries")
        require_query_tokens(queries)
        thread_count(threads)  # refuse a wrong number also where one thread is enough
        held = self._contents
        rows, tokens = held.searchable
        if k is None:
            k = min(_DEFAULT_K, len(rows))
        else:
            require_k(k, len(rows), "documents with tokens in the index")
        require_k(candidates, None, "", "candidates")
        if candidates < k:
            raise ValueError(f"candidates={candidates} must be at least k={k}.")
        if ball_carving_tau is not None:
            require_tau(ball_carving_tau, "ball_carving_tau")
        require_patience(patience)
        if filter is not None:
            rows = held.filtered(filter)
            tokens = int(held.lengths.values[rows].sum())
        if held.candidates is None or len(rows) <= candidates or tokens <= held.exact_tokens:
            return held.rank(queries, [rows], k, mean, threads)
        found = held.candidates.find(queries, candidates, None if filter is None else rows, threads)
        return held.rank(
            queries, found, k, mean, threads, ball_carving_tau=ball_carving_tau, patience=patience
        )

    def explain(self, query: Any, id: Any) -> Explanation:
        """Tell which token of the document `id` answers each token of one query."""
        held = self._contents
        return explain(query, held.store.rows(held.names.rows([id]))[0])

    # -- looking --------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._contents.names)

    def __contains__(self, id: object) -> bool:
        return id in self._contents.names

    def __repr__(self) -> str:
        return f"MuveraIndex({len(self)} documents, dimension={self.config.dimension}, {self._contents.kind})"

    @property
    def ids(self) -> Ids:
        """Ids of all documents, in the order they were added."""
        return self._contents.names.of(self._contents.names.live)

    @property
    def encoder(self) -> Encoder | None:
        """The fitted encoder; None while the collection is searched exactly."""
        return None if self._contents.candidates is None else self._contents.candidates.encoder

    def info(self) -> dict[str, Any]:
        """Return sizes, settings, the measured recall of the graph, and warnings in words."""
        return self._contents.facts()

    # -- keeping --------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to a folder, or its changes to the folder it came from.

        The folder always holds a whole index, the old or the new one, whatever interrupts
        the writing; token vectors that are in it already are not written again.

        Raises
        ------
        IndexFolderError
            Where another process is writing the folder or has changed it since it was loaded.
        FileExistsError
            Where the folder holds something else.
        """
        target = _absolute(path)
        with self._changed:
            known = self._generation if target == self._home else None
            self._generation = write_contents(self._contents, target, known)
            self._home = target

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify_files: bool | None = None) -> MuveraIndex:
        """Load an index; token vectors stay on the disk and are mapped.

        Parameters
        ----------
        path : path
            A folder that :meth:`save` wrote.
        verify_files : bool, optional
            True: compare the checksum of every file.  False: sizes alone.  Default: checksums
            of files up to 256 MiB, sizes of larger ones.

        Raises
        ------
        FileNotFoundError, IndexFolderError
            Where the folder holds no index, or one that is damaged or of another version.
        """
        folder = _absolute(path)
        held, generation = read_contents(folder, verify_files)
        loaded = cls(held.config, backend=held.backend, hnsw=held.hnsw, exact_tokens=held.exact_tokens)
        loaded._contents, loaded._home, loaded._generation = held, folder, generation
        return loaded


def _absolute(path: str | os.PathLike[str]) -> Path:
    # Resolved, for a folder is known to be the same by its name.
    return Path(path).resolve()


def _require_free(target: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(
            f"{target} exists and is not empty. Give another name, or load the index there and change it."
        )
