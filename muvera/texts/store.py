"""TextStore: token vectors and texts that change together.

Each change is in the journal of the open folder before its method returns, see
journal.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple, TypeVar
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
    Generation,
    IndexFolderError,
    journal_checksum,
    journal_content,
    read_manifest,
)
from ..index.id_map import IdMap, Missing
from ..index.muvera_index import MuveraIndex
from ..index.persistence import read_current, read_generation
from ..index.searching import SearchPlan
from ..index.settings import IndexSettings
from ..index.token_store import Ranked, Rows
from ..reranking.coded_vectors import CodedVectors
from ..reranking.table_codec import TableCodec
from ..utils.checks import as_path, counted
from ..utils.hints import Hint, Message
from ..utils.locks import renew_after_fork
from .database import MEAN, DocumentDatabase, Row, TextDocument, checked_rows
from .encoders.base import ROWS_BATCH, TableEncoder, encode_rows
from .hit import GROUPED, GROUPED_OF_ALL, SearchOptions, mean_vectors
from .journal import DurableFolder, TextChange, join_updates, read_journal
from .passages import LookedUp, Similarities, has_long_texts
from .protocol import NewTexts
from .ranking import Candidates, Parts, Scores, Unranked, aligned, rank_groups

_Read = TypeVar("_Read")

# With ``recall=``, words, mean vectors and passages reorder the best RANKED * k texts.
RANKED = 3

# Queries whose scores of all texts are in memory together.
_SCORED = 16

_NO_WORDS: tuple[Rows, Scores] = (np.empty(0, np.int64), np.empty(0))


class _Found(NamedTuple):
    """The candidates of some queries, and what scored them."""

    scorer: Similarities
    candidates: list[Candidates]
    #: As in :class:`muvera.texts.ranking.Unranked`.
    vectors: int
    words: int
    rescored: int
    #: Options for the queries whose candidates are parts of fewer than k texts.
    wider: dict[int, SearchOptions]


class TextStore:
    """Token vectors in this process, and texts with metadata under the same ids.

    After :meth:`keep`, each change is first written to the journal of a folder.  An
    interrupted change is finished or undone by the next use.  Every save of `vectors`
    writes the texts, too.  :class:`muvera.texts.protocol.Texts` describes the methods.
    """

    def __init__(self, vectors: MuveraIndex, database: DocumentDatabase) -> None:
        self._vectors = vectors
        self.database = database
        self.get = database.get
        self.select = database.select
        self.groups = database.groups
        self._folder: DurableFolder | None = None
        self._renew_locks()
        renew_after_fork(self._renew_locks)
        with vectors.change() as change:
            change.attach(partial(_write_texts, database))

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
    ) -> TextStore:
        """Index token vectors batch by batch, with the texts of a database.

        The batches have the ids of the texts.  With `destination`, both are saved to
        this folder, and memory holds only one batch of token vectors.  `table` is the
        codec of batches of CodedVectors.  :meth:`muvera.MuveraIndex.build` describes
        the other arguments.
        """

        def attach(change: Change) -> None:
            change.attach(partial(_write_texts, database))

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
        return self.database.has_means or self.table is not None

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

    def rank(self, queries: list[str], encoded: MultiVectors, options: SearchOptions) -> list[Parts]:
        """Return the score parts of the best texts for each query: by id, best first.

        The parts are "maxsim", and "words" and "mean" if they have a weight.  `queries`
        are for the words that query and text share, and `encoded` are their token
        vectors.
        """
        if options.group_by is not None:
            return self._rank_groups(queries, encoded, options, options.group_by)
        if self.table is not None and len(queries) > _SCORED:
            return _in_turns(self.rank, queries, encoded, options)
        found = self._find(queries, encoded, options)
        candidates = found.candidates
        if found.rescored:
            promising = [one.promising(options.weights, found.rescored) for one in candidates]
            exact = found.scorer.of(promising, coded=False)
            candidates = [one.rescored(*scored) for one, scored in zip(candidates, exact, strict=True)]
        names = found.scorer.contents.ids.names
        best = [one.parts(names(one.rows), options.weights, options.k) for one in candidates]
        for q, wider in found.wider.items():
            best[q] = self.rank(queries[q : q + 1], encoded[q : q + 1], wider)[0]
        return best

    def candidates(self, queries: list[str], encoded: MultiVectors, options: SearchOptions) -> list[Unranked]:
        """Return what :meth:`rank` would rank for each query, to be joined with others.

        ``options.group_by`` is ignored.
        """
        if self.table is not None and len(queries) > _SCORED:
            return _in_turns(self.candidates, queries, encoded, options)
        found = self._find(queries, encoded, options)
        names = found.scorer.contents.ids.names
        unranked = [Unranked(names(one.rows), one, *found[2:5]) for one in found.candidates]
        for q, wider in found.wider.items():
            unranked[q] = self.candidates(queries[q : q + 1], encoded[q : q + 1], wider)[0]
        return unranked

    def similarities(
        self, encoded: MultiVectors, ids: list[list[int | str]], options: SearchOptions
    ) -> list[dict[int | str, float]]:
        """Return the exact similarities of texts to each query, by id.

        `ids` has a list for each query.  Texts that are not here are left out.
        """
        contents = self.vectors.contents
        scorer = _scorer(contents, encoded, options, _passage(contents, options))
        rows = [contents.ids.rows_of(some) for some in ids]
        scored = scorer.of([some[some >= 0] for some in rows], coded=False)
        return [dict(zip(contents.ids.names(some), scores.tolist(), strict=True)) for some, scores in scored]

    def _find(self, queries: list[str], encoded: MultiVectors, options: SearchOptions) -> _Found:
        """Find and score the candidates of each query."""
        contents = self.vectors.contents
        table = contents.tokens.table
        in_parts = contents.ids.has_parts
        passage = _passage(contents, options)
        reorders = any(options.weights) or passage is not None or in_parts
        plan = self._plan(options, contents, reorders)
        contents, proposal = self.vectors.propose(encoded, plan)
        if contents.tokens.table is not table or contents.ids.has_parts != in_parts:
            return self._find(queries, encoded, options)  # changed by another thread meanwhile
        scorer = _scorer(contents, encoded, options, passage)
        # Decoding codes takes longer than scoring by codes, so only the best by all
        # parts are decoded.  A search for a recall stops at scores of floats.
        coded = any(options.weights)
        if table is None:
            coded = plan.k > options.k and plan.recall is None and contents.tokens.has_estimates
        if in_parts and not proposal.stops:  # k parts can be of fewer texts
            proposal = replace(proposal, k=max(map(len, proposal.rows), default=1))
        found = [(rows[: plan.k], scores[: plan.k]) for rows, scores in scorer.best(proposal, coded)]
        wider = {}
        if in_parts:
            few = [q for q, (rows, _) in enumerate(found) if len(rows) < options.k and len(encoded[q])]
            for q in few:
                if not proposal.has_everything(q):
                    count = 2 * max(len(proposal.rows[q]), options.num_candidates)
                    wider[q] = replace(options, candidates=count, recall=None)
        words = [_NO_WORDS] * len(queries)
        most = options.num_candidates // (4 if table is None else 1)
        if in_parts:  # all parts of these texts are scored
            most = max(options.k, most * len(contents.ids) // len(contents.ids.live))
        if options.words:
            words = [self._match_words(text, contents, options) for text in queries]
            others = [
                shared[~np.isin(shared, rows)][:most]
                for (shared, _), (rows, _) in zip(words, found, strict=True)
            ]
            found = [_joined(*pair) for pair in zip(found, scorer.of(others, coded), strict=True)]
        means = [np.full(len(rows), np.nan) for rows, _ in found]
        if options.mean:
            known = scorer.means([rows for rows, _ in found])
            means = self._means(encoded, contents, found) if known is None else [*map(_wide, known)]
        candidates = [
            Candidates(rows, _wide(scores), aligned(rows, *shared, 0.0), similarities)
            for (rows, scores), shared, similarities in zip(found, words, means, strict=True)
        ]
        rescored = (options.rescore or contents.tokens.num_rescored(options.k)) if coded else 0
        return _Found(scorer, candidates, plan.k, most, rescored, wider)

    def _rank_groups(
        self, queries: list[str], encoded: MultiVectors, options: SearchOptions, field: str
    ) -> list[Parts]:
        """Return the score parts of the best text of each group, for each query."""
        contents = self.vectors.contents
        ranks_all = contents.candidates is None and contents.tokens.means is None

        def rank(numbers: list[int], depth: int) -> list[Parts]:
            deep = replace(options, k=depth, group_by=None)
            return self.rank([queries[q] for q in numbers], encoded[numbers], deep)

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
        within = options.ids
        if options.where:
            allowed = None if within is None else set(within)
            within = [id for id in self.select(options.where) if allowed is None or id in allowed]
        if contents.tokens.table is not None:  # all texts are ranked
            most = options.num_candidates
            return SearchPlan(most if any(options.weights) else options.k, within, most)
        count = options.num_candidates if options.recall is None else None
        if count is not None and options.candidates is None and contents.candidates is not None:
            count = max(count, contents.candidates.enough(options.k))
        if count is not None and options.rescore is not None:
            count = max(count, options.rescore)
            reorders = True
        ranked = (count or RANKED * options.k) if reorders else options.k
        return SearchPlan(ranked, within, count, options.recall, threads=options.threads)

    def _match_words(self, text: str, contents: IndexContents, options: SearchOptions) -> tuple[Rows, Scores]:
        """Return the rows of the texts that share words with a query, and BM25 scores.

        The best text comes first.
        """
        count = 2 * options.num_candidates
        matches = self.database.match_words(text, count, options.where, options.ids)
        rows = contents.ids.rows_of([id for id, _ in matches])
        scores = np.array([score for _, score in matches], np.float64)
        return rows[rows >= 0], scores[rows >= 0]

    def _means(
        self, encoded: MultiVectors, contents: IndexContents, candidates: Sequence[Ranked]
    ) -> list[Scores]:
        """Return the cosine of mean vectors by candidate, for each query."""
        similarities = []
        for query, (rows, _) in zip(mean_vectors(encoded), candidates, strict=True):
            found, means = self.database.means(contents.ids.names(rows), encoded.dimension)
            products = np.einsum("ij,j->i", means.astype(np.float32), query)
            similarities.append(aligned(rows, contents.ids.rows_of(found), _wide(products), np.nan))
        return similarities

    def put(self, new: NewTexts, threads: int | None, update: bool = False) -> list[int | str]:
        """Add texts and return their ids."""
        with self.changing, self.vectors.change() as change:
            parts = self._parts(new.encoded, change) if new.means is None else new.encoded
            ids = (change.update if update else change.add)(parts, threads=threads, means=new.means)
            names: list[int | str] = list(dict.fromkeys(ids.tolist()))
            means = tokens = None
            if isinstance(new.encoded, MultiVectors):
                if new.means is None:
                    means = stored_means(new.encoded)
                elif self.folder is not None:
                    tokens = [np.asarray(each, "<f4").tobytes() for each in new.encoded]
            self._commit(change, checked_rows(names, new.texts, new.metadata, means, tokens), names)
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
        """Write later changes to an open folder's journal; save in the background."""
        self._folder = folder
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


