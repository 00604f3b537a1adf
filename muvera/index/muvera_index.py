"""MuveraIndex: index token vectors, and search them with exact ranking."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from copy import copy
from functools import partial
from itertools import chain
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from ..data.batches import MAX_FIT_DOCUMENTS, CodedSource, as_batches, coded_source
from ..data.multivectors import MultiVectors, as_multivectors, checked_texts
from ..data.ranking import Ranking
from ..data.validation import Ids
from ..fde.config import DEFAULT_PRESET, FDEConfig
from ..fde.encoder import FDEEncoder
from ..fde.files import as_encoder
from ..reranking.chamfer import Explanation, explain
from ..reranking.codecs import ResidualCodec, TokenCodec
from ..reranking.coded_vectors import CodedVectors
from ..utils.checks import as_id_list, as_path, counted, require_int
from ..utils.hints import Argument, Hint, Message
from ..utils.locks import ReadersWriterLock, renew_after_fork
from ..utils.parallel import thread_count
from .generations import journal_bytes, staging_beside
from .id_map import IdMap, Missing
from .persistence import read_current, read_generation, write_contents
from .recall import calibrate, measure, propose, shares_found, with_enough_tokens
from .settings import FirstStageRecall, IndexInfo, IndexSettings
from .token_store import PLAID_BATCH_TOKENS, plaid_codes
from .two_stage_search import DEFAULT_CANDIDATES, DEFAULT_K, IndexContents, Proposal, SearchPlan


class MuveraIndex:
    """A searchable collection of token sets: vectors propose candidates, exact Chamfer similarity ranks them.

    Small collections are searched exactly, without vectors.  When a collection outgrows
    `exact_tokens`, the encoder is fitted on its documents, and all documents are
    encoded; the encoder does not change after that.  Encoders that fit maps need at
    least 256 documents; with fewer, all tokens are read.

    Several threads may search at the same time, also while another thread changes or
    saves the index.  A search sees a change completely or not at all.  Changes run one
    after another.

    Parameters
    ----------
    encoder : str, configuration or fitted encoder, optional
        A preset's name (:meth:`muvera.FDEConfig.preset`), an FDEConfig, or an encoder
        that was fitted on other documents.  Default: "fde".
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
    >>> documents = MultiVectors.from_arrays([rng.normal(size=(5, 8)) for _ in range(3)], ids=["a", "b", "c"])
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
        elif encoder is None or isinstance(encoder, str):
            raise TypeError(
                f"The preset {encoder or DEFAULT_PRESET!r} needs the number of columns of a token vector. Give "
                "dimension=, such as 128."
            )
        else:
            columns = getattr(getattr(encoder, "config", encoder), "dimension", 0)
        config, fitted = as_encoder(encoder, columns)
        chosen = IndexSettings.of(settings, **changes)
        self._contents = IndexContents(config, chosen, encoder=fitted)
        self._renew_locks()
        renew_after_fork(self)
        self._lock = ReadersWriterLock()
        # Writes the texts of a TextIndex to a file.
        self._write_texts: Callable[[IdMap, Path], object] | None = None

    def _renew_locks(self) -> None:
        self._changing = RLock()

    # -- building -------------------------------------------------------------

    @classmethod
    def build(
        cls,
        documents: Any,
        encoder: str | FDEConfig | FDEEncoder | None = None,
        *,
        ids: Any = None,
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
        documents : MultiVectors, a list of arrays or tensors, or an iterable of MultiVectors
            An iterable is read once, one batch at a time; the encoder is fitted on its
            first 4,096 documents.  Yield them in random order, or pass a fitted
            encoder.
        encoder, settings, **changes
            As for the class.
        ids : sequence of int or of str, optional
            Not with an iterable of batches.  Default: the documents' own ids, or their
            positions.
        path : path, optional
            Also save the index there.  Memory then holds only one batch of token
            vectors.
        overwrite : bool
            Replace the index in `path` when the new one is complete.
        threads : int, optional
            Default: all usable cores.  Only the HNSW graph depends on it.
        progress : callable, optional
            Called with the number of documents after each batch.

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
            batches = ((batch, None) for batch in as_batches(_with_ids(documents, ids)))
        thread_count(threads)
        with nullcontext() if path is None else staging_beside(as_path(path).resolve(), overwrite) as staging:
            first = next(batches, None)
            if first is None:
                raise ValueError("There are no documents to build an index of. Give at least one batch.")
            config, fitted = as_encoder(encoder, first[0].dimension)
            contents = IndexContents(config, chosen, encoder=fitted, codec=codec)
            contents.fit_from, contents.store.staging = MAX_FIT_DOCUMENTS, staging
            index = cls._of(contents)
            for batch, codes in chain([first], batches):
                checked = index._checked(batch, "documents")
                contents.append(contents.ids.new_ids(checked), checked, threads, codes)
                if progress is not None:
                    progress(len(batch))
            contents.finish(threads)
            if path is not None:
                index._save(path, overwrite=overwrite)
        return index

    @classmethod
    def from_plaid(
        cls, source: Any, encoder: str | FDEConfig | FDEEncoder | None = None, **options: Any
    ) -> MuveraIndex:
        """Build an index that keeps the token codes of a PLAID index, bit for bit.

        `source` is its folder, or a source of :func:`muvera.convert.open_source`.  The
        other arguments are those of :meth:`build`, except ``ids=``, ``tokens=`` and
        ``keep_exact=``.
        """
        from ..convert import open_source

        opened = open_source(source) if isinstance(source, (str, os.PathLike)) else source
        coded = coded_source(opened)
        if coded is None:
            raise TypeError(
                Message(
                    Hint("from_plaid", "from_plaid"),
                    f" needs a PLAID index, got {type(opened).__name__} without PLAID's codes. ",
                    Hint("build_from_tokens", "Use MuveraIndex.build."),
                )
            )
        return cls.build(coded, encoder, **options)

    @classmethod
    def from_pylate(cls, path: str | os.PathLike[str], *args: Any, **options: Any) -> MuveraIndex:
        """Build an index from PyLate's folder ``index_folder/index_name``, with PyLate's ids.

        The arguments are those of :meth:`build`.  Without ``tokens=``, codes of a PLAID
        index are kept bit for bit.
        """
        from ..convert import open_source

        source = open_source(path, "pylate")
        if coded_source(source) is not None and options.get("tokens") is None:
            return cls.from_plaid(source, *args, **options)
        return cls.build(source.batches(PLAID_BATCH_TOKENS), *args, **options)

    # -- changing -------------------------------------------------------------

    def add(self, documents: Any, *, ids: Any = None, threads: int | None = None) -> None:
        """Add documents under new ids: all of them, or none after an exception.

        Parameters
        ----------
        documents : MultiVectors or a list of arrays or tensors
            Such as the result of a model's ``encode``.
        ids : sequence of int or of str, optional
            Default: the documents' own ids, or the next integers.
        threads : int, optional

        Raises
        ------
        TypeError, ValueError
            For an id that is in use, another dimension, or a number that is not finite.
        """
        with self._changing:
            contents, _ = self._appended(_with_ids(documents, ids), threads)
            self._replace_contents(contents)

    def _appended(
        self, documents: Any, threads: int | None, update: bool = False
    ) -> tuple[IndexContents, Ids]:
        """Return contents with these documents, and their ids."""
        thread_count(threads)
        checked = self._checked(documents, "documents")
        if update and not checked.has_ids:
            raise ValueError(
                "update replaces documents by id, but these documents have no ids. Give ids=, or use add."
            )
        contents = copy(self._contents)
        ids = checked.ids if update else contents.ids.new_ids(checked)
        contents.append(ids, checked, threads, guard=self._lock.alone)
        measure(contents, threads)
        contents.calibrate_if_stale(threads)
        return contents, ids

    def _replace_contents(self, contents: IndexContents) -> None:
        """Make a change visible, and warn when the documents begin to differ from the encoder's sample."""
        before = self._contents

        def replace() -> None:
            self._contents = contents  # the change happens here; all else can be interrupted
            if contents.candidates is not None:
                contents.candidates.search.settle()

        self._lock.alone(replace)
        sentence = contents.drift_warning
        if sentence is not None and before.drift_warning is None:
            warnings.warn(sentence, stacklevel=3)

    def update(self, documents: Any, *, ids: Any = None, threads: int | None = None) -> None:
        """Add documents and replace those whose id is in use.

        As :meth:`add`, but the documents must have ids.
        """
        with self._changing:
            contents, _ = self._appended(_with_ids(documents, ids), threads, update=True)
            self._replace_contents(contents)

    def delete(self, ids: Iterable[Any], missing: Missing = "raise") -> None:
        """Delete documents by id.

        For an unknown id, raise KeyError and delete nothing, unless
        ``missing="ignore"``.
        """
        with self._changing:
            self._replace_contents(self._without(as_id_list(ids), missing))

    def _without(self, ids: list[Any], missing: Missing) -> IndexContents:
        """Return contents without these documents."""
        contents = copy(self._contents)
        contents.remove(contents.ids.rows(ids, missing))
        return contents

    def rebuild(self, *, path: str | os.PathLike[str] | None = None, threads: int | None = None) -> None:
        """Free the memory of deleted documents: renumber the rows and encode all documents again.

        The encoder is fitted again if :meth:`info` warns about its fit.  Candidates may
        then change.

        Parameters
        ----------
        path : path, optional
            Also save the index there, in its own folder or a new one; if that fails,
            the index stays unchanged.  Memory then holds only one batch of token
            vectors.  Otherwise it holds all until the next :meth:`save`.
        threads : int, optional
        """
        thread_count(threads)
        with self._changing:
            if path is None:
                self._replace_contents(self._contents.rebuilt(threads))
            else:
                with staging_beside(as_path(path).resolve(), overwrite=True) as staging:
                    self._save(path, contents=self._contents.rebuilt(threads, staging))

    # -- searching ------------------------------------------------------------

    def _checked(self, texts: Any, name: str) -> MultiVectors:
        return checked_texts(texts, name, self.config.dimension, "this index")

    def search(
        self,
        queries: Any,
        k: int = DEFAULT_K,
        *,
        ids: Iterable[Any] | None = None,
        candidates: int | None = None,
        recall: float | None = None,
        ef: int | None = None,
        rescore: int | None = None,
        threads: int | None = None,
    ) -> list[Ranking]:
        """Return the `k` best documents for each query.

        Parameters
        ----------
        queries : MultiVectors, one array (tokens, dimension) or a list of such arrays
        k : int
            Number of documents to return; all, if there are fewer.
        ids : collection of ids, optional
            Search only among these documents, possibly none.  Ids that are not in the
            index are ignored.
        candidates : int, optional
            Documents that the vectors propose and exact Chamfer similarity ranks, at
            least k.  More raise recall and take longer, in proportion.  Default: 100,
            or k if that is more.
        recall : float, optional
            Instead of `candidates`: the mean share of the exact best to find, such as
            0.95.  Each query ranks as many candidates as it needs.  Building calibrates
            this with windows of documents; see :meth:`calibrate`.
        ef : int, optional
            Candidates that the graph search keeps.  More raise recall and take longer.
            Default: the index's setting.
        rescore : int, optional
            For codes with ``keep_exact=True``: maximum number of candidates that the
            exact tokens rank, at least k.  More raise recall and read more from disk.
            Default: 2 k + 10.  Ranking stops early once the next candidate would need a
            five-sigma coding error to enter the k best.
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
        plan = SearchPlan(k, selected, candidates, recall, ef, rescore, threads)
        texts = self._checked(queries, "queries")
        with self._lock.shared():
            contents = self._contents
            proposal = contents.propose(texts, plan)
        # Rows keep their tokens and ids, so later changes do not matter.
        return contents.rank(texts, proposal, threads, rescore)

    def rerank(
        self,
        queries: Any,
        ids: Iterable[Iterable[Any]],
        k: int | None = None,
        *,
        missing: Missing = "raise",
        threads: int | None = None,
    ) -> list[Ranking]:
        """Rank the results of another search by exact Chamfer similarity.

        Parameters
        ----------
        queries
            As for :meth:`search`.
        ids : sequence of collections of ids
            The documents to rank, one collection per query.
        k : int, optional
            Maximum number of documents to return.  Default: all.
        missing : {"raise", "ignore"}
            Raise KeyError for an id that is not in the index, or ignore it.
        threads : int, optional
        """
        texts = self._checked(queries, "queries")
        proposals = as_id_list(ids)
        if len(proposals) != len(texts):
            raise ValueError(
                f"ids must be one collection of ids per query, got {len(proposals)} for {len(texts)}."
            )
        contents = self._contents
        rows = [
            np.sort(contents.ids.rows(as_id_list(own, f"ids[{i}]"), missing))
            for i, own in enumerate(proposals)
        ]
        longest = max(map(len, rows), default=1) or 1
        count = longest if k is None else min(require_int("k", k, 1), longest)
        thread_count(threads)
        return contents.rank(texts, Proposal(rows, count), threads)

    def explain(self, query: Any, id: Any) -> Explanation:
        """Find the best matching token of the document `id` for each token of one query."""
        return explain(query, self.tokens([id])[0])

    def measure_recall(
        self,
        queries: Any,
        *,
        k: int = DEFAULT_K,
        candidates: int | None = DEFAULT_CANDIDATES,
        threads: int | None = None,
    ) -> FirstStageRecall | None:
        """Return the share of the `k` exact best documents among the candidates, for real queries with tokens.

        Return None if the index always reads all tokens.  For the parameters see
        :meth:`search`.
        """
        texts = self._checked(queries, "queries")
        texts = texts[np.flatnonzero(texts.lengths > 0)]
        if len(texts) == 0:
            raise ValueError("queries have no tokens, so nothing can be measured. Give other queries.")
        count = SearchPlan(k=k, candidates=candidates, threads=threads).num_candidates
        with self._lock.shared():
            contents = self._contents
            documents = len(contents.searchable[0])
            if contents.candidates is None or documents == 0:
                return None
            proposed = propose(contents, texts, None, count, threads)
            shares = shares_found(contents, texts, None, proposed, k, threads)
        return FirstStageRecall(float(shares.mean()), k, count, len(texts), False, documents)

    def calibrate(self, queries: Any, *, threads: int | None = None) -> None:
        """Calibrate ``search(recall=)`` with at least 64 real queries with tokens, instead of windows of documents.

        :meth:`save` stores the calibration.  A rebuild, or doubling the number of
        documents, replaces it with a calibration by windows.  Call this method again
        then.  Without vectors (a small index), nothing changes.
        """
        thread_count(threads)
        texts = with_enough_tokens(self._checked(queries, "queries"))
        with self._changing:
            contents = copy(self._contents)
            if contents.candidates is not None and len(contents.candidates.search):
                contents.candidates.calibration = calibrate(contents, texts, threads=threads)
                self._replace_contents(contents)

    @property
    def candidates_by_recall(self) -> dict[float, int]:
        """The calibrated number of candidates for each mean recall.

        Empty without a calibration.
        """
        candidates = self._contents.candidates
        levels = () if candidates is None or candidates.calibration is None else candidates.calibration.levels
        return {level.target: level.fixed for level in levels}

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
        return self._contents.store.codec

    @property
    def ids(self) -> Ids:
        """Ids of all documents, in the order they were added."""
        ids = self._contents.ids
        return ids.of(ids.live)

    def tokens(self, ids: Iterable[Any]) -> MultiVectors:
        """Return the token vectors of documents, each once, in the order of `ids`.

        Raise KeyError for an unknown id.
        """
        contents = self._contents
        rows = contents.ids.rows(as_id_list(ids))
        return contents.store.rows(rows).with_ids(contents.ids.of(rows))

    def codes(self, ids: Iterable[Any]) -> CodedVectors:
        """Return the token codes of documents as :meth:`tokens`.

        Raise ValueError if the index stores no codes.
        """
        contents = self._contents
        rows, codes = contents.ids.rows(as_id_list(ids)), contents.store.codes
        if codes is None:
            raise ValueError(
                "This index stores no token codes. Build it with tokens='2bit' or another kind of codes."
            )
        return codes.rows(rows) if len(rows) else CodedVectors.of(codes.codec, contents.store.rows(rows))

    def info(self) -> IndexInfo:
        """Return sizes, settings, measured recall and warnings."""
        return self._contents.info()

    # -- saving ---------------------------------------------------------------

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the index to a new folder, or its changes to the folder it was loaded from or saved to.

        The folder contains a complete index at every moment.  Token vectors in it are
        not written again.

        Parameters
        ----------
        path : path
        overwrite : bool
            Replace another index in that folder when this one is complete.

        Raises
        ------
        IndexFolderError, FileExistsError
            If another process is writing the folder, or has changed it since this index
            read or wrote it; if the folder contains anything else.
        """
        self._save(path, overwrite=overwrite)

    def _save(
        self,
        path: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        contents: IndexContents | None = None,
        holds_lock: bool = False,
    ) -> None:
        """Save `contents`, by default those of the index.

        `holds_lock`: see :func:`.generations.commit`.
        """
        target = as_path(path).resolve()  # each folder has only one name
        with self._changing:
            contents = self._contents if contents is None else contents
            write_texts = None if self._write_texts is None else partial(self._write_texts, contents.ids)
            self._replace_contents(write_contents(contents, target, overwrite, write_texts, holds_lock))

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify_files: bool | None = None) -> MuveraIndex:
        """Load an index from a folder of :meth:`save`; token vectors stay on disk and are memory-mapped.

        Parameters
        ----------
        path : path
        verify_files : bool, optional
            True: compare the checksums of all files.  False: compare sizes only.
            Default: checksums of files up to 256 MiB, sizes of larger ones.

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
                f"{folder} has a journal with later changes, which only TextIndex.load and TextIndex.open read.",
                stacklevel=2,
            )
        return cls._of(contents)

    @classmethod
    def _of(cls, contents: IndexContents) -> MuveraIndex:
        index = cls(contents.config)
        index._contents = contents
        return index


def _with_ids(documents: Any, ids: Any) -> Any:
    return documents if ids is None else as_multivectors(documents).with_ids(ids)
