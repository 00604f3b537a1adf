"""Change: steps that change an index and become visible together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..data.batches import MAX_FIT_DOCUMENTS
from ..data.multivectors import MultiVectors, MultiVectorsLike, as_multivectors, checked_texts
from ..data.validation import Ids, IdsLike
from ..fde.config import FDEConfig
from ..fde.encoder import FDEEncoder, fitted_without_queries_from
from ..mips.base import VectorSearch
from ..reranking.coded_vectors import CodedVectors
from ..reranking.table_codec import TableCodec
from ..utils.checks import as_id_list
from ..utils.parallel import share_done, stage, thread_count
from .calibration import with_enough_tokens
from .candidates import CandidateSearch
from .contents import IndexContents
from .generations import Destination, FolderLock, Generation, require_known
from .id_map import IdMap, Missing
from .measuring import (
    added_rows,
    calibrate,
    calibrate_on_windows,
    calibration_is_current,
    left_out,
    measured_windows,
)
from .persistence import write_contents
from .settings import LOW_RECALL
from .token_store import DocumentTokens, Means, Rows

# A larger encoder is kept if its measured recall is higher by this.
_GAIN = 0.01


class Change:
    """A change of an index in progress.

    :meth:`muvera.MuveraIndex.change` begins one, and commits it at the end of its
    block.  Searches do not see the steps until the commit.  An exception in the block
    abandons the change.  If a step raises, earlier steps are unaffected.  A step after
    the end of the block raises ValueError.

    Parameters
    ----------
    before : IndexContents
        The contents of the index.
    publish : callable
        Makes contents visible: ``publish(before, contents)``.
    attempted : dict of Path to set of Generation
        For each folder, the generations that interrupted saves may have written.

    Examples
    --------
    >>> from muvera import MuveraIndex
    >>> index = MuveraIndex.build([[[1.0, 0.0]], [[0.0, 1.0]]], ids=["a", "b"])
    >>> with index.change() as change:
    ...     change.delete(["a"])
    ...     ids = change.add([[[0.5, 0.5]]], ids=["c"])
    ...     before = len(index), "a" in index
    >>> before, index.ids.tolist()
    ((2, True), ['b', 'c'])
    """

    def __init__(
        self,
        before: IndexContents,
        publish: Callable[[IndexContents, IndexContents], object],
        attempted: dict[Path, set[Generation]],
    ) -> None:
        #: The contents that searches see.
        self.before = before
        #: The contents that this change has made so far; each step replaces them.
        self.contents = before
        #: A temporary folder for tokens that do not fit in the memory buffer.
        self.staging: Path | None = None
        self._publish = publish
        self._attempted = attempted
        self._ended = False
        self._begin()

    def _begin(self) -> None:
        """Begin to collect removed rows.

        Deleting from a shared HNSW graph would also hide rows from current searches.
        So rows removed by this change stay in the graph until the commit.
        """
        candidates = self.contents.candidates
        self._growing = None if candidates is None else candidates.search
        self._removed: Rows = np.empty(0, np.int64)
        #: Rows whose windows the encoder was not fitted to, until a calibration has
        #: used them.
        self._left_out: Rows | None = None
        #: Number of documents at the end of a build, if it is known before.
        self._expected = 0
        # A text index warns before the end of the block, which would warn again.
        self._has_warned = False

    def warn(self, stacklevel: int) -> None:
        """Warn if added documents are found less often than the others.

        Call it before :meth:`commit`: if warnings are errors, the change is abandoned.

        Parameters
        ----------
        stacklevel : int
            As for :func:`warnings.warn`.
        """
        before = self.before
        if self.contents is before or before.drift_warning is not None or not len(before.tokens):
            return
        sentence = self.contents.drift_warning
        if sentence is not None and not self._has_warned:
            self._has_warned = True
            warnings.warn(sentence, stacklevel=stacklevel)

    def commit(self) -> None:
        """Make the steps visible before the end of the block.

        Later steps are another change.

        Raises
        ------
        ValueError
            After the end of the block.
        """
        self._require_open()
        if self.contents is not self.before:
            self.publication()()
            self.before = self.contents
            self._begin()

    def publication(self) -> Callable[[], object]:
        """Return a function that makes the steps so far visible.

        It may be called several times, and after the block: a text index calls it again
        if it was interrupted after the texts were changed.

        Returns
        -------
        callable
            Has no parameters.
        """
        self._require_open()
        return partial(self._publish, self.before, self.contents)

    def end(self) -> None:
        """Refuse later steps."""
        self._ended = True

    def _require_open(self) -> None:
        if self._ended:
            raise ValueError(
                "This change has ended with its block. Begin another one: with index.change() as change."
            )

    # -- documents ------------------------------------------------------------

    def add(
        self,
        documents: MultiVectorsLike | CodedVectors,
        *,
        ids: IdsLike | None = None,
        threads: int | None = None,
        means: MultiVectors | None = None,
    ) -> Ids:
        """Add documents and return their ids.

        Parameters
        ----------
        documents : MultiVectors or a list of arrays or tensors
            As for :meth:`muvera.MuveraIndex.add`.
        ids : sequence of int or of str, optional
            As for :meth:`muvera.MuveraIndex.add`.
        threads : int, optional
            As for :meth:`muvera.MuveraIndex.add`.
        means : MultiVectors, optional
            The means of each document's tokens that an index with `pool` stores.
            Default: they are made here.

        Returns
        -------
        ndarray (n,), int64 or str

        Raises
        ------
        TypeError, ValueError
            As for :meth:`muvera.MuveraIndex.add`.
        """
        checked = self._checked(documents, ids, threads)
        names = self.contents.ids.new_ids(checked)
        self._append_and_measure(names, checked, threads, means, None)
        return names

    def update(
        self,
        documents: MultiVectorsLike | CodedVectors,
        *,
        ids: IdsLike | None = None,
        threads: int | None = None,
        means: MultiVectors | None = None,
    ) -> Ids:
        """Add or replace documents and return their ids.

        Parameters
        ----------
        documents : MultiVectors or a list of arrays or tensors
            As for :meth:`muvera.MuveraIndex.update`.
        ids : sequence of int or of str, optional
            As for :meth:`muvera.MuveraIndex.update`.
        threads : int, optional
            As for :meth:`muvera.MuveraIndex.update`.
        means : MultiVectors, optional
            As for :meth:`add`.

        Returns
        -------
        ndarray (n,), int64 or str

        Raises
        ------
        TypeError, ValueError
            As for :meth:`muvera.MuveraIndex.update`.
        """
        checked = self._checked(documents, ids, threads)
        if not checked.has_ids:
            raise ValueError(
                "update replaces documents by id, but these documents have no ids. Give ids=, or use add."
            )
        replaced = self.contents.ids.rows(checked.ids.tolist(), "ignore")
        self._append_and_measure(checked.ids, checked, threads, means, replaced)
        return checked.ids

    def delete(self, ids: Iterable[Any], missing: Missing = "raise") -> None:
        """Delete documents by id.

        Parameters
        ----------
        ids : collection of int or of str
            As for :meth:`muvera.MuveraIndex.delete`.
        missing : {"raise", "ignore"}
            As for :meth:`muvera.MuveraIndex.delete`.

        Raises
        ------
        KeyError
            For an unknown id, unless ``missing="ignore"``.
        TypeError
            For an id of another type.
        """
        self._require_open()
        contents = self.contents
        rows = contents.ids.rows(as_id_list(ids), missing)
        if not len(rows):
            return
        names = copy(contents.ids)
        names.drop(rows)
        removed = np.append(self._removed, rows)
        candidates = None if contents.candidates is None else contents.candidates.without(rows)
        self.contents = replace(contents, ids=names, candidates=candidates)
        self._removed = removed

    def build(
        self,
        batches: Iterable[tuple[MultiVectors | CodedVectors, CodedVectors | None]],
        threads: int | None = None,
        progress: Callable[[int], object] | None = None,
        expected: int | None = None,
        fitted_on_these: bool = False,
    ) -> None:
        """Add documents in batches, and fit the encoder and the codec on them.

        Parameters
        ----------
        batches : iterable of tuple
            Documents, and their codes if they are known.  The parts of a document may
            be in several batches that follow each other.  "fde" and "moments" are
            fitted once the batches have 4,096 documents, or at the end; "mean" and
            "simhash", once the collection needs vectors.
        threads : int, optional
            As for :meth:`muvera.MuveraIndex.build`.
        progress : callable, optional
            Called with the number of documents in each batch, after it.
        expected : int, optional
            Number of documents in all batches, if it is known: the default encoder
            depends on it.  Without it, large collections may be encoded twice.
        fitted_on_these : bool
            Whether a fitted encoder was fitted on a sample of these documents.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`muvera.MuveraIndex.add`.
        """
        self._expected = expected or 0
        for documents, codes in batches:
            checked = self._checked(documents, None, threads)
            names = self.contents.ids.new_ids(checked, continued=True)
            self._append(names, checked, codes, threads)
            self._make_vectors(len(self.contents.searchable[0]) >= MAX_FIT_DOCUMENTS, threads)
            self._fit_codec_after_vectors(threads)
            if progress is not None:
                progress(len(documents))
        self._finish(threads, fitted_on_these=fitted_on_these)

    def replace_by_rows(self, batches: Iterable[CodedVectors], table: TableCodec) -> None:
        """Store the tokens of all documents as rows of a table.

        Parameters
        ----------
        batches : iterable of CodedVectors
            All documents with their ids, in the order in which they were added.
        table : TableCodec
            The codec of the codes.
        """
        self._require_open()
        old = self.contents
        settings = replace(old.settings, tokens=None, keep_exact=False, pool=1.0)
        self.contents = replace(
            old,
            settings=settings,
            ids=IdMap(old.ids.next),
            tokens=DocumentTokens(settings, old.config.dimension, table),
            given_encoder=None,
            candidates=None,
        )
        self._begin()
        for codes in batches:
            self._append(codes.ids, codes, None, None)
        self._finish(None)

    def rebuild(self, threads: int | None = None, *, fit: bool = False) -> None:
        """Renumber the rows without the deleted ones, and encode all documents again.

        Parameters
        ----------
        threads : int, optional
            As for :meth:`muvera.MuveraIndex.rebuild`.
        fit : bool
            As for :meth:`muvera.MuveraIndex.rebuild`.
        """
        self._require_open()
        thread_count(threads)
        old = self.contents
        fits = fit or _fits_again(old)
        kept = None if fits or old.candidates is None else old.candidates.renumbered(old.ids.live)
        self.contents = replace(
            old,
            ids=IdMap(old.ids.next),
            tokens=old.tokens.emptied(),
            given_encoder=None if fits else old.encoder,
            candidates=None,
        )
        self._begin()
        store = old.tokens.codes
        if old.tokens.table is not None and store is not None:
            for rows, texts in store.batches(old.ids.live):  # nothing to encode again
                self._append(old.ids.of(rows), texts, None, threads)
            self._finish(threads)
            return
        for rows, documents, codes in old.tokens.batches(old.ids.live):
            self._append(old.ids.of(rows), documents, codes, threads, old.tokens.means_of(rows))
            self._make_vectors(False, threads)  # an encoder that needs a sample waits for all documents
            self._fit_codec_after_vectors(threads)
        self._finish(threads, kept)
        if not fits and self.contents.drift_warning is not None:
            # Added documents that were too few to be measured before: fit on them, too.
            self.rebuild(threads, fit=True)

    # -- measurements, texts and files ----------------------------------------

    def calibrate(self, queries: MultiVectorsLike, threads: int | None = None) -> None:
        """Calibrate ``search(recall=)``.

        Parameters
        ----------
        queries : MultiVectors or list of arrays
            As for :meth:`muvera.MuveraIndex.calibrate`.
        threads : int, optional
            As for :meth:`muvera.MuveraIndex.calibrate`.

        Raises
        ------
        TypeError, ValueError
            As for :meth:`muvera.MuveraIndex.calibrate`.
        """
        self._require_open()
        thread_count(threads)
        dimension = self.contents.config.dimension
        checked = with_enough_tokens(checked_texts(queries, "queries", dimension, "this index"))
        candidates = self.contents.candidates
        if candidates is not None and len(candidates.search):
            calibration = calibrate(self.contents, checked, threads=threads)
            self._set_candidates(replace(candidates, calibration=calibration, added_calibration=None))

    def attach(self, write_texts: Callable[[IdMap, Path], object]) -> None:
        """Save texts with the documents.

        Parameters
        ----------
        write_texts : callable
            Every save calls ``write_texts(ids, path)`` with the ids of the rows and the
            path of a new file.
        """
        self._require_open()
        self.contents = replace(self.contents, write_texts=write_texts)

    def generation_in(self, path: Path, lock: FolderLock) -> Generation:
        """Return the generation in a folder whose lock is held.

        Parameters
        ----------
        path : Path
            The folder, which this index was loaded from or saved to.
        lock : FolderLock
            The lock that is held.

        Returns
        -------
        Generation
            The one that the folder contains now.

        Raises
        ------
        IndexFolderError
            If the folder was replaced, or if another process has saved there.
        """
        current = lock.generation()
        attempted = self._attempted.get(path, set())
        require_known(path, current, self.before.generations.get(path), attempted)
        return current

    def save(self, destination: Destination) -> None:
        """Write the contents to a folder, and commit.

        They then read their tokens from there.

        Parameters
        ----------
        destination : Destination
            The folder, and whether to replace another index in it.

        Raises
        ------
        IndexFolderError, FileExistsError
            As for :meth:`muvera.MuveraIndex.save`.
        """
        self._require_open()
        self.warn(4)  # names the line that called rebuild
        attempted = self._attempted.setdefault(destination.path, set())
        with stage("saving"):
            self.contents = write_contents(self.contents, destination, attempted, self.staging)
        self.commit()

    # -- steps ----------------------------------------------------------------

    def _checked(
        self, documents: MultiVectorsLike | CodedVectors, ids: IdsLike | None, threads: int | None
    ) -> MultiVectors | CodedVectors:
        self._require_open()
        thread_count(threads)
        if isinstance(documents, CodedVectors):  # rows of the table of this index
            assert documents.codec is self.contents.tokens.codec
            return documents if ids is None else documents.with_ids(ids)
        named = documents if ids is None else as_multivectors(documents).with_ids(ids)
        return checked_texts(named, "documents", self.contents.config.dimension, "this index")

    def _append_and_measure(
        self,
        ids: Ids,
        documents: MultiVectors | CodedVectors,
        threads: int | None,
        means: MultiVectors | None,
        replaced: Rows | None,
    ) -> None:
        """Add or replace documents, fit once there are enough of them, and measure."""
        self._append(ids, documents, None, threads, None if means is None else Means(means), replaced)
        self._make_vectors(self.contents.has_sample, threads)
        self._fit_codec(threads)
        self._calibrate(self._measure(threads), threads)

    def _append(
        self,
        ids: Ids,
        documents: MultiVectors | CodedVectors,
        codes: CodedVectors | None,
        threads: int | None,
        means: Means | None = None,
        replaced: Rows | None = None,
    ) -> None:
        """Add documents, and delete the `replaced` rows; fit nothing.

        If the collection has vectors, the new documents are encoded here.  Give `means`
        if they are known and the index stores means.
        """
        if len(documents) == 0:
            return
        contents = self.contents
        removed = self._removed if replaced is None else np.append(self._removed, replaced)
        first = len(contents.tokens)
        tokens = copy(contents.tokens)
        if tokens.means is not None and means is None:
            assert isinstance(documents, MultiVectors)
            means = tokens.pooled(documents)
        means = None if tokens.means is None else means
        tokens.append(documents, codes, threads, self.staging, means)
        candidates = contents.candidates
        growing: VectorSearch | None = None
        if candidates is not None and self._growing is not None:
            assert isinstance(documents, MultiVectors)
            candidates = replace(candidates, search=self._growing)
            rows = np.arange(first, first + len(documents))
            read = documents if means is None else means.texts
            candidates = candidates.added(rows, read, threads)
            growing = candidates.search
            if len(removed):
                candidates = candidates.without(removed)
        names = copy(contents.ids)
        if replaced is not None:
            names.drop(replaced)
        names.append(ids)
        self.contents = replace(contents, ids=names, tokens=tokens, candidates=candidates)
        self._growing = growing
        self._removed = removed

    def _make_vectors(self, has_sample: bool, threads: int | None) -> None:
        """Encode all documents if the collection is large enough to need vectors.

        If this has to fit an encoder, do it only if there are enough documents.
        """
        contents = self.contents
        if not contents.needs_vectors or (contents.needs_sample and not has_sample):
            return
        given = contents.given_encoder
        if given is None:
            self._set_config(self._sized())
        self._fit_and_encode(given, threads)

    def _sized(self) -> FDEConfig:
        """Return the configuration for the documents, or for the expected ones."""
        rows, tokens = self.contents.searchable
        count = max(len(rows), self._expected)
        return self.contents.config.sized(count, count * tokens // max(1, len(rows)))

    def _set_config(self, config: FDEConfig) -> None:
        self.contents = replace(self.contents, config=config)

    def _fit_and_encode(self, given: FDEEncoder | None, threads: int | None) -> None:
        """Fit an encoder unless a fitted one is given, and encode all documents."""
        contents = self.contents
        encoder = FDEEncoder(contents.config) if given is None else given
        fits = encoder.needs_fit
        self._left_out = left_out(contents) if fits and contents.config.needs_fit_sample else None
        if fits:
            encoder = self._fitted_encoder(threads)
        candidates = self._vectors_of(encoder, threads)
        self._set_candidates(replace(candidates, fitted_on=len(candidates.search) if fits else 0))
        self._growing = candidates.search

    def _fitted_encoder(self, threads: int | None) -> FDEEncoder:
        """Return a new encoder, fitted on all documents."""
        config, tokens, rows = self.contents.config, self.contents.tokens, self.contents.searchable[0]
        left_out = rows[:0] if self._left_out is None else self._left_out
        sample = (documents for _, documents in tokens.coarse_batches(np.setdiff1d(rows, left_out)))
        others = [documents for _, documents in tokens.coarse_batches(left_out)]
        joined = MultiVectors.concatenate(
            others or [MultiVectors.from_arrays([], dimension=config.dimension)]
        )
        return fitted_without_queries_from(config, sample, joined, threads)

    def _vectors_of(self, encoder: FDEEncoder, threads: int | None) -> CandidateSearch:
        """Return the vectors of all documents."""
        contents = self.contents
        candidates = CandidateSearch.empty(encoder, contents.settings)
        live = contents.ids.live
        done = 0
        with stage("making vectors"):
            for rows, documents in contents.tokens.coarse_batches(live):
                candidates = candidates.added(rows, documents, threads)
                done += len(rows)
                share_done(done / len(live))
        return replace(candidates, fitted_rows=len(contents.tokens))

    def _set_candidates(self, candidates: CandidateSearch) -> None:
        self.contents = replace(self.contents, candidates=candidates)

    def _fit_codec(self, threads: int | None, at_end: bool = False) -> None:
        """Fit the codec of the settings if there are enough tokens.

        At the end of a build, one token is enough.
        """
        if self.contents.tokens.can_fit_codec(at_end):
            tokens = copy(self.contents.tokens)
            tokens.fit_codec(threads, self.staging, at_end)
            self.contents = replace(self.contents, tokens=tokens)

    def _fit_codec_after_vectors(self, threads: int | None) -> None:
        """Fit the codec, unless an encoder must be fitted on exact tokens first."""
        if self.contents.candidates is not None:
            self._fit_codec(threads)

    def _measure(self, threads: int | None) -> bool:
        """Measure the recall of windows again if it is out of date.

        Return True if it was.
        """
        candidates = self.contents.candidates
        windows = measured_windows(self.contents, threads)
        if candidates is None or windows is candidates.windows:
            return False
        self._set_candidates(replace(candidates, windows=windows))
        return True

    def _calibrate(self, measured: bool, threads: int | None) -> None:
        """Calibrate with windows if the calibration is out of date.

        If the recall was `measured` again, calibrate with added documents, too.
        """
        candidates = self.contents.candidates
        if candidates is None:
            return
        outdated = not calibration_is_current(self.contents)
        if outdated:
            rows = self.contents.searchable[0]
            unseen = rows if self._left_out is None else np.intersect1d(rows, self._left_out)
            calibration = calibrate_on_windows(self.contents, unseen, threads)
            candidates = replace(candidates, calibration=calibration)
        if measured or outdated:
            rows = added_rows(self.contents)
            depth = None if candidates.calibration is None else candidates.calibration.depth
            added = calibrate_on_windows(self.contents, rows, threads, depth)
            candidates = replace(candidates, added_calibration=added)
        self._set_candidates(candidates)
        self._left_out = None

    def _finish(
        self, threads: int | None, kept: CandidateSearch | None = None, fitted_on_these: bool = False
    ) -> None:
        """Finish a build: fit on the available documents, and measure.

        A rebuild that keeps the encoder passes the `kept` search, with the new rows.
        """
        self._make_vectors(self.contents.has_sample, threads)
        candidates = self.contents.candidates
        if candidates is not None and candidates.fitted_on and kept is None and self._resize(threads):
            candidates = self.contents.candidates
        if candidates is not None and kept is not None:
            self._set_candidates(
                replace(
                    candidates,
                    fitted_on=kept.fitted_on,
                    fitted_rows=kept.fitted_rows,
                    calibration=kept.calibration,
                )
            )
        elif candidates is not None and not candidates.fitted_on:
            # The encoder was fitted elsewhere, so no document is newer than its sample.
            count = len(candidates.search) if fitted_on_these else 0
            candidates = replace(candidates, fitted_on=count, fitted_rows=len(self.contents.tokens))
            self._set_candidates(candidates)
        with self.contents.tokens.read_briefly():
            measured = self._measure(threads)
            if kept is None and candidates is not None and candidates.fitted_on:
                measured = self._enlarge(threads) or measured
        self._fit_codec(threads, at_end=True)
        tokens = copy(self.contents.tokens)
        tokens.flush(self.staging)
        self.contents = replace(self.contents, tokens=tokens)
        with self.contents.tokens.read_briefly():
            self._calibrate(measured, threads)

    def _resize(self, threads: int | None) -> bool:
        """Fit the encoder again if there were more documents than a build expected.

        Return True if it was fitted.
        """
        self._expected = 0
        config = self._sized()
        if config == self.contents.config:
            return False
        self._set_config(config)
        self._fit_and_encode(None, threads)
        return True

    def _enlarge(self, threads: int | None) -> bool:
        """Try larger encoders while the measured recall is low, and keep the best.

        Return True if a larger encoder was kept.
        """
        changed = False
        while _recall(self.contents) < LOW_RECALL:
            config = self.contents.config.larger(self.contents.searchable[1])
            if config is None:
                break
            smaller = self.contents, self._growing, self._left_out
            self._set_config(config)
            self._fit_and_encode(None, threads)
            self._measure(threads)
            if _recall(self.contents) < _recall(smaller[0]) + _GAIN:
                self.contents, self._growing, self._left_out = smaller
                break
            changed = True
        return changed


def _recall(contents: IndexContents) -> float:
    """Return the measured recall of the first stage; 1 if there is none."""
    measured = contents.first_stage.everything
    return 1.0 if measured is None else measured.recall


def _fits_again(contents: IndexContents) -> bool:
    """Return True if a rebuild fits the encoder again.

    It does if there are many more documents, or documents of another kind.
    """
    candidates = contents.candidates
    if candidates is None:
        return False
    rows, tokens = contents.searchable
    grown = candidates.fitted_on > 0 and contents.config.sized(len(rows), tokens) != contents.config
    return grown or candidates.fitted_on_too_few or contents.drift_warning is not None