def _in_turns(
    search: Callable[[list[str], MultiVectors, SearchOptions], list[_Read]],
    queries: list[str],
    encoded: MultiVectors,
    options: SearchOptions,
) -> list[_Read]:
    """Call a method with few queries at a time, and return all results."""
    turns = [slice(first, first + _SCORED) for first in range(0, len(queries), _SCORED)]
    return [one for turn in turns for one in search(queries[turn], encoded[turn], options)]


def _passage(contents: IndexContents, options: SearchOptions) -> int | None:
    """Return the number of tokens of a passage, or None if no text is longer."""
    return options.passage if has_long_texts(contents, options.passage) else None


def _scorer(
    contents: IndexContents, encoded: MultiVectors, options: SearchOptions, passage: int | None
) -> Similarities:
    kind = Similarities if contents.tokens.table is None else LookedUp
    return kind(contents, encoded, passage, options.threads)


def _joined(first: Ranked, second: Ranked) -> Ranked:
    """Return the rows of two rankings with their scores, one after the other."""
    return np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]])


def _wide(scores: NDArray[np.float32]) -> Scores:
    return np.asarray(scores, np.float64)


def stored_means(encoded: MultiVectors) -> list[bytes | None]:
    """Return the mean token vector of each text as bytes; None without tokens."""
    means = mean_vectors(encoded).astype(MEAN)
    return [mean.tobytes() if length else None for mean, length in zip(means, encoded.lengths, strict=True)]


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
        if Generation.of(read_manifest(folder)) != generation:  # a save has emptied the journal
            raise IndexFolderError(f"{folder} was saved while it was loaded. Load it again.")
        _require_same_ids(contents.ids, database, str(folder))
        loaded = replace(generation, journal_sha256=journal_checksum(journal))
        return MuveraIndex.of(replace(contents, generations={folder: loaded})), database, changes

    return read_current(folder, read)


def _write_texts(database: DocumentDatabase, ids: IdMap, path: Path) -> None:
    """Write the database to a new file.

    Raise ValueError if its ids differ from `ids`.
    """
    _require_same_ids(ids, database, "The index")
    database.save(path)


def _require_same_ids(ids: IdMap, database: DocumentDatabase, name: str) -> None:
    if len(database) != len(ids) or set(database.select({})) != set(ids.names(ids.live)):
        sizes = f"{counted(len(database), 'text')} and {counted(len(ids), 'set')} of token vectors"
        raise ValueError(
            f"{name} has {sizes}, and their ids must be the same: the vectors were changed without the "
            "texts. Build the index again."
        )
