"""MuveraIndex: index token vectors, and search them with exact ranking."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np

from ..data.batches import CodedSource, DocumentsLike, as_batches, coded_source
from ..data.multivectors import MultiVectors, MultiVectorsLike, as_multivectors, checked_texts
from ..data.ranking import Ranking
from ..data.validation import AnyArray, Ids, IdsLike
from ..fde.config import DEFAULT_PRESET, FDEConfig
from ..fde.encoder import FDEEncoder
from ..fde.files import as_encoder
from ..mips.base import OutdatedError
from ..reranking.chamfer import Explanation, explain
from ..reranking.codecs import ResidualCodec, TokenCodec
from ..reranking.coded_vectors import CodedVectors
from ..utils.checks import as_id_list, as_path, counted, require_int
from ..utils.hints import Argument, Hint, Message
from ..utils.locks import renew_after_fork
from ..utils.parallel import thread_count
from .calibration import TARGETS
from .change import Change
from .contents import IndexContents, default_preset
from .generations import Destination, Generation, journal_bytes, staging_beside
from .id_map import Missing
from .measuring import recall_of_queries
from .persistence import read_current, read_generation
from .searching import DEFAULT_K, Group, Proposal, SearchPlan, propose, rank, rank_documents, search
from .settings import DEFAULT_CANDIDATES, FirstStageRecall, IndexInfo, IndexSettings
from .token_store import PLAID_BATCH_TOKENS, Rows, plaid_codes

if TYPE_CHECKING:
    from ..convert.sources import Source

_Read = TypeVar("_Read")


class MuveraIndex:
    """A searchable collection of token sets.

    Vectors propose candidates, and exact Chamfer similarity ranks them.  Small
    collections are searched exactly, without vectors.  When a collection outgrows
    `exact_tokens`, the encoder is fitted on its documents, and all documents are
    encoded; the encoder does not change until :meth:`rebuild`.  The default encoder
    depends on the number of documents: :meth:`muvera.FDEConfig.sized`.  "fde" and
    "moments" need at least 256 documents; with fewer, all tokens are read.

    Several threads may search at the same time, also while another thread changes or
    saves the index.  A search sees a change completely or not at all.  Changes run one
    after another; :meth:`change` makes several steps one change.

    Parameters
    ----------
    encoder : str, configuration or fitted encoder, optional
        A preset's name (:meth:`muvera.FDEConfig.preset`), an FDEConfig, or an encoder
        that was fitted on other documents.  Default: "fde"; :meth:`build` chooses
        "mean", which is exact, if each of at least 256 documents has one token.
    dimension : int, optional
        Columns of a token vector.  Not needed with a configuration or an encoder.
    settings : IndexSettings, optional
        How tokens are stored and vectors are searched.
    **changes
        Single fields of :class:`muvera.IndexSettings`, such as ``backend="hnsw"`` or
        ``tokens="2bit"``.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> arrays = [rng.normal(size=(5, 8)) for _ in range(3)]
    >>> documents = MultiVectors.from_arrays(arrays, ids=["a", "b", "c"])
    >>> index = MuveraIndex.build(documents)
    >>> index.search([documents[1]], k=1)[0].ids
    array(['b'], dtype='<U1')
    """

    def __init__(
        self,
        encoder: str | FDEConfig | FDEEncoder | None = None,
        *,
        dimension: int | None = None,
        settings: IndexSettings | None = None,
        **changes: Any,
    ) -> None:
        if dimension is not None:
            columns = require_int("dimension", dimension, 1)
        elif isinstance(encoder, FDEEncoder):
            columns = encoder.config.dimension
        elif isinstance(encoder, FDEConfig):
            columns = encoder.dimension
        elif encoder is None or isinstance(encoder, str):
            raise TypeError(
                f"The preset {encoder or DEFAULT_PRESET!r} needs the number of columns of a token "
                "vector. Give dimension=, such as 128."
            )
        config, fitted = as_encoder(encoder, columns)
        self._hold(IndexContents.empty(config, IndexSettings.of(settings, **changes), fitted))

    @classmethod
    def of(cls, contents: IndexContents) -> MuveraIndex:
        """Return an index of these contents, for the packages above this one.

        Parameters
        ----------
        contents : IndexContents
            What the index contains until its first change.

        Returns
        -------
        MuveraIndex
        """
        index = cls.__new__(cls)
        index._hold(contents)
        return index

    def _hold(self, contents: IndexContents) -> None:
        self._contents = contents
        # Generations that interrupted saves may have made current, by folder.
        self._attempted: dict[Path, set[Generation]] = {}
        self._renew_locks()
        renew_after_fork(self._renew_locks)

    def _renew_locks(self) -> None:
        # Held during a change.  Any thread can release a plain lock, even a thread that
        # closes a generator whose block began in another one.
        self._changing = Lock()
        self._changing_thread: int | None = None

    # -- building -------------------------------------------------------------

    @classmethod
    def build(
        cls,
        documents: DocumentsLike | CodedSource,
        encoder: str | FDEConfig | FDEEncoder | None = None,
        *,
        ids: IdsLike | None = None,
        settings: IndexSettings | None = None,
        path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
        **changes: Any,
    ) -> MuveraIndex:
        """Build an index.

        Parameters
        ----------
        documents : MultiVectors, list of arrays or tensors, or iterable of MultiVectors
            An iterable is read once, one batch at a time.  "fde" and "moments" are
            fitted once its batches have 4,096 documents, or at its end; "mean" and
            "simhash", once the collection needs vectors.  Yield documents in random
            order, or pass a fitted encoder.
        encoder : str, configuration or fitted encoder, optional
            As for the class.
        ids : sequence of int or of str, optional
            Not with an iterable of batches.  Default: the documents' own ids, or their
            positions.
        settings : IndexSettings, optional
            As for the class.
        path : path, optional
            Also save the index there.  Memory then holds only one batch of token
            vectors.
        overwrite : bool
            Replace the index in `path` when the new one is complete.
        threads : int, optional
            Default: all usable cores.  Only the HNSW graph depends on it.
        progress : callable, optional
            Called with the number of documents in each batch, after it.
        **changes
            As for the class.

        Returns
        -------
        MuveraIndex

        Raises
        ------
        TypeError, ValueError
            For wrong documents or settings, or no documents.
        FileExistsError
            If `path` exists and `overwrite` is False, or it is not an index.
        """
        chosen = IndexSettings.of(settings, **changes)
        batches: Iterator[tuple[MultiVectors, CodedVectors | None]]
        codec: ResidualCodec | None = None
        if isinstance(documents, CodedSource):
            codec = ResidualCodec.of_plaid(documents.centroids, documents.bucket_weights)
            batches = plaid_codes(documents, codec)
            for name, value in (("tokens", chosen.tokens), ("ids", ids)):
                if value is not None:
                    raise ValueError(
                        Message(
                            Hint("from_plaid", "from_plaid"),
                            " keeps the codes and ids of the PLAID index, got ",
                            Argument(name, f"{value!r:.80}"),
                            ". ",
                            Hint("build_from_tokens", "Omit it, or use MuveraIndex.build."),
                        )
                    )
        else:
            named = documents if ids is None else as_multivectors(documents).with_ids(ids)
            batches = ((batch, None) for batch in as_batches(named))
        destination = None if path is None else Destination(as_path(path).resolve(), overwrite)
        return cls.from_batches(
            batches, encoder, chosen, destination, codec=codec, threads=threads, progress=progress
        )

    @classmethod
    def from_batches(
        cls,
        batches: Iterable[tuple[MultiVectors | CodedVectors, CodedVectors | None]],
        encoder: str | FDEConfig | FDEEncoder | None,
        settings: IndexSettings,
        destination: Destination | None,
        *,
        codec: TokenCodec | None = None,
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
        before_save: Callable[[Change], object] | None = None,
        expected: int | None = None,
        fitted_on_these: bool = False,
    ) -> MuveraIndex:
        """Build an index from checked arguments; for :meth:`build` and a text index.

        Parameters
        ----------
        batches : iterable of tuple
            Documents, and their codes if they are known.  If tokens are rows of a
            table, documents are codes.
        encoder : str, configuration or fitted encoder, optional
            As for the class.
        settings : IndexSettings
            As for the class.
        destination : Destination, optional
            The folder to save the index to.  Memory then holds only one batch of token
            vectors.
        codec : TokenCodec, optional
            Makes the codes.
        threads : int, optional
            As for :meth:`build`.
        progress : callable, optional
            As for :meth:`build`.
        before_save : callable, optional
            Called with the change once all documents are in it.
        expected : int, optional
            Number of documents in all batches, if it is known.
        fitted_on_these : bool
            Whether a fitted `encoder` was fitted on a sample of these documents.

        Returns
        -------
        MuveraIndex

        Raises
        ------
        TypeError, ValueError, FileExistsError
            As for :meth:`build`.
        """
        thread_count(threads)
        each = iter(batches)
        place = (
            nullcontext() if destination is None else staging_beside(destination.path, destination.overwrite)
        )
        with place as staging:
            first = next(each, None)
            if first is None:
                raise ValueError("There are no documents to build an index of. Give at least one batch.")
            documents = first[0]
            chosen = (
                default_preset(documents)
                if encoder is None and isinstance(documents, MultiVectors)
                else encoder
            )
            config, fitted = as_encoder(chosen, documents.dimension if codec is None else codec.dimension)
            index = cls.of(IndexContents.empty(config, settings, fitted, codec))
            with index.change() as change:
                change.staging = staging
                change.build(chain([first], each), threads, progress, expected, fitted_on_these)
                if before_save is not None:
                    before_save(change)
                if destination is not None:
                    change.save(destination)
        return index

    @classmethod
    def from_plaid(
        cls,
        source: str | os.PathLike[str] | Source,
        encoder: str | FDEConfig | FDEEncoder | None = None,
        **options: Any,
    ) -> MuveraIndex:
        """Build an index that keeps the token codes of a PLAID index, bit for bit.

        Parameters
        ----------
        source : path, or a source of :func:`muvera.convert.open_source`
            The PLAID index.
        encoder : str, configuration or fitted encoder, optional
            As for the class.
        **options
            The keyword arguments of :meth:`build`, except ``ids=``, ``tokens=`` and
            ``keep_exact=``.

        Returns
        -------
        MuveraIndex

        Raises
        ------
        TypeError
            If `source` has no PLAID codes.
        ValueError
            For an argument that contradicts the codes.
        """
        from ..convert import Source, open_source

        opened = open_source(source) if isinstance(source, (str, os.PathLike)) else source
        coded = coded_source(opened)
        if coded is None:
            got = f"the format {opened.name}" if isinstance(opened, Source) else type(opened).__name__
            raise TypeError(
                Message(
                    Hint("from_plaid", "from_plaid"),
                    f" needs a PLAID index, got {got}. ",
                    Hint("build_from_tokens", "Use MuveraIndex.build."),
                )
            )
        return cls.build(coded, encoder, **options)

    @classmethod
    def from_pylate(
        cls,
        path: str | os.PathLike[str],
        encoder: str | FDEConfig | FDEEncoder | None = None,
        **options: Any,
    ) -> MuveraIndex:
        """Build an index from PyLate's folder, with PyLate's ids.

        Parameters
        ----------
        path : path
            PyLate's ``index_folder/index_name``.
        encoder : str, configuration or fitted encoder, optional
            As for the class.
        **options
            The keyword arguments of :meth:`build`.  Without ``tokens=``, codes of a
            PLAID index are kept bit for bit.

        Returns
        -------
        MuveraIndex
        """
        from ..convert import open_source

        source = open_source(path, "pylate")
        if coded_source(source) is not None and options.get("tokens") is None:
            return cls.from_plaid(source, encoder, **options)
        return cls.build(source.batches(PLAID_BATCH_TOKENS), encoder, **options)

    # -- changing -------------------------------------------------------------

    @contextmanager
    def change(self) -> Iterator[Change]:
        """Begin a change of several steps, which become visible together.

        They become visible at the end of the block.  An exception in the block abandons
        the change.  Other changes wait.  Searches continue, but an HNSW graph pauses
        them while it adds a block.  :meth:`add` is a change of one step.  Inside the
        block, call ``change.add`` instead.

        Yields
        ------
        Change
            With the methods `add`, `update`, `delete`, `rebuild` and `calibrate` of an
            index.

        Raises
        ------
        RuntimeError
            If this thread is inside the block of another change, because it would wait
            for itself.  So inside the block, methods such as :meth:`add` raise it, too.

        Examples
        --------
        >>> index = MuveraIndex.build([[[1.0, 0.0]], [[0.0, 1.0]]], ids=["a", "b"])
        >>> with index.change() as change:
        ...     change.delete(["a"])
        ...     ids = change.add([[[0.5, 0.5]]], ids=["c"])
        >>> index.ids.tolist()
        ['b', 'c']
        """
        if self._changing.locked() and self._changing_thread == get_ident():
            raise RuntimeError(
                "This thread is inside a change of this index already. In the block, call the methods of the "
                "change, not those of the index; end it before another change begins."
            )
        with self._changing:
            change = Change(self._contents, self._publish, self._attempted)
            try:
                self._changing_thread = get_ident()
                yield change
                change.warn(5)  # names the line that called add or update
                change.commit()
            finally:
                self._changing_thread = None
                change.end()

    def _publish(self, before: IndexContents, contents: IndexContents) -> None:
        """Publish a change.  Safe to call again after an interrupt."""
        if self._contents is contents:
            return
        if self._contents is not before:  # a text index publishes after an interrupted block
            raise RuntimeError(
                "The index was changed after an interrupted change and before it was completed. Load the "
                "index again."
            )
        self._contents = contents  # the change happens here; all else can be interrupted
        if contents.candidates is not None:
            contents.candidates.search.settle()

    def _on_current(self, read: Callable[[IndexContents], _Read]) -> tuple[IndexContents, _Read]:
        """Return the current contents, and what `read` returns for them.

        If another thread replaces the contents of a graph meanwhile, read again.
        """
        while True:
            contents = self._contents
            try:
                return contents, read(contents)
            except OutdatedError:
                if self._contents is contents:
                    raise

    def add(
        self, documents: MultiVectorsLike, *, ids: IdsLike | None = None, threads: int | None = None
    ) -> None:
        """Add documents under new ids: all of them, or none after an exception.

        Parameters
        ----------
        documents : MultiVectors or a list of arrays or tensors
            Such as the result of a model's ``encode``.
        ids : sequence of int or of str, optional
            Default: the documents' own ids, or the next integers.
        threads : int, optional
            Default: all usable cores.  Only the HNSW graph depends on it.

        Raises
        ------
        TypeError, ValueError
            For an id that is in use, another dimension, or a number that is not finite.
        """
        with self.change() as change:
            change.add(documents, ids=ids, threads=threads)

    def update(
        self, documents: MultiVectorsLike, *, ids: IdsLike | None = None, threads: int | None = None
    ) -> None:
        """Add documents and replace those whose id is in use.

        Parameters
        ----------
        documents : MultiVectors or a list of arrays or tensors
            As for :meth:`add`.
        ids : sequence of int or of str, optional
            Needed if the documents have no ids of their own.
        threads : int, optional
            As for :meth:`add`.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`add`, or for documents without ids.
        """
        with self.change() as change:
            change.update(documents, ids=ids, threads=threads)

    def delete(self, ids: Iterable[Any], missing: Missing = "raise") -> None:
        """Delete documents by id.

        They take memory until :meth:`rebuild`.

        Parameters
        ----------
        ids : collection of int or of str
            The documents to delete.
        missing : {"raise", "ignore"}
            What to do about an unknown id: raise KeyError and delete nothing, or ignore
            it.

        Raises
        ------
        KeyError
            For an unknown id.
        TypeError
            For an id of another type.
        """
        with self.change() as change:
            change.delete(ids, missing)

    def rebuild(
        self,
        *,
        fit: bool = False,
        path: str | os.PathLike[str] | None = None,
        threads: int | None = None,
    ) -> None:
        """Free the memory of deleted documents.

        The rows are renumbered, and all documents are encoded again.  The encoder is
        fitted again if :meth:`info` warns about its fit, or if the collection needs a
        larger one (:meth:`muvera.FDEConfig.sized`).  Candidates may then change.

        Parameters
        ----------
        fit : bool
            Fit the encoder again in any case, also one that was fitted elsewhere.  This
            takes as long as building the index.
        path : path, optional
            Also save the index there, in its own folder or a new one; if that fails,
            the index stays unchanged.  Memory then holds only one batch of token
            vectors.  Otherwise it holds all until the next :meth:`save`.
        threads : int, optional
            As for :meth:`add`.

        Raises
        ------
        IndexFolderError, FileExistsError
            As for :meth:`save`, with `path`.
        """
        thread_count(threads)
        if path is None:
            with self.change() as change:
                change.rebuild(threads, fit=fit)
            return
        target = as_path(path).resolve()
        with staging_beside(target, overwrite=True) as staging, self.change() as change:
            change.staging = staging
            change.rebuild(threads, fit=fit)
            change.save(Destination(target))

    # -- searching ------------------------------------------------------------

    def _checked(self, queries: MultiVectorsLike) -> MultiVectors:
        return checked_texts(queries, "queries", self.config.dimension, "this index")

    def search(
        self,
        queries: MultiVectorsLike,
        k: int = DEFAULT_K,
        *,
        ids: Iterable[Any] | None = None,
        candidates: int | None = None,
        recall: float | None = None,
        ef: int | None = None,
        rescore: int | None = None,
        group: Group = "document",
        threads: int | None = None,
    ) -> list[Ranking]:
        """Return the `k` best documents for each query.

        A document with several parts has the score of its best part.

        If tokens are floats, more than 2 k + 10 candidates are scored by rounded tokens
        first, except up to 4,096 candidates of a query of at most 16 tokens.
        Candidates that would need a five-sigma rounding error to enter the k best are
        not scored exactly.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
            Each array is one query.
        k : int
            Number of documents to return; all, if there are fewer.
        ids : collection of ids, optional
            Search only among these documents, possibly none.  Ids that are not in the
            index are ignored.
        candidates : int, optional
            Documents that the vectors propose and exact Chamfer similarity ranks, at
            least k.  More raise recall and take longer, in proportion.  Default: 100,
            or k if that is more, or as many as contain 95% of the k best according to
            the calibration.  Parts count one by one: with this argument, candidates can
            belong to fewer than k documents.
        recall : float, optional
            Instead of `candidates`: the mean share of the exact best to find, such as
            0.95.  Each query ranks as many candidates as it needs.  Building calibrates
            this with windows of documents; see :meth:`calibrate`.
        ef : int, optional
            Candidates that the graph search keeps.  More raise recall and take longer.
            Default: the index's setting.
        rescore : int, optional
            Number of candidates that the exact tokens (for codes with
            ``keep_exact=True``) or all tokens (with ``pool``) rank, at least k.  More
            raise recall and read more from disk.  Default: 2 k + 10.  Exact tokens rank
            fewer if the next candidate would need a five-sigma coding error to enter
            the k best.
        group : {"document", "part"}
            "part": return the k best parts instead.  The ids of a ranking can then
            repeat, and ``Ranking.parts`` tells the parts.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of Ranking
            One per query, with at most k documents.  Scores are sums over query tokens;
            higher is better.  Ties go to the document that was added first.  Documents
            without tokens are never returned; the ranking of a query without tokens is
            empty.

        Raises
        ------
        TypeError, ValueError
            For queries of another dimension, numbers that are not finite, or a wrong
            setting.
        """
        selected = None if ids is None else as_id_list(ids)
        plan = SearchPlan(k, selected, candidates, recall, ef, rescore, threads, group)
        checked = self._checked(queries)
        return self._on_current(partial(search, queries=checked, plan=plan))[1]

    async def asearch(self, queries: MultiVectorsLike, k: int = DEFAULT_K, **options: Any) -> list[Ranking]:
        """Call :meth:`search` in a thread, so that the event loop keeps running.

        A cancelled call does not stop its thread, but its rankings are dropped.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
            Each array is one query.
        k : int
            Number of documents to return.
        **options
            Other arguments of :meth:`search`.  With many searches at a time,
            ``threads=1`` gives each of them one core.

        Returns
        -------
        list of Ranking
            As for :meth:`search`.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`search`.
        """
        import asyncio  # whoever awaits this has imported it

        return await asyncio.to_thread(self.search, queries, k, **options)

    def propose(self, queries: MultiVectors, plan: SearchPlan) -> tuple[IndexContents, Proposal]:
        """Find candidates without ranking them; for a :class:`muvera.TextIndex`.

        Parameters
        ----------
        queries : MultiVectors
            With the dimension of the index.
        plan : SearchPlan
            The arguments of a search.

        Returns
        -------
        tuple of IndexContents and Proposal
            The contents that were searched, and the rows to rank for each query.
        """
        return self._on_current(lambda contents: propose(contents, queries, plan))

    def rerank(
        self,
        queries: MultiVectorsLike,
        ids: Iterable[Iterable[Any]],
        k: int | None = None,
        *,
        missing: Missing = "raise",
        threads: int | None = None,
    ) -> list[Ranking]:
        """Rank the results of another search by exact Chamfer similarity.

        Parameters
        ----------
        queries : MultiVectors or list of arrays
            As for :meth:`search`.
        ids : sequence of collections of ids
            The documents to rank, one collection per query.
        k : int, optional
            Maximum number of documents to return.  Default: all.
        missing : {"raise", "ignore"}
            Raise KeyError for an id that is not in the index, or ignore it.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        list of Ranking
            One per query.  Scores are as for :meth:`search`.

        Raises
        ------
        KeyError
            For an unknown id.
        TypeError, ValueError
            As for :meth:`search`, or if there is not one collection of ids per query.
        """
        checked = self._checked(queries)
        proposals = as_id_list(ids)
        if len(proposals) != len(checked):
            raise ValueError(
                f"ids must be one collection of ids per query, got {len(proposals)} for {len(checked)}."
            )
        contents = self._contents
        rows = [
            np.sort(contents.ids.rows(as_id_list(ids_of_query, f"ids[{i}]"), missing))
            for i, ids_of_query in enumerate(proposals)
        ]
        longest = max(map(len, rows), default=1) or 1
        count = longest if k is None else min(require_int("k", k, 1), longest)
        thread_count(threads)
        if not contents.ids.has_parts:
            return rank(contents, checked, Proposal(rows, count), threads)

        def wider(left: Rows, k: int) -> Proposal:
            return Proposal([rows[q] for q in left.tolist()], min(k, longest))

        return rank_documents(contents, checked, wider, count, threads)

    def explain(self, query: AnyArray, id: int | str) -> Explanation:
        """Find the best matching token of a document for each token of one query.

        Parameters
        ----------
        query : array (tokens, dimension)
            At least one token.
        id : int or str
            The document.

        Returns
        -------
        Explanation
            For each query token, the position of its best document token, and their
            inner product.  For a document with several parts: of its best part.

        Raises
        ------
        KeyError
            For an unknown id.
        TypeError, ValueError
            For another dimension, or a query or a document without tokens.
        """
        parts = self.tokens([id])
        filled = np.flatnonzero(parts.lengths).tolist() or [0]
        found = [replace(explain(query, parts[part]), part=part) for part in filled]
        return max(found, key=lambda explanation: explanation.score)

    def measure_recall(
        self,
        queries: MultiVectorsLike,
        *,
        k: int = DEFAULT_K,
        candidates: int | None = DEFAULT_CANDIDATES,
        threads: int | None = None,
    ) -> FirstStageRecall | None:
        """Return the share of the exact best documents among the candidates.

        Parameters
        ----------
        queries : MultiVectors or list of arrays
            As for :meth:`search`; queries without tokens do not count.
        k : int
            Number of exact best documents to look for.
        candidates : int, optional
            Number of candidates.  Default: 100, or k if that is more.
        threads : int, optional
            Default: all usable cores.

        Returns
        -------
        FirstStageRecall or None
            None if the index has no vectors, because it reads all tokens.

        Raises
        ------
        TypeError, ValueError
            For queries without any tokens, or as for :meth:`search`.
        """
        checked = self._checked(queries)
        filled = checked[np.flatnonzero(checked.lengths > 0)]
        if len(filled) == 0:
            raise ValueError("queries have no tokens, so nothing can be measured. Give other queries.")
        count = SearchPlan(k=k, candidates=candidates, threads=threads).num_candidates
        measure = partial(recall_of_queries, queries=filled, k=k, count=count, threads=threads)
        return self._on_current(measure)[1]

    def calibrate(self, queries: MultiVectorsLike, *, threads: int | None = None) -> None:
        """Calibrate ``search(recall=)`` with real queries instead of windows.

        :meth:`save` stores the calibration.  A new fit of the encoder, or doubling the
        number of documents, replaces it with a calibration by windows.  Call this
        method again then.  Without vectors (a small index), nothing changes.

        Parameters
        ----------
        queries : MultiVectors or list of arrays
            As for :meth:`search`: at least 64 with tokens.
        threads : int, optional
            Default: all usable cores.

        Raises
        ------
        TypeError, ValueError
            For fewer queries, or as for :meth:`search`.
        """
        with self.change() as change:
            change.calibrate(queries, threads)

    @property
    def candidates_by_recall(self) -> dict[float, int]:
        """The calibrated number of candidates for each mean recall.

        Empty without a calibration.
        """
        candidates = self._contents.candidates
        numbers = dict[float, int]()
        for calibration in () if candidates is None else candidates.calibrations:
            for target in TARGETS:
                numbers[target] = max(calibration.number(target), numbers.get(target, 0))
        return numbers

    # -- reading --------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._contents.ids)

    def __contains__(self, id: object) -> bool:
        return id in self._contents.ids

    def __iter__(self) -> Iterator[int | str]:
        """Yield the ids of all documents, in the order they were added."""
        yield from self.ids.tolist()

    def __repr__(self) -> str:
        size = counted(len(self), "document")
        return f"MuveraIndex({size}, dimension={self.config.dimension}, {self._contents.kind})"

    def __reduce__(self) -> NoReturn:
        """Raise TypeError, as locks and mapped files cannot be pickled or copied."""
        raise TypeError(
            "A MuveraIndex cannot be pickled or copied, because it has locks and mapped files. Save it to a "
            "folder, and load the folder in the other process or as the copy."
        )

    @property
    def contents(self) -> IndexContents:
        """The current contents; each change replaces this object.

        For the packages above this one; its attributes may change in any version.
        """
        return self._contents

    @property
    def config(self) -> FDEConfig:
        """Configuration of the encoder."""
        return self._contents.config

    @property
    def settings(self) -> IndexSettings:
        """How tokens are stored and vectors are searched."""
        return self._contents.settings

    @property
    def encoder(self) -> FDEEncoder | None:
        """The fitted encoder; None while the index reads all tokens."""
        candidates = self._contents.candidates
        return None if candidates is None else candidates.encoder

    @property
    def codec(self) -> TokenCodec | None:
        """The codec of the token codes.

        None if tokens are stored as floats, or too few to fit one.
        """
        return self._contents.tokens.codec

    @property
    def ids(self) -> Ids:
        """Ids of all documents, in the order they were added."""
        ids = self._contents.ids
        return ids.of(ids.documents)

    def tokens(self, ids: Iterable[Any]) -> MultiVectors:
        """Return the token vectors of documents, with their ids.

        Parameters
        ----------
        ids : collection of int or of str
            The documents to read.

        Returns
        -------
        MultiVectors
            Each document once, in the order of `ids`; decoded if only codes are stored.
            A document with several parts has a row for each, in the order in which they
            were added.

        Raises
        ------
        KeyError
            For an unknown id.
        """
        contents = self._contents
        rows = contents.ids.rows(as_id_list(ids))
        return contents.tokens.rows(rows).with_ids(contents.ids.of(rows))

    def codes(self, ids: Iterable[Any]) -> CodedVectors:
        """Return the token codes of documents.

        Parameters
        ----------
        ids : collection of int or of str
            The documents to read.

        Returns
        -------
        CodedVectors
            Each document once, in the order of `ids`, with a row for each of its parts.

        Raises
        ------
        KeyError
            For an unknown id.
        ValueError
            If the index stores no codes.
        """
        contents = self._contents
        rows = contents.ids.rows(as_id_list(ids))
        codes = contents.tokens.codes
        if codes is None:
            raise ValueError(
                "This index stores no token codes. Build it with tokens='2bit' or another kind of codes."
            )
        return codes.rows(rows) if len(rows) else CodedVectors.of(codes.codec, contents.tokens.rows(rows))

    def info(self) -> IndexInfo:
        """Return sizes, settings, measured recall and warnings.

        Returns
        -------
        IndexInfo
        """
        return self._contents.info()

    # -- saving ---------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the index to a new folder, or its changes to its own folder.

        Its own folder is one that it was loaded from or saved to.  The folder contains
        a complete index at every moment.  Token vectors in it are not written again.

        Parameters
        ----------
        path : path
            The folder to write.
        overwrite : bool
            Replace another index in that folder when this one is complete.  Its own
            folder is not replaced: only the changes are written.

        Raises
        ------
        IndexFolderError, FileExistsError
            If another process is writing the folder, or has changed it since this index
            read or wrote it; if the folder contains anything else.
        """
        with self.change() as change:
            change.save(Destination(as_path(path).resolve(), overwrite))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify_files: bool | None = None) -> MuveraIndex:
        """Load an index from a folder of :meth:`save`.

        Token vectors stay on disk and are memory-mapped.

        Parameters
        ----------
        path : path
            The folder of the index.
        verify_files : bool, optional
            True: compare the checksums of all files.  False: compare sizes only.
            Default: checksums of files up to 256 MiB, sizes of larger ones.

        Returns
        -------
        MuveraIndex

        Raises
        ------
        FileNotFoundError, IndexFolderError
            If the folder contains no index, a damaged one, or one of another format
            version.
        """
        folder = as_path(path).resolve()
        contents = read_current(folder, lambda manifest: read_generation(folder, manifest, verify_files))
        if journal_bytes(folder, contents.generations[folder]):
            warnings.warn(
                f"{folder} has a journal with later changes, which only TextIndex.load and "
                "TextIndex.open read.",
                stacklevel=2,
            )
        return cls.of(contents)
