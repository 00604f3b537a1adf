"""TextStore: token vectors and texts that change together; DurableFolder: a folder that keeps each change.

Each change is in the journal before its method returns; docs/index-format.md describes
the journal.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from operator import add
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, BinaryIO, NamedTuple, TypeVar
from weakref import WeakMethod

from ..data.multivectors import MultiVectors
from ..index.generations import TEXTS, Generation, IndexFolderError, hold, journal_bytes, read_manifest
from ..index.id_map import IdMap, Missing
from ..index.muvera_index import MuveraIndex
from ..index.persistence import read_current, read_generation
from ..index.two_stage_search import IndexContents
from ..utils.atomic_files import sync
from ..utils.checks import as_path, counted
from ..utils.hints import Hint, Message
from .database import DocumentDatabase, Row, TextDocument, checked_rows, require_ids
from .hit import Parts, SearchOptions, add_words

_Read = TypeVar("_Read")

_LOG = logging.getLogger("muvera")

# A change's method and the names of its arguments.
_FORMS = (("update", "ids", "texts", "metadata"), ("update", "ids", "metadata"), ("delete", "ids"))

# Digits of a checksum.
_DIGITS = 16

# A longer change counts as several documents, so that a default journal has at most
# about 64 MiB.
_BYTES_PER_DOCUMENT = 1 << 16

# Maximum number of documents in a joined update.
_MOST_JOINED = 512

# With ``recall=``, words reorder the best _RANKED * k texts by similarity.
_RANKED = 3


class Change(NamedTuple):
    """New texts with their metadata, new metadata of stored texts, or, without metadata, ids to delete."""

    ids: list[int | str]
    texts: list[str] | None = None
    metadata: list[dict[str, Any]] | None = None


class DurableFolder:
    """The folder that keeps an index's changes: its lock, its journal, and saves in the background.

    Append a change, apply it, and then confirm or undo it before the next one.
    """

    def __init__(self, path: Path, save_changes: int, save_seconds: float) -> None:
        self.path, self.unsaved = path, 0
        self._save_changes, self._save_seconds = save_changes, save_seconds
        self._process, self._requests = os.getpid(), SimpleQueue[bool]()
        self._thread: Thread | None = None
        self._journal: BinaryIO | None = None
        # The unconfirmed change: the journal, its size before the change, and the
        # number of changed documents.
        self._pending: tuple[BinaryIO, int, int] | None = None
        self._lock = hold(path).lock

    @property
    def is_open(self) -> bool:
        """True if this process holds the folder's lock."""
        return self._lock.is_locked and os.getpid() == self._process

    def append(self, rows: Sequence[Row], deleted: Sequence[int | str]) -> None:
        """Write a change of :meth:`DocumentDatabase.change` to the disk.

        Raise ValueError if the folder is not open.
        """
        if not self.is_open:
            raise ValueError(
                "This index is closed, or was opened before a fork. Open it again with TextIndex.open."
            )
        self.undo()
        try:
            journal = self._opened()
            status = os.fstat(journal.fileno())
            if status.st_nlink == 0:
                raise OSError("the journal was removed")
            line = memoryview(_journal_line(rows, deleted))
            documents = len(rows or deleted) + len(line) // _BYTES_PER_DOCUMENT
            self._pending = journal, status.st_size, documents
            while line:
                line = line[journal.write(line) :]
            os.fsync(journal.fileno())
        except OSError as error:
            named = OSError(
                f"Nothing was changed: the journal in {self.path} could not be written ({error}). Free space on the "
                "disk, or open the index again."
            )
            named.errno = error.errno
            raise named from error

    def _opened(self) -> BinaryIO:
        """Return the journal of the current generation, without an incomplete last line."""
        if self._journal is None:
            path = self.path / Generation.of(read_manifest(self.path)).journal
            complete = sum(map(len, _complete_lines(path)))
            journal = path.open("ab", buffering=0)
            journal.truncate(complete)
            sync(self.path)
            self._journal = journal
        return self._journal

    def confirm(self) -> None:
        """Keep the last change."""
        if self._pending is not None:
            documents, self._pending = self._pending[2], None
            before, self.unsaved = self.unsaved, self.unsaved + documents
            if before < self._save_changes <= self.unsaved:
                self._requests.put(True)

    def undo(self) -> None:
        """Remove the last change, unless it was confirmed."""
        if self._pending is not None:
            journal, size, _ = self._pending
            journal.truncate(size)
            os.fsync(journal.fileno())
            self._pending = None

    def save(self, write: Callable[[], object]) -> None:
        """Call `write`, which makes a new generation.

        The next change begins the journal of that generation.
        """
        self._close_journal()
        write()
        self.unsaved = 0

    def save_in_background(self, find_save: Callable[[], Callable[[], object] | None]) -> None:
        """Start a thread that saves after enough changes or seconds, until `find_save` returns None."""
        self._thread = Thread(target=self._save_repeatedly, args=(find_save,), daemon=True)
        self._thread.start()

    def _save_repeatedly(self, find_save: Callable[[], Callable[[], object] | None]) -> None:
        wanted = True
        while wanted:
            with suppress(Empty):
                wanted = self._requests.get(timeout=self._save_seconds)
            save = find_save()
            if save is None:
                return
            try:
                if wanted:
                    save()
            except Exception as error:
                _LOG.warning(
                    "muvera: %s could not be saved, its journal keeps all changes: %s", self.path, error
                )
            del save

    def stop(self) -> None:
        """Stop the background thread, after a save that still runs."""
        self._requests.put(False)
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Close the journal and release the folder's lock."""
        if self.is_open:
            self._close_journal()
            self._lock.release()

    def _close_journal(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:_DIGITS].encode("ascii")


