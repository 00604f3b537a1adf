"""TextStore: token vectors and texts that change together.

Each change is in the journal of the open folder before its method returns, see
journal.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar
from weakref import WeakMethod

import numpy as np
from numpy.typing import NDArray

from ..data.multivectors import MultiVectors, cut_parts, join_parts
from ..fde.config import FDEConfig
from ..fde.encoder import FDEEncoder
from ..index.change import Change
from ..index.contents import IndexContents
from ..index.generations import (
    TEXTS,
    Destination,
    journal_checksum,
    journal_content,
    require_latest,
)
from ..index.id_map import Missing
from ..index.muvera_index import MuveraIndex
from ..index.persistence import read_current, read_generation
from ..index.searching import Proposal, SearchPlan
from ..index.settings import IndexSettings
from ..index.token_store import Ranked
from ..reranking.coded_vectors import CodedVectors
from ..reranking.table_codec import TableCodec
from ..utils.checks import as_path, counted
from ..utils.hints import Hint, Message
from ..utils.locks import renew_after_fork
from ..utils.parallel import run_in_ranges, split_by_count, threads_for_short_work
from .arrays import TextArrays
from .database import DocumentDatabase, Row, TextDocument, checked_rows
from .encoders.base import ROWS_BATCH, TableEncoder, encode_rows
from .hit import GROUPED, GROUPED_OF_ALL, SearchOptions, mean_vectors
from .journal import DurableFolder, TextChange, join_updates, read_journal
from .passages import LookedUp, Similarities, has_long_texts
from .protocol import NewTexts
from .ranking import Candidates, Parts, query_unit, rank_groups
from .words import QueryWords, WordStatistics, best_rows, query_terms

_Read = TypeVar("_Read")

# With ``recall=``, words, mean vectors and passages reorder the best RANKED * k texts.
RANKED = 3

# Tokens of the query of :meth:`TextStore.prepare`.
_PREPARED = 16


class TextStore:
    """Token vectors in this process, and texts with metadata under the same ids.

    After :meth:`keep`, each change is first written to the journal of a folder.  An
    interrupted change is finished or undone by the next use.  Every save of `vectors`
    writes the texts, too.  :class:`muvera.texts.protocol.Texts` describes the methods.
    `means` are the mean vectors of texts that `vectors` does not have yet, as for
    :meth:`TextArrays.of`.
    """

    def __init__(
        self, vectors: MuveraIndex, database: DocumentDatabase, means: Iterable[NDArray[Any]] | None = None
    ) -> None:
        self._vectors = vectors
        self.database = database
        self.get = database.get
        self.select = database.select
        self.groups = database.groups
        self._folder: DurableFolder | None = None
        self._renew_locks()
        renew_after_fork(self._renew_locks)
        if not isinstance(vectors.contents.texts, TextArrays):
            with vectors.change() as change:
                change.attach(TextArrays.of(database, change.contents, means))

    def _renew_locks(self) -> None:
        #: Held by each of the methods that change texts, so that no other thread
        #: changes anything.
        self.changing = RLock()

    @classmethod
    def build(
        cls,
        batches: Iterable[MultiVectors | CodedVectors],
        database: DocumentDatabase,
        encoder: str | FDEConfig | FDEEncoder | None,
        settings: IndexSettings,
        destination: Destination | None,
        threads: int | None,
        table: TableCodec | None = None,
        means: Iterable[NDArray[Any]] | None = None,
        texts: Iterable[str] | None = None,
    ) -> TextStore:
        """Index token vectors batch by batch, with the texts of a database.

        The batches have the ids of the texts.  With `destination`, both are saved to
        this folder, and memory holds only one batch of token vectors.  `table` is the
        codec of batches of CodedVectors.  `means` and `texts` are read after the
        batches, and described at :meth:`TextArrays.of`.
        :meth:`muvera.MuveraIndex.build` describes the other arguments.
        """

        def attach(change: Change) -> None:
            change.attach(TextArrays.of(database, change.contents, means, texts))

        pairs = ((batch, None) for batch in batches)
        vectors = MuveraIndex.from_batches(
            pairs,
            encoder,
            settings,
            destination,
            codec=table,
            threads=threads,
            before_save=attach,
            expected=len(database),
        )
        return cls(vectors, database)

    @property
    def vectors(self) -> MuveraIndex:
        """The index of token vectors; an interrupted change is finished or undone."""
        self.database.settle()
        return self._vectors

    @property
    def has_means(self) -> bool:
        """True if texts have mean vectors; False in a folder of an older version."""
        return self._arrays(self._vectors.contents).means is not None or self.table is not None

    @staticmethod
    def _arrays(contents: IndexContents) -> TextArrays:
        """Return the words and the mean vectors of the contents' rows."""
        assert isinstance(contents.texts, TextArrays)
        return contents.texts

    @property
    def table(self) -> TableCodec | None:
        """The codec of tokens that are rows of the encoder's table, or None."""
        return self._vectors.contents.tokens.table

    @property
    def folder(self) -> DurableFolder | None:
        """The open folder that keeps each change, or None."""
        return self._folder if self._folder is not None and self._folder.is_open else None

    def __repr__(self) -> str:
        return counted(len(self), "text")

    def __len__(self) -> int:
        return len(self.vectors)

    def __contains__(self, id: object) -> bool:
        return id in self.vectors

    def __iter__(self) -> Iterator[TextDocument]:
        return self.database.documents()

    def tokens(self, ids: list[Any]) -> MultiVectors:
        """Return the token vectors of texts; the parts of a long one are joined."""
        return join_parts(self.vectors.tokens(ids))

    def on_one_state(self, read: Callable[[], _Read]) -> _Read:
        """Call `read` so that it reads one state of the texts, and return its result.

        If another thread makes a change during the call, call `read` again with the
        write lock held.
        """
        before = self._vectors.contents
        try:
            result = read()
        except (KeyError, ValueError):
            if self._vectors.contents is before:
                raise
        else:
            if self._vectors.contents is before:
                return result
        with self.changing:
            return read()

    def rank(
        self,
        queries: list[str],
        encoded: MultiVectors,
        options: SearchOptions,
        words: list[QueryWords] | None = None,
    ) -> list[Parts]:
        """Return the score parts of the best texts for each query: by id, best first.

        The parts are "maxsim", and "words" and "mean" if they have a weight.  `queries`
        are for the words that query and text share, and `encoded` are their token
        vectors.  `words` are the words of the queries in a larger collection that these
        texts are a part of.
        """
        if options.group_by is not None:
            return self._rank_groups(queries, encoded, options, options.group_by, words)
        contents = self.vectors.contents
        table = contents.tokens.table
        reorders = any(options.weights) or contents.ids.has_parts or _passage(contents, options) is not None
        plan = self._plan(options, contents, reorders)
        contents, proposal = self.vectors.propose(encoded, plan)
        if contents.tokens.table is not table:  # changed by another thread meanwhile
            return self.rank(queries, encoded, options, words)
        asked: list[QueryWords | None] = [None] * len(queries)
        if options.words:
            known = self._arrays(contents).words
            asked = [known.of_query(text, contents.ids) for text in queries] if words is None else [*words]
        if table is not None:
            return self._rank_rows(contents, proposal, encoded, options, asked)
        return self._rank_candidates(contents, plan, proposal, queries, encoded, options, asked)

    def prepare(self) -> None:
        """Search once: later searches find kernels, lists and files in memory."""
        tokens, rows = self._vectors.contents.tokens, self._vectors.contents.searchable[0]
        if not len(rows) or (tokens.table is not None and tokens.table.attached is None):
            return
        with suppress(Exception):  # a search says what is damaged
            [text] = self.get(self._vectors.contents.ids.names(rows[:1]))
            query = self.tokens([text.id])[0][:_PREPARED]
            options = SearchOptions(1, words=0.1, mean=0.1 if self.has_means else None)
            self.rank([text.text], MultiVectors.from_arrays([np.asarray(query, np.float32)]), options)

    def _rank_rows(
        self,
        contents: IndexContents,
        proposal: Proposal,
        encoded: MultiVectors,
        options: SearchOptions,
        words: Sequence[QueryWords | None],
    ) -> list[Parts]:
        """Rank all texts, whose tokens are rows of a table."""
        ranking = LookedUp(contents, self._arrays(contents), options.weights, _passage(contents, options))
        best: list[Parts] = [{} for _ in encoded]
        threads = threads_for_short_work(options.threads) if len(encoded) == 1 else 1

        def work(start: int, stop: int) -> None:
            for q in range(start, stop):
                if len(encoded[q]):
                    rows, found = ranking.best(encoded[q], proposal.rows[q], options.k, words[q], threads)
                    best[q] = found.parts(contents.ids.names(rows), options.weights, options.k)

        run_in_ranges(work, split_by_count(len(encoded), 1), options.threads)
        return best

    def _rank_candidates(
        self,
        contents: IndexContents,
        plan: SearchPlan,
        proposal: Proposal,
        queries: list[str],
        encoded: MultiVectors,
        options: SearchOptions,
        words: Sequence[QueryWords | None],
    ) -> list[Parts]:
        """Rank the texts that vectors and words propose."""
        tokens, ids, arrays = contents.tokens, contents.ids, self._arrays(contents)
        scorer = Similarities(contents, encoded, _passage(contents, options), options.threads)
        # Decoding codes takes longer than scoring by codes, so only the best by all
        # parts are decoded.  A search for a recall stops at scores of floats.
        coded = plan.k > options.k and plan.recall is None and tokens.has_estimates
        if ids.has_parts and not proposal.stops:  # k parts can be of fewer texts
            proposal = replace(proposal, k=max(map(len, proposal.rows), default=1))
        found = [(rows[: plan.k], scores[: plan.k]) for rows, scores in scorer.best(proposal, coded)]
        wider = {}
        if ids.has_parts:
            few = [q for q, (rows, _) in enumerate(found) if len(rows) < options.k and len(encoded[q])]
            for q in few:
                if not proposal.has_everything(q):
                    count = 2 * max(len(proposal.rows[q]), options.num_candidates)
                    wider[q] = replace(options, candidates=count, recall=None)
        shared: list[Ranked] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(found)
        if options.words:
            allowed = _allowed(contents, plan.ids)
            others = []
            most = options.num_candidates // 4
            if ids.has_parts:  # all parts of these texts are scored
                most = max(options.k, most * len(ids) // len(ids.live))
            for q, asked in enumerate(words):
                assert asked is not None
                rows = found[q][0]
                scores, largest = arrays.words.scores(asked, ids)
                left = scores.copy() if allowed is None else scores * allowed
                left[rows] = 0
                others.append(best_rows(left, most))
                both = np.concatenate([rows, others[q]])
                shared[q] = both, scores[both] / largest
            found = [_joined(*pair) for pair in zip(found, scorer.of(others, coded), strict=True)]
        vectors = mean_vectors(encoded)
        rescored = (options.rescore or tokens.num_rescored(options.k)) if coded else 0
        candidates, chosen = [], []
        for q, (rows, scores) in enumerate(found):
            means = arrays.mean_products(rows, vectors[q]) if options.mean else None
            own = Candidates.of(query_unit(encoded[q]), scores, _aligned(rows, *shared[q]), means)
            at = own.best(options.weights, rescored or len(rows))
            candidates.append(own.at(at))
            chosen.append(rows[at])
        if rescored:
            exact = scorer.of(chosen, coded=False)
            candidates = [
                replace(own, maxsim=_aligned(rows, *scored))
                for own, rows, scored in zip(candidates, chosen, exact, strict=True)
            ]
        best = [
            own.parts(ids.names(rows), options.weights, options.k)
            for own, rows in zip(candidates, chosen, strict=True)
        ]
        for q, deeper in wider.items():
            asked = words[q]
            own_words = None if asked is None else [asked]
            best[q] = self.rank(queries[q : q + 1], encoded[q : q + 1], deeper, own_words)[0]
        return best

    def _rank_groups(
        self,
        queries: list[str],
        encoded: MultiVectors,
        options: SearchOptions,
        field: str,
        words: list[QueryWords] | None,
    ) -> list[Parts]:
        """Return the score parts of the best text of each group, for each query."""
        contents = self.vectors.contents
        ranks_all = contents.candidates is None and contents.tokens.means is None

        def rank(numbers: list[int], depth: int) -> list[Parts]:
            deep = replace(options, k=depth, group_by=None)
            own = None if words is None else [words[q] for q in numbers]
            return self.rank([queries[q] for q in numbers], encoded[numbers], deep, own)

        return rank_groups(
            rank,
            partial(self.groups, field),
            partial(self.database.most_groups, field),
            len(queries),
            options.k,
            options.grouped or (GROUPED_OF_ALL if ranks_all else GROUPED),
        )

    def _plan(self, options: SearchOptions, contents: IndexContents, reorders: bool) -> SearchPlan:
        """Return how to search the vectors.

        `reorders` is True if words, means or passages change the order of candidates.
        """
        within: list[int | str] | None = options.ids
        if options.where:
            allowed = None if within is None else set(within)
            within = [id for id in self.select(options.where) if allowed is None or id in allowed]
        if contents.tokens.table is not None:  # all texts are ranked
            return SearchPlan(options.k, within, options.num_candidates)
        count = options.num_candidates if options.recall is None else None
        if count is not None and options.candidates is None and contents.candidates is not None:
            count = max(count, contents.candidates.enough(options.k))
        if count is not None and options.rescore is not None:
            count = max(count, options.rescore)
            reorders = True
        ranked = (count or RANKED * options.k) if reorders else options.k
        return SearchPlan(ranked, within, count, options.recall, threads=options.threads)

    def query_words(self, queries: list[str]) -> list[WordStatistics]:
        """Return what is counted of the words of queries, to be added to others."""
        contents = self.vectors.contents
        words = self._arrays(contents).words
        return [words.statistics(query_terms(text), contents.ids) for text in queries]

    def most_words(self, queries: list[str], statistics: list[WordStatistics]) -> list[float]:
        """Return the highest BM25 score for each query with these statistics."""
        contents = self.vectors.contents
        words = self._arrays(contents).words
        asked = map(QueryWords, map(query_terms, queries), statistics)
        return [float(words.scores(one, contents.ids)[0].max(initial=0.0)) for one in asked]

    def put(self, new: NewTexts, threads: int | None, update: bool = False) -> list[int | str]:
        """Add texts and return their ids."""
        with self.changing, self.vectors.change() as change:
            parts = self._parts(new.encoded, change) if new.means is None else new.encoded
            ids = (change.update if update else change.add)(parts, threads=threads, means=new.means)
            names: list[int | str] = list(dict.fromkeys(ids.tolist()))
            arrays, tokens = copy(self._arrays(change.contents)), None
            whole = new.encoded if isinstance(new.encoded, MultiVectors) else None
            if whole is not None and new.means is not None and self.folder is not None:
                tokens = [np.asarray(each, "<f4").tobytes() for each in whole]
            arrays.append(change.contents, new.texts, names, whole)
            change.attach(arrays)
            self._commit(change, checked_rows(names, new.texts, new.metadata, tokens), names)
        return names

    def _parts(self, encoded: MultiVectors | CodedVectors, change: Change) -> MultiVectors | CodedVectors:
        """Return texts with long ones in parts; rows of a table stay whole."""
        passage = self.database.passage
        if passage is None or not isinstance(encoded, MultiVectors) or (encoded.lengths <= passage).all():
            return encoded
        named = encoded if encoded.has_ids else encoded.with_ids(change.contents.ids.new_ids(encoded))
        return cut_parts(named, passage)

    def put_metadata(self, documents: list[TextDocument], metadata: list[dict[str, Any]]) -> None:
        """Replace the metadata of stored texts."""
        ids = [document.id for document in documents]
        texts = [document.text for document in documents]
        with self.changing, self.vectors.change() as change:
            self._commit(change, checked_rows(ids, texts, metadata), [])

    def delete(self, ids: list[int | str], missing: Missing) -> None:
        """Delete texts by id."""
        with self.changing, self.vectors.change() as change:
            change.delete(ids, missing)
            self._commit(change, [], ids)

    def _commit(self, change: Change, rows: list[Row], deleted: list[int | str]) -> None:
        """Write a change to the journal, the database and the index, in this order.

        The SQLite commit decides: a failure before it undoes the change, and a failure
        after it is completed later.
        """
        folder = self._folder
        change.warn(5)  # names the line that called a method of TextIndex

        publish = change.publication()

        def finish() -> None:  # may be called twice
            publish()
            if folder is not None:
                folder.confirm()

        try:
            if folder is not None and (rows or deleted):
                folder.append(rows, deleted, partial(change.generation_in, folder.path, folder.lock))
            self.database.change(deleted, rows, finish)
        except BaseException:
            self._settle()
            raise

    def _settle(self) -> None:
        """Finish or undo an interrupted change."""
        self.database.settle()
        if self._folder is not None:
            self._folder.undo()

    def rebuild(self, fit: bool, threads: int | None) -> None:
        """Rebuild the index of token vectors; save it if a folder is open."""
        with self.changing:
            self.vectors.rebuild(fit=fit, threads=threads)
            if self.folder is not None:
                self.save(None)

    @property
    def was_default(self) -> bool:
        """True if an older version built this index for an encoder with a table."""
        contents = self._vectors.contents
        config = FDEConfig.preset("mean", contents.config.dimension)
        return (
            contents.settings.tokens == "int8"
            and not contents.settings.keep_exact
            and contents.settings.pool == 1
            and contents.config == config
        )

    def replace_by_rows(self, encoder: TableEncoder) -> None:
        """Store tokens as rows of the encoder's table; save if a folder is open."""

        def batches() -> Iterator[CodedVectors]:
            ids = self._vectors.ids.tolist()
            for start in range(0, len(ids), ROWS_BATCH):
                names = ids[start : start + ROWS_BATCH]
                texts = [document.text for document in self.database.get(names)]
                yield encode_rows(encoder, texts, encoder.codec).with_ids(names)

        with self.changing:
            with self.vectors.change() as change:
                change.replace_by_rows(batches(), encoder.codec)
                change.attach(TextArrays.of(self.database, change.contents))
                facts = {} if encoder.passage is None else {"passage": encoder.passage}
                self.database.change([], also=change.publication(), facts=facts)
            if self.folder is not None:
                self.save(None)

    def calibrate(self, queries: MultiVectors, threads: int | None) -> None:
        """Calibrate the index of token vectors."""
        with self.changing:
            self.vectors.calibrate(queries, threads=threads)

    def save(self, path: str | os.PathLike[str] | None, overwrite: bool = False) -> None:
        """Save to a folder, by default the open one.

        See :meth:`muvera.TextIndex.save`.
        """
        with self.changing:
            self.database.settle()
            folder = self.folder
            if path is None:
                if folder is None:
                    raise ValueError("save() without a path needs an index from open(). Give a path.")
                path = folder.path
            if folder is None or folder.path != as_path(path).resolve():
                self._vectors.save(path, overwrite=overwrite)
            else:
                folder.undo()
                folder.save(partial(self._save_to, folder.destination))

    def _save_to(self, destination: Destination) -> None:
        with self._vectors.change() as change:
            change.save(destination)

    def keep(self, folder: DurableFolder) -> None:
        """Write later changes to an open folder's journal; save in the background.

        Words that were damaged, or that a former format did not have, are saved, too.
        """
        self._folder = folder
        if not self._arrays(self._vectors.contents).words.lists.is_saved:
            folder.unsaved = max(1, folder.unsaved)
        folder.save_in_background(WeakMethod(self._save_changes))

    def _save_changes(self) -> None:
        with self.changing:
            if self.folder is not None and self.folder.unsaved:
                self.save(None)

    def close(self) -> None:
        """Save changes and release the open folder, if there is one."""
        folder = self.folder
        if folder is None:
            return
        try:
            folder.stop()
            self._save_changes()
        finally:
            with self.changing:  # after a save that still runs
                folder.close()


def _passage(contents: IndexContents, options: SearchOptions) -> int | None:
    """Return the number of tokens of a passage, or None if no text is longer."""
    return options.passage if has_long_texts(contents, options.passage) else None


def _allowed(contents: IndexContents, within: list[Any] | None) -> NDArray[np.bool_] | None:
    """Return True for the first row of each text with an id in `within`.

    None stands for all texts.
    """
    if within is None:
        return None
    rows = contents.ids.rows_of(within)
    allowed = np.zeros(contents.ids.num_rows, bool)
    allowed[rows[rows >= 0]] = True
    return allowed


def _joined(first: Ranked, second: Ranked) -> Ranked:
    """Return the rows of two rankings with their scores, one after the other."""
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])


