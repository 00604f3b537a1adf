"""The folder of a saved index: generations of files behind one manifest.

See docs/index-format.md.  A crash, a kill or a full disk at any moment leaves the old
index or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import filelock

from ..utils.atomic_files import (
    atomic_folder,
    content_checksum,
    described_file,
    named_errors,
    read_json,
    remove_folder,
    remove_stale_siblings,
    require_unchanged,
    sibling_folder,
    sync,
    write_json,
)
from ..utils.checks import as_path
from ..utils.hints import Argument, Message
from ..utils.parallel import share_done

FORMAT = "muvera-index"
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
LOCK = ".lock"
TEXTS = "texts.sqlite"

# Share of a save after which the files are written, but not yet on the disk.
_WRITTEN = 0.5

# Maximum number of characters in the name of a file.
_LONGEST = 200

#: Names of the files in a generation; no other file is read or removed.
FILE_PATTERNS = (
    "tokens-*.npy",
    "codes-*.npy",
    "codec_*.npy",
    "means-*.npy",
    "mean_codes-*.npy",
    "mean_codec_*.npy",
    "mean_lengths.npy",
    "lengths.npy",
    "ids.json",
    "alive.npy",
    "encoder_*.npy",
    "vectors.npy",
    "vectors.hnsw",
    "vector_*.npy",
    TEXTS,
)

_GENERATION = re.compile(r"generation-\d{6,}")
_PARTIAL = re.compile(r"\.partial-[0-9a-f]{16}")
_JOURNAL = re.compile(r"journal-\d{6,}-[0-9a-f]{16}")


class IndexFolderError(ValueError):
    """Error for a folder whose index cannot be read or written."""


def is_index_file(name: str) -> bool:
    """Return True if a generation can contain a file of this name."""
    return any(fnmatch(name, pattern) for pattern in FILE_PATTERNS)


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest with its format, version and checksum."""
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **content}
    write_json(folder / MANIFEST, {**content, "sha256": content_checksum(content)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of `folder`, checked.

    Raise FileNotFoundError or IndexFolderError.
    """
    path = folder / MANIFEST
    if not folder.exists():
        as_path(folder)  # refuses a URL
        raise FileNotFoundError(f"{folder} does not exist. Give the folder of an index.")
    if not path.is_file():
        why = f"it has no {MANIFEST}. Give the folder of an index."
        if (folder / "tokens.npy").is_file():
            why = f"it contains token embeddings. Build an index of them with: muvera index {folder} INDEX."
        raise FileNotFoundError(f"{folder} is not a muvera index: {why}")
    try:
        manifest = read_json(path)
    except ValueError as error:
        raise IndexFolderError(f"{error} Restore the folder from a copy.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise IndexFolderError(f"{path} is not the manifest of a muvera index.")
    version = manifest.get("format_version")
    if version != FORMAT_VERSION:
        raise IndexFolderError(
            f"{folder} has format version {version}, but this muvera reads version {FORMAT_VERSION}. "
            "Use the muvera that wrote it, or build the index again."
        )
    if manifest.pop("sha256", None) != content_checksum(manifest):
        raise IndexFolderError(
            f"{path} does not match its checksum: it was changed or damaged. Restore the "
            "folder from a copy, or build the index again."
        )
    try:
        _check_names(folder, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise IndexFolderError(
            f"{path} is incomplete: {error!r} is missing or wrong. Restore the folder from a copy."
        ) from error
    return manifest


def texts_file(folder: Path) -> Path | None:
    """Return the database in the folder of a text index.

    None for an index of token vectors.
    """
    manifest = read_manifest(folder)
    name = f"{manifest['folder']}/{TEXTS}"
    return folder / name if name in manifest["files"] else None


def _check_names(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise IndexFolderError for a file that is not listed or outside the folder."""
    files = manifest["files"]
    codes = manifest["codes"]
    candidates = manifest["candidates"]
    means = manifest.get("means")
    segments = manifest["segments"] + ([] if codes is None else codes["segments"])
    segments += [] if means is None else means["segments"]
    used = [segment["file"] for segment in segments]
    used += [] if candidates is None else candidates["kept"]
    root = folder.resolve()
    for name in dict.fromkeys([manifest["folder"], *files, *used]):
        parts = PurePosixPath(name).parts
        inside = parts and not PurePosixPath(name).is_absolute() and ".." not in parts and "\\" not in name
        plain = name.isascii() and name.isprintable() and len(name) <= _LONGEST
        if not inside or not plain or not (folder / name).resolve().is_relative_to(root):
            raise IndexFolderError(
                f"{folder / MANIFEST} names {name!r:.200}, which is not inside the folder. Put the files "
                "themselves into the folder, not links to them."
            )
    # A writer can remove the folder at any time; then its files are missed later.
    with suppress(FileNotFoundError, NotADirectoryError):
        present = [path.name for path in (folder / manifest["folder"]).iterdir()]
        used += [f"{manifest['folder']}/{name}" for name in present if is_index_file(name)]
    for name in used:
        if name not in files:
            raise IndexFolderError(
                f"{folder / name} is not listed in {MANIFEST}, so it cannot be checked. Restore the "
                "folder from a copy."
            )


def verify(folder: Path, files: dict[str, Any], thorough: bool | None = None) -> None:
    """Raise IndexFolderError unless every file of a manifest exists and is unchanged.

    `files` are the manifest's entries by name.  `thorough` is described at
    :func:`muvera.utils.atomic_files.require_unchanged`.
    """
    for name, described in files.items():
        try:
            require_unchanged(folder / name, described, thorough)
        except ValueError as error:
            raise IndexFolderError(str(error)) from error


def journal_checksum(content: bytes) -> str:
    """Return the SHA-256 of a journal's bytes."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Generation:
    """One saved state of a folder.

    The random stamp distinguishes it from another index with the same number.
    """

    number: int
    stamp: str
    #: Checksum of its journal when it was loaded.  Another journal has changes that
    #: were not loaded, even if it has the same size: a change that failed can be
    #: followed by one of the same length.
    journal_sha256: str = field(default=journal_checksum(b""), compare=False)

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> Generation:
        """Return the generation of a manifest."""
        return cls(int(manifest["generation"]), str(manifest["stamp"]))

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return f"generation-{self.number:06d}"

    @property
    def journal(self) -> str:
        """Name of its journal."""
        return f"journal-{self.number:06d}-{self.stamp}"


def require_place(target: Path, overwrite: bool = False) -> None:
    """Raise FileExistsError unless an index can be written to `target`.

    Only an index can be replaced.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise FileExistsError(f"{target} is a file; an index is a folder. Give another name.")
    if not overwrite:
        raise FileExistsError(
            Message(
                f"{target} exists and is not empty. Give another name, load the index there and change "
                "it, or give ",
                Argument("overwrite", "True"),
                " to replace it.",
            )
        )
    if not (target / MANIFEST).is_file():
        raise FileExistsError(
            f"{target} exists and is not a muvera index, so it is not replaced. Give another name, or "
            "empty it yourself."
        )


@dataclass(frozen=True)
class Destination:
    """Where to save an index.

    Parameters
    ----------
    path : Path
        The folder, resolved: each folder has only one name.
    overwrite : bool
        Replace another index there.
    lock : FolderLock, optional
        The folder's lock, if the caller has held it since it loaded the index from
        there.
    """

    path: Path
    overwrite: bool = False
    lock: FolderLock | None = None

    def hold(self) -> AbstractContextManager[object]:
        """Hold the lock of the existing folder during a block."""
        return hold(self.path) if self.lock is None else nullcontext()


class Save:
    """A save in progress: the `folder` to write into, and the old files to keep.

    `place` is the index's folder `target`, or the folder beside it that will replace
    it; `old` describes its files.
    """

    def __init__(self, target: Path, place: Path, number: int, old: dict[str, Any]) -> None:
        self.target, self._place, self._old = target, place, old
        self.generation = Generation(number, secrets.token_hex(8))
        while os.path.lexists(place / self.generation.folder):  # another program's file
            self.generation = replace(self.generation, number=self.generation.number + 1)
        self.folder = place / f".partial-{secrets.token_hex(8)}"
        self.final = target / self.generation.folder  # the later name of `folder`
        self.old_names: dict[Path | None, str] = {target / name: name for name in old}
        self.kept: list[str] = []  # the names of old files in the new generation

    def run(self, write: Callable[[Save], dict[str, Any]], attempted: set[Generation]) -> Generation:
        """Write the generation, make it current, and remove unnamed files."""
        new = self.generation
        name = new.folder
        try:
            self.folder.mkdir()
            content = write(self)
            share_done(_WRITTEN)
            files = {kept: self._old[kept] for kept in self.kept}
            written = sorted(self.folder.iterdir())
            size, done = max(1, sum(path.stat().st_size for path in written)), 0
            for path in written:
                sync(path)
                files[f"{name}/{path.name}"] = described_file(path)
                done += path.stat().st_size
                share_done(_WRITTEN + (1 - _WRITTEN) * done / size)
            sync(self.folder)
            self.folder.replace(self._place / name)
            sync(self._place)
            attempted.add(new)
            facts = {"generation": new.number, "stamp": new.stamp, "folder": name}
            write_manifest(self._place, {**facts, **content, "files": files})
        finally:
            _remove_unnamed(self._place)
        return new


def commit(
    destination: Destination,
    write: Callable[[Save], dict[str, Any]],
    expected: Generation | None,
    attempted: set[Generation],
) -> Generation:
    """Write a new generation of an index, make it current and return it.

    Parameters
    ----------
    destination : Destination
        The folder of the index.
    write : callable
        Writes the files of a :class:`Save` and returns the manifest's entries.
    expected : Generation, optional
        The generation that the folder must contain, if it exists and is not replaced.
        A folder that contains it and all of its files is not replaced, because its
        token files would have to be written again.
    attempted : set of Generation
        Generations that interrupted saves may have made current; the folder may contain
        one of these, too.  The new generation is added before it is current.

    Raises
    ------
    IndexFolderError, FileExistsError
        If another process is writing the folder or has changed it; if it contains
        anything else.
    """
    target = destination.path
    if destination.lock is not None:
        destination.lock.require_place()
    remove_stale_siblings(target)
    exists = (target / MANIFEST).exists()
    if destination.overwrite or not exists:
        require_place(target, destination.overwrite)
    if not exists:
        return _replace(destination, write, attempted)
    with destination.hold():
        if destination.overwrite and not _contains(target, expected):
            return _replace(destination, write, attempted)
        manifest = read_manifest(target)
        current = Generation.of(manifest)
        attempted &= {current}
        require_known(target, current, expected, attempted)
        # With a held lock, the journal has the caller's changes.
        if destination.lock is None and not destination.overwrite:
            _require_read(target, current, expected)
        _remove_unnamed(target)
        old = manifest["files"] if current == expected else {}
        return Save(target, target, current.number + 1, old).run(write, attempted)


def _contains(target: Path, expected: Generation | None) -> bool:
    """Return True if a folder contains this generation, and all files of it."""
    try:
        manifest = read_manifest(target)
        verify(target, manifest["files"], False)
    except (IndexFolderError, FileNotFoundError):
        return False
    return Generation.of(manifest) == expected


def _replace(
    destination: Destination, write: Callable[[Save], dict[str, Any]], attempted: set[Generation]
) -> Generation:
    """Write a new folder, and exchange it with the old one, if there is one."""
    target = destination.path
    try:
        with atomic_folder(target, destination.overwrite) as beside:
            return Save(target, beside, 1, {}).run(write, attempted)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and (target / MANIFEST).exists():
            raise IndexFolderError(
                f"Another process has written {target} during this save. Load it, or save to another folder."
            ) from error
        raise


def require_known(
    target: Path, current: Generation, expected: Generation | None, attempted: set[Generation]
) -> None:
    """Raise IndexFolderError if a folder contains another generation than it should.

    `current` is the generation in it; :func:`commit` describes `expected` and
    `attempted`.
    """
    if current == expected or current in attempted:
        return
    if expected is None:
        reason = "this index was not loaded from there"
    elif expected.number == current.number:
        reason = "it is not the one you loaded"
    else:
        reason = f"you loaded generation {expected.number}"
    raise _would_be_lost(target, current, reason)


def _require_read(target: Path, current: Generation, expected: Generation | None) -> None:
    """Raise IndexFolderError if the journal has changes that the caller lacks."""
    saved = expected if expected == current else current  # an interrupted save has no journal yet
    if journal_checksum(journal_content(target, current)) != saved.journal_sha256:
        raise _would_be_lost(target, current, "its journal has changes that this index lacks")


def _would_be_lost(target: Path, current: Generation, reason: str) -> IndexFolderError:
    return IndexFolderError(
        f"{target} contains generation {current.number}, but {reason}. Saving would lose it: load the folder "
        "(texts with TextIndex.load) and repeat the changes, save elsewhere, or remove the folder first."
    )


def _remove_unnamed(place: Path) -> None:
    """Try to remove files that writers left and the manifest does not name.

    Never follow a link.
    """
    with suppress(OSError, ValueError, KeyError):  # the next writer removes the rest
        manifest = read_manifest(place)
        named = {*manifest["files"], Generation.of(manifest).journal}
        for path in place.iterdir():
            if path.is_symlink():
                continue
            stale = path.name not in named and _JOURNAL.fullmatch(path.name)
            if _PARTIAL.fullmatch(path.name):
                remove_folder(path)
            elif (stale or path.name.startswith(f".{MANIFEST}.")) and path.is_file():
                path.unlink(missing_ok=True)
            elif _GENERATION.fullmatch(path.name) and path.is_dir():
                for file in path.iterdir():
                    ours = is_index_file(file.name) and file.is_file() and not file.is_symlink()
                    if ours and file.relative_to(place).as_posix() not in named:
                        file.unlink(missing_ok=True)
                if not any(path.iterdir()):
                    path.rmdir()


@contextmanager
def staging_beside(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder for tokens beside `target`.

    Raise FileExistsError unless an index can be written to `target`.
    """
    require_place(target, overwrite)
    with sibling_folder(target, "staging") as staging:
        yield staging


def journal_bytes(folder: Path, generation: Generation) -> int:
    """Return the size of a generation's journal, or 0 if it has none."""
    try:
        return (folder / generation.journal).lstat().st_size
    except FileNotFoundError:
        return 0


def journal_content(folder: Path, generation: Generation) -> bytes:
    """Return the bytes of a generation's journal; none if it does not exist.

    Raise IndexFolderError for a link.
    """
    path = folder / generation.journal
    if path.is_symlink():
        raise IndexFolderError(f"{path} is a link, but an index contains no links. Remove it.")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def hold(folder: Path) -> filelock.AcquireReturnProxy[filelock.BaseFileLock]:
    """Acquire the lock of `folder`, which any thread can release.

    Raise IndexFolderError if it is taken.
    """
    path = folder / LOCK
    if path.is_symlink():  # locking would empty the link's target
        raise IndexFolderError(f"{path} is a link, but an index contains no links. Remove it.")
    lock = filelock.FileLock(path, thread_local=False)
    try:
        with named_errors(f"{folder} could not be locked"):
            held = lock.acquire(timeout=0)
        if not path.exists():  # the holder has replaced the folder
            raise filelock.Timeout(str(path))
        return held
    except BaseException as error:
        # The traceback of an interrupt would keep the lock, also of one at the return.
        lock.release(force=True)
        if not isinstance(error, filelock.Timeout):
            raise
    raise IndexFolderError(
        f"Another process or an open TextIndex is writing {folder}. Close it or wait for it, then load the "
        "index again."
    )


class FolderLock:
    """The lock of a folder, held from the creation of this object on.

    No other process may hold the folder.  The system locks the file and not its name.
    If the folder is moved away, the lock goes with it, and the folder that gets its
    name belongs to others.  So call :meth:`require_place` or :meth:`generation` before
    each write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = hold(folder).lock
        try:
            self._file = (folder / LOCK).stat()
        except BaseException:
            self._lock.release()
            raise
        # Inode, size and time of the manifest that was read last, and its generation.
        self._read: tuple[tuple[int, ...], Generation] | None = None

    @property
    def is_held(self) -> bool:
        """True until :meth:`release`."""
        return self._lock.is_locked

    def release(self) -> None:
        """Release the lock."""
        self._lock.release()

    def require_place(self) -> None:
        """Raise IndexFolderError if the folder was moved, removed or replaced."""
        with suppress(FileNotFoundError, NotADirectoryError):
            if os.path.samestat((self._folder / LOCK).stat(), self._file):
                return
        raise IndexFolderError(
            f"{self._folder} must stay in its place while an index is open, but it was moved, removed or "
            "replaced. Save the index to another folder, or close it and open the folder again."
        )

    def generation(self) -> Generation:
        """Return the current generation of the folder.

        The manifest is read only if it was replaced, because this is called for each
        change.  Raise IndexFolderError as :meth:`require_place`.
        """
        self.require_place()
        status = (self._folder / MANIFEST).stat()
        manifest = status.st_ino, status.st_size, status.st_mtime_ns
        if self._read is None or self._read[0] != manifest:
            self._read = manifest, Generation.of(read_manifest(self._folder))
        return self._read[1]