def _journal_line(rows: Sequence[Row], deleted: Sequence[int | str]) -> bytes:
    # Value by value, so that other threads can run between long texts.
    lists: dict[str, Iterable[str]] = {"ids": map(json.dumps, [row.id for row in rows] or deleted)}
    if rows and deleted:
        lists["texts"] = (json.dumps(row.text) for row in rows)
    if rows:
        lists["metadata"] = (row.metadata for row in rows)
    arguments = ", ".join(f'"{name}": [{", ".join(values)}]' for name, values in lists.items())
    content = f'["{"update" if rows else "delete"}", {{{arguments}}}]'.encode("ascii")
    return b"%s %s\n" % (_checksum(content), content)


def _complete_lines(path: Path) -> list[bytes]:
    """Return the complete lines of a journal.

    Raise IndexFolderError for a damaged line before a complete one.
    """
    if path.is_symlink():
        raise IndexFolderError(f"{path} is a link, but an index contains no links. Remove it.")
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    complete = [
        line.endswith(b"\n") and line[:_DIGITS] == _checksum(line[_DIGITS + 1 : -1]) for line in lines
    ]
    count = complete.index(False) if False in complete else len(lines)
    if any(complete[count:]):
        raise IndexFolderError(f"{path} is damaged in line {count + 1}. Restore the folder from a copy.")
    return lines[:count]


def _read_journal(path: Path) -> Iterator[Change]:
    """Yield the changes of a journal, oldest first.

    Raise IndexFolderError if it is damaged.
    """
    for number, line in enumerate(_complete_lines(path), 1):
        try:
            method, arguments = json.loads(line[_DIGITS + 1 :])
            lengths = {len(list(values)) for values in arguments.values()}
            if (method, *arguments) not in _FORMS or len(lengths) > 1:
                raise ValueError("it is not a change")
            require_ids(arguments["ids"])
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise IndexFolderError(
                f"{path} is damaged in line {number}: {error}. Restore the folder from a copy."
            ) from error
        yield Change(**arguments)


def _join_updates(changes: Iterable[Change]) -> list[Change]:
    """Join consecutive updates of distinct documents, so that their texts are encoded together."""
    joined = [Change([])]
    for change in changes:
        last = joined[-1]
        few = len(last.ids) + len(change.ids) <= _MOST_JOINED
        if last.texts and change.texts and few and set(last.ids).isdisjoint(change.ids):
            joined[-1] = Change(*map(add, last, change))
        else:
            joined.append(change)
    return joined[1:]


