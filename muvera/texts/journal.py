"""DurableFolder: the open folder of a text index, whose journal keeps each change.

docs/index-format.md describes the journal.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import add
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, BinaryIO, NamedTuple

from ..index.generations import (
    Destination,
    FolderLock,
    Generation,
    IndexFolderError,
    journal_content,
    read_manifest,
)
from ..utils.atomic_files import named_errors, recover_folder, sync
from .database import Row, require_ids

_LOG = logging.getLogger("muvera")

# A change's method and the names of its arguments.
_FORMS = (
    ("update", "ids", "texts", "metadata", "tokens"),
    ("update", "ids", "texts", "metadata"),
    ("update", "ids", "metadata"),
    ("delete", "ids"),
)

# Digits of a checksum.
_DIGITS = 16

# A longer change counts as several documents, so that a default journal has at most
# about 64 MiB.
_BYTES_PER_DOCUMENT = 1 << 16

# Maximum number of documents in a joined update.
_MOST_JOINED = 512


class TextChange(NamedTuple):
    """One journal entry.

    With texts and metadata: store both.  With metadata only: update metadata.  With
    neither: delete.  With `tokens`, the texts have these token vectors, as bytes.
    """

    ids: list[int | str]
    texts: list[str] | None = None
    metadata: list[dict[str, Any]] | None = None
    tokens: list[bytes] | None = None


class DurableFolder:
    """The folder that keeps the changes of a text index.

    It has a lock, a journal, and saves in the background.  Append a change, apply it,
    and then confirm or undo it before the next one.

    Parameters
    ----------
    path : Path
        The folder, which contains an index and which no other process may hold.
    save_changes : int
        Save in the background after about this many changed documents.
    save_seconds : float
        Seconds between saves in the background while changes are unsaved.

    Attributes
    ----------
    unsaved : int
        Number of changed documents since the last save.
    lock : FolderLock
    """

    def __init__(self, path: Path, save_changes: int, save_seconds: float) -> None:
        self.path = path
        self.unsaved = 0
        self._save_changes = save_changes
        self._save_seconds = save_seconds
        self._process = os.getpid()
        # True: save now.  False: stop.
        self._requests = SimpleQueue[bool]()
        self._thread: Thread | None = None
        self._journal: BinaryIO | None = None
        self._last = b""  # the checksum of the journal's last line
        # The unconfirmed change: the journal, its size before the change, the number of
        # changed documents, and the checksum of its line.
        self._pending: tuple[BinaryIO, int, int, bytes] | None = None
        self.lock = FolderLock(path)

    @property
    def is_open(self) -> bool:
        """True if this process holds the folder's lock."""
        return self.lock.is_held and os.getpid() == self._process

    @property
    def destination(self) -> Destination:
        """The folder as a place to save to, whose lock is held."""
        return Destination(self.path, lock=self.lock)

    def append(
        self,
        rows: Sequence[Row],
        deleted: Sequence[int | str],
        find_generation: Callable[[], Generation],
    ) -> None:
        """Write a change of :meth:`.database.DocumentDatabase.change` to the disk.

        `find_generation` returns the generation in the folder, or raises
        IndexFolderError if it is not the generation that the index read or wrote.

        Raises
        ------
        ValueError
            If the folder is not open.
        OSError
            If the journal cannot be written, or the folder was replaced.
        """
        if not self.is_open:
            raise ValueError("This index is closed, or was opened before a fork. Open its folder again.")
        self.undo()
        try:
            journal = self._opened(find_generation())
            status = os.fstat(journal.fileno())
            if status.st_nlink == 0:
                raise OSError("the journal was removed")
            line = memoryview(_journal_line(rows, deleted, self._last))
            documents = len(rows or deleted) + len(line) // _BYTES_PER_DOCUMENT
            self._pending = journal, status.st_size, documents, bytes(line[:_DIGITS])
            while line:
                line = line[journal.write(line) :]
            os.fsync(journal.fileno())
        except IndexFolderError as error:
            raise OSError(f"Nothing was changed: {error}") from error
        except OSError as error:
            named = OSError(
                f"Nothing was changed: the journal in {self.path} could not be written ({error}). Free "
                "space on the disk, or open the index again."
            )
            named.errno = error.errno
            raise named from error

    def _opened(self, generation: Generation) -> BinaryIO:
        """Return the generation's journal, without an incomplete last line."""
        if self._journal is None:
            path = self.path / generation.journal
            lines = _complete_lines(journal_content(self.path, generation), path)
            journal = path.open("ab", buffering=0)
            journal.truncate(sum(map(len, lines)))
            sync(self.path)
            self._last = _last_checksum(lines, path)
            self._journal = journal
        return self._journal

    def confirm(self) -> None:
        """Keep the last change."""
        if self._pending is not None:
            _, _, documents, self._last = self._pending
            self._pending = None
            before = self.unsaved
            self.unsaved += documents
            if before < self._save_changes <= self.unsaved:
                self._requests.put(True)

    def undo(self) -> None:
        """Remove the last change, unless it was confirmed.

        Raise OSError if the journal cannot be written.
        """
        if self._pending is not None:
            journal, size, *_ = self._pending
            with named_errors(
                f"The last change was not made, but the journal in {self.path} may still contain it, because "
                "it could not be written"
            ):
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
        """Start a thread that saves after enough changes or seconds.

        It ends once `find_save` returns None.
        """
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
            self.lock.release()

    def _close_journal(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()


@contextmanager
def opened_folder(place: Path, save_changes: int, save_seconds: float) -> Iterator[DurableFolder]:
    """Open the folder of a saved index; release it after an exception in the block.

    Raise FileNotFoundError, IndexFolderError or ValueError if the folder contains no
    index, or another process writes it.
    """
    recover_folder(place)
    read_manifest(place)
    folder = DurableFolder(place, save_changes, save_seconds)
    try:
        yield folder
    except BaseException:
        folder.stop()
        folder.close()
        raise


@contextmanager
def repeating_changes(place: Path) -> Iterator[None]:
    """Name the folder if a change of its journal fails in the block."""
    try:
        yield
    except (ValueError, TypeError, KeyError) as error:
        raise IndexFolderError(
            f"The journal in {place} does not fit the index: {error}. Restore the folder from a copy."
        ) from error


def _last_checksum(lines: list[bytes], path: Path) -> bytes:
    """Return the checksum of the last line; the name of the journal without lines."""
    return lines[-1][:_DIGITS] if lines else path.name.encode("ascii", "replace")


def _checksum(content: bytes, last: bytes = b"") -> bytes:
    """Return the checksum of a line's content and of the checksum of the line before.

    So no line can be missing, and no two lines can be exchanged.
    """
    return hashlib.sha256(last + content).hexdigest()[:_DIGITS].encode("ascii")


def _journal_line(rows: Sequence[Row], deleted: Sequence[int | str], last: bytes) -> bytes:
    # Value by value, so that other threads can run between long texts.
    lists: dict[str, Iterable[str]] = {"ids": map(json.dumps, [row.id for row in rows] or deleted)}
    if rows and deleted:
        lists["texts"] = (json.dumps(row.text) for row in rows)
    if rows:
        lists["metadata"] = (row.metadata for row in rows)
    if rows and deleted and rows[0].tokens is not None:
        lists["tokens"] = (f'"{base64.b64encode(row.tokens or b"").decode("ascii")}"' for row in rows)
    arguments = ", ".join(f'"{name}": [{", ".join(values)}]' for name, values in lists.items())
    content = f'["{"update" if rows else "delete"}", {{{arguments}}}]'.encode("ascii")
    return b"%s %s\n" % (_checksum(content, last), content)


def _complete_lines(content: bytes, path: Path) -> list[bytes]:
    """Return the complete lines of a journal.

    Raise IndexFolderError for a damaged line, unless a crash can have left it at the
    end.  Former versions did not include the line before in a checksum: such lines may
    be at the beginning.
    """
    lines = content.splitlines(keepends=True)
    complete = [line.endswith(b"\n") for line in lines]
    last, former = _last_checksum([], path), True
    for number, line in enumerate(lines):
        former = former and _has_its_checksum(line, b"")
        complete[number] &= former or _has_its_checksum(line, last)
        last = line[:_DIGITS]
    count = complete.index(False) if False in complete else len(lines)
    last = _last_checksum(lines[:count], path)
    if any(complete[count:]) or not _is_torn(b"".join(lines[count:]), last):
        raise IndexFolderError(
            f"{path} is damaged in line {count + 1}, or the line before it is missing. Restore the folder "
            "from a copy, or remove that line and the lines after it, which loses their changes."
        )
    return lines[:count]


def _has_its_checksum(line: bytes, last: bytes) -> bool:
    return line[: _DIGITS + 1] == _checksum(line[_DIGITS + 1 : -1], last) + b" "


def _is_torn(line: bytes, last: bytes) -> bool:
    """Return True if a crash can have left this instead of the last line.

    A crash leaves the beginning of a line, without the newline at its end.  Blocks of
    the file that were not written are zeros; one zero alone can be a damaged space.
    """
    if b"\0\0" in line or line.endswith(b"\0"):
        return True
    return b"\n" not in line and not _has_its_checksum(line, last)


def read_journal(content: bytes, path: Path) -> Iterator[TextChange]:
    """Yield the changes of a journal, oldest first.

    `content` are its bytes, and `path` is its name in messages.  Raise IndexFolderError
    if it is damaged.
    """
    for number, line in enumerate(_complete_lines(content, path), 1):
        try:
            method, arguments = json.loads(line[_DIGITS + 1 :])
            lengths = {len(list(values)) for values in arguments.values()}
            if (method, *arguments) not in _FORMS or len(lengths) > 1:
                raise ValueError("it is not a change")
            require_ids(arguments["ids"])
            if "tokens" in arguments:
                arguments["tokens"] = [base64.b64decode(each, validate=True) for each in arguments["tokens"]]
        except (binascii.Error, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise IndexFolderError(
                f"{path} is damaged in line {number}: {error}. Restore the folder from a copy."
            ) from error
        yield TextChange(**arguments)


def join_updates(changes: Iterable[TextChange]) -> list[TextChange]:
    """Join consecutive updates of distinct documents.

    Then their texts are encoded together.
    """
    joined = [TextChange([])]
    for change in changes:
        last = joined[-1]
        few = len(last.ids) + len(change.ids) <= _MOST_JOINED
        encoded = change.texts and change.tokens is None and last.tokens is None
        if last.texts and encoded and few and set(last.ids).isdisjoint(change.ids):
            joined[-1] = TextChange(*map(add, last[:3], change[:3]))
        else:
            joined.append(change)
    return joined[1:]