def _aligned(
    rows: NDArray[np.int64], known: NDArray[np.int64], scores: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the score of each of `rows`, or 0 for a row that is not in `known`.

    `known` are distinct rows, and `scores` are their scores.
    """
    if not len(known):
        return np.zeros(len(rows), np.float32)
    order = np.argsort(known)
    at = order[np.minimum(np.searchsorted(known, rows, sorter=order), len(known) - 1)]
    return np.where(known[at] == rows, scores[at], np.float32(0))


def read_folder(folder: Path) -> tuple[MuveraIndex, DocumentDatabase, list[TextChange]]:
    """Load the vectors and texts of the last save, and the changes in the journal."""

    def read(manifest: dict[str, Any]) -> tuple[MuveraIndex, DocumentDatabase, list[TextChange]]:
        contents = read_generation(folder, manifest)
        generation = contents.generations[folder]
        if f"{generation.folder}/{TEXTS}" not in manifest["files"]:
            load = Hint("load_vectors", "Use MuveraIndex.load.")
            raise ValueError(Message(f"{folder} is an index of token vectors without texts. ", load))
        journal = journal_content(folder, generation)
        database = DocumentDatabase.open(folder / generation.folder / TEXTS)
        changes = join_updates(read_journal(journal, folder / generation.journal))
        require_latest(folder, manifest)  # a save has emptied the journal
        arrays = TextArrays.load(folder, manifest, contents, database)
        loaded = replace(generation, journal_sha256=journal_checksum(journal))
        contents = replace(contents, texts=arrays, generations={folder: loaded})
        return MuveraIndex.of(contents), database, changes

    return read_current(folder, read)