class TextStore:
    """Token vectors in this process, and texts with metadata under the same ids.

    After :meth:`keep`, each change is first written to the journal of a folder.  An
    interrupted change is finished or undone by the next use.
    :class:`muvera.engines.engine_index.EngineTexts` has the same methods.
    """

    def __init__(self, vectors: MuveraIndex, database: DocumentDatabase) -> None:
        self._vectors, self.database = vectors, database
        self.get, self.select = database.get, database.select
        self._folder: DurableFolder | None = None
        vectors._write_texts = partial(_write_texts, database)

    @property
    def vectors(self) -> MuveraIndex:
        """The index of token vectors, once an interrupted change is finished or undone."""
        self.database.settle()
        return self._vectors

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
        """Return the token vectors of texts."""
        return self.vectors.tokens(ids)

    def on_one_state(self, read: Callable[[], _Read]) -> _Read:
        """Call `read` so that it reads one state of the texts, and return its result.

        If another thread makes a change during the call, call `read` again with the
        write lock held.
        """
        before = self._vectors._contents
        try:
            result = read()
        except (KeyError, ValueError):
            if self._vectors._contents is before:
                raise
        else:
            if self._vectors._contents is before:
                return result
        with self.changing:
            return read()

    def rank(self, queries: list[str], encoded: MultiVectors, options: SearchOptions) -> list[Parts]:
        """Return the score parts of the best `options.k` texts for each query."""
        index, where, within = self.vectors, options.where, options.ids
        if where:
            allowed = None if within is None else set(within)
            within = [id for id in self.select(where) if allowed is None or id in allowed]
        k, count, threads = options.k, options.num_candidates, options.threads
        candidates = count if options.recall is None else None
        ranked = (candidates or _RANKED * k) if options.words else k
        rankings = index.search(
            encoded, ranked, ids=within, candidates=candidates, recall=options.recall, threads=threads
        )
        if not options.words:
            return [{id: {"maxsim": score} for id, score in ranking} for ranking in rankings]
        maxsim = [dict(ranking) for ranking in rankings]
        matches = [dict(self.database.match_words(text, 2 * count, where, options.ids)) for text in queries]
        others = [
            list(islice((id for id in shared if id not in known and id in index), count // 4))
            for shared, known in zip(matches, maxsim, strict=True)
        ]
        more = index.rerank(encoded, others, missing="ignore", threads=threads)
        return [
            add_words({**known, **dict(added)}, shared, options.words, k)
            for known, added, shared in zip(maxsim, more, matches, strict=True)
        ]

    @property
    def changing(self) -> AbstractContextManager[object]:
        """The write lock, which each of these methods acquires."""
        return self.vectors._changing

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
        with self.changing:
            changed, ids = self.vectors._appended(encoded, threads, update)
            names: list[int | str] = ids.tolist()
            self._change(changed, checked_rows(names, texts, metadata), names)
        return names

    def put_metadata(self, documents: list[TextDocument], metadata: list[dict[str, Any]]) -> None:
        """Replace the metadata of stored texts."""
        with self.changing:
            ids, texts = [one.id for one in documents], [one.text for one in documents]
            self._change(None, checked_rows(ids, texts, metadata), [])

    def delete(self, ids: list[int | str], missing: Missing) -> None:
        """Delete texts by id."""
        with self.changing:
            self._change(self.vectors._without(ids, missing), [], ids)

    def _change(self, changed: IndexContents | None, rows: list[Row], deleted: list[int | str]) -> None:
        """Write a change to the journal and the database, and then replace the contents of the vector index."""
        index, folder = self._vectors, self._folder

        def finish() -> None:  # may be called twice
            if changed is not None and index._contents is not changed:
                index._replace_contents(changed)
            if folder is not None:
                folder.confirm()

        try:
            if folder is not None and (rows or deleted):
                folder.append(rows, deleted)
            self.database.change(deleted, rows, finish)
        except BaseException:
            self._settle()
            raise

    def _settle(self) -> None:
        """Finish or undo an interrupted change."""
        self.database.settle()
        if self._folder is not None:
            self._folder.undo()

    def rebuild(self, threads: int | None) -> None:
        """Rebuild the index of token vectors, and save it to the open folder, if there is one."""
        with self.changing:
            self.vectors.rebuild(threads=threads)
            if self.folder is not None:
                self.save(None)

    def calibrate(self, queries: MultiVectors, threads: int | None) -> None:
        """Calibrate the index of token vectors."""
        self.vectors.calibrate(queries, threads=threads)

    def save(self, path: str | os.PathLike[str] | None, overwrite: bool = False) -> None:
        """Save to a folder, by default to the open one, see :meth:`muvera.TextIndex.save`."""
        with self.changing:
            self._settle()
            folder = self.folder
            if path is None:
                if folder is None:
                    raise ValueError("save() without a path needs an index from TextIndex.open. Give a path.")
                path = folder.path
            if folder is None or folder.path != as_path(path).resolve():
                self._vectors.save(path, overwrite=overwrite)
            else:
                folder.save(lambda: self._vectors._save(path, holds_lock=True))

    def keep(self, folder: DurableFolder) -> None:
        """Write each later change to the journal of an open folder, and save in the background."""
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
            with self._vectors._changing:  # after a save that still runs
                folder.close()


def read_folder(folder: Path) -> tuple[MuveraIndex, DocumentDatabase, list[Change]]:
    """Load the vectors and texts of the last save, and the later changes in the journal."""

    def read(manifest: dict[str, Any]) -> tuple[MuveraIndex, DocumentDatabase, list[Change]]:
        contents = read_generation(folder, manifest)
        generation = contents.generations[folder]
        if f"{generation.folder}/{TEXTS}" not in manifest["files"]:
            load = Hint("load_vectors", "Use MuveraIndex.load.")
            raise ValueError(Message(f"{folder} is an index of token vectors without texts. ", load))
        size = journal_bytes(folder, generation)
        database = DocumentDatabase.open(folder / generation.folder / TEXTS)
        changes = _join_updates(_read_journal(folder / generation.journal))
        if Generation.of(read_manifest(folder)) != generation:  # a save has emptied the journal
            raise IndexFolderError(f"{folder} was saved while it was loaded. Load it again.")
        _require_same_ids(contents.ids, database, str(folder))
        contents.generations = {folder: replace(generation, journal_bytes=size)}
        return MuveraIndex._of(contents), database, changes

    return read_current(folder, read)


def _write_texts(database: DocumentDatabase, ids: IdMap, path: Path) -> None:
    """Write the database to a new file.

    Raise ValueError if its ids differ from `ids`.
    """
    _require_same_ids(ids, database, "The index")
    database.save(path)


def _require_same_ids(ids: IdMap, database: DocumentDatabase, name: str) -> None:
    if len(database) != len(ids) or set(database.select({})) != set(ids.of(ids.live).tolist()):
        sizes = f"{counted(len(database), 'text')} and {counted(len(ids), 'set')} of token vectors"
        raise ValueError(
            f"{name} has {sizes}, and their ids must be the same: the vectors were changed without the texts. Build "
            "the index again."
        )
