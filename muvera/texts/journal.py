"""The journal of a text index: a log of the changes since the last save.

A change is written to the disk before the method that makes it returns.  A journal is a file beside the manifest and
belongs to one generation, see :mod:`muvera.index.generations`.  Each line contains one change: a checksum, a space and
JSON of the form ``["update", {"ids": [...], "texts": [...], "metadata": [...]}]`` or ``["delete", {"ids": [...]}]``.
An update without texts changes metadata only.  An incomplete last line belongs to a change that did not finish, and is
ignored.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

from ..index.generations import Generation, hold
from ..index.manifest import IndexFolderError, read_manifest
from ..utils.atomic_files import sync
from .database import Row, require_ids

__all__ = ["Journal", "as_change", "join_updates", "read_journal"]

#: The name of a method of TextIndex, and its arguments.
Change = tuple[str, dict[str, Any]]

_LOG = logging.getLogger("muvera")

# A change's method and the names of its arguments.
_FORMS = (("update", "ids", "texts", "metadata"), ("update", "ids", "metadata"), ("delete", "ids"))

# Digits of a checksum.
_DIGITS = 16

# A longer change counts as several documents, so that a default journal has at most about 64 MiB.
_BYTES_PER_DOCUMENT = 1 << 16

# Maximum number of documents in a joined update.
_MOST_JOINED = 512


class Journal:
    """The journal of one folder, which also holds the folder's write lock.

    Append a change, apply it, and then confirm or undo it before the next one.

    Parameters
    ----------
    folder : Path
    save_changes : int
        Number of changed documents after which a save is requested.
    save_seconds : float
        Seconds after which unsaved changes are saved.
    """

    def __init__(self, folder: Path, save_changes: int, save_seconds: float) -> None:
        self.folder, self.unsaved, self._closed = folder, 0, False
        self._save_changes, self._save_seconds = save_changes, save_seconds
        self._process, self._requests = os.getpid(), SimpleQueue[bool]()
        self._thread: Thread | None = None
        self._file: BinaryIO | None = None
        self._before: tuple[BinaryIO, int] | None = None  # the file and its size before an unconfirmed change
        self._weight = 0  # documents that a long change counts as, in addition
        self._lock = hold(folder)

    @property
    def is_open(self) -> bool:
        """True if this process holds the folder's lock."""
        return not self._closed and os.getpid() == self._process

    def append(self, change: Change) -> None:
        """Write a change to the disk; raise ValueError if the journal is closed or belongs to the parent process."""
        if not self.is_open:
            raise ValueError(
                "This index is closed, or was opened before a fork. Open it again with TextIndex.open."
            )
        self.undo()
        try:
            file = self._attached()
            status = os.fstat(file.fileno())
            if status.st_nlink == 0:
                raise OSError("the journal was removed")
            self._before = file, status.st_size
            rest = memoryview(_line(change))
            self._weight = len(rest) // _BYTES_PER_DOCUMENT
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError as error:
            named = OSError(
                f"Nothing was changed: the journal in {self.folder} could not be written ({error}). Free space on the "
                "disk, or open the index again."
            )
            named.errno = error.errno
            raise named from error

    def confirm(self, documents: int) -> None:
        """Keep the last change, which affects this number of documents."""
        if self._before is not None:
            self._before = None
            before, self.unsaved = self.unsaved, self.unsaved + documents + self._weight
            if before < self._save_changes <= self.unsaved:
                self._requests.put(True)

    def undo(self) -> None:
        """Remove the last change, unless it was confirmed."""
        if self._before is not None:
            file, size = self._before
            file.truncate(size)
            os.fsync(file.fileno())
            self._before = None

    def detach(self) -> None:
        """Close the file before a save, so that the next change opens the new generation's journal."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _attached(self) -> BinaryIO:
        """Return the open journal of the current generation, after removing an incomplete last line."""
        if self._file is None:
            path = self.folder / Generation.of(read_manifest(self.folder)).journal
            complete = sum(map(len, _complete_lines(path)))
            file = path.open("ab", buffering=0)
            file.truncate(complete)
            sync(self.folder)
            self._file = file
        return self._file

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
                    "muvera: %s could not be saved, its journal keeps all changes: %s", self.folder, error
                )
            del save

    def stop(self) -> None:
        """Stop the background thread, after a save that still runs."""
        self._requests.put(False)
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Close the file and release the folder's lock."""
        if self.is_open:
            self.detach()
            self._closed = True
            self._lock.release()


def as_change(rows: Sequence[Row], deleted: Sequence[int | str], metadata_only: bool) -> Change:
    """Return the change that stores rows, or deletes ids if there are no rows."""
    if not rows:
        return "delete", {"ids": list(deleted)}
    texts = {} if metadata_only else {"texts": [row.text for row in rows]}
    metadata = [json.loads(row.metadata) for row in rows]
    return "update", {"ids": [row.id for row in rows], **texts, "metadata": metadata}


def _line(change: Change) -> bytes:
    method, arguments = change
    # Value by value, so that other threads can run between long texts.
    lists = (f'"{name}": [{", ".join(map(json.dumps, values))}]' for name, values in arguments.items())
    content = f'["{method}", {{{", ".join(lists)}}}]'.encode("ascii")
    return b"%s %s\n" % (_checksum(content), content)


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:_DIGITS].encode("ascii")


def _complete_lines(path: Path) -> list[bytes]:
    """Return the lines of a journal up to an incomplete last one; a damaged line before a complete one raises."""
    if path.is_symlink():
        raise IndexFolderError(f"{path} is a link; an index has none. Remove it.")
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


def read_journal(path: Path) -> Iterator[Change]:
    """Yield the changes of a journal, oldest first; raise IndexFolderError if it is damaged."""
    for number, line in enumerate(_complete_lines(path), 1):
        try:
            method, arguments = json.loads(line[_DIGITS + 1 :])
            if (method, *arguments) not in _FORMS or len(
                {len(list(values)) for values in arguments.values()}
            ) > 1:
                raise ValueError("it is not a change")
            require_ids(arguments["ids"])
        except (ValueError, TypeError, RecursionError) as error:
            raise IndexFolderError(
                f"{path} is damaged in line {number}: {error}. Restore the folder from a copy."
            ) from error
        yield method, arguments


def join_updates(changes: Iterable[Change]) -> Iterator[Change]:
    """Join consecutive updates of distinct documents, so that their texts are encoded together."""
    joined: dict[str, Any] = {"ids": [], "texts": [], "metadata": []}
    for method, arguments in changes:
        ids = arguments["ids"]
        alone = method != "update" or "texts" not in arguments
        if joined["ids"] and (
            alone or len(joined["ids"]) + len(ids) > _MOST_JOINED or not set(ids).isdisjoint(joined["ids"])
        ):
            yield "update", joined
            joined = {"ids": [], "texts": [], "metadata": []}
        if alone:
            yield method, arguments
        else:
            for key, values in joined.items():
                values.extend(arguments[key])
    if joined["ids"]:
        yield "update", joined
